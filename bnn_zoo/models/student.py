"""A network for a whole predictive distribution: mean, noise and epistemic spread in one pass."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro

from bnn_zoo.engine.identity import settings
from bnn_zoo.models.parts.likelihoods import heteroscedastic
from bnn_zoo.models.parts.network import check_dense, feed_forward
from bnn_zoo.models.parts.weight_priors import WeightPrior

LEAST = -40.0  # of an output whose exponential is taken: what float32 can square


@settings
class Student:
    """Fully connected network whose three outputs are the mean of y and two variances of it.

    ``(f, a, s) = h_K w_K + b_K``, ``y ~ Normal(f, exp(a) + softplus(s)²)``: ``exp(a)`` is the aleatoric variance, which
    more data would not shrink, ``softplus(s)`` the epistemic sd, which they would. Data tell only their sum, so that a
    fit to data is no use: `bnn_zoo.distill` trains it, on both as a teacher gives them.

    Where the epistemic sd is small, ``s`` is its log, which is what varies over decades; where it is large, far from
    data, ``s`` is the sd itself, so that beyond all inputs of its training the student's grows in a straight line, as
    that of a ReLU network does, and not exponentially.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers, one or more.
    activation : str
        relu, tanh, gelu, silu, sin or identity. One that is smooth and does not saturate fares best off the data: with
        tanh mean and sd stand still beyond the inputs of its training, where those of most teachers do not.

    Notes
    -----
    Sites: ``w_0 b_0 … w_K b_K``, ``y``, and ``outputs (n, 3)`` as computed: f and the logs of both variances. The
    prior, independent Normals of variance 1 / inputs (weights) and 1 (biases), is where training starts and nothing
    else.

    References
    ----------
    Korattikara, Rathod, Murphy & Welling (2015), Bayesian dark knowledge, section 2.2: a mean and one log variance.
    """

    hidden: tuple[int, ...] = (64, 64)
    activation: str = "silu"

    # Of every dense model: fixed here.
    weight_scale: ClassVar[float] = 1.0
    bias_scale: ClassVar[float] = 1.0
    fan_in: ClassVar[bool] = True
    prior: ClassVar[WeightPrior | None] = None

    def __post_init__(self) -> None:
        check_dense(self)

    def __call__(self, x: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """NumPyro program: inputs ``(n, d)``, targets ``(n,)`` or None for a draw of the predictive."""
        mean, aleatoric, raw = feed_forward(self, x, outputs=3).T
        epistemic = 2 * jnp.log(jax.nn.softplus(jnp.maximum(raw, LEAST)))
        numpyro.deterministic("outputs", jnp.stack([mean, aleatoric, epistemic], axis=1))
        return heteroscedastic(mean, jnp.logaddexp(aleatoric, epistemic), y)

    def stretched(self, sites: dict[str, jax.Array], scale: jax.Array, centre: jax.Array) -> dict[str, jax.Array]:
        """Return weights with which ``(f, a, s)`` are ``scale`` × what they are with these + ``centre``, ``(3,)``."""
        w, b = (f"{name}_{len(self.hidden)}" for name in "wb")
        return {**sites, w: sites[w] * scale[None, :], b: sites[b] * scale + centre}
