"""Where chains and members run: on which devices, and how on each. Results depend on it by rounding alone.

One rule serves all. Chains (and members, modes, cycles) are independent, so they are shared evenly by as many devices
as divide their number; devices that are left over share rows, where there are many. Rows that are shared are a term of
the log likelihood on every device: the sum over devices is an all-reduce of one number, or of one gradient, and no
device ever holds the rows of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import DATA, Problem
from bnn_zoo.engine.resources import available_cores
from bnn_zoo.engine.teams import Teams
from bnn_zoo.errors import bad_type, bad_value

CHAINS = "chains"
MANY_ROWS = 2**16  # from here on rows are worth an all-reduce a gradient; fewer are computed in less than it takes
PER_CHAIN: Any = PartitionSpec(CHAINS)
EVERYWHERE: Any = PartitionSpec()


@dataclass(frozen=True)
class Place:
    """How a group of chains or members runs; static, so a part of the key of a compiled program.

    Attributes
    ----------
    how : str
        ``"threads"``, ``"vectorized"`` or ``"sharded"``.
    mesh : Mesh, optional
        Devices of ``"sharded"``: axis ``"chains"``, and ``"data"`` where rows are shared too.
    """

    how: str
    mesh: Mesh | None = None

    @property
    def shares_rows(self) -> bool:
        """Whether devices hold some of the rows each."""
        return self.mesh is not None and self.mesh.shape.get(DATA, 1) > 1

    def holding(self, problem: Problem) -> Problem:
        """Return ``problem`` with its rows where they are worked on: ``n / k`` on each of k devices, or as it is."""
        if not self.shares_rows:
            return problem
        rows = NamedSharding(self.mesh, PartitionSpec(DATA))  # type: ignore[arg-type]
        return replace(problem, x=jax.device_put(problem.x, rows), y=jax.device_put(problem.y, rows), shared=True)

    def over_devices(self, function: Callable, takes: Any, gives: Any) -> Callable:
        """Spread ``function`` over devices by the axes ``"chains"`` of what it takes and gives, or leave it.

        Only that axis is cut by hand: of a problem that is `holding` its rows, `Problem.log_likelihood` cuts the other.
        """
        if self.mesh is None:
            return function
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=takes, out_specs=gives, axis_names={CHAINS}, check_vma=False
        )


def check_mesh(mesh: Any, chain_method: str) -> Mesh | None:
    """Return ``mesh``, as it is used here, or None.

    Raises
    ------
    ZooTypeError, ZooValueError
        If it is no mesh, has other axes, has devices of another process, or the way of running is another.
    """
    if mesh is None:
        return None
    example = 'jax.sharding.Mesh(numpy.array(jax.local_devices()), ("chains",))'
    if not isinstance(mesh, Mesh):
        raise bad_type("mesh", "a jax.sharding.Mesh or None", repr(mesh), f"{example}, say.")
    names = tuple(mesh.axis_names)
    if CHAINS not in names or not set(names) <= {CHAINS, DATA}:
        raise bad_value("mesh", "one of axes 'chains' and, if wanted, 'data'", f"axes {names}", f"{example}, say.")
    away = [device for device in mesh.devices.flat if device.process_index != jax.process_index()]
    if away:
        got = f"{len(away)} of {mesh.devices.size} devices of other processes ({away[0]})"
        mend = "Build it of jax.local_devices(): every process runs its own chains, on its own devices."
        raise bad_value("mesh", "one of this process's devices", got, mend)
    if chain_method not in ("auto", "sharded"):
        mend = "Leave one of the two out."
        raise bad_value("chain_method", "'auto' or 'sharded' with a mesh", repr(chain_method), mend)
    # In one order of axes, and of the kind whose other axes the compiler cuts (make_mesh gives explicit ones).
    order = [names.index(name) for name in (CHAINS, DATA) if name in names]
    return Mesh(np.transpose(mesh.devices, order), tuple(names[i] for i in order))


def choose(
    what: str,
    num: int,
    problem: Problem,
    context: Context,
    takes_all: bool,
    *,
    by_threads: bool = False,
    teams: Teams | None = None,
) -> Place:
    """Choose where ``num`` chains or members run, and tell the context why.

    Parameters
    ----------
    what : str
        What they are called: "chains", "members".
    num : int
        How many.
    problem : Problem
        Whose rows may be shared too.
    context : Context
        With what the user asked for.
    takes_all : bool
        Whether every gradient is one over all rows: only these are shared.
    by_threads : bool
        Whether there is one program a chain, so that threads can run them side by side.
    teams : Teams, optional
        Those that members can be cut into, where there is one program a team; more than one are for threads likewise.

    Raises
    ------
    ZooValueError
        If the user's mesh has an axis ``"data"``, and rows cannot be shared by it.
    """
    takes_all = takes_all and problem.source is None and problem.rows_each is None
    asked, mesh = context.chain_method, context.mesh
    here = np.asarray(jax.local_devices()) if mesh is None else mesh.devices
    found = _grid(num, problem.num_rows, here, mesh, takes_all)
    if mesh is not None or asked == "sharded" or (asked == "auto" and found.size > 1):
        place = _sharded(found)
        context.tell(_words(what, num, problem.num_rows, found, here, asked))
        return place
    on_cpu, by_threads = here.flat[0].platform == "cpu", by_threads if teams is None else teams.count > 1
    how = asked if by_threads and asked != "auto" else "threads" if by_threads and on_cpu else "vectorized"
    why = "as asked" if asked == how else f"one {here.flat[0].platform.upper()} device"
    if asked == "auto" and here.size > 1:
        why = f"no number of {here.size} devices shares {num} evenly"
    by = "one vectorised program"
    if how == "threads":
        by = f"threads, {min(num, available_cores())} at a time"
        by = by if teams is None or teams.size == 1 else f"{teams.count} threads, {teams.size} vectorised in each"
    context.tell(f"{_count(num, what)} by {by}: {why}")
    return Place(how)


def _grid(num: int, rows: int, here: np.ndarray, mesh: Mesh | None, takes_all: bool) -> np.ndarray:
    """Devices ``(chains, data)`` that are used, of those there are."""
    by_chains = largest_divisor(num, len(here))
    if mesh is None:
        spare = len(here) // by_chains
        by_rows = largest_divisor(rows, spare) if takes_all and rows >= MANY_ROWS else 1
        return here[: by_chains * by_rows].reshape(by_chains, by_rows)
    if here.ndim == 1:
        return here[:by_chains, None]
    by_rows = here.shape[1]
    if by_rows > 1 and not takes_all:
        got = f"an axis 'data' of {by_rows} for a method that takes some rows at a time, or its own rows a member"
        mend = "Leave the axis out: batches are small, and each device draws its own from all rows."
        raise bad_value("mesh", "one of axis 'chains' alone", got, mend)
    if rows % by_rows:
        fit = ", ".join(str(k) for k in range(1, max(2 * by_rows, 9)) if rows % k == 0)
        mend = f"Take a size that divides the rows ({fit}), or leave {rows % by_rows} rows out."
        raise bad_value("mesh", "one whose axis 'data' divides the rows", f"{by_rows} for {rows} rows", mend)
    return here[:by_chains]


def largest_divisor(num: int, most: int) -> int:
    """Return the largest divisor of ``num`` up to ``most``."""
    return max(k for k in range(1, most + 1) if num % k == 0)


def _sharded(grid: np.ndarray) -> Place:
    if grid.shape[1] == 1:
        return Place("sharded", Mesh(grid[:, 0], (CHAINS,)))
    return Place("sharded", Mesh(grid, (CHAINS, DATA)))


def _count(num: int, what: str) -> str:
    return f"{num} {what if num > 1 else what[:-1]}"


def _words(what: str, num: int, rows: int, grid: np.ndarray, here: np.ndarray, asked: str) -> str:
    by_chains, by_rows = grid.shape
    said = f"{_count(num, what)} over {by_chains} of {here.size} devices"
    if by_rows > 1:
        said = f"{_count(num, what)} over {by_chains} × {by_rows} of {here.size} devices, {rows // by_rows:,} rows each"
    if by_chains < min(len(here), num):
        return f"{said}: no more than {by_chains} share {num} evenly"
    return f"{said}: as asked" if asked == "sharded" else said
