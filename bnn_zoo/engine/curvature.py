"""Curvature of the negative log posterior at a point: generalised Gauss-Newton blocks, diagonals, Kronecker factors.

For a Normal likelihood the model's outputs of a row are taken to be ``o = (loc, log scale)``. With J = ∂o/∂z, the
generalised Gauss-Newton matrix is Σ_rows Jᵀ H J, H = diag(1 / scale², 2): the Fisher information of a Normal in these
coordinates (Martens 2020), constant in y and positive semi-definite by construction. It covers a fixed noise
(whose derivative is 0), a noise with a prior (one coordinate of z), and a network that gives its own variance alike.

Rows are taken a block at a time in one compiled scan, so memory does not grow with them. Pass a `wide` problem under
``jax.enable_x64``: curvatures of many rows and those of the prior differ by more than float32 can hold.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine.compiled import CAPACITY, Request, Stopwatch, call, compile_together, runs_once
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.taps import Tapped, listening

MOST_NUMBERS = 2**22  # of Jacobians of a block of rows
MOST_ROWS = 1024
AT_ONCE = 8  # Hessian-vector products side by side


def wide(problem: Problem) -> Problem:
    """Return the problem with its data in float64."""
    return jax.tree.map(lambda a: np.asarray(a, np.float64), problem)


def is_normal(problem: Problem) -> bool:
    """Whether the model observes a Normal."""
    z = jax.ShapeDtypeStruct((problem.size,), problem.x.dtype)
    return jax.eval_shape(problem.likelihood, z, _one_row(problem)).is_normal


def _one_row(problem: Problem) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, problem.x.shape[1]), problem.x.dtype)


def block_rows(columns: int, num_rows: int) -> int:
    """Rows a block for Jacobians of ``columns`` columns: a power of two, at most 1,024."""
    most = max(1, min(MOST_ROWS, MOST_NUMBERS // (2 * columns)))
    return min(1 << (most.bit_length() - 1), 1 << (num_rows - 1).bit_length())


_layers: OrderedDict[Any, tuple[Tapped, ...]] = OrderedDict()  # of models met before: tracing one takes milliseconds


def layers_of(problem: Problem) -> tuple[Tapped, ...]:
    """Return the dense layers of the model in the order in which they run, with shapes in place of arrays."""
    key = jax.tree.structure(problem), problem.x.shape[1], problem.x.dtype
    if key not in _layers:
        _layers[key] = _trace_layers(problem)
        while len(_layers) > CAPACITY:
            _layers.popitem(last=False)
    return _layers[key]


def _trace_layers(problem: Problem) -> tuple[Tapped, ...]:
    found: list[Tapped] = []

    def hear(layer: Tapped) -> jax.Array:
        arrays: dict[str, Any] = {
            name: jax.ShapeDtypeStruct(v.shape, v.dtype) for name, v in vars(layer).items() if hasattr(v, "shape")
        }
        found.append(Tapped(layer.weight, layer.bias, **arrays))
        return layer.output

    with listening(hear):
        z = jax.ShapeDtypeStruct((problem.size,), problem.x.dtype)
        jax.eval_shape(problem.likelihood, z, _one_row(problem))
    return tuple(found)


def scale_sites(problem: Problem) -> tuple[str, ...]:
    """Names of the sites of noise and scales: all that are no layer's; without layers, those of a single number."""
    layers = layers_of(problem)
    if not layers:
        return tuple(slot.name for slot in problem.layout.slots if slot.shape == ())
    own = {name for layer in layers for name in (layer.weight, layer.bias)}
    return tuple(slot.name for slot in problem.layout.slots if slot.name.removesuffix("_decentered") not in own)


# --- from outside ---------------------------------------------------------------------------------------------------


def block(problem: Problem, z: np.ndarray, index: np.ndarray, watch: Stopwatch | None = None) -> np.ndarray:
    """Return the precision ``(k, k)`` of the coordinates ``index``: Gauss-Newton plus the prior's exact Hessian."""
    vectors = probes(problem.size)
    requests: list[Request] = [_gauss_newton(problem, z, index), (_by_products, (), (problem, z, vectors))]
    of_likelihood, of_prior = compile_together(requests, watch=watch)
    found, (diagonal, is_all) = np.array(of_likelihood(problem, z, index)), of_prior(problem, z, vectors)
    if not is_all:
        return found + np.asarray(call(_prior_block, (), problem, z, index, watch=watch))
    found[np.diag_indices(len(index))] += np.asarray(diagonal)[index]
    return found


