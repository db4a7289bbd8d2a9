"""A run of chains that several processes share: where its draws go, which chains are whose, and all of them after.

Chains are shared by number, so that a chain is the same in whichever process it runs; then every process has the draws
of all, in its memory or in one file that all of them write, and the state that all chains are in, to go on from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.hosts import Hosts
from bnn_zoo.engine.kept import MOMENTS, Moments, flush
from bnn_zoo.engine.places import Place

PROCESSES = "processes"  # that shared the chains, in ``Draws.info``


@dataclass(frozen=True)
class Run:
    """Where a run stands: enough to go on from, and to end in the draws of one long run."""

    groups: tuple[Any, ...]
    plan: Plan
    place: Place | None = None  # where it ran, and goes on; None once it has been written down or exchanged


@dataclass(frozen=True)
class Plan:
    """Chains are advanced in groups: one chain each by ``"threads"``, all in one otherwise."""

    method: str
    num_groups: int
    workers: int


@dataclass(frozen=True, eq=False)
class Rooms:
    """Where draws go: all of them in one array that this process sees, or its own chains' alone.

    Attributes
    ----------
    own : ndarray
        ``(C, S, q)``: for the new draws of this process's chains.
    whole : ndarray, optional
        For all draws of all chains, earlier ones included, of which ``own`` is a part; None where other processes have
        some of them in their memory.
    before : Draws, optional
        Earlier draws.
    moments : list
        Of the weights of each of this process's chains so far.
    """

    own: np.ndarray
    whole: np.ndarray | None
    before: Draws | None
    moments: list[Moments | None]

    def filled(self, new: np.ndarray | None, count: int) -> np.ndarray:
        """All draws: earlier ones and ``count`` new ones, which are ``new`` where they are not in `whole`."""
        if self.whole is not None:
            end = count + (0 if self.before is None else self.before.positions.shape[1])
            return self.whole if end == self.whole.shape[1] else self.whole[:, :end]
        return new if self.before is None else np.concatenate([self.before.positions, new], axis=1)  # type: ignore


def rooms(num_chains: int, problem: Problem, num_samples: int, context: Context, before: Draws | None = None) -> Rooms:
    """Room for ``num_samples`` more draws a chain than there were ``before``, where the context keeps draws."""
    keep, together, share = context.keep, context.hosts, share_of(num_chains, context.hosts)
    width, dtype = keep.width(problem), problem.x.dtype
    known, moments = None if before is None else before.info, list[Moments | None]()
    if keep.at is not None and known is not None:
        moments += [Moments(*(known[name][chain] for name in MOMENTS)) for chain in range(share.start, share.stop)]
    else:
        moments += [keep.fresh(problem, problem.x)] * (share.stop - share.start)
    if together is not None and keep.folder is None:
        return Rooms(np.empty((share.stop - share.start, num_samples, width), dtype), None, before, moments)
    begin = 0 if before is None else before.positions.shape[1]
    shape = num_chains, begin + num_samples, width
    whole = keep.room(shape, dtype, None if before is None else before.positions, together)
    return Rooms(whole[share, begin:], whole, before, moments)


def share_of(num_chains: int, together: Hosts | None) -> slice:
    """Which of the chains are this process's."""
    if together is None:
        return slice(0, num_chains)
    together.check_enough("num_chains", num_chains)
    return together.share(num_chains)


def shared_out(run: Run, share: slice) -> tuple[Any, ...]:
    """The groups of some of all chains."""
    if run.plan.method == "threads":
        return run.groups[share]
    return (jax.tree.map(lambda a: a[share], run.groups[0]),)


def exchanged(drawn: Draws, room: Rooms, together: Hosts | None) -> Draws:
    """Return the draws of all processes, each chain as long as the shortest, and the state that all chains are in."""
    count = drawn.positions.shape[1]
    flush(drawn.positions)
    if together is None:
        return replace(drawn, positions=room.filled(drawn.positions, count))
    if room.whole is not None:
        drawn = replace(drawn, positions=drawn.positions[:, :, :0])  # they are in the file
    shares = together.exchange("draws", _as_arrays(drawn))
    least = min(share["positions"].shape[1] for share in shares)
    names = [name.removeprefix("stats/") for name in shares[0] if name.startswith("stats/")]
    complete = all(bool(share["complete"]) for share in shares)
    moments = {name: np.concatenate([share[name] for share in shares]) for name in MOMENTS if name in shares[0]}
    return replace(
        drawn,
        positions=room.filled(np.concatenate([share["positions"][:, :least] for share in shares]), least),
        stats={name: np.concatenate([share[f"stats/{name}"][:, :least] for share in shares]) for name in names},
        info={**drawn.info, PROCESSES: together.size, **moments},
        state=_joined_run(drawn.state, shares) if complete else None,
        gradients=sum(int(share["gradients"]) for share in shares),
        complete=complete,
    )


def _as_arrays(drawn: Draws) -> dict[str, np.ndarray]:
    """Draws as arrays whose leading axis is that of chains, their state included."""
    found = {f"stats/{name}": value for name, value in drawn.stats.items()}
    found |= {"positions": drawn.positions, "gradients": np.asarray(drawn.gradients)}
    found |= {name: drawn.info[name] for name in MOMENTS if name in drawn.info}
    run: Run | None = drawn.state
    if run is None:
        return found | {"complete": np.asarray(False)}
    if run.plan.method == "threads":
        state = jax.tree.map(lambda *each: np.stack([np.asarray(a) for a in each]), *run.groups)
    else:
        state = jax.tree.map(np.asarray, run.groups[0])
    leaves = {f"state/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    return found | leaves | {"complete": np.asarray(drawn.complete)}


def _joined_run(own: Run, shares: list[dict[str, np.ndarray]]) -> Run:
    """The state of all chains, in groups as this process has its own."""
    like, structure = jax.tree.flatten(own.groups[0])
    leaves = [np.concatenate([s[f"state/{i}"] for s in shares]) for i in range(len(like))]
    state, num = jax.tree.unflatten(structure, leaves), sum(len(s["positions"]) for s in shares)
    if own.plan.method != "threads":
        return Run((state,), own.plan)
    groups = tuple(jax.tree.map(lambda a, c=c: a[c], state) for c in range(num))
    return Run(groups, Plan("threads", num, own.plan.workers))
