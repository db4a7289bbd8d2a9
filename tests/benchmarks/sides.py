"""Run the sides of a comparison in turn, each in a process of its own, and tabulate the medians."""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

Run = dict[str, float]


def installed(*modules: str) -> bool:
    """Whether peers can be imported; says so where they cannot."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{' and '.join(missing)} not installed, and left out: pip install -r tests/benchmarks/requirements.txt")
    return not missing


def use_cores(count: int) -> None:
    """Keep the processes started from here to some cores: their libraries count these, and start as many threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def held() -> float:
    """MiB that this process holds, pages of files not counted."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return (int(status["VmRSS"].split()[0]) - int(status["RssFile"].split()[0])) / 1024


@contextmanager
def watching() -> Iterator[Callable[[], float]]:
    """Give the most that this process has held so far in the block, in MiB."""
    most, done = [held()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], held())

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield lambda: most[0]
    finally:
        done.set()


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    from time import perf_counter

    begin = perf_counter()
    function()
    return perf_counter() - begin


def interleaved(
    module: str, sides: Iterable[str], rounds: int, *arguments: str, cache: str = "off"
) -> dict[str, list[Run]]:
    """What ``python -m module --side SIDE`` prints as its last line, for every side in every round.

    Programs that another process has compiled are not used, unless ``cache`` names their folder. The package's modules
    are byte-compiled first, as pip has done with those of the peers.
    """
    spec = importlib.util.find_spec("bnn_zoo")
    assert spec is not None
    for folder in spec.submodule_search_locations or ():
        compileall.compile_dir(folder, quiet=1)
    environment = os.environ | {"BNN_ZOO_COMPILE_CACHE": cache}
    found: dict[str, list[Run]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, runs in found.items():
            command = [sys.executable, "-W", "ignore", "-m", module, "--side", side, *arguments]
            out = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if out.returncode:
                sys.exit(f"{side} failed:\n{out.stderr}")
            runs.append(json.loads(out.stdout.splitlines()[-1]))
    return found


def each(runs: list[Run], what: str) -> list[float]:
    """One number a round."""
    return [run[what] for run in runs]


def median(runs: list[Run], what: str) -> float:
    """Over the rounds."""
    return float(np.median(each(runs, what)))


def in_turns(sides: dict[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """Run sides of this process in turn, each once before, to compile, and then with a seed a round."""
    for run in sides.values():
        run(0)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for seed in range(1, rounds + 1):
        for name, run in sides.items():
            found[name].append(run(seed))
    return found
