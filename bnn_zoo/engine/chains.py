"""Run any NumPyro ``MCMCKernel``: warm-up and draws in chunks of one compiled function, chains wherever they fit.

A chain is advanced by ``advance``, one compiled program for warm-up and sampling alike: it takes the number of draws
and the thinning as arguments, so a run can be cut into chunks of any length, shown, interrupted and continued without
compiling again, and the draws do not depend on where it was cut.

Of rows on disk the problem holds a window; which one is a matter of how many steps a chain has made, so that chains go
through the same windows, each its own way, and a draw may be made in several chunks.

Where chains run follows the devices (`bnn_zoo.engine.places`). On one CPU each chain is a call of the single-chain
program from a pool of threads, a core each (JAX lets go of the interpreter lock); on an accelerator chains are
vectorised; on several devices they are spread with ``shard_map``. Several processes run some of the chains each, and
then exchange them (`bnn_zoo.engine.hosts`): keys and starts are made for all chains everywhere, so a chain is the same
in whichever process it runs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.infer.mcmc import MCMCKernel

from bnn_zoo.engine import hosts, starts
from bnn_zoo.engine.compiled import Request, Stopwatch, call, compiled, runs_once, shapes_of
from bnn_zoo.engine.context import Context, Progress
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.groups import Group, Holding, join_steps, joined
from bnn_zoo.engine.kept import MOMENTS
from bnn_zoo.engine.keys import spawned
from bnn_zoo.engine.places import EVERYWHERE, PER_CHAIN, Place, choose
from bnn_zoo.engine.resources import available_cores
from bnn_zoo.engine.shares import PROCESSES, Plan, Rooms, Run, exchanged, rooms, share_of, shared_out
from bnn_zoo.engine.windows import steps_of_window

MOST_DRAWS = 50
FORGOTTEN = "forgotten"  # draws a chain that are no longer held, in ``Draws.info``
MOST_NUMBERS = 2_000_000


class MarkovMethod(Protocol):
    """What `sample` needs of a method: its lengths, its NumPyro kernel, and which statistics to keep."""

    @property
    def num_warmup(self) -> int: ...  # noqa: D102
    @property
    def num_samples(self) -> int: ...  # noqa: D102
    @property
    def num_chains(self) -> int: ...  # noqa: D102
    @property
    def thinning(self) -> int: ...  # noqa: D102
    @property
    def start(self) -> str: ...  # noqa: D102

    def kernel(self, problem: Problem) -> MCMCKernel: ...  # noqa: D102
    def observe(self, state: Any) -> dict[str, jax.Array]: ...  # noqa: D102


# --- compiled programs: pure functions of problem and state ---------------------------------------------------------


def begin(method: MarkovMethod, problem: Problem, z: jax.Array, key: jax.Array) -> Any:
    """State of one chain at ``z``."""
    return method.kernel(problem).init(key, method.num_warmup, z, (), {})


def advance(
    method: MarkovMethod, capacity: int, problem: Problem, state: Any, num_draws: jax.Array, thinning: jax.Array
) -> tuple[Any, jax.Array, dict]:
    """Take ``num_draws × thinning`` steps of one chain.

    Returns the state, positions ``(capacity, p)`` and statistics ``(capacity,)``, of which ``num_draws`` are filled.
    """
    kernel = method.kernel(problem)
    # NumPyro's kernels build their step inside init; the state made here is not used and costs nothing once compiled.
    kernel.init(jax.random.PRNGKey(0), method.num_warmup, state.z, (), {})
    blank = method.observe(state)

    def step(_: jax.Array, carry: tuple[Any, dict]) -> tuple[Any, dict]:
        state, seen = carry
        state = kernel.sample(state, (), {})
        return state, {name: join_steps(name, seen[name], new) for name, new in method.observe(state).items()}

    def draw(i: jax.Array, carry: tuple) -> tuple:
        state, positions, stats = carry
        none = jax.tree.map(jnp.zeros_like, blank)
        state, seen = lax.fori_loop(0, thinning, step, (state, none))
        stats = {name: stats[name].at[i].set(seen[name]) for name in stats}
        return state, positions.at[i].set(state.z), stats

    positions = jnp.zeros((capacity, problem.size), state.z.dtype)
    stats = {name: jnp.zeros((capacity,), value.dtype) for name, value in blank.items()}
    return lax.fori_loop(0, num_draws, draw, (state, positions, stats))


# --- the run --------------------------------------------------------------------------------------------------------


def sample(method: MarkovMethod, problem: Problem, key: jax.Array, context: Context) -> Draws:
    """Warm chains up and draw from them.

    A KeyboardInterrupt after the first draws returns them, marked incomplete; before, it is raised.
    """
    num, share = method.num_chains, share_of(method.num_chains, context.hosts)
    part = replace(method, num_chains=share.stop - share.start)  # type: ignore[type-var]
    place = choose("chains", part.num_chains, problem, context, batch_of(method) is None, by_threads=True)
    plan, placed = make_plan(part.num_chains, place), place.holding(problem)
    trained = starts.requests(method.start, problem, num, context, batch_of(method))
    context.compile_together([*requests(part, placed, plan, place, context.watch), *trained])
    keys = spawned(key, 1 + num)  # for the starts, and one a chain
    start = starts.positions(method.start, problem, keys[0], num, context, batch_of(method))
    groups = _begin_groups(part, placed, start.positions[share], keys[1:][share], plan, place, context)
    if problem.source is not None and hasattr(method, "refer_to_all_rows"):
        groups = method.refer_to_all_rows(problem, groups, context)
    run = Run(groups, plan, place)
    room = rooms(method.num_chains, problem, method.num_samples, context)
    drawn = _drive(part, placed, run, method.num_warmup, room, context)
    drawn = exchanged(drawn, room, context.hosts)
    return replace(drawn, gradients=drawn.gradients + start.gradients, info={**drawn.info, **start.info})


def resume(method: MarkovMethod, problem: Problem, draws: Draws, num_samples: int, context: Context) -> Draws:
    """Go on from the state of ``draws`` for ``num_samples`` more a chain; some may have been made and forgotten.

    Draws that several processes have made are gone on with by all of those that there are now.
    """
    together = hosts.present() if draws.info.get(PROCESSES) else None
    if together is None:
        return _go_on(method, problem, draws, num_samples, context)
    context = replace(context, hosts=together, progress=context.progress if together.rank == 0 else False)
    with together.together({"method": repr(method), "num_samples": str(num_samples)}):
        return _go_on(method, problem, draws, num_samples, context)


def forgotten(draws: Draws) -> Draws:
    """Return ``draws`` without any, to go on from where they ended."""
    return replace(
        draws,
        positions=draws.positions[:, :0],
        stats={name: values[:, :0] for name, values in draws.stats.items()},
        info=draws.info | {FORGOTTEN: draws.positions.shape[1] + draws.info.get(FORGOTTEN, 0)},
    )


def _go_on(method: MarkovMethod, problem: Problem, draws: Draws, num_samples: int, context: Context) -> Draws:
    made = draws.positions.shape[1] + draws.info.get(FORGOTTEN, 0)
    before = method.num_warmup + made * method.thinning
    share, run = share_of(method.num_chains, context.hosts), draws.state
    part = replace(method, num_chains=share.stop - share.start)  # type: ignore[type-var]
    place = run.place
    if place is None:
        context = replace(context, chain_method=run.plan.method)
        place = choose("chains", part.num_chains, problem, context, batch_of(method) is None, by_threads=True)
        run = Run(shared_out(run, share), make_plan(part.num_chains, place), place)
    room = rooms(method.num_chains, problem, num_samples, context, draws)
    drawn = _drive(part, place.holding(problem), run, 0, room, context, before)
    more = exchanged(drawn, room, context.hosts)
    return replace(
        more,
        stats={name: np.concatenate([draws.stats[name], more.stats[name]], axis=1) for name in draws.stats},
        info={**draws.info, **more.info},
        gradients=draws.gradients + more.gradients,
    )


def restore(method: MarkovMethod, problem: Problem, plan: Plan, leaves: list[np.ndarray], num_chains: int) -> Run:
    """Put a run together again from the arrays of its state.

    Raises
    ------
    ValueError
        If they are not those of this method on this problem.
    """
    groups = num_chains if plan.method == "threads" else 1
    if plan.method not in ("threads", "vectorized", "sharded") or plan.num_groups != groups:
        raise ValueError(f"{num_chains} chains in {plan.num_groups} groups by {plan.method!r}")
    template = state_shape(method, problem, plan, num_chains)
    wanted, structure = jax.tree.flatten(template)
    if len(leaves) != groups * len(wanted):
        raise ValueError(f"{len(leaves)} arrays of state, where {groups * len(wanted)} should be")
    for leaf, like in zip(leaves, wanted * groups, strict=True):
        if leaf.shape != like.shape or leaf.dtype != like.dtype:
            raise ValueError(f"state of shape {leaf.shape} and type {leaf.dtype}: not that of this method")
    pieces = [leaves[i * len(wanted) : (i + 1) * len(wanted)] for i in range(groups)]
    return Run(tuple(jax.tree.unflatten(structure, piece) for piece in pieces), plan)


def state_shape(
    method: MarkovMethod, problem: Problem, plan: Plan, num_chains: int, watch: Stopwatch | None = None
) -> Any:
    """Shapes of the state of one group of chains."""
    begins = _begin_shapes(problem, plan, num_chains)
    alike = Place("threads" if plan.method == "threads" else "vectorized")  # spread over devices, too, shapes are these
    return shapes_of(begin_group, (alike, law_of(method)), replace(problem, shared=False), *begins, watch=watch)


def _begin_shapes(problem: Problem, plan: Plan, num_chains: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Shapes of the positions and keys that a group of chains begins from."""
    lead = () if plan.method == "threads" else (num_chains,)
    z = jax.ShapeDtypeStruct((*lead, problem.size), problem.x.dtype)
    return z, jax.ShapeDtypeStruct((*lead, 2), np.uint32)


