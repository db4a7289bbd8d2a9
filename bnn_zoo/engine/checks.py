"""At the door: does this model fit this data?  Found out by tracing shapes, before any arithmetic or compilation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to

from bnn_zoo.engine.compiled import CAPACITY
from bnn_zoo.engine.density import Problem, is_data_site
from bnn_zoo.engine.identity import fingerprint
from bnn_zoo.engine.layout import Layout
from bnn_zoo.engine.likelihood import unwrap
from bnn_zoo.errors import ZooError, bad_type, bad_value

MEND = "A model is any NumPyro callable model(x, y=None) that observes y at one site."


def join(model: Callable, x: np.ndarray, y: np.ndarray, dtype: Any = None) -> Problem:
    """Join ``model`` with inputs ``x (n, d)`` and targets ``y (n,)`` into a `Problem`.

    Raises
    ------
    ZooTypeError
        If ``model`` is not callable, or observes a distribution that cannot be taken apart.
    ZooValueError
        If it has no observed site or several, discrete or local latents, a subsampled plate, or a prediction whose
        shape is not that of ``y`` (NumPyro would broadcast ``(n, 1)`` against ``(n,)`` to an n × n likelihood).
    """
    if isinstance(model, type):
        raise bad_type("model", "an object, not a class", model.__name__, f"Call it: {model.__name__}().")
    if not callable(model):
        raise bad_type("model", "a registered name or a NumPyro callable", repr(model), MEND)
    dtype = dtype or jnp.result_type(float)
    program = model if isinstance(model, Hashable) else _Opaque(model)
    observed, raw, reported = _sites(program, x.shape, dtype)
    return Problem(
        x=jax.device_put(np.asarray(x, dtype)),  # cast by NumPy and put there: jnp.asarray would compile
        y=jax.device_put(np.asarray(y, dtype)),
        model=program,
        layout=Layout.of(raw),
        observed=observed,
        reported=reported,
    )


_Sites = tuple[str, dict[str, tuple[int, ...]], tuple[str, ...]]
_met: OrderedDict[Any, _Sites] = OrderedDict()  # models found sound before: tracing one takes milliseconds


def _sites(program: Any, shape: tuple[int, int], dtype: Any) -> _Sites:
    """Observed site, unconstrained shapes of latent sites, and names of the sites to report, of a sound model."""
    key = fingerprint(program), shape, np.dtype(dtype)
    if key not in _met:
        _met[key] = _look_at(program, shape, dtype)
        while len(_met) > CAPACITY:
            _met.popitem(last=False)
    return _met[key]


def _look_at(program: Any, shape: tuple[int, int], dtype: Any) -> _Sites:
    observed, latent = _shapes(program, shape, dtype)
    _, longer = _shapes(program, (shape[0] + 1, shape[1]), dtype)
    for name, shape in latent["raw"].items():
        if longer["raw"].get(name) != shape:
            raise bad_value(
                "model",
                "free of local latents (one a row)",
                f"site {name!r}, whose shape follows the rows: {shape}",
                "Marginalise it out, or make it a global parameter.",
            )
    for name, shape in latent["factors"].items():
        if longer["factors"].get(name) != shape:
            raise bad_value(
                f"numpyro.factor {name!r}",
                "part of the prior, free of the rows",
                f"one term a row, {shape}",
                "Observe y through a distribution: numpyro.sample('y', ..., obs=y).",
            )
    read = {name: shape for name, shape in latent["derived"].items() if longer["derived"].get(name) == shape}
    hidden = {f"{name}_decentered" for name in read}
    reported = tuple(name for name in latent["raw"] if name not in hidden) + tuple(read)
    for name in reported:
        if "/" in name:
            raise bad_value("site names", "free of '/', which ArviZ refuses", repr(name), "Rename the site.")
    return observed, latent["raw"], reported


class _Opaque:
    """Gives an unhashable callable the identity of its object."""

    def __init__(self, model: Callable) -> None:
        self.model = model

    def __call__(self, x: Any, y: Any = None) -> Any:
        return self.model(x, y)


def _shapes(model: Callable, shape: tuple[int, int], dtype: Any) -> tuple[str, dict[str, dict]]:
    """Name of the observed site, and shapes of unconstrained latents, deterministic sites and factors, at ``shape``."""
    rows = shape[0]
    found: dict[str, Any] = {"raw": {}, "derived": {}, "factors": {}, "observed": []}

    def look(key: jax.Array, x: jax.Array, y: jax.Array) -> None:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(x, y)
        for name, site in trace.items():
            if is_data_site(site):
                found["observed"].append(name)
                _check_observed(name, site, rows)
            elif site["type"] == "sample" and site["is_observed"]:
                found["factors"][name] = tuple(site["fn"].batch_shape)
            elif site["type"] == "sample":
                found["raw"][name] = _raw_shape(name, site)
            elif site["type"] == "deterministic":
                found["derived"][name] = jnp.shape(site["value"])
            elif site["type"] == "plate":
                _check_plate(name, site)

    key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
    try:
        jax.eval_shape(look, key, jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((rows,), dtype))
    except ZooError:
        raise
    except Exception as error:
        if found["observed"] or isinstance(error, (MemoryError, RecursionError)):
            raise
        raise bad_value(
            "model",
            "runnable as model(x, y)",
            f"{type(error).__name__} with x {shape} and y {(rows,)}: {error}",
            MEND,
        ) from error
    if len(found["observed"]) != 1:
        names = ", ".join(map(repr, found["observed"])) or "none"
        raise bad_value("model", "a program with exactly one observed site", names, MEND)
    if not found["raw"]:
        raise bad_value("model", "a program with latent sites to infer", "none", "Give its weights priors.")
    return found["observed"][0], found


def _check_observed(name: str, site: dict, rows: int) -> None:
    fn = site["fn"]
    shape = tuple(fn.batch_shape) + tuple(fn.event_shape)
    if shape not in ((rows,), ()) or jnp.shape(site["value"]) != (rows,):
        raise bad_value(
            f"the distribution at the observed site {name!r}",
            f"of shape {(rows,)}, one value a row of y",
            f"shape {shape} against targets {jnp.shape(site['value'])}",
            "If the network ends in one column, take it: f[:, 0].",
        )
    unwrap(fn, rows)


def _check_plate(name: str, site: dict) -> None:
    size, subsample = site["args"]
    if subsample is not None and subsample != size:
        raise bad_value(
            f"plate {name!r}",
            "without subsampling",
            f"{subsample} of {size} rows",
            "Give the method a batch_size instead: it scales a batch from outside.",
        )


def _raw_shape(name: str, site: dict) -> tuple[int, ...]:
    support = site["fn"].support
    if getattr(support, "is_discrete", False):
        raise bad_value(
            "model",
            "free of discrete latents",
            f"site {name!r}, {type(site['fn']).__name__}",
            "Sum it out of the model.",
        )
    return jax.eval_shape(biject_to(support).inv, jax.ShapeDtypeStruct(site["value"].shape, site["value"].dtype)).shape
