"""Hamiltonian Monte Carlo with trajectories of one length."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.infer
from numpyro.infer.hmc import HMCState

from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import check_between, check_count, check_positive
from bnn_zoo.methods.mcmc.markov import MarkovChain, check_lengths
from bnn_zoo.methods.mcmc.nuts import hamiltonian_statistics


@settings
class HMC(MarkovChain):
    """Hamiltonian Monte Carlo (NumPyro's), every trajectory of the same length.

    Choose it over NUTS when a fixed cost an iteration matters or a good trajectory length is known.

    Parameters
    ----------
    num_warmup, num_samples, num_chains, thinning, start, step_size, target_accept, dense_mass
        As in `NUTS`.
    trajectory_length : float
        Time of a trajectory, in units of the adapted mass matrix. A quarter period, π/2, forgets where it was on a
        Gaussian; a whole one, 2π, comes back to its start.
    max_steps : int
        At most so many leapfrog steps an iteration. Trajectories are cut off there, rather than take millions of steps
        where a short warm-up, most of whose first moves were rejected, has left a tiny step size.

    References
    ----------
    Neal (2011), MCMC using Hamiltonian dynamics; the step size is adapted as in Hoffman & Gelman (2014).
    """

    num_warmup: int = 1000
    num_samples: int = 1000
    num_chains: int = 4
    thinning: int = 1
    start: str = "ensemble"
    step_size: float = 0.1
    trajectory_length: float = math.pi / 2
    target_accept: float = 0.8
    max_steps: int = 1024
    dense_mass: bool = False

    def __post_init__(self) -> None:
        check_lengths(self)
        check_positive("step_size", self.step_size, "It is only where adaptation begins: 0.1 will do.")
        check_positive("trajectory_length", self.trajectory_length, "A quarter period, pi / 2, is a good start.")
        check_between("target_accept", self.target_accept, 0, 1, "0.8 is usual.")
        check_count("max_steps", self.max_steps, 1, "1024 is usual.")

    @property
    def finds_length(self) -> bool:
        """It does: the step size is adapted, and with it their number a trajectory."""
        return True

    @property
    def gradients_an_iteration(self) -> int:
        """Leapfrog steps of a trajectory, at the step size before adaptation."""
        return min(math.ceil(self.trajectory_length / self.step_size), self.max_steps)

    def kernel(self, problem: Problem) -> numpyro.infer.HMC:
        """Return NumPyro's kernel on the problem's potential energy."""
        return BoundedHMC(
            self.max_steps,
            potential_fn=problem.potential,
            step_size=self.step_size,
            trajectory_length=self.trajectory_length,
            target_accept_prob=self.target_accept,
            dense_mass=self.dense_mass,
        )

    def observe(self, state: HMCState) -> dict[str, jax.Array]:
        """Return the statistics of one iteration, named as ArviZ names them."""
        return hamiltonian_statistics(state)


class BoundedHMC(numpyro.infer.HMC):
    """NumPyro's kernel, its trajectories cut off at ``max_steps``, of which NumPyro has no bound."""

    def __init__(self, max_steps: int, **given: Any) -> None:
        super().__init__(**given)
        self._most = (1 - 1e-6) * max_steps  # of steps, whose number is rounded up

    def sample(self, state: HMCState, model_args: tuple, model_kwargs: dict) -> HMCState:
        """Make one iteration."""
        length = state.trajectory_length
        bounded = state._replace(trajectory_length=jnp.minimum(length, self._most * state.adapt_state.step_size))
        return super().sample(bounded, model_args, model_kwargs)._replace(trajectory_length=length)
