"""Stochastic-gradient Langevin dynamics and Hamiltonian Monte Carlo: a batch of rows a step, and no accept step."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bnn_zoo.engine import chains
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.windows import over_all_rows
from bnn_zoo.errors import bad_value, check_between, check_choice, check_count, check_positive
from bnn_zoo.methods.ensembles.trained import Batched, check_batch
from bnn_zoo.methods.mcmc.markov import MarkovChain, check_lengths
from bnn_zoo.methods.stochastic.gradients import slopes_at
from bnn_zoo.methods.stochastic.kernels import Rule, State, StochasticGradient
from bnn_zoo.methods.stochastic.stepping import Course

PRECONDITIONERS = ("none", "rmsprop")


class StochasticChain(Batched, MarkovChain):
    """Checks, and a kernel, for a method that states its `Rule`."""

    def run(self: Any, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Warm up and draw."""
        check_batch(self, problem)
        return chains.sample(self, problem, key, context)

    def refer_to_all_rows(self: Any, problem: Problem, groups: tuple, context: Context) -> tuple:
        """Put the gradient over all rows in place of that over a window, where control variates refer to it."""
        if not self.rule.control_variates:
            return groups
        at = np.concatenate([np.atleast_2d(state.centre.z) for state in groups])
        slopes = over_all_rows(problem, lambda part: call(slopes_at, (), part, at, watch=context.watch))
        each = [slopes] if len(groups) == 1 and groups[0].centre.z.ndim == 2 else list(slopes)
        return tuple(
            state._replace(centre=state.centre._replace(slope=jax.device_put(slope)))
            for state, slope in zip(groups, each, strict=True)
        )

    @property
    def gradients_an_iteration(self: Any) -> int:
        """One of a batch a step, and one more with control variates."""
        return 2 if self.rule.control_variates and self.batch_size is not None else 1

    def kernel(self: Any, problem: Problem) -> StochasticGradient:
        """Return the kernel on the problem's potential."""
        return StochasticGradient(problem, self.rule)

    def observe(self: Any, state: State) -> dict[str, jax.Array]:
        """Return the statistics of one step: temperatures as shares of what they should be."""
        target = self.temperature or 1.0
        found = {"temperature": state.temperature / target, "step_size": state.current, "n_steps": state.made}
        if state.momentum.size:
            found["kinetic_temperature"] = state.kinetic / target
        course = self.rule.course
        if course.cycle_steps:
            found["cycle"] = (state.step - 1) // course.sampled
        return found


def check_steps(method: Any) -> None:
    """Raise unless what all of these methods share can be used."""
    if method.step_size is not None:
        check_positive("step_size", method.step_size, "None finds one.")
    if method.batch_size is not None:
        check_count("batch_size", method.batch_size)
    if method.temperature:
        check_positive("temperature", method.temperature, "1 is Bayes' rule, 0 is gradient descent.")
    if getattr(method, "control_variates", False) and getattr(method, "preconditioner", "none") != "none":
        mend = "Gradients vanish where control variates are centred: take preconditioner='none'."
        raise bad_value("preconditioner", "'none' with control variates", repr(method.preconditioner), mend)


@settings
class SGLD(StochasticChain):
    """Stochastic-gradient Langevin dynamics: gradient descent on batches, with noise that makes it sample.

    Choose it when a pass over the data is too dear for every gradient. There is no accept step, so the draws have a
    bias, from the length of steps and from the noise of batches; the diagnosis shows it as a temperature that is not 1.

    Parameters
    ----------
    num_warmup, num_samples : int
        Steps a chain before draws are kept, and draws kept.
    num_chains, start
        As in `NUTS`; starts are trained on batches where there are.
    thinning : int
        Steps a kept draw: one step moves little, so take many.
    batch_size : int or None
        Rows a step, drawn with replacement; ``None`` takes all.
    step_size : float or None
        h in z ← z − h/2 ĝ(z) + √h ξ, g the gradient of minus the log posterior **of all rows**. ``None``: found for
        each chain from curvature and noise where it is in warm-up, so that both together make no variance more than
        about a tenth too large.
    decay, decay_steps : float, int
        h is multiplied by (1 + t / decay_steps)^−decay at step t after warm-up; 0 keeps it. Welling & Teh prove
        convergence for exponents in (0.5, 1], for draws weighted by h; ours are kept with equal weight.
    warm_restarts : int
        Steps, after warm-up, in which h is annealed by a cosine to a tenth before it is set back; 0 for never.
    preconditioner : str
        ``"rmsprop"``: steps longer where gradients are small, adapted in warm-up and then fixed.
    control_variates : bool
        Refer each gradient to the one of all rows at the chain's start, which takes noise away near it and two
        gradients a step.
    temperature : float
        T of exp(−U / T); below 1 a cold posterior, 0 plain SGD with learning rate h / 2.

    References
    ----------
    Welling & Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics. Li et al. (2016) for the
    preconditioner, Baker et al. (2019) for control variates, reviewed by Nemeth & Fearnhead (2021), Seedat & Kanan
    (2019) for warm restarts. `bnn_zoo.methods.stochastic.stepping` derives the step size.
    """

    num_warmup: int = 10_000
    num_samples: int = 1000
    num_chains: int = 4
    thinning: int = 100
    start: str = "ensemble"
    batch_size: int | None = None
    step_size: float | None = None
    decay: float = 0.0
    decay_steps: int = 1000
    warm_restarts: int = 0
    preconditioner: str = "none"
    control_variates: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_lengths(self)
        check_choice("preconditioner", self.preconditioner, PRECONDITIONERS)
        check_steps(self)
        check_decay(self)

    @property
    def rule(self) -> Rule:
        """What the kernel is told."""
        return rule_of(self, underdamped=False, course=course_of(self))


