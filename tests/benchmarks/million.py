"""A million rows on a small machine: seconds, memory, and how both grow with the rows.

    python -m tests.benchmarks.million [--rows 250000 1000000] [--methods map swag kron diag vi]

20 inputs, two hidden layers of 100 units (12,301 parameters with the noise), float32. Every fit is a process of its
own, whose peak memory is the operating system's figure; ``beyond data`` is what it took over the process with its data
and libraries before the fit. Three epochs in batches of 1,000 rows, so that steps grow with rows; then what a method
does with all rows: 10 L-BFGS steps (``map``, ``kron``, ``diag``), the log posterior of every draw (``swag``, ``vi``),
the curvature (``kron``, ``diag``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time

import numpy as np
import pandas as pd

import bnn_zoo as zoo

INPUTS, BATCH, EPOCHS = 20, 1000, 3
MODEL = zoo.models.MLP(hidden=(100, 100))
METHODS = ("map", "swag", "kron", "diag", "vi")


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a smooth function of a few of the inputs, with noise."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((rows, INPUTS), np.float32)
    y = np.sin(x[:, 0] + x[:, 1]) + 0.5 * x[:, 2] * x[:, 3] + 0.3 * generator.standard_normal(rows, np.float32)
    return x, y


def method(name: str, rows: int) -> object:
    """Return the method with as many steps as make three epochs."""
    steps = EPOCHS * rows // BATCH
    if name == "swag":
        warm = 2 * steps // 3
        return zoo.methods.SWAG(num_steps=steps - warm, warm_steps=warm, batch_size=BATCH, num_samples=20)
    if name == "vi":
        return zoo.methods.VI(guide="mean_field", num_steps=steps, batch_size=BATCH, num_particles=1, num_samples=20)
    settings = {"num_restarts": 1, "num_steps": steps, "batch_size": BATCH, "polish_steps": 10}
    if name == "map":
        return zoo.methods.MAP(**settings)
    return zoo.methods.Laplace(covariance=name, num_samples=100, **settings)


def peak() -> float:
    """Most memory, in MiB, that this process has held."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def fit_one(name: str, rows: int) -> dict[str, float]:
    """Fit, predict for 1,000 new rows, and say what it took."""
    x, y = data(rows)
    new = data(1000)[0]
    before, clock = peak(), time.perf_counter()
    posterior = zoo.fit(MODEL, method(name, rows), (x, y), progress=False)
    fitted = time.perf_counter() - clock
    most = peak()
    prediction = posterior.predict(new)
    assert np.isfinite(prediction.std).all()
    return {
        "rows": rows,
        "fit s": fitted,
        "of it compiling": posterior.timing.compile_seconds,
        "peak MiB": most,
        "beyond data": most - before,
    }


def main() -> None:
    """Fit every method at every size, and print what a row costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(fit_one(arguments.one[0], int(arguments.one[1]))))
        return
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    found = []
    for name in arguments.methods:
        for rows in arguments.rows:
            command = [sys.executable, "-m", "tests.benchmarks.million", "--one", name, str(rows)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append({"method": name} | json.loads(done.stdout.splitlines()[-1]))
            print(
                pd.DataFrame(found[-1:]).to_string(index=False, header=len(found) == 1, float_format="%.1f"), flush=True
            )
    table = pd.DataFrame(found)
    table["us a row"] = 1e6 * (table["fit s"] - table["of it compiling"]) / table["rows"]
    print("\nmicroseconds a row, without compiling: equal along a line where cost is linear in the rows")
    print(table.pivot(index="method", columns="rows", values="us a row").round(1).to_string())


if __name__ == "__main__":
    main()
