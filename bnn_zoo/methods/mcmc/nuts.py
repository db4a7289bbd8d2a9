"""The No-U-Turn Sampler."""

from __future__ import annotations

import jax
import numpyro.infer
from numpyro.infer.hmc import HMCState

from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import check_between, check_count, check_positive
from bnn_zoo.methods.mcmc.markov import MarkovChain, check_lengths


@settings
class NUTS(MarkovChain):
    """No-U-Turn Sampler (NumPyro's): Hamiltonian trajectories that stop when they turn back.

    Choose it when a pass over the data is cheap and the answer matters: it is the reference for everything else.
    Not for millions of rows or of weights.

    Parameters
    ----------
    num_warmup, num_samples : int
        Iterations a chain: for adapting step size and mass matrix, and kept.
    num_chains : int
        Chains. Four or more let R-hat see whether they agree.
    thinning : int
        Keep every so-manieth iteration.
    start : str
        ``"ensemble"``: each chain starts at its own network, trained by 5,000 steps of Adam from its own prior draw;
        ``"map"``: all at the best of these; ``"prior"``: at prior draws.
    step_size : float
        Before adaptation.
    target_accept : float
        Mean acceptance probability that the step size is adapted to.
    max_tree_depth : int
        At most ``2**max_tree_depth - 1`` leapfrog steps an iteration.
    dense_mass : bool
        Adapt a full mass matrix ``(p, p)`` rather than its diagonal: for few, correlated parameters.

    References
    ----------
    Hoffman & Gelman (2014), The No-U-Turn Sampler, algorithm 6, with NumPyro's iterative tree (Phan 2019) and
    multinomial trajectories (Betancourt 2017).
    """

    num_warmup: int = 1000
    num_samples: int = 1000
    num_chains: int = 4
    thinning: int = 1
    start: str = "ensemble"
    step_size: float = 0.1
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False

    def __post_init__(self) -> None:
        check_lengths(self)
        check_positive("step_size", self.step_size, "It is only where adaptation begins: 0.1 will do.")
        check_between("target_accept", self.target_accept, 0, 1, "0.8 is usual; 0.95 if there are divergences.")
        check_count("max_tree_depth", self.max_tree_depth, 1, "10 is usual.")

    @property
    def gradients_an_iteration(self) -> int:
        """Leapfrog steps of the largest tree."""
        return 2**self.max_tree_depth - 1

    def kernel(self, problem: Problem) -> numpyro.infer.NUTS:
        """Return NumPyro's kernel on the problem's potential energy."""
        return numpyro.infer.NUTS(
            potential_fn=problem.potential,
            step_size=self.step_size,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
            dense_mass=self.dense_mass,
        )

    def observe(self, state: HMCState) -> dict[str, jax.Array]:
        """Return the statistics of one iteration, named as ArviZ names them."""
        return hamiltonian_statistics(state)


def hamiltonian_statistics(state: HMCState) -> dict[str, jax.Array]:
    """Statistics that NUTS and HMC share."""
    return {
        "acceptance_rate": state.accept_prob,
        "diverging": state.diverging,
        "energy": state.energy,
        "lp": -state.potential_energy,
        "n_steps": state.num_steps,
        "step_size": state.adapt_state.step_size,
    }
