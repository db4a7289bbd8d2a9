"""``Architecture``: what a model says of itself so that moments can be sent through it.

A tap sees the dense layers of a network, but not what lies between them. A model whose layers run one after the other,
each a `bnn_zoo.models.parts.layers.dense`, says the rest here, as its attribute ``architecture``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """How a model's dense layers, in the order in which they run, make the distribution of y.

    The last layer is linear, and y is Normal about its first output.

    Attributes
    ----------
    activation : str
        Between layers: relu, tanh, gelu, silu, sin or identity.
    residual : bool
        Whether the layers between the first and the last add to a stream,
        ``h ← h + activation(h w + b) / √K``, rather than replace it.
    log_variance : bool
        Whether a second output is the log variance of y; otherwise it is the site ``noise``, or a fixed number.
    """

    activation: str
    residual: bool = False
    log_variance: bool = False
