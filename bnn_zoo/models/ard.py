"""A network that learns which inputs matter."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import jax
import numpyro
from numpyro import distributions as dist

from bnn_zoo.engine.architecture import Architecture
from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import bad_type
from bnn_zoo.models.parts.hyper import Scale, check_scale, default_noise
from bnn_zoo.models.parts.likelihoods import gaussian
from bnn_zoo.models.parts.network import check_dense, feed_forward


def _default_relevance() -> dist.Distribution:
    return dist.HalfCauchy(1.0)


@settings
class ARDMLP:
    """Fully connected network with a scale for each input: automatic relevance determination.

    ``relevance_j ~ relevance``, and the first layer's weights from input ``j`` are
    ``Normal(0, relevance_j² weight_scale² / inputs)``, drawn non-centred. An input that does not matter gets a small
    ``relevance``, to be read off ``posterior.draws["relevance"]`` of shape ``(C, S, d)``.

    Parameters
    ----------
    hidden, activation, weight_scale, bias_scale, fan_in, noise
        As in `MLP`.
    relevance : Distribution
        Prior of one input's scale. The half-Cauchy has mass near 0 and heavy tails: few inputs, strongly used.

    References
    ----------
    MacKay (1994), Bayesian nonlinear modelling for the prediction competition; Neal (1996), section 4.3. They put a
    Gamma prior on the precision; the half-Cauchy on the scale is after Gelman (2006).
    """

    hidden: tuple[int, ...] = (50,)
    activation: str = "relu"
    weight_scale: Scale = 1.0
    bias_scale: Scale | None = None
    fan_in: bool = True
    noise: Scale = field(default_factory=default_noise)
    relevance: dist.Distribution = field(default_factory=_default_relevance)

    sites_in_target_units: ClassVar[tuple[str, ...]] = ("noise",)

    def __post_init__(self) -> None:
        check_dense(self)
        check_scale("noise", self.noise)
        if not isinstance(self.relevance, dist.Distribution):
            raise bad_type("relevance", "a NumPyro distribution", repr(self.relevance), "A fixed scale is an MLP's.")
        check_scale("relevance", self.relevance)

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.activation)

    def __call__(self, x: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """NumPyro program: inputs ``(n, d)``, targets ``(n,)`` or None for a prior predictive draw."""
        relevance = numpyro.sample("relevance", self.relevance.expand((x.shape[1],)).to_event(1))
        f = feed_forward(self, x, outputs=1, input_scale=relevance[:, None])
        return gaussian(f[:, 0], y, self.noise)
