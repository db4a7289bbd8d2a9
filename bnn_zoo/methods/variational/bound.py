"""The evidence lower bound of any model under any guide, estimated by NumPyro's ELBO on one compiled step.

With q the guide over the coordinates z and β the temperature,

    bound = E_q[ Σ_i log p(y_i | x_i, z) ] − β KL(q ‖ p),

the sum over a batch of b rows multiplied by n / b, and the divergence by nothing: it belongs to all rows, not to a
batch. The prior is split into independent Normals, exactly those that the model has, whose divergence from a Normal
guide has a closed form (NumPyro's ``TraceMeanField_ELBO``), and a rest (of a noise, of scales), which is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import lax
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, Normal
from numpyro.infer import TraceMeanField_ELBO

from bnn_zoo.engine.density import Batch, Problem
from bnn_zoo.methods.variational import noise
from bnn_zoo.methods.variational.guides import BlockNormal, Family, Reference, flatten, parameters, unflatten

ESTIMATORS = ("shared", "local", "flipout")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bound:
    """The objective that the training loop maximises; `bnn_zoo.engine.tasks.Objective` says what it asks.

    Attributes
    ----------
    loc, scale : Array
        ``(M, p)``: the Normals that stand for the prior, from `reference`.
    family : Family
        The guide.
    num_particles : int
        Draws a step.
    estimator : str
        How draws of the weights enter the likelihood: `ESTIMATORS`.
    temperature : float
        β.
    warm_steps : int
        Steps over which β rises from 0; 0 for none.
    beyond : tuple of str, optional
        Sites whose prior is not the one of ``loc`` and ``scale``, from `reference`; None: all of it is compared.
    """

    loc: jax.Array
    scale: jax.Array
    family: Family = field(metadata={"static": True})
    num_particles: int = field(default=1, metadata={"static": True})
    estimator: str = field(default="shared", metadata={"static": True})
    temperature: float = field(default=1.0, metadata={"static": True})
    warm_steps: int = field(default=0, metadata={"static": True})
    beyond: tuple[str, ...] | None = field(default=None, metadata={"static": True})

    rate = None
    random = True

    @property
    def shares_rows(self) -> bool:
        """Whether devices may hold some of the rows each: not where every row has noise of its own."""
        return self.estimator == "shared"

    def size(self, problem: Problem) -> int:
        """Number of parameters of the guide."""
        loc, scale = (jax.ShapeDtypeStruct((problem.size,), problem.x.dtype) for _ in range(2))
        key = jax.ShapeDtypeStruct((2,), jnp.uint32)
        return jax.eval_shape(partial(begin, self.family), problem, loc, scale, loc, key).shape[0]

    def objective(
        self,
        problem: Problem,
        z: jax.Array,
        where: jax.Array | None = None,
        key: jax.Array | None = None,
        step: jax.Array | None = None,
    ) -> jax.Array:
        """The bound for parameters ``z`` of the guide, estimated from the rows ``where``. Scalar."""
        batch = None if where is None else (problem.x[where], problem.y[where])
        beta: Any = self.temperature
        if self.warm_steps and step is not None:
            beta = beta * jnp.minimum((step + 1) / self.warm_steps, 1.0)
        return bound(self, problem, z, batch, jax.random.PRNGKey(0) if key is None else key, beta)

    def judge(self, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Nothing: a bound is judged by its draws, once they are made."""
        return jnp.zeros((), z.dtype), jnp.zeros((1,), z.dtype)


# NumPyro's low-rank Normals and block flows add vectors to matrices, which this package forbids itself in its tests.
_numpyro = partial(jax.numpy_rank_promotion, "allow")


@_numpyro()
def bound(
    settings: Bound, problem: Problem, flat: jax.Array, batch: Batch | None, key: jax.Array, beta: jax.Array | float
) -> jax.Array:
    """Estimate the bound at guide parameters ``flat``."""
    programs, values = at(settings.family, problem, settings.loc, settings.scale, flat, settings.beyond)

    def guide() -> None:
        with handlers.scale(scale=beta):
            programs.guide()

    def model() -> None:
        with handlers.scale(scale=beta):
            z, rest = programs.prior()
        # Without the barrier XLA draws the random numbers in z anew for every row that z is multiplied with.
        z = lax.optimization_barrier(z)
        key = numpyro.prng_key()
        with handlers.block():  # the model's own sites are none of the bound's
            if settings.estimator == "shared":
                likelihood = problem.log_likelihood(z, batch)
            else:
                q = latent_distribution(programs, values)
                likelihood = noise.log_likelihood(settings.estimator, problem, z, q.mean, q.variance, batch, key)
        numpyro.factor("beyond", likelihood + beta * rest)

    loss = TraceMeanField_ELBO(num_particles=settings.num_particles)
    return -loss.loss(key, values, model, guide)


def at(
    family: Family,
    problem: Problem,
    loc: jax.Array,
    scale: jax.Array,
    flat: jax.Array,
    beyond: tuple[str, ...] | None = None,
) -> tuple[Any, dict]:
    """Return the programs of a guide, and the constrained values of its parameters ``flat``."""
    reference_ = Reference(Normal(loc, scale), 1)
    programs = family.programs(problem, reference_, jnp.zeros_like(loc), beyond)
    like, maps = _shapes(programs)
    raw = unflatten(flat, like)
    return programs, lax.optimization_barrier({name: jax.tree.map(maps[name], raw[name]) for name in raw})


