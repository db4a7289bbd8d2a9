"""What cores and memory there are, and amounts and durations as they are read."""

from __future__ import annotations

import os
from pathlib import Path

from bnn_zoo.errors import bad_value

SHARE = 0.8  # of the memory that is free: the rest is for others


def available_cores() -> int:
    """Cores that this process may use (fewer than the machine has when it is pinned or in a container)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_free(what: str, size: int, mend: str) -> None:
    """Refuse what would take ``size`` bytes where these are not free, before any of it is allocated.

    Raises
    ------
    ZooValueError
        Naming both amounts.
    """
    free = available()
    if free is not None and size > SHARE * free:
        raise bad_value(what, f"within the {amount(free)} of memory that are free", amount(size), mend)


def available() -> int | None:
    """Bytes of memory that are free to this process: of the machine, and of the group that it is confined to."""
    found = [_free_of_machine(), _free_of_group()]
    known = [bytes_ for bytes_ in found if bytes_ is not None]
    return min(known) if known else None


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None  # not Linux


def _free_of_group() -> int | None:
    """What is left of the limit of a container, as Linux's control groups have it."""
    here = Path("/sys/fs/cgroup")
    try:
        limit = (here / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((here / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def amount(size: float) -> str:
    """Bytes, for reading."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds, for reading."""
    for unit, length in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.3g} s"
