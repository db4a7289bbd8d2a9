"""Anchors: which coordinates of a model have a Normal prior, draws from it, and targets with noise of their own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, MultivariateNormal, Normal, biject_to

from bnn_zoo.engine.compiled import call, runs_once
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem, is_data_site
from bnn_zoo.engine.tasks import Task
from bnn_zoo.errors import bad_value

QUADRATIC = 1e-3  # relative; rounding in float32 leaves 1e-6, the mildest curvature of another kind far more


def anchored_sites(problem: Problem) -> tuple[str, ...]:
    """Names of the latent sites with a Normal prior.

    Raises
    ------
    ZooValueError
        If there are none, or the likelihood is not Normal.
    """
    shape = jax.ShapeDtypeStruct((problem.size,), problem.x.dtype)
    normal: list[str] = []

    def look(z: jax.Array) -> None:
        for name, site in problem._trace(z, problem.x, None).items():
            if site["type"] != "sample" or "_log_det" in name:
                continue
            fn: Any = site["fn"]
            while isinstance(fn, (Independent, ExpandedDistribution)):
                fn = fn.base_dist
            if is_data_site(site) or name == problem.observed:
                if not isinstance(fn, Normal):
                    mend = "DeepEnsemble() without anchors trains under any likelihood."
                    raise bad_value("the likelihood of an anchored ensemble", "Normal", type(fn).__name__, mend)
            elif isinstance(fn, (Normal, MultivariateNormal)):
                normal.append(name)

    jax.eval_shape(look, shape)
    if not normal:
        mend = "DeepEnsemble() without anchors trains under any prior."
        raise bad_value("the prior of an anchored ensemble", "Normal at some site", "no Normal site", mend)
    return tuple(normal)


def anchor(
    problem: Problem, sites: tuple[str, ...], z: jax.Array | np.ndarray, key: jax.Array, context: Context
) -> tuple[jax.Array, Task]:
    """Return anchors ``(M, p)``, and the task of training each member towards its own.

    Coordinates outside ``sites`` stay as they are in ``z (M, p)``.

    Raises
    ------
    ZooValueError
        If the log prior of these sites, given the others, is not quadratic.
    """
    drawn, task, bend = call(_anchor, (sites,), problem, jnp.asarray(z), key, watch=context.watch)
    if not float(np.max(np.asarray(bend))) < QUADRATIC:
        raise bad_value(
            "the prior of an anchored ensemble",
            f"jointly Normal in {', '.join(sites)}, given the other sites",
            "one that is not (a Normal site sets the scale of another, or a factor is in the model)",
            "DeepEnsemble() without anchors trains under any prior.",
        )
    return drawn, task


def noise_varies(
    problem: Problem, sites: tuple[str, ...], z: jax.Array | np.ndarray, key: jax.Array, context: Context
) -> bool:
    """Whether the noise depends on ``sites``, as in a network that predicts it."""
    return bool(call(_noise_varies, (sites,), problem, jnp.asarray(z), key, watch=context.watch))


@runs_once
def _noise_varies(sites: tuple[str, ...], problem: Problem, z: jax.Array, key: jax.Array) -> jax.Array:
    other = _draw(problem, sites, z[0], key)
    return jnp.any(problem.likelihood(z[0], problem.x).variance != problem.likelihood(other, problem.x).variance)


@runs_once
def _anchor(
    sites: tuple[str, ...], problem: Problem, z: jax.Array, key: jax.Array
) -> tuple[jax.Array, Task, jax.Array]:
    free = jnp.concatenate([jnp.full((slot.size,), slot.name in sites) for slot in problem.layout.slots])

    def one(member: tuple[jax.Array, jax.Array]) -> tuple:
        z, key = member
        key_anchor, key_other, key_noise = jax.random.split(key, 3)
        drawn, other = _draw(problem, sites, z, key_anchor), _draw(problem, sites, z, key_other)
        slope = jax.grad(problem.log_prior)
        at_drawn, at_other, between = slope(drawn), slope(other), slope(0.5 * (drawn + other))
        bend = jnp.where(free, at_drawn + at_other - 2 * between, 0.0)
        size = jnp.where(free, jnp.abs(at_drawn) + jnp.abs(at_other), 0.0)
        # With -P (z - m) for a slope, minus that at the anchor a is P (a - m), which moves the centre from m to a.
        tilt = jnp.where(free, -at_drawn, 0.0)
        said = problem.likelihood(z, problem.x)
        noise = jnp.sqrt(said.variance) * jax.random.normal(key_noise, problem.y.shape, problem.y.dtype)
        return drawn, tilt, problem.y + noise, jnp.max(jnp.abs(bend)) / jnp.max(size)

    drawn, tilt, y, bend = lax.map(one, (z, jax.random.split(key, z.shape[0])))
    return drawn, Task(y=y, tilt=tilt, free=jnp.broadcast_to(free, z.shape)), bend


def _draw(problem: Problem, sites: tuple[str, ...], z: jax.Array, key: jax.Array) -> jax.Array:
    """Draw ``sites`` from their prior, given the others as they are in ``z (p,)``."""
    raw = problem.layout.unflatten(z)

    def place(site: dict) -> jax.Array | None:
        name = site["name"]
        if site["type"] != "sample" or name not in raw or name in sites:
            return None
        return biject_to(site["fn"].support)(raw[name])

    placed = handlers.substitute(problem.model, substitute_fn=place)
    trace = handlers.trace(handlers.seed(placed, key)).get_trace(problem.x, problem.y)
    drawn = {name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name in sites}
    return problem.layout.flatten(raw | drawn)
