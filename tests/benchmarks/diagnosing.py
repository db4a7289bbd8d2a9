"""Seconds and memory of `diagnose()` and `report()`: 4 chains × 1,000 draws of networks of 1,000 to 100,000 weights.

    python -m tests.benchmarks.diagnosing [--weights 1000 10000 100000] [--profile]

The bar is 5 s for 10,000 weights. Training data have 500 rows of 8 features. Weights are drawn from the prior, and the
noise about 0.5 with a spread of 5 % as of one that 500 rows have taught, in the place of the draws of a very short fit
by NUTS, with its statistics: nothing waits for a sampler, and what is asked of them costs the same. Each size runs in a
process of its own. "first" compiles, "again" is the same call on other draws of the same shape, as of a second fit.
Memory is the peak above what the process held before, with the draws themselves already there: 1.6 GB of them for
100,000 weights. ``--profile`` prints the functions in which the second calls spend most.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bnn_zoo as zoo

CHAINS, DRAWS, ROWS, FEATURES = 4, 1000, 500, 8
MOST_SHOWN = 20


def network(weights: int) -> zoo.models.MLP:
    """Two equal hidden layers with about as many weights: w² + 11 w + 2 of them, the noise included."""
    width = round(-5.5 + (5.5**2 + weights - 2) ** 0.5)
    return zoo.models.MLP(hidden=(width, width), activation="tanh")


def drawn(fitted: Any, seed: int) -> Any:
    """Put random draws in the place of a posterior's own; statistics are repeated to their number."""
    problem = fitted.problem
    keys = jax.random.split(jax.random.PRNGKey(seed), CHAINS * DRAWS)
    flat = np.array(jax.jit(lambda keys: jax.lax.map(problem.prior_draw, keys, batch_size=16))(keys))
    noise = next(slot.where for slot in problem.layout.slots if slot.name == "noise")
    flat[:, noise] = np.log(0.5) + 0.05 * np.random.default_rng(seed).standard_normal((len(flat), 1))
    draws = flat.reshape(CHAINS, DRAWS, problem.size)
    stats = {name: np.resize(value, (CHAINS, DRAWS)) for name, value in fitted.stats.items()}
    return replace(fitted, result=replace(fitted.result, positions=draws, stats=stats))


def memory(name: str) -> float:
    """``VmRSS`` (held now) or ``VmHWM`` (most ever held) of this process, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status).group(1)) / 1024


def watched(ask: Callable[[], Any], profile: bool = False) -> tuple[float, float]:
    """Seconds that ``ask`` takes, and the MiB by which it raises what this process holds, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, clock = memory("VmRSS"), time.perf_counter()
    if profile:
        with cProfile.Profile() as profiler:
            ask()
        pstats.Stats(profiler, stream=sys.stderr).strip_dirs().sort_stats("tottime").print_stats(MOST_SHOWN)
    else:
        ask()
    return time.perf_counter() - clock, memory("VmHWM") - before


def one(weights: int, profile: bool) -> dict[str, float]:
    """Ask for a diagnosis and for a report, each twice."""
    generator = np.random.default_rng(0)
    data = generator.normal(size=(ROWS, FEATURES)), generator.normal(size=ROWS)
    short = zoo.methods.NUTS(num_warmup=5, num_samples=4, num_chains=CHAINS, start="prior", max_tree_depth=2)
    fitted = zoo.fit(network(weights), short, data, progress=False)
    found: dict[str, float] = {"weights": fitted.problem.size}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        asked = {"diagnose": lambda p: p.diagnose(), "report": lambda p: p.report(path)}
        for name, ask in asked.items():
            for seed, when in enumerate(("first", "again")):
                posterior = drawn(fitted, seed)
                seconds, rise = watched(lambda p=posterior, a=ask: a(p), profile and when == "again")
                found |= {f"{name} {when} s": seconds, f"{name} {when} MiB": rise}
                del posterior
    return found


def main() -> None:
    """Print a line a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(arguments.one, arguments.profile)))
        return
    print(f"{'':>10}{'draws':>7}{'diagnose() s':>18}{'MiB':>7}{'report() s':>18}{'MiB':>7}")
    print(f"{'weights':>10}{'MiB':>7}{'first':>9}{'again':>9}{'':>7}{'first':>9}{'again':>9}", flush=True)
    for weights in arguments.weights:
        command = [sys.executable, "-m", "tests.benchmarks.diagnosing", "--one", str(weights)]
        command += ["--profile"] * arguments.profile
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(out.splitlines()[-1])
        line = f"{found['weights']:>10,}{CHAINS * DRAWS * found['weights'] * 4 / 2**20:>7.0f}"
        for name in ("diagnose", "report"):
            line += f"{found[f'{name} first s']:>9.1f}{found[f'{name} again s']:>9.1f}"
            line += f"{max(found[f'{name} {when} MiB'] for when in ('first', 'again')):>7.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
