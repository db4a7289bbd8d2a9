"""Prior draws from standard normals: one array of them for all sites, where a key a site would be a program a site."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, ExpandedDistribution, HalfNormal, Independent, Normal


def base_of(fn: Distribution) -> Any:
    """Return what ``fn`` spreads over plates and events."""
    while isinstance(fn, (Independent, ExpandedDistribution)):
        fn = fn.base_dist
    return fn


def from_normals(fn: Distribution, normals: jax.Array) -> jax.Array | None:
    """Return a draw from ``fn`` made of as many standard normals; None unless it is of (half-)Normals."""
    base, shape = base_of(fn), fn.shape()
    if type(base) is Normal:
        return jnp.broadcast_to(base.loc, shape) + jnp.broadcast_to(base.scale, shape) * normals
    if type(base) is HalfNormal:
        return jnp.broadcast_to(base.scale, shape) * jnp.abs(normals)
    return None
