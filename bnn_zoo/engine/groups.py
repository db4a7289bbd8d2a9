"""Where a group of chains stands in a run: its draws so far, its next chunk, and what a checkpoint holds of it."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.journal import SECONDS, Journal
from bnn_zoo.engine.kept import Keep, Moments

CHUNK_SECONDS = 0.25


class Holding:
    """Where the draws of a group's chains go: its part ``(C, S, q)`` of the run's array."""

    def __init__(self, keep: Keep, problem: Problem, room: np.ndarray, moments: list[Moments | None]) -> None:
        self.keep, self.problem, self.room, self.moments = keep, problem, room, moments
        self.filled = 0

    def take(self, positions: Any, count: int) -> None:
        """Keep ``count`` draws of ``positions (C, capacity, p)``."""
        here = slice(self.filled, self.filled + count)
        if self.keep.at is None:
            positions = np.asarray(positions)  # JAX would compile a program that takes its own arrays apart
        for chain, its in enumerate(positions):
            self.room[chain, here], self.moments[chain] = self.keep.digest(
                self.problem, its, count, self.moments[chain]
            )
        self.filled += count

    def entry(self, begin: int) -> dict[str, np.ndarray]:
        """Draws from number ``begin`` on, for a checkpoint, and the moments of all."""
        found = {"positions": self.room[:, begin : self.filled]} if self.filled > begin else {}
        if self.keep.at is None:
            return found
        leaves = {f"moments_{i}": np.stack(each) for i, each in enumerate(zip(*self.moments, strict=True))}
        return found | leaves

    def recover(self, entry: dict[str, np.ndarray]) -> int:
        """Take up what `entry` gave, and return how many draws there were."""
        if self.keep.at is not None:
            leaves = [entry[f"moments_{i}"] for i in range(len(Moments._fields))]
            self.moments = [Moments(*(leaf[c] for leaf in leaves)) for c in range(len(self.moments))]
        if "positions" not in entry:
            return 0
        count = entry["positions"].shape[1]
        self.room[:, self.filled : self.filled + count] = entry["positions"]
        self.filled += count
        return count


class Group:
    """One group's draws so far, and the length of its next chunk.

    ``alone`` says that it is one chain, without an axis for chains. ``round_`` is the number of steps that go by with
    one window of rows, or None, and ``before`` that of steps made in an earlier run.
    """

    def __init__(
        self,
        name: str,
        state: Any,
        holding: Holding,
        alone: bool,
        warmup: int,
        draws: int,
        thinning: int,
        round_: int | None = None,
        before: int = 0,
    ) -> None:
        self.holding, self.alone = holding, alone
        self.name, self.state, self.round, self.before = name, state, round_, before
        self.warmup, self.draws = warmup, draws
        self.part = 0  # steps of a draw that is not yet complete, and its statistics
        self.seen: dict[str, Any] = {}
        self.warmup_left, self.draws_left, self.thinning = warmup, draws, thinning
        self.steps = 10
        self.taken: list[dict[str, np.ndarray]] = []  # statistics of chunks of draws
        self.num_gradients = self.num_divergences = 0
        self.num_entries, self.num_written, self.begin, self.last = 0, 0, (warmup, draws), time.monotonic()
        self.kept_written = 0

    @property
    def done(self) -> bool:
        """Whether it has all its draws."""
        return self.warmup_left == 0 and self.draws_left == 0

    @property
    def made(self) -> int:
        """Steps so far."""
        sampled = (self.draws - self.draws_left) * self.thinning + self.part
        return self.before + self.warmup - self.warmup_left + sampled

    @property
    def window(self) -> int:
        """Which window of rows comes next."""
        return self.made // self.round if self.round else 0

    def next_chunk(self, capacity: int) -> tuple[int, int]:
        """``(num_draws, thinning)``; all of a warm-up chunk is one draw, which is thrown away.

        A draw that does not fit into what is left of a window is made in parts.
        """
        room = self.round - self.made % self.round if self.round else max(self.steps, self.thinning)
        if self.warmup_left:
            return 1, min(self.steps, self.warmup_left, room)
        if self.part or room < self.thinning:
            return 1, min(room, self.thinning - self.part)
        return max(1, min(min(self.steps, room) // self.thinning, capacity, self.draws_left)), self.thinning

    def take(self, out: tuple, num_draws: int, thinning: int, seconds: float) -> dict[str, str]:
        """Keep a chunk, and return notes on it for the progress bar."""
        self.state, positions, stats = out
        stats = {name: np.asarray(value)[..., :num_draws] for name, value in stats.items()}
        self.num_gradients += int(stats["n_steps"].sum()) if "n_steps" in stats else 0
        notes = {"phase": "warm-up" if self.warmup_left else "sampling"}
        if self.warmup_left:
            self.warmup_left -= thinning
        else:
            self.num_divergences += int(stats["diverging"].sum()) if "diverging" in stats else 0
            if thinning < self.thinning:
                self.part += thinning
                self.seen = {name: join_steps(name, self.seen.get(name, 0), new) for name, new in stats.items()}
                stats = self.seen
            if self.part in (0, self.thinning):
                # Draws first and statistics, which say how many there are, in one step: a thread that is left behind
                # by an interrupt leaves whole chunks.
                self.holding.take([positions] if self.alone else positions, num_draws)
                self.taken.append(stats)
                self.draws_left, self.part, self.seen = self.draws_left - num_draws, 0, {}
        steps = num_draws * thinning
        self.steps = max(1, min(int(steps * CHUNK_SECONDS / max(seconds, 1e-6)), 4 * max(steps, self.steps)))
        for name, word in (("acceptance_rate", "acceptance"), ("step_size", "step")):
            if name in stats:
                notes[word] = f"{float(stats[name].mean()):.2g}"
        return notes

    # --- what a checkpoint holds of it ------------------------------------------------------------------------------

    def write(self, journal: Journal) -> None:
        """Write down what came since the last entry, and the state to go on from."""
        new = self.taken[self.num_written :]
        entry = {f"state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self.state))}
        entry |= {"begin": np.asarray(self.begin), "end": np.asarray((self.warmup_left, self.draws_left))}
        entry["counts"] = np.asarray((self.steps, self.num_gradients, self.num_divergences))
        entry |= self.holding.entry(self.kept_written)
        if new:
            entry |= {f"stats/{name}": value for name, value in joined(new).items()}
        journal.put(f"{self.name}-{self.num_entries:06d}", entry)
        self.num_entries, self.num_written = self.num_entries + 1, len(self.taken)
        self.kept_written = self.holding.filled
        self.begin, self.last = (self.warmup_left, self.draws_left), time.monotonic()

    def is_due(self, since: float) -> bool:
        """Whether to write again: about every second, and more rarely in a long run (1 % of its length)."""
        now = time.monotonic()
        if self.part:
            return False
        return self.done or now - self.last > min(max(SECONDS, 0.01 * (now - since)), 60.0)

    def recover(self, journal: Journal) -> None:
        """Take up what an earlier run wrote down, as far as it is whole and hangs together."""
        leaves, structure = jax.tree.flatten(self.state)
        while (entry := journal.get(f"{self.name}-{self.num_entries:06d}")) is not None:
            if tuple(entry["begin"]) != self.begin:
                break
            self.state = jax.tree.unflatten(structure, [entry[f"state_{i}"] for i in range(len(leaves))])
            self.warmup_left, self.draws_left = (int(n) for n in entry["end"])
            self.begin = (self.warmup_left, self.draws_left)
            self.steps, self.num_gradients, self.num_divergences = (int(n) for n in entry["counts"])
            if self.holding.recover(entry):
                stats = {name.removeprefix("stats/"): v for name, v in entry.items() if name.startswith("stats/")}
                self.taken.append(stats)
            self.num_entries, self.num_written = self.num_entries + 1, len(self.taken)
            self.kept_written = self.holding.filled


def joined(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Statistics of one chunk of several."""
    return {name: np.concatenate([stats[name] for stats in chunks], axis=-1) for name in chunks[0]}


def join_steps(name: str, old: Any, new: Any) -> Any:
    """A kept draw speaks for the steps thinned out before it: counts add up, a divergence counts wherever it was."""
    if name == "n_steps":
        return old + new
    return old | new if name == "diverging" else new