def gauss_newton(problem: Problem, z: np.ndarray, index: np.ndarray, watch: Stopwatch | None = None) -> np.ndarray:
    """Return the Gauss-Newton matrix ``(k, k)`` of the coordinates ``index``, without the prior."""
    program, static, args = _gauss_newton(problem, z, index)
    return np.asarray(call(program, static, *args, watch=watch))


def _gauss_newton(problem: Problem, z: np.ndarray, index: np.ndarray) -> Request:
    return _ggn_block, (block_rows(len(index), problem.num_rows),), (problem, z, index)


def exact_block(problem: Problem, z: np.ndarray, index: np.ndarray, watch: Stopwatch | None = None) -> np.ndarray:
    """Return the Hessian ``(k, k)`` of minus the log posterior in the coordinates ``index``."""
    found = np.asarray(call(_hessian_block, (), problem, z, index, watch=watch))
    return 0.5 * (found + found.T)


def diagonal(problem: Problem, z: np.ndarray, watch: Stopwatch | None = None, *, prior: bool = True) -> np.ndarray:
    """Return the diagonal ``(p,)`` of what `block` would give: without the likelihood for what is no layer's weight.

    Without the prior on request.
    """
    found = prior_diagonal(problem, z, watch) if prior else np.zeros(problem.size)
    if not layers_of(problem):
        rows = block_rows(problem.size, problem.num_rows)
        return found + np.asarray(call(_ggn_diagonal, (rows,), problem, z, watch=watch))
    # A weight's derivative is the product of its layer's input and of a gradient, so squares of whole blocks of rows
    # are one product of matrices, and no row's derivatives are ever in memory.
    for layer, (squares, own) in zip(layers_of(problem), _by_layer("squares", problem, z, watch), strict=True):
        found[coordinates(problem, layer)] += squares * own**2
    return found


def prior_diagonal(problem: Problem, z: np.ndarray, watch: Stopwatch | None = None) -> np.ndarray:
    """Return the diagonal ``(p,)`` of the Hessian of minus the log prior."""
    diagonal, is_all = call(_by_products, (), problem, z, probes(problem.size), watch=watch)
    return np.array(diagonal if is_all else call(_one_by_one, (), problem, z, watch=watch))


def probes(size: int) -> np.ndarray:
    """``(2, size)``: two vectors away from 0, of no common ratio."""
    generator = np.random.default_rng(0)
    return generator.choice([-1.0, 1.0], (2, size)) * generator.uniform(0.5, 1.5, (2, size))


def kronecker(problem: Problem, z: np.ndarray, watch: Stopwatch | None = None) -> list[tuple[np.ndarray, ...]]:
    """Return, for each dense layer, the sums ``A (inputs + 1, inputs + 1)`` and ``G (width, width)``, and dw/dz.

    ``A = Σ_rows a aᵀ`` of the layer's inputs ``a`` with a 1 for the bias, ``G = Σ_rows Σ_o H_o g gᵀ`` of the gradients
    ``g`` of the outputs with respect to the layer's pre-activations; the layer's block of the Gauss-Newton matrix is
    then ``A ⊗ G / n`` (Martens & Grosse 2015; Ritter 2018), exact where one of the two factors
    is the same in every row. dw/dz ``(inputs + 1, width)`` holds the derivative of every weight with respect to its own
    coordinate, which is not 1 where its scale has a prior.
    """
    return [(*factors, own) for factors, own in _by_layer("factors", problem, z, watch)]


def _by_layer(what: str, problem: Problem, z: np.ndarray, watch: Stopwatch | None) -> list[tuple[Any, np.ndarray]]:
    layers = layers_of(problem)
    columns = max(sum(layer.inputs.shape[1] + layer.output.shape[1] for layer in layers), 1)
    rows = block_rows(columns, problem.num_rows)
    sums = jax.tree.map(np.asarray, call(_layer_sums, (what, rows), problem, z, watch=watch))
    return list(zip(sums, map(np.asarray, call(own_derivatives, (), problem, z, watch=watch)), strict=True))


# --- compiled programs ----------------------------------------------------------------------------------------------


def outputs(problem: Problem, z: jax.Array, x: jax.Array) -> jax.Array:
    """``(2, m)``: loc and log scale of the Normal at the rows of ``x``."""
    parameters = problem.likelihood(z, x).parameters
    return jnp.stack([parameters["loc"], jnp.log(parameters["scale"])])


def _information(made: jax.Array) -> jax.Array:
    """``(2, m)``: the diagonal of H for outputs ``(2, m)``."""
    return jnp.stack([jnp.exp(-2 * made[1]), jnp.full_like(made[1], 2.0)])


