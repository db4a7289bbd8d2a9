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

from bnn_zoo.engine.compiled import Request, Stopwatch, call, compile_together, compiled, runs_once
from bnn_zoo.engine.context import Context, Progress
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.iterates import Iterates
from bnn_zoo.engine.journal import SECONDS, entry_name
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.tasks import PLAIN, Task

CHUNK_SECONDS = 0.25
TRACE_POINTS = 200


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
    iterates : Iterates, optional
        Running moments, where the schedule collects them.
    """

    positions: np.ndarray
    log_posterior: np.ndarray
    gradient_norm: np.ndarray
    losses: np.ndarray
    gradients: int
    iterates: Iterates | None = None


class _State(NamedTuple):
    z: jax.Array  # (M, p)
    optimizer: Any
    key: jax.Array
    order: jax.Array  # (n,) rows of the present epoch
    offset: jax.Array  # (M,) where in it each member reads, so that members see different batches
    step: jax.Array
    losses: jax.Array  # (TRACE_POINTS, M)
    iterates: Iterates | None


def train(
    problem: Problem,
    z: jax.Array | np.ndarray,
    key: jax.Array,
    schedule: Schedule,
    context: Context,
    title: str,
    task: Task = PLAIN,
) -> Trained:
    """Maximise the log posterior, or what ``task`` says, from every row of ``z (M, p)`` at once."""
    watch = context.watch
    z, key = jnp.asarray(z), jnp.asarray(key)
    compile_together(requests(problem, len(z), schedule, task), watch=watch)
    state = call(_begin, (schedule,), problem, z, key, watch=watch)
    program = compiled(_advance, (schedule,), problem, task, state, np.int32(0), watch=watch)
    left, size, entry, written = schedule.num_steps, 50, entry_name(title), time.monotonic()
    kept = context.journal.get(entry) if context.journal is not None else None
    if kept is not None:
        state, left = _recovered(state, kept), int(kept["left"])
    with Progress(title, schedule.num_steps, context.progress) as progress:
        progress.advance(schedule.num_steps - left)
        while left:
            size = min(size, left)
            clock = time.perf_counter()
            state = jax.block_until_ready(program(problem, task, state, np.int32(size)))
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
        z, count = call(_polish, (schedule.polish_steps,), problem, task, z, watch=watch)
        polished = int(np.sum(count))
    value, norm = call(_judge, (), problem, task, z, watch=watch)
    return Trained(
        positions=np.asarray(z),
        log_posterior=np.asarray(value),
        gradient_norm=np.asarray(norm),
        losses=losses,
        gradients=schedule.num_steps * len(losses[0]) + polished if len(losses) else polished,
        iterates=state.iterates,
    )


def polish(problem: Problem, z: np.ndarray, most: int, watch: Stopwatch) -> Trained:
    """Take at most ``most`` L-BFGS steps on all rows from every row of ``z (M, p)``, in its precision."""
    count: Any = 0
    if most:
        z, count = call(_polish, (most,), problem, PLAIN, z, watch=watch)
    value, norm = (np.asarray(a) for a in call(_judge, (), problem, PLAIN, z, watch=watch))
    return Trained(np.asarray(z), value, norm, np.empty((0, len(value))), int(np.sum(count)))


def _entry(state: _State, left: int) -> dict[str, np.ndarray]:
    leaves = {f"state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    return {**leaves, "left": np.asarray(left)}


def _recovered(state: _State, kept: dict[str, np.ndarray]) -> _State:
    """Put the state that was written down in place of the one that training begins from."""
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, [jnp.asarray(kept[f"state_{i}"], leaf.dtype) for i, leaf in enumerate(leaves)])


def judge(problem: Problem, z: jax.Array, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Return log posterior and norm of its gradient, ``(M,)`` each, at ``z (M, p)``, over all rows."""
    value, norm = call(_judge, (), problem, PLAIN, z, watch=context.watch)
    return np.asarray(value), np.asarray(norm)


