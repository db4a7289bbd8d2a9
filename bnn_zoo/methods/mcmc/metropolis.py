"""Random-walk Metropolis–Hastings."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.hmc_util import welford_covariance
from numpyro.infer.mcmc import MCMCKernel

from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import check_between, check_positive
from bnn_zoo.methods.mcmc.markov import MarkovChain, check_lengths


@settings
class MetropolisHastings(MarkovChain):
    """Gaussian random walk (BlackJAX's kernel), its scale and covariance adapted during warm-up.

    Choose it to teach, or where gradients do not exist; on a network of any size it moves slowly, and the diagnosis
    will say so.

    Parameters
    ----------
    num_warmup, num_samples : int
        Iterations a chain for adaptation, and draws kept.
    num_chains, start
        As in `NUTS`.
    thinning : int
        Iterations a kept draw: a step costs one density and no gradient, so take many.
    step_size : float
        Scale of a proposal before adaptation, in units of 2.38 / √p.
    target_accept : float
        Acceptance rate to adapt to: 0.234 is best in many dimensions.
    dense_mass : bool
        Learn the covariance of proposals in full rather than its diagonal.

    References
    ----------
    Metropolis (1953); Roberts, Gelman & Gilks (1997) for 0.234; Andrieu & Thoms (2008), algorithm 4, for the
    adaptation: Robbins–Monro on the log scale, with Haario's (2001) covariance. Adaptation stops with warm-up, so the
    draws come from a chain whose law does not change.
    """

    num_warmup: int = 10_000
    num_samples: int = 1000
    num_chains: int = 4
    thinning: int = 20
    start: str = "ensemble"
    step_size: float = 0.1
    target_accept: float = 0.234
    dense_mass: bool = False

    def __post_init__(self) -> None:
        check_lengths(self)
        check_positive("step_size", self.step_size, "It is only where adaptation begins: 0.1 will do.")
        check_between("target_accept", self.target_accept, 0, 1, "0.234 is best in many dimensions.")

    @property
    def gradients_an_iteration(self) -> int:
        """None: it asks for densities alone."""
        return 0

    def kernel(self, problem: Problem) -> MCMCKernel:
        """Return the adaptive random walk on the problem's log posterior."""
        return RandomWalk(problem, self)

    def observe(self, state: WalkState) -> dict[str, jax.Array]:
        """Return the statistics of one iteration, named as ArviZ names them."""
        return {"acceptance_rate": state.accept_prob, "lp": state.log_density, "step_size": jnp.exp(state.log_step)}


class WalkState(NamedTuple):
    """State of one chain; ``factor`` is a square root of the proposal covariance (or the sds, if diagonal)."""

    z: jax.Array
    log_density: jax.Array
    accept_prob: jax.Array
    iteration: jax.Array
    log_step: jax.Array
    factor: jax.Array
    moments: tuple
    key: jax.Array


class RandomWalk(MCMCKernel):
    """BlackJAX's additive random walk as a NumPyro kernel, with adaptation for ``num_warmup`` iterations."""

    sample_field = "z"

    def __init__(self, problem: Problem, method: MetropolisHastings) -> None:
        from blackjax.mcmc.random_walk import RWState, build_additive_step

        self.log_density, self.method, self.num_warmup = problem.log_posterior, method, 0
        self._state, self._step = RWState, build_additive_step()
        self._welford = welford_covariance(diagonal=not method.dense_mass)

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        z = init_params
        self.num_warmup = num_warmup
        log_step = jnp.log(self.method.step_size) + _best_log_step(z)
        factor = jnp.eye(z.size, dtype=z.dtype) if self.method.dense_mass else jnp.ones_like(z)
        zero = jnp.zeros((), z.dtype)
        count = jnp.zeros((), jnp.int32)
        moments = self._welford[0](z.size)
        return WalkState(z, self.log_density(z), zero, count, log_step, factor, moments, rng_key)

    def sample(self, state, model_args, model_kwargs):
        key, key_step = jax.random.split(state.key)

        def propose(key: jax.Array, z: jax.Array) -> jax.Array:
            noise = jax.random.normal(key, z.shape, z.dtype)
            move = state.factor @ noise if self.method.dense_mass else state.factor * noise
            return jnp.exp(state.log_step) * move

        walked, info = self._step(key_step, self._state(state.z, state.log_density), self.log_density, propose)
        accept = jnp.where(jnp.isfinite(info.acceptance_rate), info.acceptance_rate, 0.0).astype(state.z.dtype)
        moved = state._replace(
            z=walked.position,
            log_density=walked.logdensity,
            accept_prob=accept,
            iteration=state.iteration + 1,
            key=key,
        )
        return jax.lax.cond(state.iteration < self.num_warmup, self._adapt, lambda s: s, moved)

    def _adapt(self, state: WalkState) -> WalkState:
        """One Robbins–Monro step of the log scale; at iterations 128, 256, 512 … the covariance anew.

        Each covariance comes from the second half of the iterations so far, so early drift is forgotten.
        """
        start, update, finish = self._welford
        moments = update(state.z, state.moments)
        gain = moments[2] ** jnp.asarray(-0.6, state.z.dtype)
        log_step = state.log_step + gain * (state.accept_prob - self.method.target_accept)
        due = (state.iteration >= 128) & ((state.iteration & (state.iteration - 1)) == 0)

        def renew(_: None) -> tuple:
            covariance, _, _ = finish(moments, regularize=True)
            root = jnp.linalg.cholesky(covariance) if self.method.dense_mass else jnp.sqrt(covariance)
            return root, _best_log_step(state.z), start(state.z.size)

        factor, log_step, moments = jax.lax.cond(due, renew, lambda _: (state.factor, log_step, moments), None)
        return state._replace(log_step=log_step, factor=factor, moments=moments)


def _best_log_step(z: jax.Array) -> jax.Array:
    """Log of 2.38 / √p: the best scale on a Gaussian, in units of its covariance (Roberts, Gelman & Gilks 1997)."""
    return jnp.log(2.38 / jnp.sqrt(z.size)).astype(z.dtype)