def noise_is_shared(problem: Problem) -> bool:
    """Whether the scale is the same in every row, whatever ``z``, as its program has it and not as numbers happen."""

    def scale(z: jax.Array, row: jax.Array) -> jax.Array:
        return problem.likelihood(z, row[None]).parameters["scale"][0]

    z = jax.ShapeDtypeStruct((problem.size,), problem.x.dtype)
    try:  # vmap refuses to give back as one what follows the rows
        jax.eval_shape(jax.vmap(scale, in_axes=(None, 0), out_axes=None), z, _one_row(problem))
    except ValueError:
        return False
    return True


def jacobian(
    problem: Problem, z: jax.Array, index: jax.Array, x: jax.Array, which: slice = slice(0, 2)
) -> tuple[jax.Array, jax.Array]:
    """``(m, 2, k)``: derivatives of loc and log scale with respect to the coordinates ``index``; both ``(2, m)``.

    Derivatives of one of the two alone with ``which``.
    """

    def one(free: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        made = outputs(problem, z.at[index].set(free), row[None])[:, 0]
        return made[which], made

    found, made = jax.vmap(jax.jacrev(one, has_aux=True), in_axes=(None, 0))(z[index], x)
    return found, made.T


def _over_rows(problem: Problem, rows: int, blank: Any, part: Callable) -> Any:
    """Sum ``part(x, counted)`` over blocks of rows; ``counted`` is 0 for the rows that fill up the last one."""
    blocks = -(-problem.num_rows // rows)
    # Filled up with the last row again, at which the model is known to be finite.
    x = jnp.pad(problem.x, ((0, blocks * rows - problem.num_rows), (0, 0)), mode="edge").reshape(blocks, rows, -1)
    counted = (jnp.arange(blocks * rows) < problem.num_rows).astype(x.dtype).reshape(blocks, rows)

    def add(total: Any, one: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part(*one)), None

    return lax.scan(add, blank, (x, counted))[0]


def _ggn_block(rows: int, problem: Problem, z: jax.Array, index: jax.Array) -> jax.Array:
    shared = noise_is_shared(problem)
    which = slice(0, 1) if shared else slice(0, 2)

    def part(x: jax.Array, counted: jax.Array) -> jax.Array:
        j, made = jacobian(problem, z, index, x, which)
        root = jnp.sqrt(_information(made) * counted[None, :])[which].T
        whole = (j * root[:, :, None]).reshape(-1, index.shape[0])
        return whole.T @ whole

    total = _over_rows(problem, rows, jnp.zeros((index.shape[0],) * 2, z.dtype), part)
    if not shared:
        return total
    own = jacobian(problem, z, index, problem.x[:1], slice(1, 2))[0][0, 0]  # of every row: half the work saved
    return total + 2.0 * problem.num_rows * jnp.outer(own, own)


def _ggn_diagonal(rows: int, problem: Problem, z: jax.Array) -> jax.Array:
    def part(x: jax.Array, counted: jax.Array) -> jax.Array:
        j, made = jacobian(problem, z, jnp.arange(z.shape[0]), x)
        return jnp.einsum("rok,or->k", j**2, _information(made) * counted[None, :])

    return _over_rows(problem, rows, jnp.zeros_like(z), part)


def tapped(problem: Problem, z: jax.Array, x: jax.Array) -> tuple[jax.Array, list[jax.Array], Callable]:
    """Outputs ``(2, m)``, each layer's inputs with a 1 for the bias ``(m, inputs + 1)``, and the way back.

    That takes weights ``(2, m)`` of the outputs to their derivatives ``(m, width)`` with respect to each layer's
    pre-activations.
    """

    def run(shifts: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        heard: list[jax.Array] = []

        def hear(layer: Tapped) -> jax.Array:
            heard.append(jnp.concatenate([layer.inputs, jnp.ones((x.shape[0], 1), x.dtype)], axis=1))
            return layer.output + shifts[len(heard) - 1]

        with listening(hear):
            return outputs(problem, z, x), heard

    widths = [layer.output.shape[1] for layer in layers_of(problem)]
    made, back, inputs = jax.vjp(run, [jnp.zeros((x.shape[0], width), z.dtype) for width in widths], has_aux=True)
    return made, inputs, lambda weights: back(weights)[0]


def _layer_sums(what: str, rows: int, problem: Problem, z: jax.Array) -> list[Any]:
    """For each layer the pair of `kronecker`'s factors, or the diagonal ``(inputs + 1, width)`` of its block."""

    def part(x: jax.Array, counted: jax.Array) -> list[Any]:
        made, inputs, back = tapped(problem, z, x)
        # Rows do not see each other, so one backward pass an output gives the gradients of all rows of a block.
        each = [back(jnp.zeros_like(made).at[o].set(1.0)) for o in range(2)]
        weight = _information(made) * counted[None, :]
        found: list[Any] = []
        for layer, a in enumerate(inputs):
            if what == "squares":
                found.append((a**2).T @ sum(each[o][layer] ** 2 * weight[o][:, None] for o in range(2)))
                continue
            g = sum((each[o][layer] * weight[o][:, None]).T @ each[o][layer] for o in range(2))
            found.append(((a * counted[:, None]).T @ a, g))
        return found

    shapes = jax.eval_shape(part, problem.x[:1].repeat(rows, 0), jnp.zeros(rows, z.dtype))
    return _over_rows(problem, rows, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), part)


@runs_once
def own_derivatives(problem: Problem, z: jax.Array) -> list[jax.Array]:
    """For each layer ``(inputs + 1, width)``: of every weight and bias with respect to its own coordinate."""

    def values(z: jax.Array) -> list[jax.Array]:
        heard: list[jax.Array] = []

        def hear(layer: Tapped) -> jax.Array:
            heard.append(jnp.concatenate([layer.weights, layer.biases[None]]))
            return layer.output

        with listening(hear):
            problem.likelihood(z, problem.x[:1])
        return heard

    # A weight depends on its own coordinate and on scales, never on another weight: one tangent serves all of them.
    mine = jnp.zeros_like(z)
    for layer in layers_of(problem):
        for name in (layer.weight, layer.bias):
            mine = mine.at[slot_of(problem, name)].set(1.0)
    return jax.jvp(values, (z,), (mine,))[1]


def slot_of(problem: Problem, site: str) -> slice:
    """Where the coordinates of a weight site lie, drawn non-centred or not."""
    found = {slot.name: slot.where for slot in problem.layout.slots}
    return found[site] if site in found else found[f"{site}_decentered"]


def coordinates(problem: Problem, layer: Tapped) -> np.ndarray:
    """``(inputs + 1, width)``: the coordinates of a layer's weights, and of its bias in the last row."""
    every = np.arange(problem.size)
    weights = every[slot_of(problem, layer.weight)].reshape(layer.weights.shape)
    return np.concatenate([weights, every[slot_of(problem, layer.bias)][None]])


# --- the prior, and exact Hessians ----------------------------------------------------------------------------------


def _product(function: Callable, z: jax.Array, v: jax.Array) -> jax.Array:
    """Hessian of minus ``function`` at ``z``, times ``v``."""
    return -jax.jvp(jax.grad(function), (z,), (v,))[1]


def dense_hessian(function: Callable, z: jax.Array, index: jax.Array) -> jax.Array:
    """``(k, k)``: Hessian of minus ``function`` in the coordinates ``index``."""

    def row(i: jax.Array) -> jax.Array:
        return _product(function, z, jnp.zeros_like(z).at[i].set(1.0))[index]

    return lax.map(row, index, batch_size=AT_ONCE)


@runs_once
def _prior_block(problem: Problem, z: jax.Array, index: jax.Array) -> jax.Array:
    return dense_hessian(problem.log_prior, z, index)


def _hessian_block(problem: Problem, z: jax.Array, index: jax.Array) -> jax.Array:
    return dense_hessian(problem.log_posterior, z, index)


def prior_hessian_diagonal(problem: Problem, z: jax.Array, vectors: jax.Array) -> jax.Array:
    """``(p,)``, from two products where there is nothing off it, for use in programs."""
    diagonal, is_all = _by_products(problem, z, vectors)
    return lax.cond(is_all, lambda: diagonal, lambda: _one_by_one(problem, z))


@runs_once
def _one_by_one(problem: Problem, z: jax.Array) -> jax.Array:
    product = partial(_product, problem.log_prior, z)
    return lax.map(lambda i: product(jnp.zeros_like(z).at[i].set(1.0))[i], jnp.arange(z.shape[0]))


@runs_once
def _by_products(problem: Problem, z: jax.Array, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A product with one vector gives a diagonal matrix's diagonal; two that differ tell it is not one."""
    first, second = (_product(problem.log_prior, z, v) / v for v in (vectors[0], vectors[1]))
    return first, jnp.all(jnp.abs(first - second) <= 1e-10 * (jnp.abs(first) + jnp.abs(second)))
