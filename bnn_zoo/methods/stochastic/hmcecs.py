"""Hamiltonian Monte Carlo with energy-conserving subsampling: trajectories on a batch of rows, with an accept step.

A state is a point z and the indices u of b rows, drawn with replacement. With q_i a Taylor polynomial of the log
likelihood ℓ_i of row i about a reference c, and d_i = ℓ_i − q_i, the log likelihood is estimated from these rows by

    l̂(z, u) = Σ_all q_i(z) + n mean_u d_i(z),          σ̂²(z, u) = n² / b var_u d_i(z),

and NUTS moves z on exp(l̂ − σ̂²/2) times the prior, u held fixed (Dang 2019, equations 8 and 9). Then a block of u is
drawn anew and kept with a Metropolis step (Tran 2017). Were l̂ Normal, z would have the law of the posterior; as it is,
its law is off by as much as l̂ is not, which vanishes with σ̂².

The sum of all q_i needs the value, slope and Hessian of the log likelihood of all rows at c, once; a row's q_i needs
two directional derivatives, taken as they are needed rather than kept: the Hessians of b rows are b p² numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.infer
from jax import lax
from numpyro import handlers
from numpyro.distributions import ImproperUniform, constraints
from numpyro.infer.hmc_gibbs import HMCECSState
from numpyro.infer.mcmc import MCMCKernel

from bnn_zoo.engine import chains
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Batch, Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.gaussian import check_memory
from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import bad_value, check_between, check_count, check_positive
from bnn_zoo.methods.mcmc.markov import MarkovChain, check_lengths
from bnn_zoo.methods.mcmc.nuts import hamiltonian_statistics

MOST_BYTES = 4 * 2**30
ROWS = "rows"  # name of the plate, and so of the indices


@settings
class HMCECS(MarkovChain):
    """Hamiltonian Monte Carlo with energy-conserving subsampling (NumPyro's): NUTS on a batch, with an accept step.

    Choose it over `SGLD` and `SGHMC` where a pass over the data is dear and the posterior narrow about one mode: steps
    are accepted or not, so their length leaves no bias. What bias there is grows with the variance σ̂² of the estimated
    log likelihood, which ``stats["estimate_variance"]`` shows: below 0.1 is good (at 0.3, from 15 rows, sds were 11 %
    too large), and far above 1 the draws need not follow the posterior at all. Raise ``batch_size`` then. Activations
    should be smooth.

    Parameters
    ----------
    num_warmup, num_samples, num_chains, thinning, step_size, target_accept, max_tree_depth, dense_mass
        As in `NUTS`; a leapfrog step costs three to five gradients of a batch.
    start : str
        As in `NUTS`; the start of a chain is its reference c. ``"map"``: all have the best one, and the same target.
        ``"ensemble"``: each its own, so that R-hat sees other modes, but targets differ a little. Taylor polynomials
        about draws from the ``"prior"`` are no good but in tests.
    batch_size : int
        Rows b of an estimate, drawn with replacement; fewer than there are.
    num_blocks : int
        Parts of the batch, of which one is drawn anew an iteration: more are accepted more often, and change less.
    degree : int
        Of the Taylor polynomials. 2 keeps a Hessian ``(p, p)`` a chain, found by p products over all rows; 1 does not,
        and needs far larger batches.

    References
    ----------
    Dang, Quiroz, Kohn, Tran & Villani (2019), Hamiltonian Monte Carlo with energy conserving subsampling, algorithm 1;
    Quiroz et al. (2019) for the correction σ̂²/2; Bardenet, Doucet & Holmes (2017) for the Taylor polynomials; Tran et
    al. (2017) for blocks.
    """

    num_warmup: int = 1000
    num_samples: int = 1000
    num_chains: int = 4
    thinning: int = 1
    start: str = "map"
    batch_size: int = 100
    num_blocks: int = 1
    degree: int = 2
    step_size: float = 0.1
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False

    def __post_init__(self) -> None:
        check_lengths(self)
        check_count("batch_size", self.batch_size, 2, "A variance takes two rows; 100 is usual.")
        check_count("num_blocks", self.num_blocks)
        if self.num_blocks > self.batch_size:
            raise bad_value("num_blocks", f"at most batch_size={self.batch_size}", self.num_blocks, "1 is usual.")
        if self.degree not in (1, 2):
            raise bad_value("degree", "one of 2, 1", repr(self.degree), "2 is usual; 1 takes less memory.")
        check_positive("step_size", self.step_size, "It is only where adaptation begins: 0.1 will do.")
        check_between("target_accept", self.target_accept, 0, 1, "0.8 is usual; 0.95 if there are divergences.")
        check_count("max_tree_depth", self.max_tree_depth, 1, "10 is usual.")

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Warm up and draw."""
        if self.batch_size >= problem.num_rows:
            mend = "Take 'nuts', which takes all rows, or a smaller batch."
            raise bad_value("batch_size", f"below the {problem.num_rows} rows", self.batch_size, mend)
        if self.degree == 2:
            # A chain's state before and after a chunk, and what it is made of.
            mend = "Take degree=1, or SGHMC(control_variates=True)."
            check_memory("degree", "2", 3 * self.num_chains * problem.size**2, MOST_BYTES, mend)
        drawn = chains.sample(self, problem, key, context)
        # A product with the Hessian is about two gradients.
        spent = self.num_chains * (1 + (2 * problem.size if self.degree == 2 else 0))
        return replace(drawn, gradients=drawn.gradients + spent)

    @property
    def gradients_an_iteration(self) -> int:
        """Leapfrog steps of the largest tree."""
        return 2**self.max_tree_depth - 1

    def kernel(self, problem: Problem) -> Subsampling:
        """Return NumPyro's kernel, on the problem's densities."""
        return Subsampling(problem, self)

    def observe(self, state: State) -> dict[str, jax.Array]:
        """Return the statistics of one iteration: those of `NUTS`, on the estimate, and those of the batch."""
        return {
            **hamiltonian_statistics(state.inner.hmc_state),
            "batch_acceptance_rate": state.inner.accept_prob,
            "estimate_variance": state.variance,
        }


class Expansion(NamedTuple):
    """The log likelihood of all rows about a reference ``z (p,)``."""

    z: jax.Array
    value: jax.Array  # scalar
    slope: jax.Array  # (p,)
    hessian: jax.Array  # (p, p), or (0, 0) for degree 1

    def at(self, z: jax.Array) -> jax.Array:
        """Σ_all q_i, the Taylor polynomial of all rows."""
        off = z - self.z
        total = self.value + jnp.dot(self.slope, off)
        return total + 0.5 * jnp.dot(off, self.hessian @ off) if self.hessian.size else total


class Estimator(NamedTuple):
    """All that the estimated log likelihood depends on beside z; NumPyro carries it with a chain."""

    rows: jax.Array  # (b,), the u of the module's docstring
    whole: Expansion


class State(NamedTuple):
    """One chain."""

    inner: HMCECSState
    variance: jax.Array  # σ̂² at the last draw

    @property
    def z(self) -> jax.Array:
        """Position ``(p,)``."""
        return self.inner.z["z"]


class Subsampling(MCMCKernel):
    """NumPyro's ``HMCECS`` on a problem.

    Its own Taylor proxy keeps the sums over all rows outside the state, where a kernel that is built anew in every
    compiled chunk loses them; ours, of the same protocol, keeps them in it.
    """

    sample_field = "z"

    def __init__(self, problem: Problem, method: HMCECS) -> None:
        self.problem, self.method = problem, method
        self.kernel: numpyro.infer.HMCECS | None = None

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        method, problem = self.method, self.problem
        inner = numpyro.infer.NUTS(
            partial(_program, problem, method.batch_size),
            init_strategy=numpyro.infer.init_to_value(values={"z": init_params}),
            step_size=method.step_size,
            target_accept_prob=method.target_accept,
            max_tree_depth=method.max_tree_depth,
            dense_mass=method.dense_mass,
        )
        proxy = partial(_proxy, problem, method.degree, init_params)
        self.kernel = numpyro.infer.HMCECS(inner, num_blocks=method.num_blocks, proxy=proxy)
        state = self.kernel.init(rng_key, num_warmup, {"z": init_params}, (), {})
        return State(state, jnp.zeros((), init_params.dtype))

    def sample(self, state, model_args, model_kwargs):
        assert self.kernel is not None, "init comes first"
        new = self.kernel.sample(state.inner, (), {})
        z, method = new.z["z"], self.method
        x, y = _batch(self.problem, new.gibbs_state.rows)
        exact = self.problem.pointwise_log_likelihood(z, x, y)
        off = exact - taylor_rows(self.problem, method.degree, new.gibbs_state.whole.z, z, (x, y))
        return State(new, self.problem.num_rows**2 / method.batch_size * jnp.var(off))


def _program(problem: Problem, batch_size: int) -> None:
    """State the problem as a NumPyro program over z, its rows in a plate that is subsampled."""
    z = numpyro.sample("z", ImproperUniform(constraints.real_vector, (), (problem.size,)))
    with handlers.block():  # densities of a problem are read off traces of their own
        prior = problem.log_prior(z)
    numpyro.factor("prior", prior)
    with numpyro.plate(ROWS, problem.num_rows, subsample_size=batch_size) as rows:
        x, y = _batch(problem, rows)
        with handlers.block():
            likelihood = problem.likelihood(z, x).whole
        numpyro.sample("y", likelihood, obs=y)


def _proxy(
    problem: Problem,
    degree: int,
    reference: jax.Array,
    prototype: Any,
    sizes: dict[str, tuple[int, int]],
    model: Any,
    model_args: tuple,
    model_kwargs: dict,
    num_blocks: int = 1,
) -> tuple[Callable, Callable, Callable]:
    """Taylor polynomials by the protocol of ``numpyro.contrib.ecs_proxies``: proxy, its first state, and its update."""
    size = problem.num_rows
    batch_size = sizes[ROWS][1]
    block = -(-batch_size // num_blocks)

    def begin(key: jax.Array, rows: dict[str, jax.Array]) -> Estimator:
        return Estimator(rows[ROWS], expand(problem, degree, reference))

    def update(key: jax.Array, rows: dict[str, jax.Array], state: Estimator) -> tuple[dict[str, jax.Array], Estimator]:
        key_which, key_rows = jax.random.split(key)
        part = jnp.arange(batch_size) // block
        which = jax.random.randint(key_which, (), 0, part[-1] + 1)
        fresh = jax.random.randint(key_rows, (batch_size,), 0, size, rows[ROWS].dtype)
        new = jnp.where(part == which, fresh, rows[ROWS])
        return {ROWS: new}, state._replace(rows=new)

    def proxy(params: dict[str, jax.Array], names: Any, state: Estimator) -> tuple[dict, dict]:
        z, batch = params["z"], _batch(problem, state.rows)
        with handlers.block():
            each = taylor_rows(problem, degree, state.whole.z, z, batch)
        return {ROWS: state.whole.at(z)}, {ROWS: each}

    return proxy, begin, update


def expand(problem: Problem, degree: int, z: jax.Array) -> Expansion:
    """Value, slope and, for degree 2, Hessian of the log likelihood of all rows at ``z``."""
    value, slope = jax.value_and_grad(problem.log_likelihood)(z)
    if degree == 1:
        return Expansion(z, value, slope, jnp.zeros((0, 0), z.dtype))

    def row(v: jax.Array) -> jax.Array:
        return jax.jvp(jax.grad(problem.log_likelihood), (z,), (v,))[1]

    return Expansion(z, value, slope, lax.map(row, jnp.eye(z.size, dtype=z.dtype)))


def taylor_rows(problem: Problem, degree: int, reference: jax.Array, z: jax.Array, batch: Batch) -> jax.Array:
    """q_i ``(b,)`` at ``z`` of the rows of a batch: derivatives along z − c of the log likelihood at c."""

    def along(t: jax.Array) -> jax.Array:
        return problem.pointwise_log_likelihood(reference + t * (z - reference), *batch)

    def slopes(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(along, (t,), (jnp.ones_like(t),))

    zero = jnp.zeros((), z.dtype)
    if degree == 1:
        value, first = slopes(zero)
        return value + first
    (value, first), (_, second) = jax.jvp(slopes, (zero,), (jnp.ones_like(zero),))
    return value + first + 0.5 * second


def _batch(problem: Problem, rows: jax.Array) -> Batch:
    return problem.x[rows], problem.y[rows]
