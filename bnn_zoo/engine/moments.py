"""Mean and covariance of a network's outputs under a Gaussian over its weights, layer by layer and without sampling.

The weights of different layers are independent; within a layer they may be correlated. They reach the layers as the
model itself makes them of ``z``, non-centred or not; only the order of things between layers is what the model declares
as its `bnn_zoo.engine.architecture.Architecture`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine import curvature
from bnn_zoo.engine.activations import NODES, SMOOTH
from bnn_zoo.engine.architecture import Architecture
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.gaussian import Dense, Diagonal, Gaussian
from bnn_zoo.engine.propagation import Spread, Weights, propagate
from bnn_zoo.engine.taps import Tapped, listening

MOST_NUMBERS = 2**22  # of one array of a block of rows
MOST_ROWS = 2**13
MOST_SCALES = 2
NOISE = "noise"

_HERMITE = np.polynomial.hermite_e.hermegauss(32)
_FEW = np.polynomial.hermite_e.hermegauss(9)


class Belief(NamedTuple):
    """A Gaussian over ``z``: ``mean (p,)``, ``var (p,)``, and a covariance ``(k, k)`` or None for each layer."""

    mean: jax.Array
    var: jax.Array
    covs: tuple[jax.Array | None, ...]


# --- through a model ------------------------------------------------------------------------------------------------


def architecture_of(problem: Problem) -> Architecture | None:
    """What the model says of how its layers follow one another, or None where it says nothing."""
    found = getattr(problem.model, "architecture", None)
    return found if isinstance(found, Architecture) else None


def roles(problem: Problem) -> np.ndarray:
    """``(p,)``: of each coordinate, the number of its layer, -1 for the noise, and -2 for the scales of weights."""
    found = np.full(problem.size, -2)
    for i, layer in enumerate(curvature.layers_of(problem)):
        found[curvature.coordinates(problem, layer)] = i
    for slot in problem.layout.slots:
        if slot.name == NOISE:
            found[slot.where] = -1
    return found


def outputs(problem: Problem, belief: Belief, x: jax.Array, full: bool) -> Spread:
    """Moments of the network's outputs at ``x (rows, d)``, scales of weights being at their mean."""
    architecture = architecture_of(problem)
    assert architecture is not None
    return propagate(architecture, weights_of(problem, belief), x, full)


def weights_of(problem: Problem, belief: Belief) -> list[Weights]:
    """Of every layer, the weights that the model makes of ``z``: affine in it, given the scales."""
    values: list[jax.Array] = []

    def hear(layer: Tapped) -> jax.Array:
        values.append(jnp.concatenate([layer.weights, layer.biases[None]]))
        return layer.output

    with listening(hear):
        problem.likelihood(belief.mean, problem.x[:1])
    found = []
    slopes = curvature.own_derivatives(problem, belief.mean)
    for layer, value, own, cov in zip(curvature.layers_of(problem), values, slopes, belief.covs, strict=True):
        if cov is not None:
            cov = cov.reshape(value.shape * 2) * own[:, :, None, None] * own[None, None]
        found.append(Weights(value, own**2 * belief.var[curvature.coordinates(problem, layer)], cov))
    return found


def noise_moments(problem: Problem, belief: Belief) -> tuple[jax.Array, jax.Array, jax.Array]:
    """E[log σ], E[σ⁻²] and E[σ²] of a noise that is the same in all rows."""

    def scale(z: jax.Array) -> jax.Array:
        return problem.likelihood(z, problem.x[:1]).parameters["scale"][0]

    sigma, weights = over_noise(problem, belief, scale)
    return weights @ jnp.log(sigma), weights @ sigma**-2, weights @ sigma**2


def over_noise(problem: Problem, belief: Belief, function: Callable) -> tuple[jax.Array, jax.Array]:
    """``function(z)`` at the nodes of a Gauss-Hermite rule over the noise's coordinate, and the weights."""
    where = np.flatnonzero(roles(problem) == -1)
    if not where.size:
        return function(belief.mean)[None], jnp.ones(1, belief.mean.dtype)
    nodes, weights = (jnp.asarray(a, belief.mean.dtype) for a in _HERMITE)
    at = belief.mean[where] + jnp.sqrt(belief.var[where]) * nodes
    values = jax.vmap(lambda value: function(belief.mean.at[where].set(value)))(at)
    return values, weights / weights.sum()


