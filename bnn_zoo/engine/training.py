"""The one training loop: Optax on the negative log posterior per row, members vectorised, in chunks of one program.

MAP, ensembles and warm starts use it. A loss is the log posterior of **all** rows divided by ``-n``, so that a learning
rate carries over from one data set to another; a mini-batch enters as its unbiased estimate, so the prior keeps its
weight whatever the batch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from bnn_zoo.engine.compiled import Request, call, compile_together, compiled, runs_once
from bnn_zoo.engine.context import Context, Progress
from bnn_zoo.engine.density import Batch, Problem
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.journal import SECONDS, entry_name

CHUNK_SECONDS = 0.25
TRACE_POINTS = 200


@settings
class Schedule:
    """Adam with a cosine decay to zero, then L-BFGS on all rows.

    Parameters
    ----------
    num_steps : int
        Adam steps.
    learning_rate : float
        Of the first step.
    batch_size : int or None
        Rows a step, drawn without replacement each epoch; ``None`` takes all.
    polish_steps : int
        Most L-BFGS steps after Adam; 0 for none.
    """

    num_steps: int = 1000
    learning_rate: float = 0.01
    batch_size: int | None = None
    polish_steps: int = 0

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The Optax optimiser of the first phase."""
        return optax.adam(optax.cosine_decay_schedule(self.learning_rate, max(self.num_steps, 1)))


@dataclass(frozen=True, eq=False)
class Trained:
    """Optimised members.

    Attributes
    ----------
    positions : ndarray
        ``(M, p)``.
    log_posterior, gradient_norm : ndarray
        ``(M,)``, over all rows, at the end.
    losses : ndarray
        ``(T, M)``: minus log posterior per row along the way, at most 200 points.
    gradients : int
        Gradient evaluations, all members together.
    """

    positions: np.ndarray
    log_posterior: np.ndarray
    gradient_norm: np.ndarray
    losses: np.ndarray
    gradients: int


class _State(NamedTuple):
    z: jax.Array  # (M, p)
    optimizer: Any
    key: jax.Array
    order: jax.Array  # (n,) rows of the present epoch
    offset: jax.Array  # (M,) where in it each member reads, so that members see different batches
    step: jax.Array
    losses: jax.Array  # (TRACE_POINTS, M)


def train(
    problem: Problem, z: jax.Array | np.ndarray, key: jax.Array, schedule: Schedule, context: Context, title: str
) -> Trained:
    """Maximise the log posterior from every row of ``z (M, p)`` at once."""
    watch = context.watch
    z, key = jnp.asarray(z), jnp.asarray(key)
    compile_together(requests(problem, len(z), schedule), watch=watch)
    state = call(_begin, (schedule,), problem, z, key, watch=watch)
    program = compiled(_advance, (schedule,), problem, state, np.int32(0), watch=watch)
    left, size, entry, written = schedule.num_steps, 50, entry_name(title), time.monotonic()
    kept = context.journal.get(entry) if context.journal is not None else None
    if kept is not None:
        state, left = _recovered(state, kept), int(kept["left"])
    with Progress(title, schedule.num_steps, context.progress) as progress:
        progress.advance(schedule.num_steps - left)
        while left:
            size = min(size, left)
            clock = time.perf_counter()
            state = jax.block_until_ready(program(problem, state, np.int32(size)))
            seconds = time.perf_counter() - clock
            left -= size
            if context.journal is not None and (left == 0 or time.monotonic() - written > SECONDS):
                context.journal.put(entry, _entry(state, left))
                written = time.monotonic()
            progress.advance(size, loss=f"{float(np.min(_last(state, schedule))):.4g}")
            size = max(1, min(int(size * CHUNK_SECONDS / max(seconds, 1e-6)), 4 * size))
    losses = np.asarray(state.losses)[: min(TRACE_POINTS, schedule.num_steps)]
    z, polished = state.z, 0
    if schedule.polish_steps:
        z, count = call(_polish, (schedule.polish_steps,), problem, z, watch=watch)
        polished = int(np.sum(count))
    value, norm = call(_judge, (), problem, z, watch=watch)
    return Trained(
        positions=np.asarray(z),
        log_posterior=np.asarray(value),
        gradient_norm=np.asarray(norm),
        losses=losses,
        gradients=schedule.num_steps * len(losses[0]) + polished if len(losses) else polished,
    )


def _entry(state: _State, left: int) -> dict[str, np.ndarray]:
    leaves = {f"state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    return {**leaves, "left": np.asarray(left)}


def _recovered(state: _State, kept: dict[str, np.ndarray]) -> _State:
    """Put the state that was written down in place of the one that training begins from."""
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, [jnp.asarray(kept[f"state_{i}"], leaf.dtype) for i, leaf in enumerate(leaves)])


def requests(problem: Problem, num_members: int, schedule: Schedule) -> list[Request]:
    """Programs that `train` will call, to be compiled beside others."""
    z = jax.ShapeDtypeStruct((num_members, problem.size), problem.x.dtype)
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    state = jax.eval_shape(partial(_begin, schedule), problem, z, key)
    found: list[Request] = [
        (_begin, (schedule,), (problem, z, key)),
        (_advance, (schedule,), (problem, state, np.int32(0))),
        (_judge, (), (problem, z)),
    ]
    if schedule.polish_steps:
        found.append((_polish, (schedule.polish_steps,), (problem, z)))
    return found


