"""From where training ended to the nearest optimum: L-BFGS whose line search halves and doubles.

Directions are Optax's. Its line search is not used: within a program it takes the gradient in several places, each of
which XLA compiles, and members side by side wait in it for the slowest. Here every turn of one loop takes one gradient,
of which the next trial, or the next direction, is made: bisection for the weak Wolfe conditions (Lewis & Overton 2013,
algorithm 2.6), which finds such a step wherever the objective is bounded below and smooth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

ENOUGH_DESCENT, ENOUGH_SLOPE = 1e-4, 0.9  # Nocedal & Wright 2006, section 3.1
MOST_TRIALS = 30  # of one direction
MOST_STALLED = 10


class _Turn(NamedTuple):
    """State of `descend`."""

    z: jax.Array  # where the line begins, with the objective and its gradient there
    value: jax.Array
    gradient: jax.Array
    direction: jax.Array
    length: jax.Array  # of the next trial, between one that is too short and one that is too long
    short: jax.Array
    long: jax.Array
    trials: jax.Array
    memory: Any
    steps: jax.Array
    turns: jax.Array
    best: jax.Array
    best_value: jax.Array
    best_norm: jax.Array
    stalled: jax.Array


def descend(objective: Callable[[jax.Array], jax.Array], z: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """Return a minimum of ``objective`` near ``z (p,)``, and the number of gradients that it took.

    Stops after ``most`` directions, or when the gradient is as small as the precision allows, or when nothing improves.
    Of points whose values rounding cannot tell apart, the one of smaller gradient is kept.
    """
    import optax

    memory = optax.scale_by_lbfgs()
    eps = jnp.finfo(z.dtype).eps
    tolerance = 1e-4 * jnp.sqrt(eps / jnp.finfo(jnp.float32).eps)
    infinite = jnp.full((), jnp.inf, z.dtype)

    def go_on(at: _Turn) -> jax.Array:
        within = (at.steps < most) & (at.turns < 3 * most + MOST_TRIALS)
        return within & (at.best_norm > tolerance) & (at.stalled < MOST_STALLED)

    def turn(at: _Turn) -> _Turn:
        trial = at.z + at.length * at.direction
        value, gradient = jax.value_and_grad(objective)(trial)
        slope = at.gradient @ at.direction
        first = at.turns == 0  # the beginning itself, of which nothing is asked
        blur = 4 * eps * jnp.abs(at.best_value)
        lower = value <= at.value + ENOUGH_DESCENT * at.length * slope + blur  # False where it is not a number
        flatter = gradient @ at.direction >= ENOUGH_SLOPE * slope
        given_up = at.trials >= MOST_TRIALS
        taken = first | (lower & flatter) | (given_up & (value <= at.value + blur))

        # The next trial on this line.
        short, long = jnp.where(lower, at.length, at.short), jnp.where(lower, at.long, at.length)
        length = jnp.where(jnp.isinf(long), 2 * at.length, 0.5 * (short + long))

        # The next line: a fresh memory where the last one led nowhere, or to a step against the curvature.
        fresh = first | given_up
        seen = optax.tree.where(fresh, memory.init(at.z), at.memory)
        z, here = jnp.where(taken, trial, at.z), jnp.where(taken, gradient, at.gradient)
        ahead, seen = memory.update(here, seen, z)
        # A first step of the length of 1, as nothing is known of the curvature.
        unit = jnp.minimum(1.0, 1 / jnp.maximum(jnp.linalg.norm(here), eps))
        turned = taken | given_up

        norm = jnp.linalg.norm(gradient)
        better = (value < at.best_value - blur) | ((value <= at.best_value + blur) & (norm < at.best_norm))
        better &= jnp.isfinite(value) & jnp.isfinite(norm)
        return _Turn(
            z=z,
            value=jnp.where(taken, value, at.value),
            gradient=here,
            direction=jnp.where(turned, -ahead, at.direction),
            length=jnp.where(turned, jnp.where(fresh, unit, 1.0), length),
            short=jnp.where(turned, 0.0, short),
            long=jnp.where(turned, infinite, long),
            trials=jnp.where(turned, 0, at.trials + 1),
            memory=optax.tree.where(turned, seen, at.memory),
            steps=at.steps + (turned & ~first),
            turns=at.turns + 1,
            best=jnp.where(better, trial, at.best),
            best_value=jnp.where(better, value, at.best_value),
            best_norm=jnp.where(better, norm, at.best_norm),
            stalled=jnp.where(better, 0, at.stalled + turned),
        )

    nothing, none = jnp.zeros_like(z), jnp.zeros((), jnp.int32)
    start = _Turn(
        z=z,
        value=infinite,
        gradient=nothing,
        direction=nothing,
        length=jnp.ones((), z.dtype),
        short=jnp.zeros((), z.dtype),
        long=infinite,
        trials=none,
        memory=memory.init(z),
        steps=none,
        turns=none,
        best=z,
        best_value=infinite,
        best_norm=infinite,
        stalled=none,
    )
    end = lax.while_loop(go_on, turn, start)
    return end.best, end.turns
