"""Memory and seconds of a prediction: 4 chains × 1,000 draws, 100,000 rows; and against NumPyro's `Predictive`.

    python -m tests.benchmarks.prediction

Each side runs in a process of its own; memory is the rise of the peak over what the process held before.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

SIDES = {
    "zoo, 100,000 rows": ("zoo", 100_000),
    "zoo, 10,000 rows": ("zoo", 10_000),
    "Predictive(parallel=False), 10,000 rows": ("serial", 10_000),
    "Predictive(parallel=True), 10,000 rows": ("parallel", 10_000),
}


def peak() -> float:
    """Peak resident memory of this process, in MiB.

    Not `resource.getrusage`: its peak is inherited from the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


def one(side: str, rows: int) -> dict[str, float]:
    """Predict means and sds once, cold, and once more."""
    import jax
    import numpyro.infer

    import bnn_zoo as zoo

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(200, 8)), generator.normal(size=200)
    model = zoo.models.MLP(hidden=(50,))
    method = zoo.methods.NUTS(num_warmup=5, num_samples=4, start="prior", max_tree_depth=2)
    posterior = zoo.fit(model, method, (x, y), progress=False)
    positions = generator.normal(size=(4, 1000, posterior.problem.size)).astype(np.float32)
    posterior = replace(posterior, result=replace(posterior.result, positions=positions))
    new = generator.normal(size=(rows, 8))
    sites = {name: value.reshape(-1, *value.shape[2:]) for name, value in posterior.draws.items()}

    def predict() -> None:
        if side == "zoo":
            posterior.predict(new)
        else:
            predictive = numpyro.infer.Predictive(model, sites, parallel=side == "parallel")
            drawn = predictive(jax.random.PRNGKey(0), new.astype(np.float32))["y"]
            jax.block_until_ready((drawn.mean(0), drawn.std(0)))

    before, seconds = peak(), []
    for _ in range(2):
        clock = time.perf_counter()
        predict()
        seconds.append(time.perf_counter() - clock)
    return {"MiB": peak() - before, "cold": seconds[0], "again": seconds[1]}


def main() -> None:
    """Print a line a side."""
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
        return
    print(f"{'4,000 draws of a 1x50 MLP, 8 features':<42}{'MiB':>8}{'cold s':>8}{'again s':>9}")
    for name, (side, rows) in SIDES.items():
        command = [sys.executable, "-m", "tests.benchmarks.prediction", side, str(rows)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        print(f"{name:<42}{found['MiB']:>8.0f}{found['cold']:>8.2f}{found['again']:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
