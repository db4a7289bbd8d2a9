"""A posterior as an ArviZ 1.x ``xarray.DataTree``, filled by hand: nothing is sampled or traced that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior


def build(posterior: Posterior, *, pointwise: bool = True) -> xr.DataTree:
    """Return the tree of ``posterior``; see `bnn_zoo.posterior.Posterior.idata`.

    ``pointwise=False`` leaves out what has a number for every row and draw: log likelihood and predictive draws.
    """
    data, observed = posterior.data, posterior.problem.observed
    chains = {"chain": np.arange(posterior.num_chains), "draw": np.arange(posterior.num_draws)}
    rows = {"row": np.arange(len(data.y))}
    cube = ("chain", "draw", "row")

    def per_row(values: np.ndarray) -> xr.Dataset:
        return xr.Dataset({observed: (cube, values)}, coords={**chains, **rows})

    groups = {
        "posterior": _sites(posterior, chains),
        "sample_stats": xr.Dataset({n: (("chain", "draw"), v) for n, v in posterior.stats.items()}, coords=chains),
        "observed_data": xr.Dataset({observed: (("row",), data.y)}, coords=rows),
        "constant_data": xr.Dataset(
            {"x": (("row", "feature"), data.x)}, coords={**rows, "feature": list(data.feature_names)}
        ),
    }
    if pointwise:
        count = posterior.num_chains * posterior.num_draws
        drawn = posterior.predict(data.x).sample(count, seed=posterior.seed)
        groups["log_likelihood"] = per_row(posterior.log_likelihood(data.x, data.y))
        groups["posterior_predictive"] = per_row(drawn.reshape(posterior.num_chains, posterior.num_draws, -1))
    attributes = {
        **posterior.attributes,
        "compile_seconds": posterior.timing.compile_seconds,
        "run_seconds": posterior.timing.run_seconds,
        "gradient_evaluations": posterior.timing.gradient_evaluations,
    }
    if "log_evidence" in posterior.result.info:
        attributes["log_evidence"] = posterior.log_evidence
    for group in groups.values():
        group.attrs.update(attributes)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(attributes)
    return tree


def _sites(posterior: Posterior, chains: dict[str, np.ndarray]) -> xr.Dataset:
    features = list(posterior.data.feature_names)
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = dict(chains)
    for name, value in posterior.draws.items():
        dims = ["chain", "draw"]
        for axis, length in enumerate(value.shape[2:]):
            by_feature = axis == 0 and length == len(features) and name in ("relevance", "w_0")
            dims.append("feature" if by_feature else f"{name}_dim_{axis}")
            coords[dims[-1]] = features if by_feature else np.arange(length)
        variables[name] = (tuple(dims), value)
    return xr.Dataset(variables, coords=coords)
