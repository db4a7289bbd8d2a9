"""The rank-1 guide: W = M ∘ (r sᵀ), with a point M and distributions of r and s alone (Dusenberry 2020, section 3).

All layers' factors are one vector, so that a mixture's component is one setting of every layer, as a member of an
ensemble is. The bound holds log p(M) of the model's own prior in place of a divergence of the weights, which have no
density of their own, and the divergence of the factors from Normals about 1. Biases are points.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from bnn_zoo.engine import curvature
from bnn_zoo.engine.density import Problem
from bnn_zoo.methods.variational.guides import Family, Programs, Reference


def rank1_programs(
    family: Family, problem: Problem, reference: Reference, latent: jax.Array, begin: jax.Array
) -> Programs:
    """Guide and prior over ``factors``, and over noise and scales, ``others``, where there are such."""
    layers = curvature.layers_of(problem)
    index = [curvature.coordinates(problem, layer) for layer in layers]
    others = np.setdiff1d(np.arange(problem.size), np.concatenate([where.reshape(-1) for where in index]))
    sizes = [(where.shape[0] - 1, where.shape[1]) for where in index]
    length = sum(a + b for a, b in sizes)
    normal = reference.base_dist

    def weights(centre: jax.Array, factors: jax.Array) -> jax.Array:
        z, start = centre, 0
        for where, (a, b) in zip(index, sizes, strict=True):
            r, s = factors[start : start + a], factors[start + a : start + a + b]
            z = z.at[where[:-1]].set(z[where[:-1]] * r[:, None] * s[None, :])
            start += a + b
        return z

    def with_others(centre: jax.Array, q: dist.Distribution) -> tuple[jax.Array, jax.Array]:
        drawn = numpyro.sample("others", q)
        return centre.at[others].set(drawn), drawn

    def guide() -> jax.Array:
        centre = numpyro.param("centre", latent)
        if others.size:
            spread = numpyro.param("others_scale", begin[others], constraint=constraints.softplus_positive)
            centre, _ = with_others(centre, dist.Normal(centre[others], spread).to_event(1))
        shape = (family.components, length)

        def apart(key: jax.Array) -> jax.Array:
            # Components begin apart by as much as the prior allows: equal ones would stay equal.
            off = jax.random.normal(key, shape, centre.dtype) if family.components > 1 else jnp.zeros(shape)
            return 1 + family.rank1_scale * off.astype(centre.dtype)

        loc = numpyro.param("factors_loc", apart)
        half = jnp.full(shape, 0.5 * family.rank1_scale, centre.dtype)
        scale = numpyro.param("factors_scale", half, constraint=constraints.softplus_positive)
        if family.components == 1:
            q: dist.Distribution = dist.Normal(loc[0], scale[0]).to_event(1)
        else:
            even = dist.Categorical(probs=jnp.full(family.components, 1 / family.components))
            q = dist.MixtureSameFamily(even, dist.Normal(loc, scale).to_event(1))
        return weights(centre, numpyro.sample("factors", q))

    def prior() -> tuple[jax.Array, jax.Array]:
        centre, rest = numpyro.param("centre", latent), jnp.zeros((), latent.dtype)
        if others.size:
            theirs = Reference(dist.Normal(normal.loc[others], normal.scale[others]), 1)
            centre, drawn = with_others(centre, theirs)
            rest = -theirs.log_prob(drawn)
        one = jnp.ones(length, latent.dtype)
        factors = numpyro.sample("factors", Reference(dist.Normal(one, family.rank1_scale * one), 1))
        with handlers.block():
            return weights(centre, factors), problem.log_prior(centre) + rest

    return Programs(guide, prior)
