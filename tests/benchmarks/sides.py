"""Run the sides of a comparison in turn, each in a process of its own, and tabulate the medians."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable

import numpy as np

Run = dict[str, float]


def need_torch(*modules: str) -> None:
    """Leave with one line unless PyTorch and what else is asked for can be imported."""
    missing = [name for name in ("torch", *modules) if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"This benchmark compares with {' and '.join(missing)}, not installed here: pip install 'bnn-zoo[bench]'"
        )


def use_cores(count: int) -> None:
    """Keep the processes started from here to some cores: their libraries count these, and start as many threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    from time import perf_counter

    begin = perf_counter()
    function()
    return perf_counter() - begin


def interleaved(module: str, sides: Iterable[str], rounds: int, *arguments: str) -> dict[str, list[Run]]:
    """What ``python -m module --side SIDE`` prints as its last line, for every side in every round."""
    found: dict[str, list[Run]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, runs in found.items():
            command = [sys.executable, "-W", "ignore", "-m", module, "--side", side, *arguments]
            out = subprocess.run(command, capture_output=True, text=True, check=False)
            if out.returncode:
                sys.exit(f"{side} failed:\n{out.stderr}")
            runs.append(json.loads(out.stdout.splitlines()[-1]))
    return found


def median(runs: list[Run], what: str) -> float:
    """Over the rounds."""
    return float(np.median([run[what] for run in runs]))


def spread(runs: list[Run], what: str) -> str:
    """Least and most over the rounds."""
    values = [run[what] for run in runs]
    return f"{min(values):.3g} to {max(values):.3g}"
