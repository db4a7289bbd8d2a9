"""``zoo.fit``: look names up, check, scale, run, wrap."""

from __future__ import annotations

import logging
import platform
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from bnn_zoo import methods, models
from bnn_zoo.datasets import as_dataset
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.context import CHAIN_METHODS, Context
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_type, bad_value, check_choice
from bnn_zoo.posterior import Posterior, Timing

log = logging.getLogger("bnn_zoo")

DEFAULT_DATA = "diabetes"
LIBRARIES = ("jax", "numpyro", "blackjax", "optax", "numpy", "arviz")


def fit(
    model: Any,
    method: Any,
    data: Any = None,
    *,
    seed: int = 0,
    standardize: bool | None = None,
    progress: bool = True,
    chain_method: str = "auto",
    precision: str | None = None,
) -> Posterior:
    """Fit ``model`` to ``data`` by ``method``.

    Parameters
    ----------
    model : str or Callable
        A registered name, a `bnn_zoo.models` object, or any NumPyro callable ``model(x, y=None)`` with one observed
        site and global latents.
    method : str or object
        A registered name or a `bnn_zoo.methods` object.
    data : Dataset, pair or str
        A `Dataset`, a pair ``(x, y)`` of shapes ``(n, d)`` and ``(n,)``, or the name of a data set. ``None`` takes
        ``"diabetes"``.
    seed : int
        Repeats the draws, bit for bit, on the same machine and versions.
    standardize : bool or None
        Centre and scale x and y inside, and give everything back in original units. ``None``: yes for the zoo's own
        models, no for a foreign one, whose priors were written in its own units.
    progress : bool
        Show one bar for all chains (on a terminal or in a notebook only).
    chain_method : str
        ``"threads"``, ``"vectorized"``, ``"sharded"``, or ``"auto"``, which follows the devices.
    precision : str or None
        ``"float32"`` or ``"float64"``, for this fit alone; ``None`` follows JAX's own setting.

    Returns
    -------
    Posterior
        Draws, predictions, scores and verdict.

    Raises
    ------
    ZooTypeError, ZooValueError
        Before any work is done, naming the argument, what was wrong, and the mend.
    """
    key = seed_key(seed)
    check_choice("chain_method", chain_method, CHAIN_METHODS)
    check_choice("precision", precision, ("float32", "float64", None))
    model, method = models.registry.look_up(model), methods.registry.look_up(method)
    if not hasattr(method, "run"):
        raise bad_type("method", "a registered name or a zoo.methods object", repr(method), "Try method='nuts'.")
    dataset = as_dataset(DEFAULT_DATA if data is None else data)
    own = type(model) in {entry.make for entry in models.registry.entries}
    standardize = own if standardize is None else _as_bool("standardize", standardize)
    scaling = (
        Scaling.of(dataset.x, dataset.y, dataset.feature_names) if standardize else Scaling.none(dataset.x.shape[1])
    )
    names = models.registry.name_of(model), methods.registry.name_of(method)
    log.info("fitting %s by %s to %s (%d rows, %d features), seed %d", *names, dataset.name, *dataset.x.shape, seed)
    x64 = jax.config.jax_enable_x64 if precision is None else precision == "float64"
    context = Context(progress=progress, chain_method=chain_method)
    with jax.enable_x64(x64), context.watch.running():
        problem = join(model, scaling.inputs(dataset.x), scaling.targets(dataset.y))
        result = method.run(problem, key, context)
    check_draws(problem, result.positions)
    if not result.complete:
        log.warning("interrupted: the posterior holds the %d draws a chain made until then", result.positions.shape[1])
    return Posterior(
        model=model,
        method=method,
        data=dataset,
        seed=int(seed),
        standardize=standardize,
        timing=Timing(context.watch.compile_seconds, context.watch.run_seconds, result.gradients),
        problem=problem,
        result=result,
        scaling=scaling,
        model_name=names[0],
        method_name=names[1],
        x64=x64,
        attributes=provenance(model, method, dataset.name, seed, standardize, x64),
    )


def check_draws(problem: Any, positions: np.ndarray) -> None:
    """Raise if a draw is not finite, naming the site and the first bad draw."""
    bad = ~np.isfinite(positions)
    if bad.any():
        chain, draw, coordinate = (int(i) for i in np.argwhere(bad)[0])
        site = next(s.name for s in problem.layout.slots if s.where.start <= coordinate < s.where.stop)
        raise bad_value(
            "the fit",
            "finite",
            f"non-finite values at site {site!r} from draw {draw} of chain {chain}",
            "Try a smaller step size, a tighter prior, or precision='float64'.",
        )


def provenance(model: Any, method: Any, data: str, seed: int, standardize: bool, x64: bool) -> dict[str, str]:
    """Return what is needed to repeat a fit, as attributes that any file format can hold."""
    from bnn_zoo import __version__

    found = {
        "model": readable(model),
        "method": readable(method),
        "data": data,
        "seed": str(seed),
        "standardize": str(standardize),
        "precision": "float64" if x64 else "float32",
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
    }
    found["version_bnn_zoo"] = __version__  # of the package itself, which may run from a folder
    return found | {f"version_{library}": version(library) for library in LIBRARIES}


def readable(value: Any) -> str:
    """Return an object's repr, or a function's qualified name: no address, which would differ from run to run."""
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else repr(value)


def _as_bool(argument: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise bad_type(argument, "True, False or None", repr(value), "None: True for the zoo's own models.")
    return bool(value)
