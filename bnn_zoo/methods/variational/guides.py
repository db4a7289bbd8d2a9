"""Families of distributions over the flat coordinates ``z``, as NumPyro guides.

Where NumPyro has an automatic guide its parameters and distribution are used; `Spherical` and `Layerwise` are automatic
guides of the same make for what it lacks. A guide samples one site ``z`` of length p, whatever sites the model has, so
that structures by layer are index sets, as everywhere in this package. NumPyro's own set-up of a guide, which searches
for an initial point and compiles, is not run: the initial point is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints, kl_divergence
from numpyro.distributions.transforms import biject_to
from numpyro.infer import autoguide

from bnn_zoo.engine import curvature
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.identity import settings

INITIAL_SHARE = 0.1  # of the prior's sd, at which a guide begins
NAMES = ("spherical", "mean_field", "layerwise", "low_rank", "full_rank", "rank1", "iaf", "bnaf")


class Reference(dist.Independent):
    """Independent Normals that stand for the prior in closed-form divergences, of a type of our own.

    Divergences from guides to it can then be registered without touching what NumPyro's own types do.
    """


class BlockNormal(dist.Distribution):
    """A Normal over p coordinates with independent blocks of them, each with every covariance.

    Parameters
    ----------
    loc : jax.Array
        ``(p,)``.
    factors : list of jax.Array
        Lower Cholesky factor ``(k, k)`` of each block's covariance.
    index : list of ndarray
        ``(k,)``: the coordinates of each block; every coordinate is in one.
    """

    arg_constraints: ClassVar = {"loc": constraints.real_vector}
    support = constraints.real_vector
    reparametrized_params: ClassVar = ["loc"]

    def __init__(self, loc: jax.Array, factors: list[jax.Array], index: list[np.ndarray]) -> None:
        self.loc, self.factors, self.index = loc, factors, index
        super().__init__(event_shape=jnp.shape(loc))

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draw ``(*sample_shape, p)``."""
        white = jax.random.normal(key, (*sample_shape, *self.event_shape), self.loc.dtype)
        z = jnp.broadcast_to(self.loc, white.shape)
        for where, factor in zip(self.index, self.factors, strict=True):
            z = z.at[..., where].add(white[..., where] @ factor.T)
        return z

    def log_prob(self, value: jax.Array, intermediates: Any = None) -> jax.Array:
        """Log density at ``value (..., p)``."""
        total = -self.entropy() + 0.5 * self.event_shape[0]
        for where, factor in zip(self.index, self.factors, strict=True):
            off = (value - self.loc)[..., where]
            white = jax.scipy.linalg.solve_triangular(factor, off[..., None], lower=True)[..., 0]
            total = total - 0.5 * jnp.sum(white**2, axis=-1)
        return total

    @property
    def mean(self) -> jax.Array:
        """``(p,)``."""
        return self.loc

    @property
    def variance(self) -> jax.Array:
        """``(p,)``."""
        found = jnp.zeros_like(self.loc)
        for where, factor in zip(self.index, self.factors, strict=True):
            found = found.at[where].set(jnp.sum(factor**2, axis=1))
        return found

    def entropy(self) -> jax.Array:
        """Differential entropy."""
        p = self.event_shape[0]
        log_det = sum(jnp.sum(jnp.log(jnp.diagonal(factor))) for factor in self.factors)
        return 0.5 * p * (1 + jnp.log(2 * jnp.pi)) + log_det


def _normal_to_reference(q: Any, p: Reference) -> jax.Array:
    """KL(q ‖ p) of a Normal with any covariance: it needs the entropy and marginal moments of q alone."""
    loc, scale = p.base_dist.loc, p.base_dist.scale
    cross = jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi) + 0.5 * (q.variance + (q.mean - loc) ** 2) / scale**2
    return jnp.sum(cross) - q.entropy()


