"""Step sizes: found where a chain begins, and how they change from step to step.

**Finding one.** Near the start the potential is taken to be quadratic, with largest curvature λ, and the gradient's
noise to have largest variance v (`gradients.look_around`). A step of SGLD of size h makes the variance of the stiffest
direction too large by the factor 1 / (1 − h λ / 4) and, by the noise, by h v / 4 more of temperature 1; so

    h = 4 tol / (λ + v / T),          tol = 0.1,

keeps both together below a tenth, and every other direction below that. A step of BAOAB is exact on a quadratic and
stable for h √λ < 2; the noise of its kick, h² v, is heat beside the (1 − e^{−2γh}) T that friction lets in. So

    h = min(1 / 2√λ, √((1 − e^{−1/4}) tol T / v)),          γ = max(0.1 / h, −log(1 − h² v / tol T) / 2h),

that is h √λ ≤ 1/2, as much friction as the noise needs, and γ h ≤ 1/8 for that: where noise sets the step, a flat
direction gains the variance (1 + e^{−γh})² tol T² / v a step, which more friction would halve and less hardly raise.

Where the curvature grows along the chain there is room: SGLD is stable up to 10 times λ, BAOAB up to 16 times. A cycle
with an exploration begins so much longer that its sampling begins with h, but at half of where it would be unstable.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from bnn_zoo.engine.identity import settings
from bnn_zoo.methods.stochastic.gradients import TOLERANCE, Local

MOST_HEAT = 1 - math.exp(-1 / 4)  # 1 − e^{−2γh} at γ h = 1/8
LOWEST = 0.1  # of the step size, at the end of a cycle of warm restarts


def langevin_step(local: Local, temperature: float) -> jax.Array:
    """Step size of SGLD."""
    return 4 * TOLERANCE / (local.curvature + local.noise / max(temperature, TOLERANCE))


def hamiltonian_step(local: Local, temperature: float) -> jax.Array:
    """Step size of SGHMC."""
    share = local.noise / (TOLERANCE * max(temperature, TOLERANCE))
    tiny = jnp.finfo(share.dtype).tiny
    return jnp.minimum(0.5 / jnp.sqrt(local.curvature), jnp.sqrt(MOST_HEAT / jnp.maximum(share, tiny)))


def boldest_step(local: Local, underdamped: bool) -> jax.Array:
    """Step size at half of where descent would be unstable, for the first step of an exploration."""
    return 1 / jnp.sqrt(local.curvature) if underdamped else 2 / local.curvature


def friction_for(step_size: jax.Array, local: Local, temperature: float) -> jax.Array:
    """Friction of SGHMC at that step size."""
    share = step_size**2 * local.noise / (TOLERANCE * max(temperature, TOLERANCE))
    return jnp.maximum(0.1, -0.5 * jnp.log1p(-jnp.minimum(share, MOST_HEAT))) / step_size


@settings
class Course:
    """Factor of the step size, and where in a cycle a step is.

    Parameters
    ----------
    decay : float
        Exponent of (1 + t / decay_steps)^−decay (Welling & Teh 2011, section 2); 0 keeps the step size.
    decay_steps : int
        Steps in which the step size falls by 2^−decay.
    cycle_steps : int
        Steps of a cycle, at whose end the step size returns to where it began; 0 for no cycles.
    explored : int
        Steps at the beginning of a cycle without noise, from which no draws are kept (Zhang 2020, algorithm 1). Where
        there are some, a cycle anneals to 0, and to a tenth otherwise (warm restarts, Seedat & Kanan 2019), so that a
        chain that draws all along never stands still.
    """

    decay: float = 0.0
    decay_steps: int = 1000
    cycle_steps: int = 0
    explored: int = 0

    @property
    def sampled(self) -> int:
        """Steps of a cycle that draws are taken from."""
        return self.cycle_steps - self.explored

    def factor(self, step: Any, within: Any) -> Any:
        """Factor at a step of sampling, or, with cycles, at the step ``within`` one."""
        if self.cycle_steps:
            share = within / self.cycle_steps
            low = 0.0 if self.explored else LOWEST
            return low + (1 - low) * 0.5 * (jnp.cos(jnp.pi * share) + 1)
        if self.decay:
            return (1 + jnp.maximum(step, 0) / self.decay_steps) ** -self.decay
        return 1.0
