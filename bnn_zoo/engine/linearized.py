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
from bnn_zoo.engine.gaussian import Dense, Gaussian, Kronecker

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
    rows = curvature.block_rows(size, max(len(x), 16))
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
    made = curvature.outputs(problem, mode, x)
    return jnp.stack([made[0], _variance(problem, gaussian, mode, x), jnp.exp(made[1])])


def _variance(problem: Problem, gaussian: Gaussian, mode: jax.Array, x: jax.Array) -> jax.Array:
    first, *others = gaussian.blocks
    if isinstance(first, Dense) or not curvature.layers_of(problem):

        def loc(z: jax.Array, row: jax.Array) -> jax.Array:
            return curvature.outputs(problem, z, row[None])[0, 0]

        return gaussian.variance(jax.vmap(jax.grad(loc), in_axes=(None, 0))(mode, x))
    # A weight's derivative is its layer's input times a gradient: no row's derivatives are ever in memory.
    total = jnp.zeros(x.shape[0], x.dtype)
    for layer, (a, g, own) in enumerate(_factors(problem, mode, x)):
        if isinstance(first, Kronecker):
            block, *others = gaussian.blocks[layer:]
            assert isinstance(block, Kronecker)
            total += block.variance_of_product(a * own[None, :, 0], g)
        else:
            index = curvature.coordinates(problem, curvature.layers_of(problem)[layer])
            spread = jnp.zeros_like(mode).at[first.index].set(1 / first.precision)[index]
            total += jnp.sum((a**2 @ (spread * own**2)) * g**2, axis=1)
    for block in others:  # of noise and scales, of which there are few
        assert isinstance(block, Dense)
        total += block.variance_of(_along(problem, mode, jnp.asarray(block.index), x))
    return total


def _factors(problem: Problem, mode: jax.Array, x: jax.Array) -> list[tuple[jax.Array, jax.Array, jax.Array]]:
    """For each layer inputs ``(m, inputs + 1)``, gradients of f ``(m, width)``, and dw/dz ``(inputs + 1, width)``."""
    _, inputs, back = curvature.tapped(problem, mode, x)
    gradients = back(jnp.zeros((2, x.shape[0]), x.dtype).at[0].set(1.0))
    return list(zip(inputs, gradients, curvature.own_derivatives(problem, mode), strict=True))


def _along(problem: Problem, mode: jax.Array, index: jax.Array, x: jax.Array) -> jax.Array:
    """Derivatives ``(m, k)`` of f at the rows of ``x`` with respect to the coordinates ``index``."""
    push = jax.linearize(lambda z: curvature.outputs(problem, z, x)[0], mode)[1]
    return lax.map(lambda i: push(jnp.zeros_like(mode).at[i].set(1.0)), index).T


def _functions(problem: Problem, mode: jax.Array, steps: jax.Array, x: jax.Array) -> jax.Array:
    f, push = jax.linearize(lambda z: curvature.outputs(problem, z, x)[0], mode)
    return f[None, :] + lax.map(push, steps)
