"""The kernels: overdamped and underdamped Langevin dynamics on estimated gradients.

**Overdamped** (SGLD; Welling & Teh 2011, equation 4), with a diagonal preconditioner G and an estimate ĝ of ∇U:

    z ← z − h/2 G ĝ(z) + √(h T G) ξ.

On N(0, 1/λ) its stationary variance is 1 / (λ (1 − h λ / 4)), and it is unstable from h λ = 4 on.

**Underdamped** (SGHMC; Chen 2014) splits dz = G^½ m dt, dm = −G^½ ĝ dt − γ m dt + √(2 γ T) dW into its three parts,
each solved exactly, in the order B A O A B (Leimkuhler & Matthews 2013), of which one step is written here from the
middle of a kick to the middle of the next, so that two half kicks by the same gradient are one:

    z ← z + h/2 G^½ m
    m ← e^{−γh} m + √((1 − e^{−2γh}) T) ξ
    z ← z + h/2 G^½ m
    m ← m − h G^½ ĝ(z)

On N(0, 1/λ) the variance of z is exactly T/λ, at any step with h √λ < 2. From one O to the next A, B and A are a
turn that preserves λ z² + (1 − h²λ/4) m²; O leaves m with variance T; so z has T (1 − h²λ/4) / λ there, and T/λ half a
drift, h/2 m, later. The gradient at the old position, as in Chen's own and BlackJAX's
discretisation, gives 1.11 at h = 0.1 and γ = 1, and blows up once h λ ≥ γ. Momenta persist; every step has a new batch.

An exploration (Zhang 2020) begins with steps that are stable where they were found, and may come to where the curvature
is several times that. It samples nothing, so its moves are held to what they would be at a hundred times the
temperature: a chain that would have left the numbers is still near when the steps have become short again.

A batch adds a kick of variance h² G V. With ``noise_estimate`` the injected noise is made smaller by that much, V the
variances of the gradient as last found in warm-up (the B̂ of Chen 2014, section 3.3, as a diagonal).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.infer.mcmc import MCMCKernel

from bnn_zoo.engine.density import Problem
from bnn_zoo.methods.stochastic import stepping
from bnn_zoo.methods.stochastic.gradients import Centre, centre_at, estimate, look_around
from bnn_zoo.methods.stochastic.stepping import Course

FORGETTING = 0.99  # of the mean square of RMSprop (Li 2016)
FLOOR = 1e-5  # under its root
HOTTEST = 100.0  # temperature that the long steps of an exploration are held to


class State(NamedTuple):
    """One chain; fields that a kernel does not use have no length."""

    z: jax.Array  # (p,)
    momentum: jax.Array  # (p,) or (0,)
    scale: jax.Array  # (p,) or (0,): root of the preconditioner
    square: jax.Array  # (p,) or (0,): mean square of gradients a row
    excess: jax.Array  # (p,) or (0,): variances of the gradient estimates
    centre: Centre
    step_size: jax.Array  # before the course's factor
    friction: jax.Array
    step: jax.Array  # of sampling: negative in warm-up
    made: jax.Array  # gradients in the last call
    temperature: jax.Array  # configurational, from the last gradient
    kinetic: jax.Array
    current: jax.Array  # step size of the last step
    place: jax.Array  # in a window of rows: a random one, and one more a step
    key: jax.Array


class Rule(NamedTuple):
    """What sets the kernels apart; see `bnn_zoo.methods.SGLD` and `bnn_zoo.methods.SGHMC`."""

    underdamped: bool
    batch_size: int | None
    step_size: float | None
    friction: float | None
    temperature: float
    control_variates: bool
    preconditioned: bool
    noise_estimate: bool
    course: Course
    exploration_temperature: float


class StochasticGradient(MCMCKernel):
    """Langevin dynamics on a problem, as a NumPyro kernel."""

    sample_field = "z"

    def __init__(self, problem: Problem, rule: Rule) -> None:
        self.problem, self.rule, self.num_warmup = problem, rule, 0

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        rule, problem, z = self.rule, self.problem, init_params
        key, key_square, key_local, key_momentum = jax.random.split(rng_key, 4)
        key_place = jax.random.fold_in(rng_key, 4)
        none = jnp.zeros((0,), z.dtype)
        centre = centre_at(problem, z, rule.control_variates)
        square, scale = none, none
        if rule.preconditioned:
            found = lax.map(
                lambda key: (estimate(problem, rule.batch_size, z, centre, key) / problem.total_rows) ** 2,
                jax.random.split(key_square, 16),
            )
            square = found.mean(0)
            scale = _preconditioner(square)
        step_size, friction, excess = self._found(z, centre, scale, key_local)
        self.num_warmup = num_warmup
        zero = jnp.zeros((), z.dtype)
        momentum = none
        if rule.underdamped:
            momentum = jnp.sqrt(rule.temperature) * jax.random.normal(key_momentum, z.shape, z.dtype)
        return State(
            z=z,
            momentum=momentum,
            scale=scale,
            square=square,
            excess=excess,
            centre=centre,
            step_size=step_size,
            friction=friction,
            step=jnp.asarray(-num_warmup, jnp.int32),
            made=jnp.ones((), jnp.int32),
            temperature=zero,
            kinetic=zero,
            current=step_size,
            place=jax.random.randint(key_place, (), 0, problem.num_rows),
            key=key,
        )

    def sample(self, state, model_args, model_kwargs):
        course = self.rule.course
        sampled = max(course.sampled, 1)
        within = jnp.maximum(state.step, 0) % sampled
        # Gradients, of which control variates take two a step.
        each = 2 if self.rule.control_variates and self.rule.batch_size is not None else 1
        made = jnp.full((), each, jnp.int32)
        if self.rule.step_size is None or self.rule.noise_estimate:
            state = self._look_again(state)
        if course.explored:
            # A cycle begins with its exploration, all of it, so that every draw is one of the sampling stage.
            cool = self.rule.exploration_temperature
            begins = (state.step >= 0) & (within == 0)
            made = jnp.where(begins, course.explored + 1, 1).astype(jnp.int32)
            explore = lambda i, s: self._move(s, course.factor(0, i), cool, hottest=HOTTEST)  # noqa: E731
            state = lax.fori_loop(0, made - 1, explore, state)
        factor = course.factor(state.step, course.explored + within)
        if course.cycle_steps or course.decay:
            factor = jnp.where(state.step < 0, course.factor(0, course.explored), factor)
        state = self._move(state, factor, self.rule.temperature)
        return state._replace(step=state.step + 1, made=made)

    def _look_again(self, state: State) -> State:
        """Find the step size anew after 1, 2, 4, 8 … steps of warm-up and at its end.

        What is found at a draw from the prior is nothing to go by at a mode.
        """
        done = state.step + self.num_warmup
        due = (done > 0) & (((state.step < 0) & ((done & (done - 1)) == 0)) | (state.step == 0))

        def look(_: int, state: State) -> State:
            key, key_local = jax.random.split(state.key)
            step_size, friction, excess = self._found(state.z, state.centre, state.scale, key_local)
            return state._replace(step_size=step_size, friction=friction, excess=excess, key=key)

        # A loop of no or one round, which vectorised chains skip where none is due; a cond they would not.
        return lax.fori_loop(0, due.astype(jnp.int32), look, state)

    def _found(self, z: jax.Array, centre: Centre, scale: jax.Array, key: jax.Array) -> tuple:
        """Step size, friction, and variances of the gradient, as asked for or as they are found at the start."""
        rule, none = self.rule, jnp.zeros((0,), z.dtype)
        given = rule.step_size is not None and (rule.friction is not None or not rule.underdamped)
        if given and not rule.noise_estimate:
            return jnp.asarray(rule.step_size, z.dtype), jnp.asarray(rule.friction or 0.0, z.dtype), none
        root = scale if scale.size else jnp.ones_like(z)
        local = look_around(self.problem, rule.batch_size, z, centre, root, key)
        found: Any = rule.step_size
        if found is None:
            find = stepping.hamiltonian_step if rule.underdamped else stepping.langevin_step
            found = find(local, rule.temperature)
            if rule.course.explored:
                boldest = stepping.boldest_step(local, rule.underdamped)
                found = jnp.minimum(found / rule.course.factor(0, rule.course.explored), boldest)
        step_size = jnp.asarray(found, z.dtype)
        friction: Any = rule.friction
        if friction is None:
            friction = stepping.friction_for(step_size, local, rule.temperature)
        return step_size, jnp.asarray(friction, z.dtype), local.variances if rule.noise_estimate else none

    def _move(self, state: State, factor: Any, heat: float, hottest: float | None = None) -> State:
        """Take a step; with ``hottest`` one that is no longer than thermal motion at that temperature would make it."""
        key, key_batch, key_noise = jax.random.split(state.key, 3)
        h = (state.step_size * factor).astype(state.z.dtype)
        white = jax.random.normal(key_noise, state.z.shape, state.z.dtype) if heat else jnp.zeros_like(state.z)
        state = state._replace(key=key, current=h, place=state.place + 1)
        move = self._underdamped if self.rule.underdamped else self._overdamped
        return move(state, h, heat, white, key_batch, hottest)

    def _overdamped(
        self, state: State, h: jax.Array, heat: float, white: jax.Array, key: jax.Array, hottest: float | None
    ) -> State:
        gradient = estimate(self.problem, self.rule.batch_size, state.z, state.centre, key, state.place)
        temperature = _virial(state.z, gradient, state.centre)
        state = self._adapted(state, gradient)
        drift = _spread(state, 0.5 * h * gradient)
        if hottest:
            drift = _shortened(drift, h * hottest)
        noise = jnp.sqrt(h * heat) * white
        return state._replace(z=state.z - _spread(state, drift) + _spread(state, noise), temperature=temperature)

    def _underdamped(
        self, state: State, h: jax.Array, heat: float, white: jax.Array, key: jax.Array, hottest: float | None
    ) -> State:
        kept = jnp.exp(-state.friction * h)
        z = state.z + 0.5 * h * _spread(state, state.momentum)
        variance: Any = -jnp.expm1(-2 * state.friction * h) * heat
        if state.excess.size:
            variance = jnp.maximum(variance - h**2 * _spread(state, _spread(state, state.excess)), 0.0)
        momentum = kept * state.momentum + jnp.sqrt(variance) * white
        # Without the barrier XLA draws the random numbers in z anew for every row that z is multiplied with.
        z = lax.optimization_barrier(z + 0.5 * h * _spread(state, momentum))
        gradient = estimate(self.problem, self.rule.batch_size, z, state.centre, key, state.place)
        kick = h * _spread(state, gradient)
        half = momentum - 0.5 * kick
        state = self._adapted(state, gradient)
        momentum = momentum - kick
        return state._replace(
            z=z,
            momentum=_shortened(momentum, hottest) if hottest else momentum,
            temperature=_virial(z, gradient, state.centre),
            kinetic=jnp.mean(half**2),
        )

    def _adapted(self, state: State, gradient: jax.Array) -> State:
        """Move the preconditioner in warm-up. It stays put afterwards, so that Li's term Γ, its divergence, is 0."""
        if not state.square.size:
            return state
        new = FORGETTING * state.square + (1 - FORGETTING) * (gradient / self.problem.total_rows) ** 2
        square = jnp.where(state.step < 0, new, state.square)
        return state._replace(square=square, scale=_preconditioner(square))


def _spread(state: State, a: jax.Array) -> jax.Array:
    """Return ``a (p,)`` times the root of the preconditioner, where there is one."""
    return state.scale * a if state.scale.size else a


def _shortened(a: jax.Array, most: Any) -> jax.Array:
    """Return ``a (p,)``, or what has its direction and the mean square ``most`` where it has more."""
    return a * jnp.minimum(1.0, jnp.sqrt(most * a.size) / jnp.maximum(jnp.linalg.norm(a), jnp.finfo(a.dtype).tiny))


def _virial(z: jax.Array, gradient: jax.Array, centre: Centre) -> jax.Array:
    """(z − c) · ∇U(z) / p, which is the temperature on average, about whatever centre."""
    return jnp.dot(z - centre.z, gradient) / z.size


def _preconditioner(square: jax.Array) -> jax.Array:
    """Root of RMSprop's diagonal (Li 2016, equation 6), scaled to leave the total noise of gradients as it is."""
    diagonal = 1 / (FLOOR + jnp.sqrt(square))
    return jnp.sqrt(diagonal * jnp.sum(square) / jnp.sum(diagonal * square))
