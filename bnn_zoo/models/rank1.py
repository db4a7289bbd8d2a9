"""A network whose weights are a matrix times random factors of its inputs and outputs."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist

from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.taps import Tapped, tap
from bnn_zoo.errors import check_positive
from bnn_zoo.models.parts.hyper import Scale, check_scale, default_noise
from bnn_zoo.models.parts.layers import ACTIVATIONS, weight
from bnn_zoo.models.parts.likelihoods import gaussian
from bnn_zoo.models.parts.network import check_dense, draw_scales


@settings
class Rank1MLP:
    """Fully connected network with weights ``w_i ∘ (r_i s_iᵀ)``: a factor a unit, from each side.

    ``h_{i+1} = activation(((h_i ∘ r_i) w_i) ∘ s_i + b_i)``, weights and biases as in `MLP`, and
    ``r_i ~ Normal(1, rank1_scale²)`` of a layer's inputs, ``s_i ~ Normal(1, rank1_scale²)`` of its outputs.

    Every site has a posterior here, so any method applies. The guide ``"rank1"`` of `bnn_zoo.methods.VI` is the other
    thing of this name: it makes points of the matrices of any dense model, and gives only the factors a distribution.

    Parameters
    ----------
    hidden, activation, weight_scale, bias_scale, fan_in, noise
        As in `MLP`.
    rank1_scale : float
        Prior standard deviation of the factors, about 1.

    Notes
    -----
    Sites: ``w_0 r_0 s_0 b_0 … w_K r_K s_K b_K``, ``noise``, ``y``. The factors and the matrix are not identified apart.

    References
    ----------
    Dusenberry et al. (2020), Efficient and scalable Bayesian neural nets with rank-1 factors, section 3.
    """

    hidden: tuple[int, ...] = (50,)
    activation: str = "relu"
    weight_scale: Scale = 1.0
    bias_scale: Scale | None = None
    fan_in: bool = True
    noise: Scale = field(default_factory=default_noise)
    rank1_scale: float = 0.1

    sites_in_target_units: ClassVar[tuple[str, ...]] = ("noise",)

    def __post_init__(self) -> None:
        check_dense(self)
        check_scale("noise", self.noise)
        check_positive("rank1_scale", self.rank1_scale, "0.1 is the paper's.")

    def __call__(self, x: jax.Array, y: jax.Array | None = None) -> jax.Array:
        """NumPyro program: inputs ``(n, d)``, targets ``(n,)`` or None for a prior predictive draw."""
        weight_scale, bias_scale = draw_scales(self.weight_scale, self.bias_scale)
        h = x
        for i, width in enumerate((*self.hidden, 1)):
            inputs = h.shape[1]
            shrink = inputs**-0.5 if self.fan_in else 1.0
            w = weight(f"w_{i}", (inputs, width), weight_scale * shrink)
            r, s = self._factor(f"r_{i}", inputs), self._factor(f"s_{i}", width)
            b = weight(f"b_{i}", (width,), bias_scale)
            whole = w * r[:, None] * s[None, :]
            # Two vector products cost less than the product of whole matrices that it stands for.
            out = ((h * r[None, :]) @ w) * s[None, :] + b[None, :]
            h = tap(Tapped(f"w_{i}", f"b_{i}", h, whole, b, out))
            if i < len(self.hidden):
                h = ACTIVATIONS[self.activation](h)
        return gaussian(h[:, 0], y, self.noise)

    def _factor(self, name: str, size: int) -> jax.Array:
        return numpyro.sample(name, dist.Normal(jnp.ones(size), self.rank1_scale).to_event(1))