for _family in (dist.MultivariateNormal, dist.LowRankMultivariateNormal, BlockNormal):
    kl_divergence.register(_family, Reference)(_normal_to_reference)


# --- guides -----------------------------------------------------------------------------------------------------------


class Given:
    """Mixed into an automatic guide: the initial point is given, and ``z`` itself is what is sampled."""

    def place(self, latent: jax.Array, scale: jax.Array) -> Any:
        """Set where the guide begins: mean ``(p,)`` and standard deviations ``(p,)``."""
        self._init_latent, self.latent_dim, self._init_scale = latent, latent.shape[0], scale
        return self

    def __call__(self) -> jax.Array:
        posterior = self._get_posterior()  # type: ignore[attr-defined]
        missing = 1 - len(posterior.event_shape)
        return numpyro.sample("z", posterior.to_event(missing) if missing else posterior)


class MeanField(Given, autoguide.AutoDiagonalNormal):
    """Independent Normals, standard deviations by softplus (Blundell 2015, section 3.2)."""


class FullRank(Given, autoguide.AutoMultivariateNormal):
    """One Normal with every covariance."""

    def place(self, latent: jax.Array, scale: jax.Array) -> Any:
        """As `Given.place`; the factor begins diagonal."""
        return super().place(latent, scale[None, :])


class LowRank(Given, autoguide.AutoLowRankMultivariateNormal):
    """A Normal whose covariance is of low rank plus a diagonal."""


class Spherical(Given, autoguide.AutoContinuous):
    """A Normal with one standard deviation for all coordinates."""

    scale_constraint = constraints.softplus_positive

    def _get_posterior(self) -> dist.Distribution:
        loc = numpyro.param("auto_loc", self._init_latent)
        begin = jnp.exp(jnp.mean(jnp.log(self._init_scale)))
        scale = numpyro.param("auto_scale", begin, constraint=self.scale_constraint)
        return dist.Normal(loc, jnp.broadcast_to(scale, loc.shape))


class Layerwise(Given, autoguide.AutoContinuous):
    """A Normal with every covariance in a layer, and independence between layers; noise and scales are one block."""

    scale_tril_constraint = constraints.scaled_unit_lower_cholesky
    blocks: tuple[np.ndarray, ...] = ()

    def _get_posterior(self) -> dist.Distribution:
        loc = numpyro.param("auto_loc", self._init_latent)
        factors = [
            numpyro.param(f"auto_factor_{i}", jnp.diag(self._init_scale[where]), constraint=self.scale_tril_constraint)
            for i, where in enumerate(self.blocks)
        ]
        return BlockNormal(loc, factors, list(self.blocks))


class Flowing(Given):
    """Mixed into a flow guide: an affine map after the flow, so that it begins where it is told to."""

    def _get_posterior(self) -> dist.Distribution:
        flow = super()._get_posterior()  # type: ignore[misc]
        loc = numpyro.param("auto_loc", self._init_latent)
        scale = numpyro.param("auto_scale", self._init_scale, constraint=constraints.softplus_positive)
        affine = dist.transforms.IndependentTransform(dist.transforms.AffineTransform(loc, scale), 1)
        return dist.TransformedDistribution(flow.base_dist, [*flow.transforms, affine])


class IAF(Flowing, autoguide.AutoIAFNormal):
    """Inverse autoregressive flow (Kingma 2016)."""


class BNAF(Flowing, autoguide.AutoBNAFNormal):
    """Block neural autoregressive flow (De Cao 2019)."""


# --- the pair of programs that a bound needs --------------------------------------------------------------------------


class Programs(NamedTuple):
    """A guide, and the prior over the sites that it samples.

    Attributes
    ----------
    guide : Callable
        NumPyro program; returns ``z (p,)``.
    prior : Callable
        NumPyro program over the same sites; returns ``z`` and what the log prior of ``z`` is beyond that of the sites.
    """

    guide: Callable[[], jax.Array]
    prior: Callable[[], tuple[jax.Array, jax.Array]]


