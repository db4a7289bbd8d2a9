"""Exact predictive quantities of a mixture over draws: distribution function, density, quantiles, CRPS.

Components are a `Likelihood` with parameters ``(T, m)``: T draws by m rows; draws count alike unless it has weights.
All is done in float64, whatever the precision of the network that gave the parameters, so that a sum over thousands of
draws loses nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf, logsumexp, ndtri
from numpyro.distributions import Normal

from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.errors import bad_value

SQRT2 = 2**0.5
MOST_PAIR_NODES = 4096


def evaluate(name: str, components: Likelihood, *args: np.ndarray) -> np.ndarray:
    """Run one of this module's functions, by name, compiled and in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), components)
        if name == "crps":
            return np.asarray(call(crps, (_nodes(wide),), wide, *args))
        return np.asarray(call(FUNCTIONS[name], (), wide, *args))


def cdf(components: Likelihood, y: jax.Array) -> jax.Array:
    """P(Y ≤ y) of each row. ``y`` is ``(m,)``; so is the answer."""
    return _mean(components, _component_cdf(components, y))


def log_prob(components: Likelihood, y: jax.Array) -> jax.Array:
    """Log predictive density ``(m,)`` at ``y (m,)``."""
    each = components.log_prob(y[None, :])
    if components.weights is None:
        return logsumexp(each, axis=0) - jnp.log(each.shape[0])
    return logsumexp(each + jnp.log(components.weights)[:, None], axis=0)


def quantile(components: Likelihood, q: jax.Array) -> jax.Array:
    """Quantiles ``(len(q), m)``: the root of the mixture's distribution function, bracketed and then bisected.

    For Normals the bracket is the range of the components' own quantiles, inside which the mixture's must lie, and
    Newton steps that stay inside the bracket are taken.
    """
    return lax.map(lambda one: _quantile(components, one), q)


def _quantile(components: Likelihood, q: jax.Array) -> jax.Array:
    low, high = _bracket(components, q)
    fine = 1e-12 * _smallest_scale(components)

    def body(carry: tuple) -> tuple:
        low, high, y, _, step = carry
        value = cdf(components, y)
        low, high = jnp.where(value < q, y, low), jnp.where(value < q, high, y)
        newton = y - (value - q) / jnp.exp(log_prob(components, y))
        # Every third step bisects, so that a flat stretch of the distribution function cannot stall the search.
        safe = (newton > low) & (newton < high) & (step % 3 != 2)
        new = jnp.where(safe, newton, 0.5 * (low + high))
        return low, high, new, jnp.abs(new - y), step + 1

    def go_on(carry: tuple) -> jax.Array:
        low, high, y, moved, step = carry
        near = fine + 4 * jnp.finfo(y.dtype).eps * jnp.abs(y)
        return jnp.any((moved > near) & (high - low > near)) & (step < 300)

    middle = 0.5 * (low + high)
    return lax.while_loop(go_on, body, (low, high, middle, jnp.full_like(middle, jnp.inf), 0))[2]


