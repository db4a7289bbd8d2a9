"""Priors of weights other than independent Normals of one scale: what a dense model takes as ``prior=``."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist

from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import bad_type, bad_value, check_between, check_positive


class WeightPrior(Protocol):
    """A frozen dataclass that draws the weights of a layer."""

    def draw(self, name: str, shape: tuple[int, ...], shrink: float) -> jax.Array:
        """Draw the site ``name`` of this shape, its scale multiplied by ``shrink``."""
        ...


@settings
class ScaleMixture:
    """Every weight from a wide or, with the rest of the probability, a narrow Normal about 0.

    ``w ~ share · Normal(0, wide²) + (1 − share) · Normal(0, narrow²)``: many weights near 0, a few free. Not
    log-concave, so that a Gauss-Newton Laplace approximation may be refused, and not Normal, so that anchored ensembles
    do not apply.

    Parameters
    ----------
    share : float
        Probability of the wide one.
    wide, narrow : float
        Standard deviations; a model with ``fan_in=True`` divides both by the root of a layer's inputs.

    References
    ----------
    Blundell et al. (2015), Weight uncertainty in neural networks, equation 7.
    """

    share: float = 0.5
    wide: float = 1.0
    narrow: float = 0.01

    def __post_init__(self) -> None:
        check_between("share", self.share, 0, 1, "0.5 is usual.")
        check_positive("wide", self.wide, "1 is usual.")
        check_positive("narrow", self.narrow, "0.01 is usual.")
        if self.narrow >= self.wide:
            raise bad_value("narrow", f"below wide={self.wide}", self.narrow, "Swap them.")

    def draw(self, name: str, shape: tuple[int, ...], shrink: float) -> jax.Array:
        scales = jnp.asarray([self.wide * shrink, self.narrow * shrink], jnp.result_type(float))
        parts = dist.Normal(jnp.zeros((*shape, 2)), jnp.broadcast_to(scales, (*shape, 2)))
        which = dist.Categorical(probs=jnp.broadcast_to(jnp.asarray([self.share, 1 - self.share]), (*shape, 2)))
        return numpyro.sample(name, dist.MixtureSameFamily(which, parts).to_event(len(shape)))


def check_prior(prior: object, weight_scale: object, bias_scale: object) -> None:
    """Raise unless ``prior`` can draw weights, and no scale is given beside it."""
    if prior is None:
        return
    if isinstance(prior, type) or not hasattr(prior, "draw"):
        raise bad_type("prior", "an object of zoo.priors", repr(prior), "prior=zoo.priors.ScaleMixture(), say.")
    if weight_scale != 1.0 or bias_scale is not None:
        got = f"weight_scale={weight_scale!r}, bias_scale={bias_scale!r}"
        raise bad_value("prior", "without scales beside it", got, "Set scales in the prior.")
