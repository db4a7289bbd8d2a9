"""Likelihoods: the only place where y is observed, at the site ``y``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist

from bnn_zoo.errors import bad_value
from bnn_zoo.models.parts.hyper import Scale, hyper


def gaussian(mean: jax.Array, y: jax.Array | None, noise: Scale) -> jax.Array:
    """Observe ``y ~ Normal(mean, noise²)``, both ``(n,)``; ``noise`` with a prior becomes the site ``noise``."""
    _check_shape(mean, y)
    return numpyro.sample("y", dist.Normal(mean, hyper("noise", noise)), obs=y)


def heteroscedastic(mean: jax.Array, log_variance: jax.Array, y: jax.Array | None) -> jax.Array:
    """Observe ``y ~ Normal(mean, exp(log_variance))``, all ``(n,)``."""
    _check_shape(mean, y)
    return numpyro.sample("y", dist.Normal(mean, jnp.exp(0.5 * log_variance)), obs=y)


def _check_shape(mean: jax.Array, y: jax.Array | None) -> None:
    if y is not None and jnp.shape(y) != mean.shape:
        raise bad_value("y", f"of shape {mean.shape}, one target a row", jnp.shape(y), "Flatten it: y.ravel().")