@settings
class Family:
    """A family by name, with its size: what a compiled program depends on.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    rank : int
        Of ``low_rank``.
    components : int
        Of the mixture of ``rank1``.
    rank1_scale : float
        Standard deviation of the prior of the factors r and s of ``rank1``, about 1.
    """

    name: str
    rank: int = 10
    components: int = 1
    rank1_scale: float = 0.1

    @property
    def has_density(self) -> bool:
        """Whether draws of ``z`` have a density; those of ``rank1`` lie on a surface."""
        return self.name != "rank1"

    @property
    def is_factorised(self) -> bool:
        """Whether coordinates are independent Normals."""
        return self.name in ("spherical", "mean_field")

    def programs(
        self, problem: Problem, reference: Reference, latent: jax.Array, beyond: tuple[str, ...] | None = None
    ) -> Programs:
        """Return guide and prior for coordinates that begin at ``latent (p,)``.

        ``beyond`` names the sites whose prior is not the reference; None where that is not known.
        """
        begin = INITIAL_SHARE * reference.base_dist.scale
        if self.name == "rank1":
            from bnn_zoo.methods.variational.rank1 import rank1_programs

            return rank1_programs(self, problem, reference, latent, begin)

        def prior() -> tuple[jax.Array, jax.Array]:
            z = numpyro.sample("z", reference)
            with handlers.block():
                if beyond is None:
                    return z, problem.log_prior(z) - reference.log_prob(z)
                rest = problem.log_prior_of(z, beyond)
                for slot in problem.layout.slots:
                    if slot.name in beyond:
                        rest -= jnp.sum(reference.base_dist.log_prob(z)[slot.where])
                return z, rest

        return Programs(self._guide(problem).place(latent, begin), prior)

    def _guide(self, problem: Problem) -> Any:
        def nothing() -> None: ...

        if self.name == "low_rank":
            return LowRank(nothing, rank=self.rank)
        if self.name == "layerwise":
            guide = Layerwise(nothing)
            guide.blocks = tuple(blocks_of(problem))
            return guide
        if self.name == "iaf":
            return IAF(nothing, num_flows=2, hidden_dims=[problem.size, problem.size])
        if self.name == "bnaf":
            return BNAF(nothing, num_flows=1, hidden_factors=[4, 4])
        return {"spherical": Spherical, "mean_field": MeanField, "full_rank": FullRank}[self.name](nothing)


def blocks_of(problem: Problem) -> list[np.ndarray]:
    """Coordinates of each layer, and of all that is no layer's; of each site, where a model has no layers."""
    layers = curvature.layers_of(problem)
    every = np.arange(problem.size)
    if not layers:
        return [every[slot.where] for slot in problem.layout.slots]
    found = [curvature.coordinates(problem, layer).reshape(-1) for layer in layers]
    rest = np.setdiff1d(every, np.concatenate(found))
    return [*found, rest] if rest.size else found


# --- parameters as one vector -----------------------------------------------------------------------------------------


def parameters(programs: Programs, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of the parameters of a guide where it begins, unconstrained, and the maps that constrain them."""
    found = handlers.trace(handlers.seed(programs.guide, key)).get_trace()
    maps = {
        name: biject_to(site["kwargs"].get("constraint", constraints.real))
        for name, site in found.items()
        if site["type"] == "param"
    }
    return {name: jax.tree.map(maps[name].inv, found[name]["value"]) for name in maps}, maps


def flatten(tree: Any) -> jax.Array:
    """All arrays of a tree, one behind the other."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def unflatten(flat: jax.Array, like: Any) -> Any:
    """Arrays of the shapes of ``like`` out of one vector."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([0, *(int(np.prod(leaf.shape)) for leaf in leaves)])
    parts = [flat[a:b].reshape(leaf.shape) for a, b, leaf in zip(ends, ends[1:], leaves, strict=False)]
    return jax.tree.unflatten(structure, parts)
