"""The microcanonical kernels: isokinetic Langevin dynamics, with and without an accept step.

A position z (p,) moves at constant speed in a direction u, |u| = 1, that the gradient turns (Robnik 2023, equation 11;
Robnik & Seljak 2024, equation 2), in coordinates in which variances are about 1 (M⁻¹, a diagonal):

    dz = M^−½ u dt,    du = (1 − u uᵀ) M^−½ ∇log π(z) / (p − 1) dt + noise that forgets u over a distance L.

The steps are BlackJAX's ``isokinetic_mclachlan`` (minimal-norm splitting, two gradients a step) between two half
refreshments of u (``with_isokinetic_maruyama``). ΔE, the change of −log π plus that of the kinetic energy, would be 0
for exact steps: it is the error. Adjusted, a trajectory with u drawn anew at its start and no noise on the way is
accepted with probability min(1, exp(−ΔE)) (``adjusted_mclmc_dynamic``), its number of steps random.

Warm-up, unadjusted, is in five stages, of which the first four are BlackJAX's (``mclmc_find_L_and_step_size``):

1. step size (2 / 10 of the warm-up); 2. step size, and variances of positions weighted by ε (3 / 10), which then become
M⁻¹, with L = √p; 3. step size anew (1 / 10); 4. at that step, L = 0.4 ε τ, with τ the correlation time (2 / 10);
5. step size held down (2 / 10): where the plain mean of ΔE² / p over an eighth of the stage is twice the target, ε is
made shorter, by a fifth at most. BlackJAX's predictor is robust against rare large errors, and in a network these are
what matters: on 353 rows of diabetes (1×50) its own step sizes had 60 and 900 times the E[ΔE²] / p asked for.

Adjusted (``adjusted_mclmc_find_L_and_step_size``): 1. step size by dual averaging, 2. variances, 3. step size anew, a
third each; a trajectory is two steps long on average.

Departures from BlackJAX. Unadjusted: a step that is not finite, or whose ΔE² is 1000 times its target, is rejected and
u drawn anew, in warm-up and after: a chain is not thrown off the network that it starts from while its step is still
being found. τ comes from 20 batch means, in place of autocorrelations of stored draws, for which the state of a chain
has no room. M⁻¹ is found twice, the second time from the other half of stage 2, in the coordinates of the first, in
which the chain is no longer as slow as unequal scales make it. In the end ε is a tenth shorter than found. Both: after
M⁻¹ is set the search for ε begins anew, from √p / 4 (adjusted: / 5), as a step found in other units may be too short by
orders of magnitude and is lengthened slowly. On request (``preconditioned=False``) M⁻¹ stays 1, and L is the root of
the sum of variances, as in BlackJAX; the target of stages 1 to 3 may fall to its last value, as in bde.
The sums behind step size and variances are those of `bnn_zoo.methods.mcmc.tuning`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.infer.mcmc import MCMCKernel

from bnn_zoo.engine.density import Problem
from bnn_zoo.methods.mcmc import tuning
from bnn_zoo.methods.mcmc.tuning import Moments

REJECTED = 1000.0  # × the target of ΔE² / p
LENGTH_FACTOR = 0.4  # BlackJAX's l_factor
NUM_BATCHES = 20
STAGES = (0.2, 0.5, 0.6, 0.8)  # of warm-up, unadjusted: where each ends; the fifth ends with it
NUM_WINDOWS = 8  # of the last
TOO_MUCH = 1.0  # × the target, the mean over a window
LEAST_FACTOR = 0.8
MARGIN = 0.9  # of the step size in the end: sampling takes more steps than warm-up, and finds more narrow places
STEPS = 2.0  # a trajectory, on average: BlackJAX's target_num_integration_steps
MOST_STEPS = 1024
MOST_HALVINGS = 60


class Rule(NamedTuple):
    """What a kernel is told; see `bnn_zoo.methods.MCLMC`."""

    step_size: float | None
    length: float | None
    adjusted: bool
    energy_variance: float
    first_energy_variance: float
    preconditioned: bool
    target_accept: float


class State(NamedTuple):
    """One chain; fields that a kernel does not use have no length."""

    z: jax.Array  # (p,)
    momentum: jax.Array  # (p,) or (0,): u
    log_density: jax.Array
    gradient: jax.Array  # (p,), of the log density
    inverse_mass: jax.Array  # (p,)
    step_size: jax.Array
    length: jax.Array
    finder: Any  # StepFinder, or the state of dual averaging
    moments: Moments  # of positions; after warm-up their mean is the centre of the virial
    batches: Moments  # of means of batches of positions
    batch: jax.Array  # (p,) or (0,): sum over the batch that is being filled
    errors: jax.Array  # sum of ΔE² / p over the window
    iteration: jax.Array
    energy_variance: jax.Array  # ΔE² / p of the last step, a rejected one's too
    accept_prob: jax.Array
    diverging: jax.Array
    made: jax.Array  # gradients in the last iteration
    key: jax.Array

    @property
    def temperature(self) -> jax.Array:
        """−(z − c) · ∇log π / p, which is 1 on average, about whatever centre c (the virial theorem)."""
        return -jnp.dot(self.z - self.moments.mean, self.gradient) / self.z.size


class Microcanonical(MCMCKernel):
    """Microcanonical Langevin dynamics on a problem, as a NumPyro kernel."""

    sample_field = "z"

    def __init__(self, problem: Problem, rule: Rule) -> None:
        from blackjax.adaptation.step_size import dual_averaging_adaptation
        from blackjax.mcmc.integrators import isokinetic_mclachlan

        self.log_density, self.rule, self.num_warmup = problem.log_posterior, rule, 0
        self._integrator = isokinetic_mclachlan
        self._dual = dual_averaging_adaptation(target=rule.target_accept)

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        from blackjax.util import generate_unit_vector

        z, rule = init_params, self.rule
        self.num_warmup = num_warmup
        key, key_momentum, key_step = jax.random.split(rng_key, 3)
        value, gradient = jax.value_and_grad(self.log_density)(z)
        none, zero, root = jnp.zeros((0,), z.dtype), jnp.zeros((), z.dtype), jnp.sqrt(z.size).astype(z.dtype)
        state = State(
            z=z,
            momentum=none if rule.adjusted else generate_unit_vector(key_momentum, z),
            log_density=value,
            gradient=gradient,
            inverse_mass=jnp.ones_like(z),
            step_size=root / self._first_share,
            length=root,
            finder=None,
            moments=tuning.new_moments(z)._replace(mean=z),
            batches=tuning.new_moments(none if rule.adjusted else z),
            batch=none if rule.adjusted else jnp.zeros_like(z),
            errors=zero,
            iteration=jnp.zeros((), jnp.int32),
            energy_variance=zero,
            accept_prob=zero,
            diverging=jnp.zeros((), bool),
            made=jnp.zeros((), jnp.int32),
            key=key,
        )
        if not num_warmup:  # what warm-up would find is asked for, or guessed
            state = self._settled(state._replace(step_size=self._halved(state, key_step)))
        return state._replace(finder=self._new_finder(state), length=self._length(state))

    def sample(self, state, model_args, model_kwargs):
        key, key_move = jax.random.split(state.key)
        move, adapt = (self._jump, self._adapt_jumps) if self.rule.adjusted else (self._move, self._adapt_moves)
        new = move(state._replace(key=key), key_move)
        if self.num_warmup:
            new = lax.cond(state.iteration < self.num_warmup, adapt, lambda s: s, new)
        new = new._replace(length=self._length(new), iteration=state.iteration + 1)
        return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, state)

    # --- one iteration ----------------------------------------------------------------------------------------------

    def _stepped(self, state: State, key: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
        """One step of the integrator from ``state``: where it ends, ΔE² / p, and whether all of that is finite."""
        from blackjax.mcmc.integrators import IntegratorState, with_isokinetic_maruyama

        step = with_isokinetic_maruyama(self._integrator(self.log_density, state.inverse_mass))
        here = IntegratorState(state.z, state.momentum, state.log_density, state.gradient)
        there, kinetic = step(here, state.step_size, state.length, key)
        error = kinetic - there.logdensity + here.logdensity
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in (*there, error)]))
        return there, error**2 / state.z.size, finite

    def _move(self, state: State, key: jax.Array) -> State:
        """Langevin step. What is not finite, or far off its energy, is rejected."""
        from blackjax.util import generate_unit_vector

        key_step, key_turn = jax.random.split(key)
        there, error, finite = self._stepped(state, key_step)
        most = REJECTED * self._target(state)
        taken = finite & (error <= most)
        return state._replace(
            z=jnp.where(taken, there.position, state.z),
            momentum=jnp.where(taken, there.momentum, generate_unit_vector(key_turn, state.z)),
            log_density=jnp.where(taken, there.logdensity, state.log_density),
            gradient=jnp.where(taken, there.logdensity_grad, state.gradient),
            energy_variance=jnp.where(finite, error, jnp.inf),
            diverging=~taken,
            made=jnp.full((), 2, jnp.int32),
        )

    def _jump(self, state: State, key: jax.Array) -> State:
        """Trajectory, accepted or rejected."""
        from blackjax.mcmc import adjusted_mclmc_dynamic as dynamic

        key_steps, key_move = jax.random.split(key)
        number = dynamic.make_random_trajectory_length_fn(True)

        def steps(key: jax.Array, mean: jax.Array) -> jax.Array:
            return jnp.minimum(number(key, mean), MOST_STEPS)

        here = dynamic.DynamicHMCState(state.z, state.log_density, state.gradient, key_steps)
        kernel = dynamic.build_kernel(steps, self._integrator)
        there, info = kernel(
            key_move,
            here,
            self.log_density,
            state.step_size,
            inverse_mass_matrix=state.inverse_mass,
            integration_steps_params=(jnp.clip(state.length / state.step_size, 1.0, MOST_STEPS / 2),),
        )
        # With a density that is finite and a gradient that is not, no later trajectory could leave.
        taken = jnp.all(jnp.isfinite(there.logdensity_grad))
        return state._replace(
            z=jnp.where(taken, there.position, state.z),
            log_density=jnp.where(taken, there.logdensity, state.log_density),
            gradient=jnp.where(taken, there.logdensity_grad, state.gradient),
            accept_prob=jnp.where(taken, info.acceptance_rate, 0.0),
            diverging=info.is_divergent | ~taken,
            made=2 * info.num_integration_steps,
        )

    # --- warm-up ----------------------------------------------------------------------------------------------------

    def _adapt_moves(self, state: State) -> State:
        i, rule = state.iteration, self.rule
        first, second, third, fourth = self._stages
        finite = jnp.isfinite(state.energy_variance)
        finder, step_size = tuning.find_step(
            state.finder, state.step_size, state.energy_variance, finite, self._target(state)
        )
        free = (i < third) if rule.step_size is None else (i < second)
        weight = jnp.where(~state.diverging & (i >= first) & (i < second), state.step_size, 0.0)
        weight = jnp.where((i >= third) & (i < fourth), 1.0, weight)
        state = self._fill_batch(state)._replace(
            finder=finder,
            step_size=jnp.where(free, step_size, state.step_size),
            moments=tuning.add_to(state.moments, state.z, weight),
        )
        half = (first + second) // 2
        state = lax.cond((i == half - 1) | (i == second - 1), self._precondition, lambda s: s, state)
        # Moments begin anew, but for the mean: a centre for where no stage is left.
        fresh = state.moments._replace(weight=0 * state.moments.weight, squares=0 * state.moments.squares)
        moments = jax.tree.map(lambda a, b: jnp.where((i == half - 1) | (i == third - 1), a, b), fresh, state.moments)
        state = lax.cond(i == fourth - 1, self._lengthen, lambda s: s, state._replace(moments=moments))
        return state if rule.step_size is not None else self._hold_down(state)

    def _target(self, state: State) -> jax.Array:
        """ΔE² / p that a step is to have now: falls geometrically over the first three stages."""
        first, last = self.rule.first_energy_variance, self.rule.energy_variance
        left = 1.0 - jnp.minimum(state.iteration / max(self._stages[2], 1), 1.0)
        return jnp.asarray(last * (first / last) ** left, state.z.dtype)

    @property
    def _stages(self) -> tuple[int, ...]:
        """Iterations before which the first four stages end."""
        return tuple(round(share * self.num_warmup) for share in STAGES)

    @property
    def _batch_size(self) -> int:
        """Steps of a batch of the fourth stage; 0 if it is too short for batches."""
        return (self._stages[3] - self._stages[2]) // NUM_BATCHES

    def _fill_batch(self, state: State) -> State:
        """Add a position to the batch that is being filled, in the fourth stage."""
        size, begin, end = max(self._batch_size, 1), self._stages[2], self._stages[3]
        inside = (state.iteration >= begin) & (state.iteration < end)
        batch = jnp.where(inside, state.batch + state.z, state.batch)
        full = inside & ((state.iteration - begin + 1) % size == 0)
        batches = tuning.add_to(state.batches, batch / size, full.astype(batch.dtype))
        return state._replace(batches=batches, batch=jnp.where(full, 0.0, batch))

    def _lengthen(self, state: State) -> State:
        """L = 0.4 ε τ, where the fourth stage was long enough to see batches."""
        if not self._batch_size:
            return state
        time = tuning.correlation_steps(state.moments, state.batches, self._batch_size)
        return state._replace(length=LENGTH_FACTOR * state.step_size * time)

    def _hold_down(self, state: State) -> State:
        """Shorten the step at the end of a window of the last stage that had too large errors."""
        i, target, begin = state.iteration, self.rule.energy_variance, self._stages[3]
        size = max((self.num_warmup - begin) // NUM_WINDOWS, 1)
        errors = state.errors + jnp.where(i >= begin, jnp.minimum(state.energy_variance, REJECTED * target), 0.0)
        full = ((i >= begin) & ((i - begin + 1) % size == 0)) | (i == self.num_warmup - 1)
        ratio = errors / size / target
        factor = jnp.where(ratio > TOO_MUCH, jnp.maximum(ratio ** (-1 / 6), LEAST_FACTOR), 1.0)
        factor = jnp.where(i == self.num_warmup - 1, MARGIN * factor, factor)
        return state._replace(
            step_size=jnp.where(full, factor, 1.0) * state.step_size, errors=jnp.where(full, 0.0, errors)
        )

    def _adapt_jumps(self, state: State) -> State:
        i, n = state.iteration, self.num_warmup
        first, second = round(n / 3), round(2 * n / 3)
        _, update, final = self._dual
        finder = update(state.finder, state.accept_prob)
        # A step as long as the typical set is wide, √p, is never of use.
        log_step = jnp.minimum(finder.log_step_size, 0.5 * jnp.log(state.z.size))
        finder = finder._replace(log_step_size=log_step)
        fixed = (i >= first) & (i < second)
        finder = jax.tree.map(lambda a, b: jnp.where(fixed, b, a), finder, state.finder)
        step_size = jnp.where(fixed, state.step_size, jnp.exp(log_step))
        step_size = jnp.where((i == first - 1) | (i == n - 1), final(finder), step_size)
        weight = jnp.where(fixed, 1.0, 0.0)
        state = state._replace(
            finder=finder, step_size=step_size, moments=tuning.add_to(state.moments, state.z, weight)
        )
        state = lax.cond(i == second - 1, self._precondition, lambda s: s, state)
        return lax.cond(i == n - 1, self._settled, lambda s: s, state)

    def _precondition(self, state: State) -> State:
        """Set M⁻¹, and begin the search for ε anew in its units, in which all sds are 1, or set L alone."""
        if not self.rule.preconditioned:
            length = jnp.sqrt(jnp.sum(state.moments.variance))
            return state._replace(length=jnp.where(length > 0, length, state.length).astype(state.z.dtype))
        variance = tuning.inverse_mass(state.moments).astype(state.z.dtype)
        root = jnp.sqrt(state.z.size).astype(state.z.dtype)
        state = state._replace(inverse_mass=variance, step_size=root / self._first_share, length=root)
        state = state if self.rule.adjusted else self._settled(state)
        finder = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), self._new_finder(state), state.finder)
        return state._replace(finder=finder)

    def _settled(self, state: State) -> State:
        """The step size that was asked for, in place of one that was found."""
        if self.rule.step_size is None:
            return state
        return state._replace(step_size=jnp.full((), self.rule.step_size, state.z.dtype))

    @property
    def _first_share(self) -> int:
        """Of √p, the first step size: BlackJAX's."""
        return 5 if self.rule.adjusted else 4

    def _length(self, state: State) -> jax.Array:
        if self.rule.length is not None:
            return jnp.full((), self.rule.length, state.z.dtype)
        return STEPS * state.step_size if self.rule.adjusted else state.length

    def _new_finder(self, state: State) -> Any:
        if self.rule.adjusted:
            begin = self._dual[0](state.step_size)
            return jax.tree.map(lambda a: jnp.asarray(a, state.z.dtype), begin)
        return tuning.new_finder(state.z)

    def _halved(self, state: State, key: jax.Array) -> jax.Array:
        """Halve the step size until a first step has the energy error that is asked for."""
        if self.rule.step_size is not None:
            return state.step_size
        from blackjax.util import generate_unit_vector

        state = state._replace(momentum=generate_unit_vector(key, state.z))

        def too_long(carry: tuple) -> jax.Array:
            step_size, tries = carry
            _, error, finite = self._stepped(state._replace(step_size=step_size), key)
            return (tries < MOST_HALVINGS) & ~(finite & (error <= self.rule.energy_variance))

        return lax.while_loop(too_long, lambda c: (c[0] / 2, c[1] + 1), (state.step_size, 0))[0]