def law_of(method: MarkovMethod) -> MarkovMethod:
    """Return ``method`` less what only says how often its kernel is called, so that fits share programs.

    A method whose kernel does depend on these works out what it needs of them in ``settled()``.
    """
    if hasattr(method, "settled"):
        method = method.settled()
    return replace(method, num_samples=MOST_DRAWS, num_chains=1, thinning=1, start="prior")  # type: ignore[type-var]


def batch_of(method: MarkovMethod) -> int | None:
    """Rows a step of a method that takes batches."""
    return getattr(method, "batch_size", None)


def make_plan(num_chains: int, place: Place) -> Plan:
    """In how many groups chains run there."""
    if place.how == "threads":
        return Plan("threads", num_chains, min(num_chains, available_cores()))
    return Plan(place.how, 1, 1)


def _grouped(place: Place, function: Callable, num_shared: int) -> Callable:
    """Give ``function`` (problem, one chain's arrays, shared arrays) the chain axis that a group of chains has."""
    if place.how == "threads":
        return function

    def each(problem: Problem, *arrays: Any) -> Any:
        chains, shared = arrays[: len(arrays) - num_shared], arrays[len(arrays) - num_shared :]
        axes = (*(0 for _ in chains), *(None for _ in shared))
        if place.how == "vectorized" or jax.local_devices()[0].platform != "cpu":
            return jax.vmap(partial(function, problem), in_axes=axes)(*arrays)
        return lax.map(lambda one: function(problem, *one, *shared), chains)

    def spread(problem: Problem, *arrays: Any) -> Any:
        num_chains = len(arrays) - num_shared
        takes = (EVERYWHERE, *([PER_CHAIN] * num_chains), *([EVERYWHERE] * num_shared))
        return place.over_devices(each, takes, PER_CHAIN)(problem, *arrays)

    return spread


