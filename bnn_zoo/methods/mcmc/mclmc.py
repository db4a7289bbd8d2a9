"""Microcanonical Langevin Monte Carlo, unadjusted and Metropolis-adjusted."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from bnn_zoo.engine import chains
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import bad_type, bad_value, check_between, check_positive
from bnn_zoo.methods.mcmc.markov import MarkovChain, check_lengths
from bnn_zoo.methods.mcmc.microcanonical import Microcanonical, Rule, State

SHORTEST = 1e-6  # of a length: a step that turns the momentum once in a million is a chain that stands still


@settings
class MCLMC(MarkovChain):
    """Microcanonical Langevin Monte Carlo (BlackJAX's integrator): trajectories of constant speed that lose direction.

    Choose it for networks: each chain starts at its own trained network and moves on for two gradients a step, with no
    tree to build. Unadjusted, its draws have a bias that grows with the step, which is kept short by holding the error
    of the energy down; the diagnosis measures that error, and a temperature that should be 1. ``adjusted=True`` has an
    accept step and no bias.

    Parameters
    ----------
    num_warmup, num_samples, num_chains, start
        As in `NUTS`; an iteration is one step (adjusted: one trajectory).
    thinning : int
        Iterations a kept draw: one step moves little, so take many.
    step_size : float or None
        Distance ε that a step covers, in sds of the coordinates as found in warm-up (in unconstrained coordinates
        themselves where ``num_warmup=0``). ``None``: found, for each chain, in warm-up.
    length : float or None
        L, in the same units: the distance after which the direction is forgotten; adjusted, the mean length of a
        trajectory, whose direction is drawn anew. ``None``: 0.4 of the distance between independent draws (adjusted:
        two steps).
    adjusted : bool
        Metropolis-adjusted: accept or reject the end of each trajectory.
    energy_variance : float
        E[ΔE²] / p that the step size is found for, with ΔE the error of the energy in one step and p the number of
        weights. The default showed no bias on networks; 0.05 made sds twice too large.
    first_energy_variance : float or None
        Unadjusted: what warm-up begins with in place of ``energy_variance``, to which it then falls: longer steps leave
        the network that a chain starts from sooner (as in the ``bde`` of Sommer et al.). ``None``: the same throughout.
    preconditioned : bool
        Whether steps are measured in the sds of coordinates that warm-up finds, which a posterior with scales of its
        own needs, and chains that converge are quicker with. ``False``: in unconstrained coordinates as they are, which
        are the weights themselves where their prior scale is a number. Chains of deep ReLU networks, still on their way
        in when sds are taken, get further so.
    target_accept : float
        Adjusted: mean acceptance probability that the step size is adapted to.

    Raises
    ------
    ZooValueError
        From a fit, if a chain stands still (a step size that is zero, not finite, or nothing beside the length), or
        if the model has one latent coordinate only.

    References
    ----------
    Robnik, De Luca, Silverstein & Seljak (2023), Microcanonical Hamiltonian Monte Carlo, JMLR 24, with its tuning of ε
    and L; Robnik & Seljak (2024), Fluctuation without dissipation, for Langevin noise; Sommer et al. (2025),
    Microcanonical Langevin ensembles, for starts from trained networks; Robnik, Cohn-Gordon & Seljak (2025),
    Metropolis adjusted microcanonical Hamiltonian Monte Carlo, for ``adjusted=True``.
    `bnn_zoo.methods.mcmc.microcanonical` has the equations and says where the tuning departs from BlackJAX's.
    """

    num_warmup: int = 20_000
    num_samples: int = 1000
    num_chains: int = 4
    thinning: int = 50
    start: str = "ensemble"
    step_size: float | None = None
    length: float | None = None
    adjusted: bool = False
    energy_variance: float = 5e-4
    first_energy_variance: float | None = None
    preconditioned: bool = True
    target_accept: float = 0.9

    def __post_init__(self) -> None:
        check_lengths(self)
        if self.step_size is not None:
            check_positive("step_size", self.step_size, "None finds one.")
        if self.length is not None:
            check_positive("length", self.length, "None finds one.")
        if not isinstance(self.adjusted, bool):
            raise bad_type("adjusted", "True or False", repr(self.adjusted), "True has an accept step and no bias.")
        check_positive("energy_variance", self.energy_variance, "5e-4 is usual; less is a shorter step.")
        if self.first_energy_variance is not None:
            self._check_first(self.first_energy_variance)
        if not isinstance(self.preconditioned, bool):
            mend = "False leaves coordinates as they are."
            raise bad_type("preconditioned", "True or False", repr(self.preconditioned), mend)
        check_between("target_accept", self.target_accept, 0, 1, "0.9 is usual.")

    def _check_first(self, first: float) -> None:
        check_positive("first_energy_variance", first, "None is as energy_variance.")
        if self.adjusted:
            got = f"{first!r} with adjusted=True"
            raise bad_value("first_energy_variance", "None", got, "There target_accept is what a step is found for.")
        if first < self.energy_variance:
            wanted = f"at least energy_variance, {self.energy_variance:.3g}"
            raise bad_value("first_energy_variance", wanted, f"{first:.3g}", "It falls during warm-up.")

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Warm up and draw, and refuse chains that stand still."""
        if problem.size < 2:
            mend = "Take 'nuts': directions need two coordinates at least."
            raise bad_value("method", "one for models of a single coordinate", "MCLMC", mend)
        draws = chains.sample(self, problem, key, context)
        check_moving(draws, self.step_size)
        if not self.adjusted:
            check_resolution(draws, problem.size, self.energy_variance)
        return draws

    def at_half_the_step(self, problem: Problem, draws: Draws, num_samples: int, context: Context) -> Draws:
        """Go on for ``num_samples`` draws a chain, each twice as many steps of half the length; these draws alone."""
        groups = tuple(group._replace(step_size=0.5 * np.asarray(group.step_size)) for group in draws.state.groups)
        slower = replace(self, thinning=2 * self.thinning)
        begin = chains.forgotten(replace(draws, state=replace(draws.state, groups=groups)))
        return chains.resume(slower, problem, begin, num_samples, context)

    @property
    def finds_length(self) -> bool:
        """Whether warm-up finds the number of steps of a trajectory."""
        return self.adjusted

    @property
    def gradients_an_iteration(self) -> int:
        """Two a step of the integrator; adjusted, of the two steps that a trajectory has in the mean by default."""
        return 4 if self.adjusted else 2

    def kernel(self, problem: Problem) -> Microcanonical:
        """Return the kernel on the problem's log posterior."""
        rule = Rule(
            step_size=self.step_size,
            length=self.length,
            adjusted=self.adjusted,
            energy_variance=self.energy_variance,
            first_energy_variance=self.first_energy_variance or self.energy_variance,
            preconditioned=self.preconditioned,
            target_accept=self.target_accept,
        )
        return Microcanonical(problem, rule)

    def observe(self, state: State) -> dict[str, jax.Array]:
        """Return the statistics of one iteration; ``n_steps`` counts gradients, two a step of the integrator."""
        found = {
            "diverging": state.diverging,
            "length": state.length,
            "lp": state.log_density,
            "n_steps": state.made,
            "step_size": state.step_size,
        }
        if self.adjusted:
            return found | {"acceptance_rate": state.accept_prob}
        return found | {"energy_variance": state.energy_variance, "temperature": state.temperature}


def check_moving(draws: Draws, asked: float | None) -> None:
    """Raise where a chain stands still, whether at a step size ``asked`` for or found: its draws say nothing.

    Raises
    ------
    ZooValueError
        Naming the chain and its step size.
    """
    step, length = (np.asarray(draws.stats[name], float)[:, -1] for name in ("step_size", "length"))
    some = draws.positions[:, :: max(1, draws.positions.shape[1] // 16)]
    moved = np.any(some != some[:, :1], axis=(1, 2))
    still = ~(np.isfinite(step) & (step > SHORTEST * length) & moved)
    if still.any():
        chain = int(np.flatnonzero(still)[0])
        got = f"{step[chain]:.3g} in chain {chain}, which stands still (length {length[chain]:.3g})"
        if asked is not None:
            raise bad_value("step_size", "one that moves every chain", got, "None finds one.")
        mend = "Take precision='float64', a longer num_warmup, or a step_size of your own."
        raise bad_value("the step size that warm-up found", "one that moves every chain", got, mend)


def check_resolution(draws: Draws, size: int, energy_variance: float) -> None:
    """Raise where rounding of the log posterior alone is the energy error that a step is to have.

    The step size is then found for rounding, and ends where positions hardly change.

    Raises
    ------
    ZooValueError
        Naming the precision that resolves it.
    """
    largest = float(np.abs(draws.stats["lp"]).max())
    rounding = float(np.finfo(draws.positions.dtype).eps) * largest
    if rounding**2 > energy_variance * size:
        raise bad_value(
            "precision",
            "fine enough to see the energy error of a step",
            f"rounding of {rounding:.1g} at a log posterior of {largest:.3g}",
            "Take precision='float64', or adjusted=True.",
        )
