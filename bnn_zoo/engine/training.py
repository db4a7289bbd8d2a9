"""The one training loop: Optax on the negative log posterior per row, members in teams, in chunks of one program.

MAP, ensembles and warm starts use it. A loss is the log posterior of **all** rows divided by ``-n``, so that a learning
rate carries over from one data set to another; a mini-batch enters as its unbiased estimate, so the prior keeps its
weight whatever the batch. Members do not see each other, so they may be spread over devices and processes. Of rows on
disk the problem holds a window, in which members go their rounds, and which is exchanged for the next between chunks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from bnn_zoo.engine.climbing import descend
from bnn_zoo.engine.compiled import Request, Stopwatch, call, runs_once, shapes_of
from bnn_zoo.engine.context import Context, Progress
from bnn_zoo.engine.density import Batch, Problem
from bnn_zoo.engine.hosts import Hosts
from bnn_zoo.engine.iterates import Iterates
from bnn_zoo.engine.journal import SECONDS, entry_name
from bnn_zoo.engine.places import CHAINS, EVERYWHERE, Place, choose
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.tasks import PLAIN, Objective
from bnn_zoo.engine.teams import Teams
from bnn_zoo.engine.windows import over_all_rows, steps_of_window

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
        ``(T, M)``: minus the objective per row along the way, each a mean over equally many steps; at most 200.
    gradients : int
        Gradient evaluations, all members together.
    iterates : Iterates, optional
        Running moments, where the schedule collects them.
    held_out : HeldOut, optional
        What early stopping saw.
    """

    positions: np.ndarray
    log_posterior: np.ndarray
    gradient_norm: np.ndarray
    losses: np.ndarray
    gradients: int
    iterates: Iterates | None = None
    held_out: HeldOut | None = None


class HeldOut(NamedTuple):
    """The best network so far of every member, by its negative log likelihood per held-out row."""

    z: jax.Array  # (M, p)
    loss: jax.Array  # (M,)
    step: jax.Array  # (M,) at which it was
    stale: jax.Array  # (M,) checks since


class _State(NamedTuple):
    z: jax.Array  # (M, p)
    optimizer: Any
    key: jax.Array
    order: jax.Array  # (n,) rows of the present epoch
    offset: jax.Array  # (M,) where in it each member reads, so that members see different batches
    step: jax.Array
    losses: jax.Array  # (TRACE_POINTS, M)
    iterates: Iterates | None
    best: HeldOut | None


def train(
    problem: Problem,
    z: jax.Array | np.ndarray,
    key: jax.Array,
    schedule: Schedule,
    context: Context,
    title: str,
    task: Objective = PLAIN,
    held: Batch | None = None,
) -> Trained:
    """Maximise the log posterior, or what ``task`` says, from every row of ``z (M, p)`` at once.

    With ``held`` rows that ``problem`` does not have, and ``schedule.patience``, every member stops when it no longer
    gets better at these, and its best network is kept.
    """
    share = _share(len(z), context.hosts)
    trained = _train_share(problem, z, key, schedule, context, title, task, held, share)
    return trained if share == _all(len(z)) else _exchanged(trained, context.hosts, title)