@runs_once
def begin_group(place: Place, method: MarkovMethod, problem: Problem, z: jax.Array, key: jax.Array) -> Any:
    """`begin` for one group of chains."""
    return _grouped(place, partial(begin, method), 0)(problem, z, key)


def advance_group(
    place: Place,
    method: MarkovMethod,
    capacity: int,
    problem: Problem,
    state: Any,
    num_draws: jax.Array,
    thinning: jax.Array,
) -> Any:
    """`advance` for one group of chains."""
    return _grouped(place, partial(advance, method, capacity), 2)(problem, state, num_draws, thinning)


def requests(
    method: MarkovMethod, problem: Problem, plan: Plan, place: Place, watch: Stopwatch | None = None
) -> list[Request]:
    """Programs that `sample` will call but for those of starts: compiled side by side, they take as long as one."""
    law = law_of(method)
    state, count = state_shape(method, problem, plan, method.num_chains, watch), np.int32(0)
    return [
        (advance_group, (place, law, _capacity(problem)), (problem, state, count, count)),
        (begin_group, (place, law), (problem, *_begin_shapes(problem, plan, method.num_chains))),
    ]


def _begin_groups(
    method: MarkovMethod, problem: Problem, z: np.ndarray, keys: np.ndarray, plan: Plan, place: Place, context: Context
) -> tuple[Any, ...]:
    pieces = [(z[c], keys[c]) for c in range(len(z))] if plan.method == "threads" else [(z, keys)]
    static = (place, law_of(method))
    return tuple(call(begin_group, static, problem, *piece, watch=context.watch) for piece in pieces)