def _last(state: _State, schedule: Schedule) -> np.ndarray:
    return np.asarray(state.losses[_slot(int(state.step) - 1, schedule)])


def _slot(step: Any, schedule: Schedule) -> Any:
    return step * min(TRACE_POINTS, schedule.num_steps) // max(schedule.num_steps, 1)


# --- compiled programs ----------------------------------------------------------------------------------------------


def loss(problem: Problem, z: jax.Array, batch: Batch | None = None) -> jax.Array:
    """Minus log posterior per row at ``z (p,)``."""
    return -problem.log_posterior(z, batch) / problem.num_rows


@runs_once
def _begin(schedule: Schedule, problem: Problem, z: jax.Array, key: jax.Array) -> _State:
    members = z.shape[0]
    return _State(
        z=z,
        optimizer=jax.vmap(schedule.optimizer.init)(z),
        key=key,
        order=jnp.arange(problem.num_rows),
        offset=jnp.arange(members) * (problem.num_rows // members if problem.num_rows > members else 1),
        step=jnp.zeros((), jnp.int32),
        losses=jnp.zeros((TRACE_POINTS, members), z.dtype),
    )


def _advance(schedule: Schedule, problem: Problem, state: _State, num_steps: jax.Array) -> _State:
    rows = problem.num_rows
    size = min(schedule.batch_size or rows, rows)
    whole, per_epoch = size == rows, rows // size

    def batch_of(order: jax.Array, offset: jax.Array, step: jax.Array) -> Batch:
        where = order[(offset + (step % per_epoch) * size + jnp.arange(size)) % rows]
        return problem.x[where], problem.y[where]

    def shuffled(state: _State) -> tuple[jax.Array, jax.Array]:
        key, key_order = jax.random.split(state.key)
        return key, jax.random.permutation(key_order, rows)

    def one(z: jax.Array, optimizer: Any, offset: jax.Array, order: jax.Array, step: jax.Array) -> tuple:
        batch = None if whole else batch_of(order, offset, step)
        value, gradient = jax.value_and_grad(lambda z: loss(problem, z, batch))(z)
        update, optimizer = schedule.optimizer.update(gradient, optimizer, z)
        return optax.apply_updates(z, update), optimizer, value

    def body(_: jax.Array, state: _State) -> _State:
        key, order = state.key, state.order
        if not whole:
            key, order = lax.cond(state.step % per_epoch == 0, shuffled, lambda s: (s.key, s.order), state)
        z, optimizer, value = jax.vmap(one, in_axes=(0, 0, 0, None, None))(
            state.z, state.optimizer, state.offset, order, state.step
        )
        losses = state.losses.at[_slot(state.step, schedule)].set(value)
        return _State(z, optimizer, key, order, state.offset, state.step + 1, losses)

    return lax.fori_loop(0, num_steps, body, state)


def _polish(most: int, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """L-BFGS on all rows until the gradient is as small as the precision allows, or nothing improves.

    Of points whose values rounding cannot tell apart, the one of smaller gradient is kept.
    """
    # The loss is not divided by n here: its curvature is then of the size that the line search starts from.
    objective = problem.potential
    optimizer = optax.lbfgs()
    gradient_of = optax.value_and_grad_from_state(objective)
    eps = jnp.finfo(z.dtype).eps
    tolerance = 1e-4 * jnp.sqrt(eps / jnp.finfo(jnp.float32).eps)

    def one(z: jax.Array) -> tuple[jax.Array, Any]:
        def go_on(carry: tuple) -> jax.Array:
            _, _, step, _, best_norm, _, stalled = carry
            return (step < most) & (best_norm > tolerance) & (stalled < 10)

        def body(carry: tuple) -> tuple:
            z, state, step, best_value, best_norm, best, stalled = carry
            value, gradient = gradient_of(z, state=state)
            update, state = optimizer.update(gradient, state, z, value=value, grad=gradient, value_fn=objective)
            z = optax.apply_updates(z, update)
            new, norm = optax.tree.get(state, "value"), jnp.linalg.norm(optax.tree.get(state, "grad"))
            blur = 4 * eps * jnp.abs(best_value)
            better = (new < best_value - blur) | ((new < best_value + blur) & (norm < best_norm))
            kept = (jnp.where(better, a, b) for a, b in ((new, best_value), (norm, best_norm), (z, best)))
            return z, state, step + 1, *kept, jnp.where(better, 0, stalled + 1)

        value, gradient = jax.value_and_grad(objective)(z)
        start = (z, optimizer.init(z), 0, value, jnp.linalg.norm(gradient), z, 0)
        _, _, steps, _, _, best, _ = lax.while_loop(go_on, body, start)
        return best, steps

    return jax.vmap(one)(z)


@runs_once
def _judge(problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, gradient = lax.map(jax.value_and_grad(problem.log_posterior), z)
    return value, jnp.linalg.norm(gradient, axis=-1)
