"""``Problem``: a NumPyro model joined with data. It is all that a method ever sees.

Any callable ``model(x, y=None)`` with one observed site and global latents works as it is: its density, its
transforms and its predictive distribution are read off NumPyro traces. A mini-batch is scaled from outside, by an
effect handler on the observed site, so a model knows nothing of batches.

A ``Problem`` is a pytree whose leaves are the data. Compiled programs take it as an argument, so other data of the
same shape, or an equal model, compile nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from jax.sharding import PartitionSpec
from numpyro import handlers
from numpyro.distributions import Distribution, Unit, biject_to
from numpyro.distributions.util import sum_rightmost
from numpyro.primitives import Messenger

from bnn_zoo.engine.layout import Layout
from bnn_zoo.engine.likelihood import Likelihood, unwrap
from bnn_zoo.engine.normals import from_normals
from bnn_zoo.errors import bad_value

Batch = tuple[jax.Array, jax.Array]

MAX_START_TRIES = 100
MOST_AT_ONCE = 2**16  # rows; beyond, all rows are taken in blocks, so that memory does not grow with them
BLOCK_ROWS = 2**13
DATA = "data"  # the axis of a mesh of devices that share rows


def is_data_site(site: dict) -> bool:
    """Whether a trace entry is an observation (``numpyro.factor`` is not: it counts as prior)."""
    return site["type"] == "sample" and site["is_observed"] and not isinstance(site["fn"], Unit)


class scale_observed(Messenger):
    """Effect handler that multiplies the log likelihood, and nothing else, by ``factor``."""

    def __init__(self, fn: Callable, factor: float | jax.Array) -> None:
        self.factor = factor
        super().__init__(fn)

    def process_message(self, msg: dict) -> None:
        """Scale the message of an observed site."""
        if msg["type"] == "sample" and msg["is_observed"] and not isinstance(msg["fn"], Unit):
            msg["scale"] = self.factor if msg["scale"] is None else msg["scale"] * self.factor


class Rows(Protocol):
    """More rows than fit in memory, of which a problem holds some at a time."""

    @property
    def num_rows(self) -> int:
        """All of them."""
        ...

    def at(self, index: int) -> Batch:
        """Rows ``index`` of a shuffled order, as many as the problem holds."""
        ...

    def in_turn(self) -> Iterator[Batch]:
        """All rows once, some at a time."""
        ...


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("x", "y", "rows_each"),
    meta_fields=("model", "layout", "observed", "reported", "shared"),
    drop_fields=("source",),
)
@dataclass(frozen=True)
class Problem:
    """A model and its data, as one density over a flat unconstrained vector ``z`` of length ``p``.

    Build it with `bnn_zoo.engine.checks.join`, which checks model and data first.

    Attributes
    ----------
    x : jax.Array
        Inputs ``(n, d)``, on the scale that the model sees.
    y : jax.Array
        Targets ``(n,)``, likewise.
    model : Callable
        The NumPyro program. Hashable; equal models share compiled programs.
    layout : Layout
        Where each latent site lies in ``z``.
    observed : str
        Name of the observed site.
    reported : tuple of str
        Sites that a user reads: latents, and deterministic sites whose shape does not depend on the rows.
    rows_each : jax.Array, optional
        How many of all rows each row here stands for, where there are more rows than these. The likelihood is
        multiplied by it, so that all densities are unbiased estimates, over which rows are here, of those of all rows.
    source : Rows, optional
        Where those come from. Compiled programs do not see it.
    shared : bool
        Whether devices hold some of the rows each, along the axis ``"data"`` of the mesh that a program runs on.
    """

    x: jax.Array
    y: jax.Array
    model: Callable
    layout: Layout
    observed: str
    reported: tuple[str, ...]
    rows_each: jax.Array | None = None
    source: Rows | None = field(default=None, compare=False)
    shared: bool = False

    @property
    def size(self) -> int:
        """Number ``p`` of unconstrained coordinates."""
        return self.layout.size

    @property
    def num_rows(self) -> int:
        """Number ``n`` of rows that are here."""
        return self.y.shape[0]

    @property
    def total_rows(self) -> Any:
        """Number of rows that the densities speak for: ``n``, or a scalar array where only some are here."""
        return self.num_rows if self.rows_each is None else self.num_rows * self.rows_each

    def standing_for(self, total: int) -> Problem:
        """The same problem, its rows standing for ``total`` of them."""
        return replace(self, rows_each=jax.device_put(np.asarray(total / self.num_rows, self.x.dtype)))

    def in_window(self, index: int) -> Problem:
        """The same problem with the rows ``index`` of the source's."""
        assert self.source is not None
        return self.holding(self.source.at(index))

    def holding(self, rows: Batch) -> Problem:
        """The same problem with other rows, as many or not, standing for all of the source's."""
        assert self.source is not None
        return replace(self, x=rows[0], y=rows[1]).standing_for(self.source.num_rows)

    # --- densities --------------------------------------------------------------------------------------------------

    def log_prior(self, z: jax.Array) -> jax.Array:
        """Log density of the prior at ``z``, with the Jacobian of the map from ``z`` to the sites. Scalar."""
        return self._log_terms(z, self.x, self.y, 1.0)[0]

    def log_prior_of(self, z: jax.Array, names: tuple[str, ...]) -> jax.Array:
        """The part of `log_prior` that belongs to some of the latent sites, given the others. Scalar."""
        trace = self._trace(z, self.x[:1], self.y[:1])
        wanted = {*names, *(_log_det_name(name) for name in names)}
        return sum((_log_prob(trace[name]) for name in trace if name in wanted), jnp.zeros((), z.dtype))

    def log_likelihood(self, z: jax.Array, batch: Batch | None = None) -> jax.Array:
        """Log likelihood of all rows, or its unbiased estimate ``n / b`` × that of a batch ``(x, y)``. Scalar."""
        if batch is None and self.shared:
            return self._by_devices(z)
        if batch is None and self.num_rows > MOST_AT_ONCE:
            return self._by_blocks(z)
        return self._log_terms(z, *self._scaled(batch))[1]

    def log_posterior(self, z: jax.Array, batch: Batch | None = None) -> jax.Array:
        """Unnormalised log posterior density in ``z``: `log_prior` plus `log_likelihood`. Scalar."""
        if batch is None and (self.shared or self.num_rows > MOST_AT_ONCE):
            return self.log_prior(z) + self.log_likelihood(z)
        prior, likelihood = self._log_terms(z, *self._scaled(batch))
        return prior + likelihood

    def potential(self, z: jax.Array) -> jax.Array:
        """Minus `log_posterior`: what Hamiltonian samplers call the potential energy."""
        return _potential(self, z)

    def grad_log_posterior(self, z: jax.Array, batch: Batch | None = None) -> jax.Array:
        """Gradient ``(p,)`` of `log_posterior`."""
        return jax.grad(self.log_posterior)(z, batch)

    def pointwise_log_likelihood(self, z: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        """Log likelihood ``(m,)`` of each row of ``(x, y)``, unscaled."""
        return self.likelihood(z, x).log_prob(y)

    # --- where chains and optimisers begin --------------------------------------------------------------------------

    def prior_draw(self, key: jax.Array) -> jax.Array:
        """One draw ``(p,)`` from the prior."""
        key_normals, key_others = jax.random.split(key)
        raw = self.layout.unflatten(jax.random.normal(key_normals, (self.size,), self.x.dtype))

        def place(site: dict) -> jax.Array | None:
            drawn = site["type"] == "sample" and site["name"] in raw
            return from_normals(site["fn"], raw[site["name"]]) if drawn else None

        # Normals of all sites at once, which compile as those of one would. With y given the observed site is not
        # sampled, which would only cost compilation.
        placed = handlers.substitute(self.model, substitute_fn=place)
        trace = handlers.trace(handlers.seed(placed, key_others)).get_trace(self.x, self.y)
        sites = {slot.name: trace[slot.name] for slot in self.layout.slots}
        return self.layout.flatten({name: biject_to(s["fn"].support).inv(s["value"]) for name, s in sites.items()})

    def starts(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws ``(C, p)`` from the prior where the log posterior is finite, one a key, and its values ``(C,)``.

        A value is not finite if none of 100 draws gave a finite one.
        """

        def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            key, key_draw = jax.random.split(key)
            return key, self.prior_draw(key_draw)

        def once_more(state: tuple) -> tuple:
            tries, keys, z, value = state
            # Loops of their own, not vmap nor one of both: it compiles in half the time, and runs once.
            nexts, drawn = lax.map(draw, keys)
            wanted = ~jnp.isfinite(value)
            keys, z = jnp.where(wanted[:, None], nexts, keys), jnp.where(wanted[:, None], drawn, z)
            return tries + 1, keys, z, lax.map(self.log_posterior, z)

        def unusable(state: tuple) -> jax.Array:
            return ~jnp.isfinite(state[3]).all() & (state[0] < MAX_START_TRIES)

        nothing = jnp.full(keys.shape[:1], -jnp.inf, self.x.dtype)
        none = jnp.zeros((*nothing.shape, self.size), self.x.dtype)
        return lax.while_loop(unusable, once_more, (0, keys, none, nothing))[2:]

    # --- sites ------------------------------------------------------------------------------------------------------

    def constrain(self, z: jax.Array) -> dict[str, jax.Array]:
        """The sites in ``reported``, in constrained space."""
        trace = self._trace(z, self.x, None)
        return {name: trace[name]["value"] for name in self.reported}

    def unconstrain(self, sites: dict[str, jax.Array]) -> jax.Array:
        """Vector ``(p,)`` at which the latent sites have these values.

        Every latent site must be there, the auxiliary ones (``w_decentered``) of a reparameterised model included.
        """
        missing = [slot.name for slot in self.layout.slots if slot.name not in sites]
        if missing:
            raise bad_value("sites", "a value of every latent site", f"none of {', '.join(missing)}", "Add them.")
        seeded = handlers.seed(handlers.substitute(self.model, data=sites), jax.random.PRNGKey(0))
        trace = handlers.trace(seeded).get_trace(self.x, None)
        return self.layout.flatten(
            {s.name: biject_to(trace[s.name]["fn"].support).inv(sites[s.name]) for s in self.layout.slots}
        )

    # --- what the model says of an observation ----------------------------------------------------------------------

    def likelihood(self, z: jax.Array, x: jax.Array) -> Likelihood:
        """Distribution of the observed site at the ``m`` rows of ``x``: family and parameters ``(m,)``."""
        return unwrap(self._trace(z, x, None)[self.observed]["fn"], x.shape[0])

    def outputs(self, z: jax.Array, x: jax.Array) -> jax.Array:
        """The deterministic site ``outputs (m, k)`` at the rows of ``x``, of a model that has one (`Student`)."""
        return self._trace(z, x, None)["outputs"]["value"]

    def simulate(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One joint draw from prior and likelihood at the rows of ``x``: ``z (p,)`` and ``y (n,)``."""
        key_prior, key_noise = jax.random.split(key)
        z = self.prior_draw(key_prior)
        return z, self.likelihood(z, self.x).sample(key_noise)

    # --- the machinery ----------------------------------------------------------------------------------------------

    def _scaled(self, batch: Batch | None) -> tuple[jax.Array, jax.Array, Any]:
        if batch is None:
            return self.x, self.y, 1.0 if self.rows_each is None else self.rows_each
        return *batch, self.total_rows / batch[1].shape[0]

    def _by_devices(self, z: jax.Array) -> jax.Array:
        """Log likelihood of all rows, each device's own summed there; the gradient is summed over devices likewise."""

        def part(z: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            return lax.psum(replace(self, x=x, y=y, shared=False).log_likelihood(z), DATA)

        # Not left to the compiler, which would gather the rows of all devices to go through them block by block.
        takes = (PartitionSpec(), PartitionSpec(DATA), PartitionSpec(DATA))
        run = jax.shard_map(part, in_specs=takes, out_specs=PartitionSpec(), axis_names={DATA}, check_vma=False)
        return run(z, self.x, self.y)

    def _by_blocks(self, z: jax.Array) -> jax.Array:
        """Log likelihood of all rows, whose gradient runs the network again rather than keep every activation."""

        @jax.checkpoint
        def part(z: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            return self._log_terms(z, x, y, 1.0)[1]

        whole = self.num_rows // BLOCK_ROWS * BLOCK_ROWS
        blocks = self.x[:whole].reshape(-1, BLOCK_ROWS, self.x.shape[1]), self.y[:whole].reshape(-1, BLOCK_ROWS)
        total, _ = lax.scan(lambda so_far, block: (so_far + part(z, *block), None), jnp.zeros((), z.dtype), blocks)
        if whole < self.num_rows:
            total += part(z, self.x[whole:], self.y[whole:])
        return total if self.rows_each is None else total * self.rows_each

    def _log_terms(self, z: jax.Array, x: jax.Array, y: jax.Array, factor: float) -> tuple[jax.Array, jax.Array]:
        """Log prior and scaled log likelihood, from one trace."""
        prior = likelihood = jnp.zeros((), z.dtype)
        for site in self._trace(z, x, y, factor).values():
            if site["type"] != "sample":
                continue
            if is_data_site(site):
                likelihood += _log_prob(site)
            else:
                prior += _log_prob(site)
        return prior, likelihood

    def _trace(self, z: jax.Array, x: jax.Array, y: jax.Array | None, factor: float = 1.0) -> dict[str, Any]:
        """Trace of the model with its latent sites at ``z``; Jacobians enter as ``numpyro.factor`` sites."""
        raw = self.layout.unflatten(z)

        def place(site: dict) -> jax.Array | None:
            name = site["name"]
            if site["type"] != "sample" or name not in raw:
                return None
            transform = biject_to(site["fn"].support)
            value = transform(raw[name])
            log_det = transform.log_abs_det_jacobian(raw[name], value)
            # Summed over the event alone: inside a plate, which spreads a factor over its entries, a sum over the
            # batch would be counted once an entry.
            extra = jnp.ndim(log_det) - jnp.ndim(value) + len(site["fn"].event_shape)
            numpyro.factor(_log_det_name(name), sum_rightmost(log_det, extra))
            return value

        placed = handlers.substitute(self.model, substitute_fn=place)
        # The key is used only where y is None, for a value of the observed site that nobody reads.
        seeded = handlers.seed(scale_observed(placed, factor), jax.random.PRNGKey(0))
        return handlers.trace(seeded).get_trace(x, y)


@jax.jit  # so that JAX keeps its trace: kernels ask for it several times over, and tracing a model takes milliseconds
def _potential(problem: Problem, z: jax.Array) -> jax.Array:
    return -problem.log_posterior(z)


def _log_det_name(site: str) -> str:
    """Name of the factor that holds a site's Jacobian."""
    return f"_{site}_log_det"


def _log_prob(site: dict) -> jax.Array:
    fn: Distribution = site["fn"]
    intermediates = site["intermediates"]
    log_prob = fn.log_prob(site["value"], intermediates) if intermediates else fn.log_prob(site["value"])
    total = jnp.sum(log_prob)
    return total if site["scale"] is None else site["scale"] * total
