"""Weights of a mixture that make given observations most likely: a concave problem over the simplex, solved exactly.

With ``p_ik`` the density of observation i under component k, find w ≥ 0, Σ w = 1, that maximises

    L(w) = 1/n Σ_i log Σ_k w_k p_ik                                   (Yao 2018, equation 6)

Let ``g_k = 1/n Σ_i p_ik / Σ_j w_j p_ij`` be its gradient. As L is concave and Σ w_k g_k = 1 for any w in the simplex,

    max L − L(w) ≤ max_k g_k − 1,

which is the certificate that is returned with the weights: no convergence has to be believed.

The constraint Σ w = 1 may be dropped for a term: −L(w) + Σ w is least at the same w (there g_k ≤ 1 with equality where
w_k > 0, so that Σ w = Σ w_k g_k = 1). What is left, w ≥ 0, is left to a logarithmic barrier of strength μ that falls to
1e-12 by factors of 10, each solved by Newton's method with a line search (Boyd & Vandenberghe 2004, section 11.3).
Components that are the same share their weight evenly, but for rounding (1e-4 of it).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine.compiled import call

ROUNDS = 12  # the barrier's last strength is 10^-12
MOST_STEPS = 40  # of Newton, for one strength; 5 to 10 are usual
NOTHING = 1e-8  # a weight below is 0
TOLERANCE = 1e-7  # nats a row


def most_likely(log_density: np.ndarray) -> tuple[np.ndarray, float]:
    """Return weights ``(K,)`` that maximise the mean of ``log Σ_k w_k exp(log_density[:, k])``, and the certificate.

    Parameters
    ----------
    log_density : ndarray
        ``(n, K)``, below +∞, and above −∞ somewhere in each row.

    Returns
    -------
    weights : ndarray
        ``(K,)``, 0 or more, of sum 1.
    gap : float
        A bound, in nats a row, on what other weights could gain. Above `TOLERANCE` only where float64 does not hold the
        densities of a row side by side.
    """
    scaled = np.exp(log_density - log_density.max(1, keepdims=True))
    with jax.enable_x64(True):
        found = np.asarray(call(_barrier, (), scaled))
        weights = np.where(found < NOTHING, 0.0, found)
        weights /= weights.sum()
        gap = float(np.max(np.asarray(call(_gradient, (), scaled, weights))) - 1)
    return weights, max(gap, 0.0)


def _gradient(p: jax.Array, w: jax.Array) -> jax.Array:
    """``g (K,)``."""
    return jnp.mean(p / (p @ w)[:, None], axis=0)


def _barrier(p: jax.Array) -> jax.Array:
    count = p.shape[1]

    def follow(j: jax.Array, w: jax.Array) -> jax.Array:
        return _newton(p, w, 10.0 ** -(j + 1.0))

    w = lax.fori_loop(0, ROUNDS, follow, jnp.full((count,), 1 / count))
    return w / jnp.sum(w)


def _newton(p: jax.Array, w: jax.Array, strength: jax.Array) -> jax.Array:
    """Minimise ``−L(w) + Σ w − μ Σ log w`` from ``w``, in the variables log w locally: steps scale with the weights."""

    def value(w: jax.Array) -> jax.Array:
        return -jnp.mean(jnp.log(p @ w)) + jnp.sum(w) - strength * jnp.sum(jnp.log(w))

    def step(carry: tuple) -> tuple:
        w, _, count = carry
        shares = p * w[None, :] / (p @ w)[:, None]  # (n, K): w_k p_ik / Σ, of which g_k w_k is the mean
        slope = w - jnp.mean(shares, axis=0) - strength
        curvature = shares.T @ shares / p.shape[0] + strength * jnp.eye(len(w))
        move = -jnp.linalg.solve(curvature, slope)
        decrement = -jnp.sum(slope * move)
        now, blur = value(w), 1e-14
        longest = jnp.minimum(1.0, 0.95 / jnp.maximum(-jnp.min(move), 1e-300))  # weights stay above 0

        def too_long(t: jax.Array) -> jax.Array:
            after = value(w * (1 + t * move))
            return ~(after <= now - 0.1 * t * decrement + blur * (1 + jnp.abs(now))) & (t > 1e-10)

        t = lax.while_loop(too_long, lambda t: 0.5 * t, longest)
        return w * (1 + t * move), decrement, count + 1

    def go_on(carry: tuple) -> jax.Array:
        return (carry[1] > 1e-6 * strength) & (carry[2] < MOST_STEPS)

    return lax.while_loop(go_on, step, (w, jnp.asarray(jnp.inf), 0))[0]