def _bracket(components: Likelihood, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    if components.is_normal:
        own = components.parameters["loc"] + components.parameters["scale"] * ndtri(q)
        pad = 1e-9 * (components.parameters["scale"] + jnp.abs(own))
        return jnp.min(own - pad, axis=0), jnp.max(own + pad, axis=0)
    # Heavy tails have no mean, or no variance: the components' location and scale then say where to look.
    where = components.location
    where = jnp.where(jnp.isfinite(where), where, components.parameters.get("loc", 0.0))
    spread = jnp.sqrt(components.variance)
    spread = jnp.where(jnp.isfinite(spread) & (spread > 0), spread, components.parameters.get("scale", 1.0))
    middle = jnp.mean(where, axis=0)
    width = jnp.sqrt(jnp.mean(spread**2, axis=0) + jnp.var(where, axis=0))

    def outside(carry: tuple) -> jax.Array:
        return jnp.any((cdf(components, carry[0]) > q) | (cdf(components, carry[1]) < q)) & (carry[2] < 1e12)

    def widen(carry: tuple) -> tuple:
        factor = carry[2] * 2
        return middle - factor * width, middle + factor * width, factor

    return lax.while_loop(outside, widen, (middle - 4 * width, middle + 4 * width, 4.0))[:2]


def _smallest_scale(components: Likelihood) -> jax.Array:
    """Scale ``(m,)`` of each row's narrowest component: the distance that a quantile is accurate against."""
    spread = components.parameters["scale"] if components.is_normal else jnp.sqrt(components.variance)
    usable = jnp.isfinite(spread) & (spread > 0)
    return jnp.min(jnp.where(usable, spread, components.parameters.get("scale", 1.0)), axis=0)


def crps(nodes: int, components: Likelihood, y: jax.Array) -> jax.Array:
    """Continuous ranked probability score ``(m,)`` of a mixture of Normals, ``E|Y - y| - E|Y - Y'| / 2``.

    Both expectations are closed forms for Normals (Grimit 2006). The second is a sum over pairs of draws, T² of them;
    where ``nodes`` is above 0 it is the integral of F(1 - F) instead, by the trapezium rule on that many nodes, which
    for a sum of Gaussians converges faster than any power of the spacing.
    """
    loc, scale = components.parameters["loc"], components.parameters["scale"]
    first = _mean(components, _mean_absolute(y[None, :] - loc, scale))
    if nodes == 0:
        return first - 0.5 * lax.map(lambda row: _pairs(row[0], row[1], components.weights), (loc.T, scale.T))
    low, high = jnp.min(loc - 9 * scale, axis=0), jnp.max(loc + 9 * scale, axis=0)
    spacing = (high - low) / (nodes - 1)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        f = cdf(components, low + i * spacing)
        return total + f * (1 - f)

    return first - spacing * lax.fori_loop(0, nodes, add, jnp.zeros_like(low))


def _mean(components: Likelihood, values: jax.Array) -> jax.Array:
    """Mean over the components ``(m,)`` of ``values (T, m)``."""
    return jnp.mean(values, axis=0) if components.weights is None else components.weights @ values


def _pairs(loc: jax.Array, scale: jax.Array, weights: jax.Array | None) -> jax.Array:
    """E|Y - Y'| of one row's mixture."""

    def row(total: jax.Array, one: tuple) -> tuple:
        spread = jnp.sqrt(one[1] ** 2 + scale**2)
        between = _mean_absolute(one[0] - loc, spread)
        return total + (jnp.mean(between) if weights is None else one[2] * (weights @ between)), None

    if weights is None:
        return lax.scan(row, jnp.zeros(()), (loc, scale))[0] / loc.shape[0]
    return lax.scan(row, jnp.zeros(()), (loc, scale, weights))[0]


def _mean_absolute(mean: jax.Array, scale: jax.Array) -> jax.Array:
    """E|X| for X ~ Normal(mean, scale²)."""
    r = mean / scale
    return mean * erf(r / SQRT2) + scale * jnp.sqrt(2 / jnp.pi) * jnp.exp(-0.5 * r**2)


def _nodes(components: Likelihood) -> int:
    """Nodes that make the trapezium rule exact to 1e-10, rounded up to a power of two; 0 where pairs are cheaper."""
    if not components.is_normal:
        raise bad_value("crps", "asked of a Normal likelihood", components.family.__name__, "Use log_prob instead.")
    loc, scale = components.parameters["loc"], components.parameters["scale"]
    reach = np.max(loc + 9 * scale, axis=0) - np.min(loc - 9 * scale, axis=0)
    # The transform of F(1 - F) falls as exp(-ω² s² / 4) with s the smallest scale: spacing s / 1.6 leaves 1e-11.
    needed = 2 ** int(np.ceil(np.log2(1.6 * np.max(reach / np.min(scale, axis=0)) + 2)))
    return needed if needed <= max(len(loc), 64) and needed <= MOST_PAIR_NODES else 0


def _component_cdf(components: Likelihood, y: jax.Array) -> jax.Array:
    if components.family is Normal:
        loc, scale = components.parameters["loc"], components.parameters["scale"]
        return 0.5 * (1 + erf((y[None, :] - loc) / (scale * SQRT2)))
    return components.whole.cdf(y[None, :])


FUNCTIONS = {"cdf": cdf, "log_prob": log_prob, "quantile": quantile}
