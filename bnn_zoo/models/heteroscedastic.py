"""A network for the mean and for the noise."""

from __future__ import annotations

import jax

from bnn_zoo.engine.architecture import Architecture
from bnn_zoo.engine.identity import settings
from bnn_zoo.models.parts.hyper import Scale
from bnn_zoo.models.parts.likelihoods import heteroscedastic
from bnn_zoo.models.parts.network import check_dense, feed_forward
from bnn_zoo.models.parts.weight_priors import WeightPrior


@settings
class HeteroscedasticMLP:
    """Fully connected network whose two outputs are the mean and the log variance of y.

    ``(f, s) = h_K w_K + b_K``, ``y ~ Normal(f, exp(s))``; layers and priors as in `MLP`.

    Parameters
    ----------
    hidden, activation, weight_scale, bias_scale, fan_in, prior
        As in `MLP`. There is no ``noise``: the network gives it.

    Notes
    -----
    Sites: ``w_0 b_0 … w_K b_K``, ``y``. A priori the log variance is centred on 0: a noise of 1 on the scale that the
    model sees.

    References
    ----------
    Nix & Weigend (1994), Estimating the mean and variance of the target probability distribution.
    """

    hidden: tuple[int, ...] = (50,)
    activation: str = "relu"
    weight_scale: Scale = 1.0
    bias_scale: Scale | None = None
    fan_in: bool = True
    prior: WeightPrior | None = None

    def __post_init__(self) -> None:
        check_dense(self)

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.activation, log_variance=True)

    def __call__(self, x: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """NumPyro program: inputs ``(n, d)``, targets ``(n,)`` or None for a prior predictive draw."""
        outputs = feed_forward(self, x, outputs=2)
        return heteroscedastic(outputs[:, 0], outputs[:, 1], y)
