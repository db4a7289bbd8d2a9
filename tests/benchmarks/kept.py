"""What the draws of a wide network take: in memory, in a file, and as functions in place of weights.

    python -m tests.benchmarks.kept [--weights 1000000] [--draws 50]

SGLD on batches of 32 of 500 rows, 4 chains, two hidden layers; draws are ten steps apart. Memory is the most that a
process holds, pages of files not counted, at the end of a fit and of a prediction at 1,000 inputs; all libraries, and
what compiling takes, are in it. Every line is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks import sides

KEEP = ("weights", "file", "functions")


def one(keep: str, weights: int, draws: int) -> sides.Run:
    """Seconds of a fit and of a prediction, and memory, in GB."""
    import bnn_zoo as zoo

    generator = np.random.default_rng(0)
    x, new = generator.normal(size=(500, 10)), generator.normal(size=(1000, 10))
    data = x, np.sin(x[:, 0]) + 0.3 * generator.normal(size=500)
    model = zoo.models.MLP(hidden=(round(math.sqrt(weights)),) * 2, noise=0.3)
    lengths = {"num_warmup": 0, "num_samples": draws, "thinning": 10, "start": "prior"}
    method = zoo.methods.SGLD(**lengths, batch_size=32, step_size=1e-8)
    with tempfile.TemporaryDirectory() as folder, sides.watching() as most:
        kept = {"weights": "weights", "file": Path(folder), "functions": "functions"}[keep]
        settings = {"at": new} if keep == "functions" else {}
        posterior = zoo.fit(model, method, data, progress=False, keep=kept, **settings)
        fitted = most()
        predicting = sides.timed(lambda: posterior.predict(new))
        return {"fit": posterior.timing.run_seconds, "predict": predicting, "fit MiB": fitted, "predict MiB": most()}


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--side", choices=KEEP)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(one(given.side, given.weights, given.draws)))
        return
    settings = ("--weights", str(given.weights), "--draws", str(given.draws))
    for keep, (run,) in sides.interleaved("tests.benchmarks.kept", KEEP, 1, *settings).items():
        shown = f"{run['fit MiB']:>8,.0f} MiB after the fit{run['predict MiB']:>9,.0f} MiB after a prediction"
        print(f"{keep:<12}{shown}{run['fit']:>9.1f} s fitting{run['predict']:>7.1f} s predicting", flush=True)


if __name__ == "__main__":
    main()
