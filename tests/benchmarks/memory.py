"""Memory of a process that fits and drops posteriors, one after the other: does it stay flat?

    python -m tests.benchmarks.memory [--fits 100]

Each fit has other data of the same shape and is predicted from, diagnosed and scored before it is dropped; every tenth
has a column more.
"""

from __future__ import annotations

import argparse
import gc
import re
from pathlib import Path

import numpy as np

import bnn_zoo as zoo


def resident() -> float:
    """Resident memory of this process, in MiB."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024


def one(number: int) -> None:
    """Fit, ask, drop."""
    rng = np.random.default_rng(number)
    x = rng.normal(size=(200, 5 if number % 10 else 6))
    y = x[:, 0] + 0.1 * rng.normal(size=200)
    method = zoo.methods.NUTS(num_warmup=50, num_samples=200, start="prior", max_tree_depth=4)
    posterior = zoo.fit(zoo.models.MLP(hidden=(50,)), method, (x, y), seed=number, progress=False)
    posterior.evaluate(x, y)
    posterior.diagnose()
    assert posterior.draws["noise"].shape == (4, 200)


def main() -> None:
    """Print memory after every tenth of the fits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=100)
    arguments = parser.parse_args()
    seen = []
    print(f"{'fits':>6}{'MiB':>8}")
    for number in range(arguments.fits + 1):
        one(number)
        if number % max(1, arguments.fits // 10) == 0:
            gc.collect()
            seen.append(resident())
            print(f"{number:>6}{seen[-1]:>8.0f}", flush=True)
    print(f"from the first tenth on: {seen[-1] - seen[1]:+.0f} MiB")


if __name__ == "__main__":
    main()