def latent_distribution(programs: Any, values: dict) -> Any:
    """Return the distribution of ``z`` under a guide that samples ``z`` itself."""
    seeded = handlers.seed(handlers.substitute(programs.guide, data=values), jax.random.PRNGKey(0))
    return handlers.trace(seeded).get_trace()["z"]["fn"]


def _shapes(programs: Any) -> tuple[dict, dict]:
    """Shapes of the unconstrained parameters and the maps that constrain them, without computing anything."""
    kept: dict[str, Any] = {}

    def look(key: jax.Array) -> dict:
        raw, kept["maps"] = parameters(programs, key)
        return raw

    like = jax.eval_shape(look, jax.ShapeDtypeStruct((2,), jnp.uint32))
    return like, kept["maps"]


# --- compiled programs ----------------------------------------------------------------------------------------------


@_numpyro()
def begin(
    family: Family, problem: Problem, loc: jax.Array, scale: jax.Array, latent: jax.Array, key: jax.Array
) -> jax.Array:
    """Guide parameters where training begins, about ``latent (p,)``."""
    programs = family.programs(problem, Reference(Normal(loc, scale), 1), latent)
    values = parameters(programs, key)[0]
    if family.name == "iaf":
        # With small weights a flow begins near the identity; as NumPyro draws them, a hundred coordinates explode.
        values = {name: jax.tree.map(lambda a: 0.1 * a, v) if "arn" in name else v for name, v in values.items()}
    return flatten(values)


def begin_all(
    family: Family, problem: Problem, loc: jax.Array, scale: jax.Array, latent: jax.Array, key: jax.Array
) -> jax.Array:
    """`begin` for every restart: ``(M, p)`` to ``(M, size)``."""
    keys = jax.random.split(key, latent.shape[0])
    return lax.map(lambda one: begin(family, problem, loc, scale, *one), (latent, keys))


@_numpyro()
def draw(
    family: Family,
    num_samples: int,
    problem: Problem,
    loc: jax.Array,
    scale: jax.Array,
    flat: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Draws ``(S, p)`` of z, and their log densities ``(S,)``, not a number where there are none."""
    programs, values = at(family, problem, loc, scale, flat)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        seeded = handlers.seed(handlers.substitute(programs.guide, data=values), key)
        tracer = handlers.trace(seeded)
        z = tracer()
        if not family.has_density:
            return z, jnp.full((), jnp.nan, z.dtype)
        site = tracer.trace["z"]
        seen = site["intermediates"]
        return z, site["fn"].log_prob(z, seen) if seen else site["fn"].log_prob(z)

    return lax.map(one, jax.random.split(key, num_samples))


def moments(
    family: Family, problem: Problem, loc: jax.Array, scale: jax.Array, flat: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Mean ``(p,)`` of z, and its variances ``(p,)`` or the covariance's factor of every block."""
    q = latent_distribution(*at(family, problem, loc, scale, flat))
    return q.mean, q.factors if isinstance(q, BlockNormal) else [q.variance]


def slopes(settings: Bound, num: int, problem: Problem, flat: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Norm of the mean, and of the standard deviation, of ``num`` estimates of the gradient at ``flat``."""

    def one(key: jax.Array) -> jax.Array:
        return jax.grad(lambda z: settings.objective(problem, z, key=key))(flat)

    found = lax.map(one, jax.random.split(key, num))
    return jnp.linalg.norm(found.mean(0)), jnp.linalg.norm(found.std(0))


def reference(problem: Problem, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Means and sds ``(p,)`` of the sites whose prior is Normal whatever the others are; 0 and 1 for all others.

    A site's distribution is taken not to depend on others when it is the same at two draws of them. The third array
    says where that is so.
    """

    def seen(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        trace = handlers.trace(handlers.seed(problem.model, key)).get_trace(problem.x[:1], problem.y[:1])
        parts = []
        for slot in problem.layout.slots:
            fn = trace[slot.name]["fn"]
            while isinstance(fn, (Independent, ExpandedDistribution)):
                fn = fn.base_dist
            normal = type(fn) is dist.Normal
            loc, scale = (fn.loc, fn.scale) if normal else (0.0, 1.0)
            parts.append(
                [
                    jnp.broadcast_to(jnp.asarray(a, problem.x.dtype), slot.shape).reshape(-1)
                    for a in (loc, scale, normal)
                ]
            )
        return tuple(jnp.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]

    one, other = (seen(k) for k in jax.random.split(key))
    same = (one[0] == other[0]) & (one[1] == other[1])
    return jnp.where(same, one[0], 0.0), jnp.where(same, one[1], 1.0), same & (one[2] == 1)


def sites_beyond(problem: Problem, exact: Any) -> tuple[str, ...] | None:
    """Names of the sites whose prior is not the reference; None where factors are part of the prior too."""
    trace = handlers.trace(handlers.seed(problem.model, jax.random.PRNGKey(0)))
    factors: list[str] = []

    def look(x: jax.Array, y: jax.Array) -> None:
        found = trace.get_trace(x, y)
        factors.extend(name for name, site in found.items() if isinstance(site.get("fn"), dist.Unit))

    jax.eval_shape(look, problem.x, problem.y)
    return None if factors else tuple(slot.name for slot in problem.layout.slots if not exact[slot.where].all())