def block_rows(problem: Problem, full: bool, num_rows: int) -> int:
    """Rows a block, so that no array of it has more than some four million numbers: a power of two."""
    architecture = architecture_of(problem)
    assert architecture is not None
    widest = max(layer.output.shape[1] for layer in curvature.layers_of(problem))
    numbers = widest * max(widest if full else 1, len(NODES) if architecture.activation in SMOOTH else 1)
    most = max(1, min(MOST_ROWS, MOST_NUMBERS // numbers))
    return min(1 << (most.bit_length() - 1), 1 << (num_rows - 1).bit_length())


# --- predictions ----------------------------------------------------------------------------------------------------


def has_moments(problem: Problem, gaussian: Gaussian) -> bool:
    """Whether moments can be sent through the model under this Gaussian.

    The model must declare its `Architecture`; a block of covariances must lie within one layer; and of scales of
    weights no more than two may vary.
    """
    if architecture_of(problem) is None:
        return False
    role = roles(problem)
    for block in gaussian.blocks:
        own = role[block.index]
        if not isinstance(block, Diagonal) and not (isinstance(block, Dense) and (own == own.flat[0]).all()):
            return False
    return _varying_scales(problem, gaussian).size <= MOST_SCALES


def predict(
    problem: Problem, gaussian: Gaussian, x: np.ndarray, full: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean and variance of f, and the mean variance of the noise, at ``x (m, d)``: ``(m,)`` each, in float64.

    For any Gaussian that `has_moments`. Scales of weights that vary are integrated over by a Gauss-Hermite rule, given
    each of whose nodes moments are propagated.
    """
    scales = tuple(_varying_scales(problem, gaussian).tolist())
    belief = _belief_of(problem, gaussian)
    correlated = any(cov is not None for cov in belief.covs)
    rows, out = block_rows(problem, full or correlated, max(len(x), 16)), np.empty((3, len(x)))
    with jax.enable_x64(True):
        wide = curvature.wide(problem)
        for begin in range(0, len(x), rows):
            where = slice(begin, min(begin + rows, len(x)))
            block = np.zeros((rows, x.shape[1]))
            block[: where.stop - begin] = x[where]
            found = np.asarray(call(_predict, (full, scales), wide, belief, block))
            out[:, where] = found[:, : where.stop - begin]
    return out[0], out[1], out[2]


def _varying_scales(problem: Problem, gaussian: Gaussian) -> np.ndarray:
    vary = np.zeros(problem.size, bool)
    for block in gaussian.blocks:
        vary[block.index] = True
    return np.flatnonzero(vary & (roles(problem) == -2))


def _belief_of(problem: Problem, gaussian: Gaussian) -> Belief:
    """Variances of all coordinates, and covariances of the layers that have any."""
    role, var = roles(problem), np.zeros(problem.size)
    layers = curvature.layers_of(problem)
    covs: list[np.ndarray | None] = [None] * len(layers)
    places = [curvature.coordinates(problem, layer).reshape(-1) for layer in layers]
    for block in gaussian.blocks:
        if isinstance(block, Diagonal):
            var[block.index] = 1 / block.precision
            continue
        assert isinstance(block, Dense)
        cov, layer = block.covariance, int(role[block.index].flat[0])
        var[block.index] = np.diagonal(cov)
        if layer >= 0:
            where = np.argsort(places[layer])[np.searchsorted(np.sort(places[layer]), block.index)]
            whole = covs[layer] if covs[layer] is not None else np.zeros((places[layer].size,) * 2)
            assert whole is not None
            whole[np.ix_(where, where)] = cov
            covs[layer] = whole
    for i, whole in enumerate(covs):
        if whole is not None:
            np.fill_diagonal(whole, var[places[i]])
    return Belief(np.asarray(gaussian.mode, np.float64), var, tuple(covs))  # type: ignore[arg-type]


def _predict(full: bool, scales: tuple[int, ...], problem: Problem, belief: Belief, x: jax.Array) -> jax.Array:
    where = np.asarray(scales, int)
    weights = np.array([np.prod(w) for w in itertools.product(_FEW[1], repeat=len(scales))])
    nodes = np.array(list(itertools.product(_FEW[0], repeat=len(scales)))).reshape(len(weights), len(scales))
    at = belief.mean[where][None] + jnp.sqrt(belief.var[where])[None] * nodes

    def given(values: jax.Array) -> jax.Array:
        return _given_scales(problem, belief._replace(mean=jnp.asarray(belief.mean).at[where].set(values)), x, full)

    found = lax.map(given, at)
    mean, var, noise = jnp.einsum("k,kor->or", weights / weights.sum(), found)
    between = (weights / weights.sum()) @ (found[:, 0] - mean[None]) ** 2
    return jnp.stack([mean, var + between, noise])


def _given_scales(problem: Problem, belief: Belief, x: jax.Array, full: bool) -> jax.Array:
    """``(3, rows)``: mean and variance of f, and the mean variance of an observation given the weights."""
    made = outputs(problem, belief, x, full)
    assert made.var is not None
    if made.mean.shape[1] > 1:
        noise = jnp.exp(made.mean[:, 1] + 0.5 * made.var[:, 1])
    else:
        noise = jnp.broadcast_to(noise_moments(problem, belief)[2], made.mean[:, 0].shape)
    return jnp.stack([made.mean[:, 0], made.var[:, 0], noise])
