"""Members of one training run in teams: each team one vectorised program, run by a thread, a core each.

A vectorised program of all members uses a second core for little but its largest products, and what it holds between
two of them leaves a core's caches; a program of half of them, called from two threads, does neither. Members do not see
each other, so it is the same computation: what all of them share (the order of rows, the step) each team has of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from bnn_zoo.engine.resources import available_cores


@dataclass(frozen=True)
class Teams:
    """``count`` teams of ``size`` members each, of ``num`` in all; the last may hold the last member more than once."""

    num: int
    count: int = 1

    @classmethod
    def of(cls, num: int) -> Teams:
        """As many as there are cores, or fewer where these are enough to have no larger ones."""
        size = -(-num // available_cores())
        return cls(num, -(-num // size))

    @property
    def size(self) -> int:
        """Members a team: as many in each, so that one program serves all of them."""
        return -(-self.num // self.count)

    def cut(self, tree: Any, axes: Any) -> list[Any]:
        """What each team has of ``tree``, whose members lie along the axis that ``axes``, a prefix of it, names."""
        if self.count == 1:
            return [tree]
        members = np.minimum(np.arange(self.count * self.size), self.num - 1).reshape(self.count, self.size)

        def of(team: np.ndarray) -> Any:
            return _along(axes, lambda axis, a: np.asarray(a).take(team, axis), tree)

        return [of(team) for team in members]

    def join(self, trees: list[Any], axes: Any) -> Any:
        """Undo `cut`: of what has no members, the first team's."""
        if self.count == 1:
            return trees[0]

        def whole(axis: int, *parts: Any) -> np.ndarray:
            joined = np.concatenate([np.asarray(part) for part in parts], axis)
            return joined[(slice(None),) * axis + (slice(self.num),)]

        return _along(axes, whole, *trees)

    def shapes(self, tree: Any) -> Any:
        """What a team has of ``tree``, whose members lie along the first axis, for a program that is to be compiled."""
        if self.count == 1:
            return tree
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct((self.size, *a.shape[1:]), a.dtype), tree)

    @contextmanager
    def at_work(self) -> Iterator[Callable[..., list[Any]]]:
        """Give what calls a function for all teams at once, and returns what they computed when all have.

        It is called with the function and, of each of its arguments, a list.
        """
        x64 = jax.config.jax_enable_x64

        def alone(function: Callable, *args: Any) -> Any:
            with jax.enable_x64(x64):  # the flag is local to a thread
                return jax.block_until_ready(function(*args))

        if self.count == 1:
            yield lambda function, *lists: [alone(function, *args) for args in zip(*lists, strict=True)]
            return
        with ThreadPoolExecutor(self.count, thread_name_prefix="bnn_zoo-team") as pool:
            yield lambda function, *lists: list(pool.map(partial(alone, function), *lists))


def _along(axes: Any, change: Callable[..., Any], *trees: Any) -> Any:
    """Apply ``change(axis, *leaves)`` where ``axes`` names an axis, and leave the first tree's leaves elsewhere."""

    def one(spec: PartitionSpec, *parts: Any) -> Any:
        named = [axis for axis, name in enumerate(tuple(spec)) if name is not None]
        return jax.tree.map(partial(change, *named), *parts) if named else parts[0]

    return jax.tree.map(one, axes, *trees)
