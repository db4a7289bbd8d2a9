"""Rows on disk: steps a second and memory of a fit whose data do not fit in it, as they grow.

    python -m tests.benchmarks.streaming [--rows 1000000 10000000] [--rounds 5] [--methods sgld sghmc map vi swag]

20 inputs, 100 ReLU units, batches of 512 rows, float32. The rows are written to two files of one temporary folder and
read from there as `numpy.memmap`, in a process of its own for every number of rows. Three sides of one run, in turn:

- a method of the zoo (one chain, one network or one guide of one particle), of which the time of a step is the
  difference between two fits that differ in length alone, so that what is done once does not count: the pass for means
  and standard deviations, and compiling;
- ``bare``: a compiled `lax.fori_loop` of the gradient of the same NumPyro model's log posterior, and a plain step along
  it, on batches that it draws, row by row, from 400,000 rows in memory (as many as a window holds);
- ``posteriors``: SGLD by the library of that name on PyTorch, one thread, on such batches, where it is installed.

Memory is what the process holds (``VmRSS`` less ``RssFile``: the operating system keeps pages of a file in memory as
long as nobody else wants it, and counts them to who reads them) a quarter, half and all the way through a long run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pandas as pd

import bnn_zoo as zoo
from tests.benchmarks import sides
from tests.benchmarks.steps import LARGE, STEP, bare_side, posteriors_side

TASK = LARGE[-1]
SHORT, LONG, WATCHED = TASK.steps // 6, TASK.steps, 40_000
IN_MEMORY = 400_000
AT_ONCE = 2**18
CHAIN = {"num_chains": 1, "num_warmup": 0, "num_samples": 10, "start": "prior", "batch_size": TASK.batch}
METHODS = {
    "sgld": zoo.methods.SGLD(step_size=STEP, **CHAIN),
    "sghmc": zoo.methods.SGHMC(step_size=1e-7, friction=1e5, **CHAIN),
    "map": zoo.methods.MAP(num_restarts=1, batch_size=TASK.batch, polish_steps=0),
    "vi": zoo.methods.VI(num_particles=1, batch_size=TASK.batch, num_samples=32),
    "swag": zoo.methods.SWAG(warm_steps=500, batch_size=TASK.batch, num_samples=32, learning_rate=1e-4),
}


def write(rows: int, folder: Path) -> None:
    """Write rows of a smooth function with noise, some at a time."""
    generator = np.random.default_rng(0)
    kept = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
        for name, shape in (("x", (rows, TASK.inputs)), ("y", (rows,)))
    }
    for start in range(0, rows, AT_ONCE):
        here = min(AT_ONCE, rows - start)
        x = generator.standard_normal((here, TASK.inputs), np.float32)
        noise = 0.3 * generator.standard_normal(here, np.float32)
        kept["x"][start : start + here] = x
        kept["y"][start : start + here] = np.sin(x[:, 0] + x[:, 1]) + 0.5 * x[:, 2] * x[:, 3] + noise
    for array in kept.values():
        array.flush()


def longer(method: object, steps: int) -> object:
    """Return ``method`` with so many steps."""
    return replace(method, **({"thinning": steps // 10} if hasattr(method, "thinning") else {"num_steps": steps}))  # type: ignore[type-var]


def child(folder: Path, names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds a step of every side, and MiB along a long run of the first method."""
    x, y = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")
    stream = zoo.Stream(x, y)

    def fit(name: str, steps: int, seed: int) -> float:
        method = longer(METHODS[name], steps)
        return zoo.fit(TASK.model, method, stream, seed=seed, standardize=False, progress=False).timing.run_seconds

    def side(name: str) -> Callable[[int], float]:
        return lambda seed: (fit(name, LONG, seed) - fit(name, SHORT, seed)) / (LONG - SHORT)

    first = IN_MEMORY if len(y) > IN_MEMORY else len(y)
    table = np.array(x[:first]), np.array(y[:first])
    begin = time.perf_counter()
    size = stream.summary.sha256 and time.perf_counter() - begin
    found = {"memory": {"before, MiB": sides.held(), "pass over all rows, s": float(size)}}
    seen: list[tuple[float, float]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.append((time.perf_counter(), sides.held()))

    fit(names[0], SHORT, 0)
    thread = threading.Thread(target=watch)
    thread.start()
    begin = time.perf_counter()
    fit(names[0], WATCHED, 0)
    end = time.perf_counter()
    done.set()
    thread.join()
    for share in (0.25, 0.5, 1.0):
        until = [mib for at, mib in seen if at <= begin + share * (end - begin)]
        found["memory"][f"most until {100 * share:.0f} %, MiB"] = max(until)
    task = replace(TASK, rows=first)
    runs = {"bare": bare_side(task, table, noisy=False), **{name: side(name) for name in names}}
    if importlib.util.find_spec("posteriors"):
        runs["posteriors, sgld"] = posteriors_side(task, table)
    return found | {
        name: {"us a step": 1e6 * float(np.median(values)), "least": 1e6 * min(values), "most": 1e6 * max(values)}
        for name, values in sides.in_turns(runs, rounds).items()
    }


def main() -> None:
    """Run one process for every number of rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["sgld", "sghmc", "map", "vi", "swag"], choices=METHODS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.methods, options.rounds)))
        return
    print(f"{platform.platform()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}")
    sides.installed("torch", "posteriors")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            write(rows, Path(folder))
            command = [sys.executable, "-m", "tests.benchmarks.streaming", "--child", folder]
            command += ["--rounds", str(options.rounds), "--methods", *options.methods]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        memory = found.pop("memory")
        table = pd.DataFrame(found).T
        table["steps a second, of bare"] = table.loc["bare", "us a step"] / table["us a step"]
        if "posteriors, sgld" in table.index:
            table["of posteriors"] = table.loc["posteriors, sgld", "us a step"] / table["us a step"]
        on_disk = rows * (TASK.inputs + 1) * 4 / 2**20
        print(f"\n{rows:,} rows, {on_disk:,.0f} MiB on disk; {options.methods[0]} held:")
        print(", ".join(f"{name}: {value:,.0f}" for name, value in memory.items()))
        print(table.round(2).to_string())


if __name__ == "__main__":
    main()
