"""Mean and covariance through affine layers and activations, for independent layers of Normal weights.

Wu et al. (2019), section 3: through an affine layer moments are exact; a sum over many units is nearly Normal, so
pre-activations are taken to be, and `bnn_zoo.engine.activations` has what follows for activations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_zoo.engine.activations import covariance, through, with_diagonal
from bnn_zoo.engine.architecture import Architecture


class Weights(NamedTuple):
    """Weights of a layer, the bias in the last row: ``mean (inputs + 1, width)``, and how they vary.

    Independently, with ``var (inputs + 1, width)``, or together, with ``cov`` of twice these axes.
    """

    mean: jax.Array
    var: jax.Array
    cov: jax.Array | None = None


class Spread(NamedTuple):
    """Mean and variance ``(rows, units)`` of what a layer takes or gives; ``var`` None where it is certain.

    ``cov (rows, units, units)``, or None where units are uncorrelated, or taken to be.
    """

    mean: jax.Array
    var: jax.Array | None = None
    cov: jax.Array | None = None


def linear(h: Spread, weights: Weights, full: bool) -> Spread:
    """Pre-activations ``h W + b``, exactly, for weights that are independent of ``h`` (Wu 2019, equation 3).

    Cov_jk = Σ_il W̄_ij W̄_lk Cov(h_i, h_l) + Σ_il C_ij,lk E[h_i h_l], C the weights' covariance. With ``full`` False no
    covariance is given.
    """
    inputs = jnp.concatenate([h.mean, jnp.ones_like(h.mean[:, :1])], axis=1)
    mean, w = inputs @ weights.mean, weights.mean[:-1]
    cov: Any = 0.0
    if weights.cov is None:
        square = inputs**2 if h.var is None else inputs**2 + jnp.pad(h.var, ((0, 0), (0, 1)))
        own = square @ weights.var
    else:
        second = inputs[:, :, None] * inputs[:, None, :]
        if h.var is not None:
            between = jax.vmap(jnp.diag)(h.var) if h.cov is None else h.cov
            second = second + jnp.pad(between, ((0, 0), (0, 1), (0, 1)))
        own = jnp.einsum("nil,ijlj->nj", second, weights.cov)
        cov = jnp.einsum("nil,ijlk->njk", second, weights.cov) if full else cov
    if h.var is None:
        return Spread(mean, own, with_diagonal(cov, own) if full and weights.cov is not None else None)
    if not full:
        passed = h.var @ w**2 if h.cov is None else jnp.sum(_each(h.cov, w) * w[None], axis=1)
        return Spread(mean, own + passed)
    # Rows of (Σ W)ᵀ are multiplied all at once, which is one product of two matrices.
    weighted = h.var[:, None, :] * w.T[None] if h.cov is None else jnp.swapaxes(_each(h.cov, w), 1, 2)
    cov = cov + _each(weighted, w)
    var = jnp.diagonal(cov, axis1=1, axis2=2) + (own if weights.cov is None else 0.0)
    return Spread(mean, var, with_diagonal(cov, var))


def _each(matrices: jax.Array, w: jax.Array) -> jax.Array:
    """``matrices (rows, a, b) @ w (b, c)``."""
    rows, a, b = matrices.shape
    return (matrices.reshape(rows * a, b) @ w).reshape(rows, a, w.shape[1])


def activate(name: str, a: Spread, stream: tuple[Spread, Weights, float] | None = None) -> Spread:
    """What activation ``name`` makes of Normal pre-activations ``a``, or of a stream to which it is added.

    With ``stream = (h, weights, share)`` it is h + share · f(a), a being made of h by these weights; Cov(h, f(a)) =
    Cov(h, a) E[f'(a)] by Stein's lemma.
    """
    assert a.var is not None
    made = through(name, a.mean, a.var)
    cov = None if a.cov is None else covariance(name, a.mean, a.cov, made)
    if stream is None:
        return Spread(made.mean, made.var, cov)
    h, weights, share = stream
    w = weights.mean[:-1]
    mean = h.mean + share * made.mean
    assert h.var is not None
    if cov is None:
        cross = share * h.var * jnp.diag(w)[None] * made.slope
        return Spread(mean, h.var + share**2 * made.var + 2 * cross)
    between = jax.vmap(jnp.diag)(h.var) if h.cov is None else h.cov
    crosses = share * _each(between, w) * made.slope[:, None, :]
    cov = between + share**2 * cov + crosses + jnp.swapaxes(crosses, 1, 2)
    return Spread(mean, jnp.diagonal(cov, axis1=1, axis2=2), cov)


def propagate(architecture: Architecture, layers: list[Weights], x: jax.Array, full: bool) -> Spread:
    """Moments of the outputs at the rows of ``x (rows, d)``; ``cov`` is there for two outputs or more.

    ``full`` keeps covariances between the units of a layer; otherwise they are dropped after every layer but the last.
    """
    h, name, last = Spread(x), architecture.activation, len(layers) - 1
    for i, weights in enumerate(layers[:-1]):
        a = linear(h, weights, full)
        if not architecture.residual:
            h = activate(name, a)
        else:
            h = a if i == 0 else activate(name, a, (h, weights, (last - 1) ** -0.5))
    return linear(h, layers[-1], full=architecture.log_variance)