@settings
class SGHMC(StochasticChain):
    """Stochastic-gradient Hamiltonian Monte Carlo: Langevin dynamics with momentum, discretised as BAOAB.

    Choose it over `SGLD` where directions differ much in curvature, as they do in networks: momentum carries it along
    the flat ones, as long as the noise of batches does not call for more friction than momentum survives: with all
    rows, large batches or control variates. Exact on a Gaussian with all rows a step, at any stable step size.

    Parameters
    ----------
    num_warmup, num_samples, num_chains, thinning, start, batch_size, control_variates, temperature, preconditioner
        As in `SGLD`.
    decay, decay_steps, warm_restarts
        As in `SGLD`.
    step_size : float or None
        Time h of a step of dz = m dt, dm = −∇U dt − γ m dt + √(2γ) dW: stable up to 2 / √(largest curvature).
        ``None``: found for each chain, at most half of 1 / √(largest curvature).
    friction : float or None
        γ. ``None``: as much as keeps the heat of batches below a tenth, and at least a tenth a step.
    noise_estimate : bool
        Take the noise of batches, as last found in warm-up, off the injected noise.

    References
    ----------
    Chen et al. (2014), Stochastic gradient Hamiltonian Monte Carlo, equation 13 with its B̂; Leimkuhler & Matthews
    (2013) for BAOAB, in place of Chen's discretisation, which is biased: `bnn_zoo.methods.stochastic.kernels` says how.
    """

    num_warmup: int = 10_000
    num_samples: int = 1000
    num_chains: int = 4
    thinning: int = 100
    start: str = "ensemble"
    batch_size: int | None = None
    step_size: float | None = None
    friction: float | None = None
    decay: float = 0.0
    decay_steps: int = 1000
    warm_restarts: int = 0
    preconditioner: str = "none"
    control_variates: bool = False
    noise_estimate: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_lengths(self)
        check_choice("preconditioner", self.preconditioner, PRECONDITIONERS)
        check_steps(self)
        check_decay(self)
        check_friction(self)

    @property
    def rule(self) -> Rule:
        """What the kernel is told."""
        return rule_of(self, underdamped=True, course=course_of(self))


def check_decay(method: Any) -> None:
    """Raise unless the step size can change as asked."""
    if method.decay:
        check_between("decay", method.decay, 0, 1, "0.55 is usual; 0 keeps the step size.")
    check_count("decay_steps", method.decay_steps)
    check_count("warm_restarts", method.warm_restarts, 0)
    if method.decay and method.warm_restarts:
        raise bad_value("decay", "0 with warm restarts", method.decay, "A step size follows one course.")


def check_friction(method: Any) -> None:
    """Raise unless the friction can be used."""
    if method.friction is not None:
        check_positive("friction", method.friction, "None finds one.")


def course_of(method: Any) -> Course:
    """Return the course of the step size of a method without explorations."""
    return Course(decay=float(method.decay), decay_steps=method.decay_steps, cycle_steps=method.warm_restarts)


def rule_of(method: Any, *, underdamped: bool, course: Course) -> Rule:
    """Tell the kernel what a method asks for; what it does not know of is off."""
    return Rule(
        underdamped=underdamped,
        batch_size=method.batch_size,
        step_size=method.step_size,
        friction=getattr(method, "friction", None),
        temperature=float(method.temperature),
        control_variates=getattr(method, "control_variates", False),
        preconditioned=getattr(method, "preconditioner", "none") == "rmsprop",
        noise_estimate=getattr(method, "noise_estimate", False),
        course=course,
        exploration_temperature=float(getattr(method, "exploration_temperature", 0.0)),
    )
