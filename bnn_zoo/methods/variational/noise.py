"""Estimates of an expected likelihood whose noise is not shared by the rows of a batch.

One draw of the weights moves all rows together, and so the estimate of a bound from a batch. Where weights are
independent Normals the pre-activations of a layer may be drawn in their stead, one a row (local reparameterisation,
Kingma 2015, section 2.3), or every row may be given the same draw with signs of its own (Flipout, Wen 2018, equation
4): the expectation is the same, the variance less.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from bnn_zoo.engine import curvature
from bnn_zoo.engine.density import Batch, Problem
from bnn_zoo.engine.taps import Tapped, listening


def log_likelihood(
    estimator: str,
    problem: Problem,
    z: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    batch: Batch | None,
    key: jax.Array,
) -> jax.Array:
    """Log likelihood of all rows, estimated from ``batch``, for weights with ``mean`` and ``variance (p,)``.

    ``z (p,)`` is a draw: of noise and scales, and, for ``"flipout"``, of the weights.
    """
    layers = curvature.layers_of(problem)
    index = [curvature.coordinates(problem, layer) for layer in layers]
    centre = z
    for where in index:
        centre = centre.at[where].set(mean[where])
    own = curvature.own_derivatives(problem, centre)
    count = 0

    def hear(layer: Tapped) -> jax.Array:
        nonlocal count
        i, count = count % len(layers), count + 1  # all rows may be taken in blocks, each of which runs the network
        key_layer = jax.random.fold_in(key, i)
        if estimator == "local":
            spread = own[i] ** 2 * variance[index[i]]
            white = jax.random.normal(key_layer, layer.output.shape, layer.output.dtype)
            spread, white = lax.optimization_barrier((spread, white))  # else computed anew for every row
            return lax.optimization_barrier(
                layer.output + jnp.sqrt(layer.inputs**2 @ spread[:-1] + spread[-1][None]) * white
            )
        off = own[i] * (z - centre)[index[i]]
        key_in, key_out = jax.random.split(key_layer)
        s = jax.random.rademacher(key_in, layer.inputs.shape, layer.output.dtype)
        r = jax.random.rademacher(key_out, layer.output.shape, layer.output.dtype)
        return layer.output + ((layer.inputs * s) @ off[:-1] + off[-1][None]) * r

    with listening(hear):
        return problem.log_likelihood(centre, batch)