def _capacity(problem: Problem) -> int:
    return max(1, min(MOST_DRAWS, MOST_NUMBERS // max(problem.size, 1)))


def _drive(
    method: MarkovMethod,
    problem: Problem,
    run: Run,
    warmup: int,
    room: Rooms,
    context: Context,
    before: int = 0,
) -> Draws:
    """Advance all groups, a chunk at a time from a queue, until each has its draws or the user interrupts."""
    plan, capacity, num_samples = run.plan, _capacity(problem), room.own.shape[1]
    count = np.int32(0)
    static = (run.place, law_of(method), capacity)
    # By its shapes, as it was compiled for: on several devices the state knows where it lies, and shapes do not.
    state = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), run.groups[0])
    program = compiled(advance_group, static, problem, state, count, count, watch=context.watch)
    round_ = steps_of_window(problem, batch_of(method))
    alone = plan.method == "threads"
    parts = [slice(i, i + 1) for i in range(plan.num_groups)] if alone else [slice(None)]
    groups = [
        Group(
            f"{plan.method}-{i:03d}",
            state,
            Holding(context.keep, problem, room.own[where], room.moments[where]),
            alone,
            warmup,
            num_samples,
            method.thinning,
            round_,
            before,
        )
        for i, (state, where) in enumerate(zip(run.groups, parts, strict=True))
    ]
    journal, since = context.journal, time.monotonic()
    waiting: queue.SimpleQueue[Group] = queue.SimpleQueue()
    for group in groups:
        if journal is not None:
            group.recover(journal)
        if not group.done:
            waiting.put(group)
    stop, failures, x64 = threading.Event(), [], jax.config.jax_enable_x64
    per_group = method.num_chains // plan.num_groups
    total = method.num_chains * (warmup + num_samples * method.thinning)
    left = per_group * sum(group.warmup_left + group.draws_left * method.thinning for group in groups)

    def work(progress: Progress) -> None:
        with jax.enable_x64(x64):  # the flag is local to a thread
            while not stop.is_set():
                try:
                    group = waiting.get_nowait()
                except queue.Empty:
                    return
                num_draws, thinning = group.next_chunk(capacity)
                here = problem if round_ is None else problem.in_window(group.window)
                clock = time.perf_counter()
                out = jax.block_until_ready(program(here, group.state, np.int32(num_draws), np.int32(thinning)))
                notes = group.take(out, num_draws, thinning, time.perf_counter() - clock)
                if journal is not None and group.is_due(since):
                    group.write(journal)
                if count := sum(group.num_divergences for group in groups):
                    notes["divergences"] = str(count)
                progress.advance(num_draws * thinning * per_group, **notes)
                if not group.done:
                    waiting.put(group)

    def guarded(progress: Progress) -> None:
        try:
            work(progress)
        except BaseException as error:  # handed to the caller's thread, which raises it
            failures.append(error)
            stop.set()

    interrupted = False
    with Progress(type(method).__name__, total, context.progress) as progress:
        progress.advance(total - left)
        threads = [threading.Thread(target=guarded, args=(progress,), daemon=True) for _ in range(plan.workers)]
        try:
            for thread in threads:
                thread.start()
            _wait_for(threads)
        except KeyboardInterrupt:
            interrupted = True
            stop.set()
            # What is being computed is waited for; a second interrupt leaves it, with the draws made before.
            with suppress(KeyboardInterrupt):
                _wait_for(threads)
                for group in groups:
                    if journal is not None and not (group.done or group.part):
                        group.write(journal)
    if failures:
        raise failures[0]
    interrupted = interrupted and not all(group.done for group in groups)
    drawn = [list(group.taken) for group in groups]
    if interrupted and not all(drawn):
        raise KeyboardInterrupt("stopped during warm-up, before there were draws" if warmup else "no new draws yet")
    return _collect(groups, drawn, room.own, plan, run.place, interrupted)


def _wait_for(threads: list[threading.Thread]) -> None:
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            if thread.is_alive():
                thread.join(0.05)


def _collect(
    groups: list[Group],
    drawn: list[list[dict[str, np.ndarray]]],
    room: np.ndarray,
    plan: Plan,
    place: Place | None,
    interrupted: bool,
) -> Draws:
    """Join the statistics that each group has; after an interrupt as many draws of each as the last has."""
    lead = (lambda a: a[None]) if plan.method == "threads" else (lambda a: a)
    each = [{name: lead(value) for name, value in joined(chunks).items()} for chunks in drawn]
    stats = {name: [seen[name] for seen in each] for name in each[0]}
    least = min((value.shape[1] for values in stats.values() for value in values), default=room.shape[1])
    moments = [moment for group in groups for moment in group.holding.moments if moment is not None]
    return Draws(
        positions=room[:, :least],
        kind="markov",
        stats={name: np.concatenate([value[:, :least] for value in values]) for name, values in stats.items()},
        info={"chain_method": plan.method, "workers": plan.workers}
        | dict(zip(MOMENTS, map(np.stack, zip(*moments, strict=True)), strict=False)),
        state=None if interrupted else Run(tuple(group.state for group in groups), plan, place),
        gradients=sum(group.num_gradients for group in groups),
        complete=not interrupted,
    )
