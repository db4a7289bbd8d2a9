"""What a prior predicts before it has seen data: as a tree that ArviZ plots, and as numbers for ``fit``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.scipy.special import ndtr
from numpyro import handlers

from bnn_zoo import models
from bnn_zoo.datasets import as_dataset
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.compiled import Request, call, runs_once
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.normals import base_of, from_normals
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_type, check_count
from bnn_zoo.priors.functions import function_draw, side_by_side

if TYPE_CHECKING:
    import xarray as xr

LOOKED_AT = 50  # draws behind the warning of `fit`
MOST_ROWS = 128  # and rows
LEAST = 10  # draws; fewer say nothing
MOST_NUMBERS = 2**22  # of all draws together
FAR = 30.0  # times too wide or too narrow before there is a warning


def prior_predictive(
    model: Any, data: Any, *, num_samples: int = 500, seed: int = 0, standardize: bool | None = None
) -> xr.DataTree:
    """Draw parameters, functions and observations from the prior, as a tree for ArviZ.

    ``arviz_plots.plot_ppc_dist(tree, group="prior_predictive")`` shows them; so does
    `bnn_zoo.plots.prior_functions` for one feature.

    Parameters
    ----------
    model : str or Callable
        A registered name, a `bnn_zoo.models` object, or any NumPyro callable ``model(x, y=None)``.
    data : Dataset, pair or str
        ``x (n, d)`` at which to predict, and ``y (n,)`` to compare with. Only the scaling of a fit depends on ``y``.
    num_samples : int
        Draws.
    seed : int
        Repeats them.
    standardize : bool or None
        As in `bnn_zoo.fit`, for which this is the prior.

    Returns
    -------
    xarray.DataTree
        ``prior``: the sites, and ``f (chain, draw, row)``. ``prior_predictive``: observations, ``(chain, draw, row)``.
        ``observed_data`` and ``constant_data``: y and x. f, observations and noise in the units of ``data``; one chain.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the model cannot be joined with the data.
    """
    import xarray as xr

    check_count("num_samples", num_samples)
    key, model, data = seed_key(seed), models.registry.look_up(model), as_dataset(data)
    scaling = scaling_of(model, data, standardize)
    problem = join(model, scaling.inputs(data.x), scaling.targets(data.y))
    sites, f, y = (jax.tree.map(np.asarray, part) for part in call(_predict, (num_samples,), problem, key))
    units = getattr(model, "sites_in_target_units", ())
    sites = {name: value * scaling.y_scale if name in units else value for name, value in sites.items()}
    draws = {"chain": [0], "draw": np.arange(num_samples)}
    rows, cube = {"row": np.arange(len(data.y))}, ("chain", "draw", "row")
    prior: dict[str, Any] = {"f": (cube, scaling.from_model(f)[None])}
    for name, value in sites.items():
        prior[name] = (("chain", "draw", *(f"{name}_dim_{i}" for i in range(value.ndim - 1))), value[None])
    coordinates = {**rows, "feature": list(data.feature_names)}
    groups = {
        "prior": xr.Dataset(prior, coords={**draws, **rows}),
        "prior_predictive": xr.Dataset(
            {problem.observed: (cube, scaling.from_model(y)[None])}, coords={**draws, **rows}
        ),
        "observed_data": xr.Dataset({problem.observed: (("row",), data.y)}, coords=rows),
        "constant_data": xr.Dataset({"x": (("row", "feature"), data.x)}, coords=coordinates),
    }
    return xr.DataTree.from_dict(groups)


def scaling_of(model: Any, data: Any, standardize: bool | None) -> Scaling:
    """Return the scaling that `bnn_zoo.fit` would use."""
    if standardize is not None and not isinstance(standardize, (bool, np.bool_)):
        raise bad_type("standardize", "True, False or None", repr(standardize), "None does as fit does.")
    own = type(model) in {entry.make for entry in models.registry.entries}
    if own if standardize is None else standardize:
        return Scaling.of(data.x, data.y, data.feature_names)
    return Scaling.none(data.x.shape[1])


class Reach(NamedTuple):
    """How far prior functions reach, and how far the data do, on the scale that the model sees.

    Attributes
    ----------
    prior : float
        Median over rows of the spread of f over draws: 1.48 times the median distance from the median, which is the
        standard deviation of a Normal, and unlike it is not made by the few widest draws of a heavy-tailed prior.
    data : float
        Standard deviation of y.
    away : float
        Distance of the mean of y from the median of f.
    """

    prior: float
    data: float
    away: float

    @property
    def complaint(self) -> str | None:
        """What is wrong by a factor of `FAR` or more, and what mends it; None where nothing is."""
        names = "weight_scale=, or zoo.priors.match_gp(model, kernel, x)"
        numbers = f"functions have sd {self.prior:.3g}, where y has sd {self.data:.3g}"
        if not all(map(np.isfinite, self)) or self.data == 0:
            return None
        if self.prior > FAR * self.data and self.prior > self.away:
            return f"the prior is far wider than the data: its {numbers}. Lower {names}"
        # A prior that does not reach the data: too narrow for their spread, or for how far they are from it.
        if self.prior * FAR < self.data:
            return f"the prior is far narrower than the data: its {numbers}. Raise {names}"
        if self.prior * FAR < self.away:
            far = f"their mean is {self.away:.3g} from it"
            return f"the prior does not reach the data: its {numbers}, and {far}. Take standardize=True, or {names}"
        return None


def reach(problem: Problem, look: Request | None = None) -> Reach | None:
    """Look at a few functions of the prior at a few rows; None for a network too wide to look at in no time.

    ``look`` is what `reach_request` gave, if it has been asked before.
    """
    look = reach_request(problem) if look is None else look
    if look is None:
        return None
    function, static, args = look
    f, y = np.asarray(call(function, static, *args), float), np.asarray(problem.y).astype(float)
    middle = np.median(f, axis=0)
    spread = float(np.median(1.4826 * np.median(np.abs(f - middle[None]), axis=0)))
    return Reach(spread, float(y.std()), float(abs(y.mean() - np.median(middle))))


def reach_request(problem: Problem) -> Request | None:
    """What `reach` will call, to be compiled beside others.

    The Normals are drawn by NumPy: compiling JAX's own draws, a site each, would take longer than all the rest.
    """
    draws = min(LOOKED_AT, MOST_NUMBERS // max(problem.size, 1))
    if draws < LEAST:
        return None
    some, dtype = -(-problem.num_rows // MOST_ROWS), np.dtype(problem.x.dtype)
    x: Any = np.asarray(problem.x)[::some]
    y: Any = np.asarray(problem.y)[::some]
    few = replace(problem, x=x, y=y)
    normals = np.random.default_rng(0).standard_normal((draws, problem.size), np.float32).astype(dtype)
    keys = np.stack([np.zeros(draws, np.uint32), np.arange(draws, dtype=np.uint32)], axis=1)
    return _few, (), (few, normals, keys)


# --- compiled programs ------------------------------------------------------------------------------------------------


def _predict(num_samples: int, problem: Problem, key: jax.Array) -> tuple[dict, jax.Array, jax.Array]:
    def one(key: jax.Array) -> tuple[dict, jax.Array, jax.Array]:
        key_prior, key_noise = jax.random.split(key)
        z = problem.prior_draw(key_prior)
        said = problem.likelihood(z, problem.x)
        return problem.constrain(z), said.location, said.sample(key_noise)

    return lax.map(one, jax.random.split(key, num_samples), batch_size=side_by_side(problem))


@runs_once
def _few(problem: Problem, normals: jax.Array, keys: jax.Array) -> jax.Array:
    """Functions ``(S, n)``, whose sites come from ``normals (S, p)`` where quantiles are known, or from ``keys``."""

    def one(drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
        raw = problem.layout.unflatten(drawn[0])

        def place(site: dict) -> jax.Array | None:
            if site["type"] != "sample" or site["name"] not in raw:
                return None
            value, base = raw[site["name"]], base_of(site["fn"])
            if (drawn := from_normals(site["fn"], value)) is not None:
                return drawn
            try:
                return base.icdf(ndtr(value)) if base.event_shape == () and value.shape == site["fn"].shape() else None
            except NotImplementedError:
                return None

        placed = handlers.substitute(problem.model, substitute_fn=place)
        return function_draw(placed, problem.x, drawn[1])

    return lax.map(one, (normals, keys))
