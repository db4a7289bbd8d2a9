"""Cyclical stochastic-gradient MCMC: long steps find a mode, short ones sample it, again and again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from bnn_zoo.engine.identity import settings
from bnn_zoo.errors import check_between, check_count, check_positive
from bnn_zoo.methods.mcmc.markov import check_lengths
from bnn_zoo.methods.stochastic.kernels import Rule
from bnn_zoo.methods.stochastic.langevin import StochasticChain, check_friction, check_steps, rule_of
from bnn_zoo.methods.stochastic.stepping import Course


@settings
class CyclicalSGLD(StochasticChain):
    """SGLD whose step size falls by a cosine from long to nothing, cycle after cycle.

    The first part of a cycle, `exploration`, is descent without noise in long steps, which leaves one mode for another;
    from the second draws are kept. Choose it for several modes at the price of one chain. How often each is found is up
    to the descent, not to the posterior's mass.

    Parameters
    ----------
    num_warmup : int
        Steps before the first cycle, as those of a sampling stage.
    num_samples : int
        Draws kept a chain, over all cycles. ``stats["cycle"]`` numbers the cycle of each.
    samples_per_cycle : int
        Draws kept a cycle: there are ``num_samples / samples_per_cycle`` cycles, and `resume` goes on with more.
    exploration : float
        Share of a cycle that explores (β of the paper).
    exploration_temperature : float
        Noise while exploring: 0 in the paper. Each cycle then samples from where a descent ends, and its draws are too
        narrow unless it samples for long; 1 keeps the width that the chain has.
    step_size : float or None
        At the beginning of a cycle. ``None``: as much as lets the sampling stage begin with what `SGLD` would find.
        That is safe, and too short to leave a mode behind a high barrier: five times as much, where it is stable, does,
        and makes the draws of the sampling stage somewhat too wide (``stats["step_size"]`` holds what was found).
    num_chains, thinning, start, batch_size, temperature
        As in `SGLD`.

    References
    ----------
    Zhang et al. (2020), Cyclical stochastic gradient MCMC for Bayesian deep learning, equation 1 and algorithm 1.
    """

    num_warmup: int = 1000
    num_samples: int = 1000
    samples_per_cycle: int = 100
    num_chains: int = 4
    thinning: int = 100
    exploration: float = 0.8
    exploration_temperature: float = 0.0
    start: str = "ensemble"
    batch_size: int | None = None
    step_size: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_lengths(self)
        check_steps(self)
        check_cycles(self)

    @property
    def rule(self) -> Rule:
        """What the kernel is told."""
        return rule_of(self, underdamped=False, course=cycle_of(self))

    @property
    def gradients_an_iteration(self) -> int:
        """Steps a step of sampling, those of exploration included."""
        return math.ceil(1 / (1 - self.exploration))

    def settled(self) -> CyclicalSGLD:
        """Return these settings with thinning a part of the cycle, which a kernel that is thinned does not know."""
        return replace(self, samples_per_cycle=self.samples_per_cycle * self.thinning)


@settings
class CyclicalSGHMC(StochasticChain):
    """SGHMC whose step size falls by a cosine from long to nothing, cycle after cycle.

    Parameters
    ----------
    num_warmup, num_samples, samples_per_cycle, exploration, exploration_temperature
        As in `CyclicalSGLD`.
    num_chains, thinning, start, batch_size, temperature
        As in `SGLD`.
    step_size, friction : float or None
        As in `SGHMC`; the step size is that at the beginning of a cycle.

    References
    ----------
    Zhang et al. (2020), algorithm 2, discretised as BAOAB.
    """

    num_warmup: int = 1000
    num_samples: int = 1000
    samples_per_cycle: int = 100
    num_chains: int = 4
    thinning: int = 100
    exploration: float = 0.8
    exploration_temperature: float = 0.0
    start: str = "ensemble"
    batch_size: int | None = None
    step_size: float | None = None
    friction: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_lengths(self)
        check_steps(self)
        check_cycles(self)
        check_friction(self)

    @property
    def rule(self) -> Rule:
        """What the kernel is told."""
        return rule_of(self, underdamped=True, course=cycle_of(self))

    @property
    def gradients_an_iteration(self) -> int:
        """Steps a step of sampling, those of exploration included."""
        return math.ceil(1 / (1 - self.exploration))

    def settled(self) -> CyclicalSGHMC:
        """Return these settings with thinning a part of the cycle, which a kernel that is thinned does not know."""
        return replace(self, samples_per_cycle=self.samples_per_cycle * self.thinning)


def cycle_of(method: Any) -> Course:
    """Return the course of the step size, whose cycle is an exploration and the draws after it."""
    sampled = method.samples_per_cycle
    explored = round(sampled * method.exploration / (1 - method.exploration))
    return Course(cycle_steps=explored + sampled, explored=explored)


def check_cycles(method: Any) -> None:
    """Raise unless cycles can be run."""
    check_count("samples_per_cycle", method.samples_per_cycle)
    check_between("exploration", method.exploration, 0, 1, "0.8 is usual.")
    if method.exploration_temperature:
        check_positive("exploration_temperature", method.exploration_temperature, "0 is the paper's, 1 is warm.")
