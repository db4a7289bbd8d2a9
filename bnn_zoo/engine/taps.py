"""Listen to the dense layers of a network while it runs, without the network knowing who listens.

A layer hands its input and its pre-activation to `tap`, which gives the pre-activation back unchanged unless somebody
is `listening`. A method thereby gets what Kronecker factors need, the input of a layer and a place to differentiate at,
from any model made of `bnn_zoo.models.parts.layers.dense`. NumPyro never sees a tap, so samplers, guides and
``Predictive`` are not concerned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax

_local = threading.local()


@dataclass(frozen=True, eq=False)
class Tapped:
    """One affine layer as it ran: names of its sites, and arrays.

    Attributes
    ----------
    weight, bias : str
        Names of the sites ``(inputs, width)`` and ``(width,)``.
    inputs : jax.Array
        ``(rows, inputs)``.
    weights, biases : jax.Array
        Values of the sites.
    output : jax.Array
        Pre-activations ``(rows, width)``.
    """

    weight: str
    bias: str
    inputs: jax.Array
    weights: jax.Array
    biases: jax.Array
    output: jax.Array


Listener = Callable[[Tapped], jax.Array]


def tap(layer: Tapped) -> jax.Array:
    """Return the layer's pre-activations, as they are or as a listener wants them."""
    hear: Listener | None = getattr(_local, "hear", None)
    return layer.output if hear is None else hear(layer)


@contextmanager
def listening(hear: Listener) -> Iterator[None]:
    """Within the block, on this thread, every layer goes on with what ``hear`` returns."""
    before = getattr(_local, "hear", None)
    _local.hear = hear
    try:
        yield
    finally:
        _local.hear = before