def _train_share(
    problem: Problem,
    z: jax.Array | np.ndarray,
    key: jax.Array,
    schedule: Schedule,
    context: Context,
    title: str,
    task: Objective,
    held: Batch | None,
    share: slice,
) -> Trained:
    """Train the members ``share`` of all that begin at ``z``."""
    watch = context.watch
    offset = _offsets(len(z), problem.num_rows)[share]
    z, key, task = jnp.asarray(z[share]), jnp.asarray(key), jax.tree.map(lambda a: a[share], task)
    place, teams = _place(len(z), problem, context, schedule, task, held)
    problem, axes = place.holding(problem), _state_axes(schedule)
    programs = context.compile_together(_requests(problem, teams, schedule, task, held, place, watch))
    begin, advance = programs[:2]
    tasks = teams.cut(task, MEMBERS)
    states = [begin(problem, z, key, offset) for z, offset in teams.cut((z, offset), MEMBERS)]
    left, size, entry, written = schedule.num_steps, 50, entry_name(title), time.monotonic()
    round_ = steps_of_window(problem, schedule.batch_size)
    kept = context.journal.get(entry) if context.journal is not None else None
    if kept is not None:
        states, left = teams.cut(_recovered(teams.join(states, axes), kept), axes), int(kept["left"])
    with teams.at_work() as side_by_side:
        with Progress(title, schedule.num_steps, context.progress) as progress:
            progress.advance(schedule.num_steps - left)
            while left:
                done = schedule.num_steps - left
                size, here = min(size, left), problem
                if round_ is not None:
                    size, here = min(size, round_ - done % round_), problem.in_window(done // round_)
                clock = time.perf_counter()
                states = side_by_side(partial(advance, here, held, np.int32(size)), tasks, states)
                seconds = time.perf_counter() - clock
                left -= size
                if all(state.best is not None and np.min(state.best.stale) >= schedule.patience for state in states):
                    left = 0
                if context.journal is not None and (left == 0 or time.monotonic() - written > SECONDS):
                    context.journal.put(entry, _entry(teams.join(states, axes), left))
                    written = time.monotonic()
                progress.advance(size, loss=f"{min(_last(state, schedule) for state in states):.4g}")
                size = max(1, min(int(size * CHUNK_SECONDS / max(seconds, 1e-6)), 4 * size))
        found, polished = [state.z if state.best is None else state.best.z for state in states], 0
        if schedule.polish_steps:
            ends = side_by_side(partial(programs[3], problem), tasks, found)
            found, polished = [z for z, _ in ends], int(np.sum(teams.join([count for _, count in ends], MEMBERS)))
    state, z = teams.join(states, axes), teams.join(found, MEMBERS)
    losses = _mean_losses(state, schedule)
    value, norm = _judged(place, problem, task, z, watch)
    return Trained(
        positions=np.asarray(z),
        log_posterior=value,
        gradient_norm=norm,
        losses=losses,
        gradients=_steps_taken(state, schedule, problem.num_rows) + polished,
        iterates=state.iterates,
        held_out=state.best,
    )


def polish(problem: Problem, z: np.ndarray, most: int, watch: Stopwatch, task: Objective = PLAIN) -> Trained:
    """Take at most ``most`` L-BFGS steps on all rows from every row of ``z (M, p)``, in its precision."""
    count: Any = 0
    if most:
        z, count = call(_polish, (ONE_DEVICE, most), problem, task, z, watch=watch)
    value, norm = _judged(ONE_DEVICE, problem, task, z, watch)
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
    return _judged(ONE_DEVICE, problem, PLAIN, z, context.watch)


def _judged(place: Place, problem: Problem, task: Objective, z: Any, watch: Stopwatch) -> tuple[np.ndarray, np.ndarray]:
    value, slope = over_all_rows(problem, lambda part: call(_judge, (place,), part, task, z, watch=watch))
    return np.asarray(value), np.linalg.norm(slope, axis=1).astype(slope.dtype)


def requests(
    problem: Problem,
    num_members: int,
    schedule: Schedule,
    context: Context,
    task: Objective = PLAIN,
    held: Batch | None = None,
) -> list[Request]:
    """Programs that `train` will call, to be compiled beside others; of the task the shapes are enough."""
    share = _share(num_members, context.hosts)
    num = share.stop - share.start
    task = jax.tree.map(lambda a: jax.ShapeDtypeStruct((num, *a.shape[1:]), a.dtype), task)
    place, teams = _place(num, problem, context, schedule, task, held)
    return _requests(place.holding(problem), teams, schedule, task, held, place, context.watch)


def _requests(
    problem: Problem,
    teams: Teams,
    schedule: Schedule,
    task: Objective,
    held: Batch | None,
    place: Place,
    watch: Stopwatch,
) -> list[Request]:
    shape = partial(jax.ShapeDtypeStruct, dtype=problem.x.dtype)
    size, every, own = task.size(problem), task, teams.shapes(task)
    z, key, offset = shape((teams.size, size)), shape((2,), dtype=np.uint32), shape((teams.size,), dtype=np.int32)
    state = shapes_of(_begin, (ONE_DEVICE, schedule), problem, z, key, offset, watch=watch)
    found: list[Request] = [
        (_begin, (place, schedule), (problem, z, key, offset)),
        (_advance, (place, schedule), (problem, held, np.int32(0), own, state)),
        (_judge, (place,), (problem, every, shape((teams.num, size)))),
    ]
    if schedule.polish_steps:
        found.append((_polish, (place, schedule.polish_steps), (problem, own, z)))
    return found


def _place(
    num_members: int, problem: Problem, context: Context, schedule: Schedule, task: Objective, held: Batch | None
) -> tuple[Place, Teams]:
    """Where members are trained, and in which teams: vectorised in each, as members of one program train in step."""
    takes_all = schedule.batch_size is None and held is None and task.shares_rows
    teams = Teams.of(num_members)
    place = choose("members", num_members, problem, context, takes_all, teams=teams)
    return (place, Teams(num_members)) if place.how != "threads" else (ONE_DEVICE, teams)


# --- several processes ----------------------------------------------------------------------------------------------


def _all(num_members: int) -> slice:
    return slice(0, num_members)


def _share(num_members: int, together: Hosts | None) -> slice:
    """Which members are this process's: all, where they are fewer than processes, each of which then does the same."""
    if together is None or num_members < together.size:
        return _all(num_members)
    return together.share(num_members)


def _exchanged(trained: Trained, together: Hosts | None, title: str) -> Trained:
    """Return the members of all processes."""
    assert together is not None
    moments = None if trained.iterates is None else trained.iterates[1:]
    own = trained.positions, trained.log_posterior, trained.gradient_norm, trained.losses.T, moments, trained.held_out
    positions, value, norm, losses, moments, held_out = together.gather(title, own)
    # How many were taken is the same everywhere.
    iterates = None if trained.iterates is None else Iterates(trained.iterates.taken, *moments)
    gradients = together.total(f"{title}: gradients", trained.gradients)
    return Trained(positions, value, norm, losses.T, gradients, iterates, held_out)


# --- what is told of a run ------------------------------------------------------------------------------------------


def _last(state: _State, schedule: Schedule) -> float:
    """The least loss of the members that still train; not a number when all have stopped."""
    losses = _mean_losses(state, schedule)[_slot(int(state.step) - 1, schedule)]
    return float(np.min(losses, where=~np.isnan(losses), initial=np.inf))


def _mean_losses(state: _State, schedule: Schedule) -> np.ndarray:
    """Mean loss ``(T, M)`` of the steps of each point of the trace; not a number where there were none."""
    taken = np.bincount(_slot(np.arange(int(state.step)), schedule), minlength=TRACE_POINTS)[:, None]
    means = np.asarray(state.losses) / np.where(taken, taken, np.nan)
    return means[: min(TRACE_POINTS, schedule.num_steps)]


def _steps_taken(state: _State, schedule: Schedule, num_rows: int) -> int:
    """Steps of all members, each until it stopped: others may have gone on beside it."""
    if state.best is None:
        return schedule.num_steps * len(state.z)
    last = state.best.step + schedule.patience * schedule.steps_between_checks(num_rows)
    return int(np.minimum(last, schedule.num_steps).sum())


def _slot(step: Any, schedule: Schedule) -> Any:
    return step * min(TRACE_POINTS, schedule.num_steps) // max(schedule.num_steps, 1)


# --- compiled programs ----------------------------------------------------------------------------------------------


MEMBERS: Any = PartitionSpec(CHAINS)
LOSSES: Any = PartitionSpec(None, CHAINS)
ONE_DEVICE = Place("vectorized")


def _offsets(num_members: int, num_rows: int) -> np.ndarray:
    """Where each member begins to read, far from the others: by it, too, members are told apart."""
    return np.arange(num_members, dtype=np.int32) * np.int32(num_rows // num_members if num_rows > num_members else 1)


def _state_axes(schedule: Schedule) -> Any:
    every, one = MEMBERS, EVERYWHERE
    return _State(
        z=every,
        optimizer=every,
        key=one,
        order=one,
        offset=every,
        step=one,
        losses=LOSSES,
        iterates=Iterates(one, every, every, every) if schedule.collect_every else None,
        best=HeldOut(every, every, every, every) if schedule.patience else None,
    )


@runs_once
def _begin(
    place: Place, schedule: Schedule, problem: Problem, z: jax.Array, key: jax.Array, offset: jax.Array
) -> _State:
    def begin(z: jax.Array, offset: jax.Array, key: jax.Array) -> _State:
        here = z.shape[0]
        none = jnp.zeros(here, jnp.int32)
        return _State(
            z=z,
            optimizer=jax.vmap(schedule.optimizer.init)(z),
            key=key,
            order=jnp.arange(problem.num_rows),
            offset=offset,
            step=jnp.zeros((), jnp.int32),
            losses=jnp.zeros((TRACE_POINTS, here), z.dtype),
            iterates=Iterates.none(z, schedule.rank) if schedule.collect_every else None,
            best=HeldOut(z, jnp.full(here, jnp.inf, z.dtype), none, none) if schedule.patience else None,
        )

    takes = (MEMBERS, MEMBERS, EVERYWHERE)
    return place.over_devices(begin, takes, _state_axes(schedule))(z, offset, key)


def _advance(
    place: Place,
    schedule: Schedule,
    problem: Problem,
    held: Batch | None,
    num_steps: jax.Array,
    task: Objective,
    state: _State,
) -> _State:
    rows = problem.num_rows
    size = min(schedule.batch_size or rows, rows)
    whole, per_epoch = size == rows, rows // size
    shuffles = not whole and problem.rows_each is None  # a window comes shuffled
    check_every = schedule.steps_between_checks(rows)

    def rows_of(order: jax.Array, offset: jax.Array, step: jax.Array) -> jax.Array:
        return order[(offset + (step % per_epoch) * size + jnp.arange(size)) % rows]

    def shuffled(state: _State) -> tuple[jax.Array, jax.Array]:
        key, key_order = jax.random.split(state.key)
        return key, jax.random.permutation(key_order, rows)

    def one(
        problem: Problem,
        task: Objective,
        z: jax.Array,
        optimizer: Any,
        offset: jax.Array,
        order: jax.Array,
        step: jax.Array,
        key: jax.Array,
    ) -> tuple:
        which = None if whole else rows_of(order, offset, step)
        # Members are told apart by where they read, which each device knows of its own.
        key = jax.random.fold_in(jax.random.fold_in(key, step), offset) if task.random else key
        value, gradient = jax.value_and_grad(
            lambda z: -task.objective(problem, z, which, key, step) / problem.total_rows
        )(z)
        update, optimizer = schedule.optimizer.update(gradient, optimizer, z)
        if task.rate is not None:
            update = task.rate * update
        return z + update, optimizer, value

    def advance(problem: Problem, held: Batch | None, num_steps: jax.Array, task: Objective, state: _State) -> _State:
        def body(_: jax.Array, state: _State) -> _State:
            key, order = state.key, state.order
            if shuffles:
                key, order = lax.cond(state.step % per_epoch == 0, shuffled, lambda s: (s.key, s.order), state)
            each = task, state.z, state.optimizer, state.offset
            if len(state.z) == 1:
                # Products of matrices are slower with a batch axis of one.
                own, z, optimizer, offset = jax.tree.map(lambda a: a[0], each)
                made = one(problem, own, z, optimizer, offset, order, state.step, key)
                z, optimizer, value = jax.tree.map(lambda a: jnp.asarray(a)[None], made)
            else:
                run = jax.vmap(one, in_axes=(None, 0, 0, 0, 0, None, None, None))
                z, optimizer, value = run(problem, *each, order, state.step, key)
            step, iterates, best = state.step + 1, state.iterates, state.best
            if best is not None:
                value = jnp.where(best.stale < schedule.patience, value, jnp.nan)
                best = lax.cond(step % check_every == 0, check, lambda best, *_: best, best, problem, held, z, step)
            losses = state.losses.at[_slot(state.step, schedule)].add(value)
            if iterates is not None:
                iterates = iterates.add(z, step % schedule.collect_every == 0)
            return _State(z, optimizer, key, order, state.offset, step, losses, iterates, best)

        return lax.fori_loop(0, num_steps, body, state)

    def check(best: HeldOut, problem: Problem, held: Batch, z: jax.Array, step: jax.Array) -> HeldOut:
        said = jax.vmap(lambda z: -problem.log_likelihood(z, held) / rows)(z)
        better = (said < best.loss) & (best.stale < schedule.patience)
        return HeldOut(
            z=jnp.where(better[:, None], z, best.z),
            loss=jnp.where(better, said, best.loss),
            step=jnp.where(better, step, best.step),
            stale=jnp.where(better, 0, best.stale + 1),
        )

    takes = (EVERYWHERE, EVERYWHERE, EVERYWHERE, MEMBERS, _state_axes(schedule))
    run = place.over_devices(advance, takes, _state_axes(schedule))
    return run(problem, held, num_steps, task, state)


def _polish(place: Place, most: int, problem: Problem, task: Objective, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """L-BFGS on all rows from every member, and the gradients that each took."""

    def one(problem: Problem, task: Objective, z: jax.Array) -> tuple[jax.Array, Any]:
        # The loss is not divided by n here: its curvature is then of the size that the line search starts from.
        return descend(lambda z: -task.objective(problem, z), z, most)

    def each(problem: Problem, task: Objective, z: jax.Array) -> tuple[jax.Array, Any]:
        return jax.vmap(one, in_axes=(None, 0, 0))(problem, task, z)

    takes = (EVERYWHERE, MEMBERS, MEMBERS)
    return place.over_devices(each, takes, MEMBERS)(problem, task, z)


@runs_once
def _judge(place: Place, problem: Problem, task: Objective, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log posterior of every member, and the gradient of what it maximised: what its task makes of it."""

    def one(problem: Problem, member: tuple[Objective, jax.Array]) -> tuple[jax.Array, jax.Array]:
        task, z = member
        return task.judge(problem, z)

    def each(problem: Problem, task: Objective, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lax.map(partial(one, problem), (task, z))

    takes = (EVERYWHERE, MEMBERS, MEMBERS)
    return place.over_devices(each, takes, MEMBERS)(problem, task, z)
