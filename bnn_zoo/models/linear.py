"""Bayesian linear regression: the model whose posterior is known in closed form."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import jax

from bnn_zoo.engine.architecture import Architecture
from bnn_zoo.engine.identity import settings
from bnn_zoo.models.parts.hyper import Scale, check_scale, default_noise
from bnn_zoo.models.parts.layers import dense
from bnn_zoo.models.parts.likelihoods import gaussian
from bnn_zoo.models.parts.network import check_scales, draw_scales


@settings
class Linear:
    """Bayesian linear regression, ``f(x) = x·w + b``: the closed-form reference.

    ``w ~ Normal(0, weight_scale²)``, with no fan-in scaling, ``b ~ Normal(0, bias_scale²)``.

    Parameters
    ----------
    weight_scale : float or Distribution
        σ_p, fixed, or its prior (site ``weight_scale``).
    bias_scale : float, Distribution or None
        The same for the bias; ``None`` means the weights' own.
    noise : float or Distribution
        Standard deviation σ_n of an observation, fixed, or its prior (site ``noise``).

    Notes
    -----
    Sites: ``w_0`` of shape ``(d, 1)``, ``b_0`` of shape ``(1,)``, ``noise``, ``y``.

    References
    ----------
    Bishop (2006), Pattern Recognition and Machine Learning, section 3.3.
    """

    weight_scale: Scale = 1.0
    bias_scale: Scale | None = None
    noise: Scale = field(default_factory=default_noise)

    sites_in_target_units: ClassVar[tuple[str, ...]] = ("noise",)

    def __post_init__(self) -> None:
        check_scales(self.weight_scale, self.bias_scale)
        check_scale("noise", self.noise)

    @property
    def architecture(self) -> Architecture:
        return Architecture("identity")

    def __call__(self, x: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """NumPyro program: inputs ``(n, d)``, targets ``(n,)`` or None for a prior predictive draw."""
        weight_scale, bias_scale = draw_scales(self.weight_scale, self.bias_scale)
        f = dense(0, x, 1, weight_scale=weight_scale, bias_scale=bias_scale, fan_in=False)
        return gaussian(f[:, 0], y, self.noise)
