"""What microcanonical kernels learn in warm-up, one step at a time: a step size, variances, a correlation length.

The step size is BlackJAX's predictor (``blackjax/adaptation/mclmc_adaptation.py``, ``predictor``): the variance of the
error ΔE of the energy grows as ε⁶, so each step with its ξ = ΔE² / (p · target) says that ε ξ^(−1/6) would have been
right, and these are averaged as ξ ε⁻⁶, with a memory of 150 steps and a weight exp(−½ (log ξ / 9)²) that trusts what
is near the target. Here it is done in logarithms: in float32 ε⁻⁶ overflows below ε = 4e-7, and ΔE² where |ΔE| > 1e19;
0 · ∞ then made the step size NaN, or 0, for good (blackjax#969).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

MEMORY = 149 / 151  # (n − 1) / (n + 1) for the n = 150 effective steps of BlackJAX
TRUST = 9.0  # 6 × its trust_in_estimate of 1.5
LEAST = 1e-8  # of ξ: an error of 0 does not make the step infinite
RECOVERY = 200  # finite steps after which a limit on the step size has doubled
FLOOR = 1e-10  # of the mean variance: a coordinate that has not moved can still be moved


class StepFinder(NamedTuple):
    """Weighted mean of ξ ε⁻⁶, as logarithms of numerator and denominator, and the limit set by failed steps."""

    log_error: jax.Array
    log_weight: jax.Array
    log_limit: jax.Array


class Moments(NamedTuple):
    """Weighted mean and sum of squares about it, ``(p,)`` each (West 1979: stable where means exceed sds)."""

    weight: jax.Array
    mean: jax.Array
    squares: jax.Array

    @property
    def variance(self) -> jax.Array:
        """Variances ``(p,)``, 0 where nothing was seen."""
        return self.squares / jnp.where(self.weight > 0, self.weight, 1.0)


def new_finder(like: jax.Array) -> StepFinder:
    """Return a finder that has seen nothing."""
    nothing = jnp.full((), -jnp.inf, like.dtype)
    return StepFinder(nothing, nothing, -nothing)


def find_step(
    finder: StepFinder, step_size: jax.Array, energy_variance: jax.Array, finite: jax.Array, target: float | jax.Array
) -> tuple[StepFinder, jax.Array]:
    """Learn from one step of ``step_size`` with error ``energy_variance`` = ΔE² / p, and return the next step size.

    A step that was not finite halves the step size and is not averaged. The limit it leaves is forgotten slowly, where
    BlackJAX keeps it for ever: at an edge beyond which the density is not defined, every touch would halve the step.
    """
    log_step = jnp.log(step_size)
    log_xi = jnp.logaddexp(jnp.log(jnp.where(finite, energy_variance, target)) - jnp.log(target), jnp.log(LEAST))
    log_trust = -0.5 * (log_xi / TRUST) ** 2
    log_error = jnp.logaddexp(jnp.log(MEMORY) + finder.log_error, log_trust + log_xi - 6 * log_step)
    log_weight = jnp.logaddexp(jnp.log(MEMORY) + finder.log_weight, log_trust)
    log_limit = finder.log_limit + jnp.log(2.0) / RECOVERY
    halved = log_step - jnp.log(2.0)
    seen = StepFinder(log_error, log_weight, log_limit)
    failed = finder._replace(log_limit=halved)
    log_next = jnp.where(finite, jnp.minimum((log_weight - log_error) / 6, log_limit), halved)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), seen, failed), jnp.exp(log_next)


def new_moments(z: jax.Array) -> Moments:
    """Return moments of nothing."""
    return Moments(jnp.zeros((), z.dtype), jnp.zeros_like(z), jnp.zeros_like(z))


def add_to(moments: Moments, x: jax.Array, weight: jax.Array) -> Moments:
    """Take in ``x (p,)`` with ``weight``, which may be 0."""
    total = moments.weight + weight
    off = x - moments.mean
    mean = moments.mean + jnp.where(total > 0, weight / jnp.where(total > 0, total, 1.0), 0.0) * off
    return Moments(total, mean, moments.squares + weight * off * (x - mean))


def inverse_mass(moments: Moments) -> jax.Array:
    """Variances ``(p,)`` to precondition with; 1 where nothing moved at all."""
    variance = moments.variance
    mean = jnp.mean(variance)
    usable = jnp.isfinite(mean) & (mean > 0)
    return jnp.where(usable, jnp.maximum(variance, FLOOR * mean), 1.0)


def correlation_steps(steps: Moments, batches: Moments, batch: int) -> jax.Array:
    """Integrated autocorrelation time in steps, from means of batches of ``batch`` steps. Scalar, at least 1.

    b Var(batch means) / Var(steps), as one ratio of sums over coordinates, each in units of its own sd; coordinates
    that did not move do not count.
    """
    variance = steps.variance
    scale = jnp.where(variance > 0, variance, 1.0)
    shares = jnp.where(variance > 0, batches.variance / scale, 0.0)
    return jnp.maximum(batch * jnp.sum(shares) / jnp.maximum(jnp.sum(variance > 0), 1), 1.0)