def requests(problem: Problem, num_members: int, schedule: Schedule, task: Task = PLAIN) -> list[Request]:
    """Programs that `train` will call, to be compiled beside others."""
    z = jax.ShapeDtypeStruct((num_members, problem.size), problem.x.dtype)
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    state = jax.eval_shape(partial(_begin, schedule), problem, z, key)
    found: list[Request] = [
        (_begin, (schedule,), (problem, z, key)),
        (_advance, (schedule,), (problem, task, state, np.int32(0))),
        (_judge, (), (problem, task, z)),
    ]
    if schedule.polish_steps:
        found.append((_polish, (schedule.polish_steps,), (problem, task, z)))
    return found


def _last(state: _State, schedule: Schedule) -> np.ndarray:
    return np.asarray(state.losses[_slot(int(state.step) - 1, schedule)])


def _slot(step: Any, schedule: Schedule) -> Any:
    return step * min(TRACE_POINTS, schedule.num_steps) // max(schedule.num_steps, 1)


# --- compiled programs ----------------------------------------------------------------------------------------------


def loss(problem: Problem, task: Task, z: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Minus one member's objective per row at ``z (p,)``, estimated from the rows ``where``."""
    return -task.log_posterior(problem, z, where) / problem.num_rows


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
        iterates=Iterates.none(z, schedule.rank) if schedule.collect_every else None,
    )


def _advance(schedule: Schedule, problem: Problem, task: Task, state: _State, num_steps: jax.Array) -> _State:
    rows = problem.num_rows
    size = min(schedule.batch_size or rows, rows)
    whole, per_epoch = size == rows, rows // size

    def rows_of(order: jax.Array, offset: jax.Array, step: jax.Array) -> jax.Array:
        return order[(offset + (step % per_epoch) * size + jnp.arange(size)) % rows]

    def shuffled(state: _State) -> tuple[jax.Array, jax.Array]:
        key, key_order = jax.random.split(state.key)
        return key, jax.random.permutation(key_order, rows)

    def one(task: Task, z: jax.Array, optimizer: Any, offset: jax.Array, order: jax.Array, step: jax.Array) -> tuple:
        where = None if whole else rows_of(order, offset, step)
        value, gradient = jax.value_and_grad(lambda z: loss(problem, task, z, where))(z)
        update, optimizer = schedule.optimizer.update(gradient, optimizer, z)
        if task.rate is not None:
            update = task.rate * update
        return optax.apply_updates(z, update), optimizer, value

    def body(_: jax.Array, state: _State) -> _State:
        key, order = state.key, state.order
        if not whole:
            key, order = lax.cond(state.step % per_epoch == 0, shuffled, lambda s: (s.key, s.order), state)
        z, optimizer, value = jax.vmap(one, in_axes=(0, 0, 0, 0, None, None))(
            task, state.z, state.optimizer, state.offset, order, state.step
        )
        losses = state.losses.at[_slot(state.step, schedule)].set(value)
        step, iterates = state.step + 1, state.iterates
        if iterates is not None:
            iterates = iterates.add(z, step % schedule.collect_every == 0)
        return _State(z, optimizer, key, order, state.offset, step, losses, iterates)

    return lax.fori_loop(0, num_steps, body, state)


def _polish(most: int, problem: Problem, task: Task, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """L-BFGS on all rows until the gradient is as small as the precision allows, or nothing improves.

    Of points whose values rounding cannot tell apart, the one of smaller gradient is kept.
    """
    optimizer = optax.lbfgs()
    eps = jnp.finfo(z.dtype).eps
    tolerance = 1e-4 * jnp.sqrt(eps / jnp.finfo(jnp.float32).eps)

    def one(task: Task, z: jax.Array) -> tuple[jax.Array, Any]:
        # The loss is not divided by n here: its curvature is then of the size that the line search starts from.
        def objective(z: jax.Array) -> jax.Array:
            return -task.log_posterior(problem, z)

        gradient_of = optax.value_and_grad_from_state(objective)

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

    return jax.vmap(one)(task, z)


@runs_once
def _judge(problem: Problem, task: Task, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log posterior of every member, and the norm of the gradient of what it maximised."""

    def one(member: tuple[Task, jax.Array]) -> tuple[jax.Array, jax.Array]:
        task, z = member
        value, gradient = jax.value_and_grad(problem.log_posterior)(z)
        if not task.plain:
            gradient = jax.grad(task.log_posterior, argnums=1)(problem, z)
        return value, jnp.linalg.norm(gradient)

    return lax.map(one, (task, z))
