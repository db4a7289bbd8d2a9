"""Simulation-based calibration of NUTS on `Linear` and on a small `MLP`, and of a wrong prior, which must fail.

    python -m tests.benchmarks.sbc [--simulations 1024] [--seed 0]

Twelve rows of two correlated inputs; f at five of them, the noise, and the log likelihood are ranked.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import numpyro.distributions as dist

import bnn_zoo as zoo

NOISE = dist.LogNormal(-0.5, 0.5)


def inputs() -> np.ndarray:
    """Twelve rows of two correlated features."""
    return np.random.default_rng(0).normal(size=(12, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])


def cases() -> dict[str, dict[str, Any]]:
    """Arguments of `zoo.sbc` for each case."""
    linear = zoo.models.Linear(noise=NOISE)
    mlp = zoo.models.MLP(hidden=(4,), activation="tanh", noise=NOISE)
    short = {"num_chains": 1, "start": "prior", "num_samples": 126}
    return {
        "Linear": {"model": linear, "method": zoo.methods.NUTS(num_warmup=200, thinning=2, **short)},
        "MLP": {"model": mlp, "method": zoo.methods.NUTS(num_warmup=400, thinning=5, max_tree_depth=7, **short)},
        "Linear, fitted with a prior scale of 1 where the truth has 3 (must fail)": {
            "model": linear,
            "method": zoo.methods.NUTS(num_warmup=200, thinning=2, **short),
            "truth": zoo.models.Linear(weight_scale=3.0, noise=NOISE),
        },
    }


def main() -> None:
    """Print the table of every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, case in cases().items():
        clock = time.perf_counter()
        found = zoo.sbc(x=inputs(), num_simulations=arguments.simulations, seed=arguments.seed, **case)
        print(f"\n{name}: {time.perf_counter() - clock:.0f} s\n{found}")


if __name__ == "__main__":
    main()
