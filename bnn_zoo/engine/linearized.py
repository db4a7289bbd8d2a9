"""Predictions of a network made linear about a mode: f(x; z) ≈ f(x; m) + J(x) (z − m), with z Gaussian about m.

Then f(x) is Normal, with mean f(x; m) and variance J Σ Jᵀ (Foong 2019; Immer 2021), and so is
an observation. A Gauss-Newton curvature is the exact one of this linear model, which is why it predicts well where the
network itself, asked away from its mode, does not. Memory is bounded by a block of rows times ``p``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine import curvature
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.gaussian import Gaussian

MOST_ROWS = 256
DRAWS_AT_ONCE = 64


def moments(problem: Problem, gaussian: Gaussian, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean and variance of f and the scale of the noise at the mode, ``(m,)`` each, in float64."""
    out = np.empty((3, len(x)))
    with jax.enable_x64(True):
        wide = curvature.wide(problem)
        for where, block in _blocks(problem.size, x):
            out[:, where] = np.asarray(call(_moments, (), wide, gaussian, block))[:, : where.stop - where.start]
    return out[0], out[1], out[2]


def functions(problem: Problem, mode: np.ndarray, positions: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the linearised f of each of the draws ``(T, p)``, ``(T, m)``: every row is one joint function."""
    out = np.empty((len(positions), len(x)))
    with jax.enable_x64(True):
        wide = curvature.wide(problem)
        for where, block in _blocks(problem.size, x):
            for begin in range(0, len(positions), DRAWS_AT_ONCE):
                some = positions[begin : begin + DRAWS_AT_ONCE]
                steps = np.zeros((DRAWS_AT_ONCE, problem.size))
                steps[: len(some)] = some - mode
                made = np.asarray(call(_functions, (), wide, mode, steps, block))
                out[begin : begin + len(some), where] = made[: len(some), : where.stop - where.start]
    return out


def _blocks(size: int, x: np.ndarray) -> list[tuple[slice, np.ndarray]]:
    rows = min(MOST_ROWS, curvature.block_rows(size, max(len(x), 16)))
    found = []
    for begin in range(0, len(x), rows):
        where = slice(begin, min(begin + rows, len(x)))
        block = np.zeros((rows, x.shape[1]))
        block[: where.stop - begin] = x[where]
        found.append((where, block))
    return found


# --- compiled programs ----------------------------------------------------------------------------------------------


def _moments(problem: Problem, gaussian: Gaussian, x: jax.Array) -> jax.Array:
    mode = jnp.asarray(gaussian.mode)

    def loc(z: jax.Array, row: jax.Array) -> jax.Array:
        return curvature.outputs(problem, z, row[None])[0, 0]

    made = curvature.outputs(problem, mode, x)
    j = jax.vmap(jax.grad(loc), in_axes=(None, 0))(mode, x)
    return jnp.stack([made[0], gaussian.variance(j), jnp.exp(made[1])])


def _functions(problem: Problem, mode: jax.Array, steps: jax.Array, x: jax.Array) -> jax.Array:
    f, push = jax.linearize(lambda z: curvature.outputs(problem, z, x)[0], mode)
    return f[None, :] + lax.map(push, steps)
