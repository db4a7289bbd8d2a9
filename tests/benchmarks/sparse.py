"""Twenty inputs of twenty-three are noise: who notices, and does NUTS get through without divergences?

    python -m tests.benchmarks.sparse [--models mlp ard_mlp horseshoe_mlp] [--activation relu] [--seeds 1]

y = 2 sin(1.5 x_0) + x_1 x_2 + noise of sd 0.3, 200 rows of 23 standard Normal inputs, and 1,000 more to test on. Prints
for each model, under NUTS at its default settings but for the lengths given: divergences, R-hat of f(x) at training and
held-out inputs as `diagnose` has it, the least relevance of an input that matters and the greatest of one that does not
(posterior medians, relative to the greatest of all), RMSE of the mean to the noise-free function, and what it cost;
then the relevance of every input. A plain MLP has no relevance: its column is the root mean square of the weights by
which an input is read.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd

import bnn_zoo as zoo

COLUMNS, USED = 23, 3
MODELS: dict[str, Any] = {
    "mlp": zoo.models.MLP,
    "ard_mlp": zoo.models.ARDMLP,
    "horseshoe_mlp": zoo.models.HorseshoeMLP,
}


def make(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs ``(rows, 23)``, targets and the noise-free function ``(rows,)``."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, COLUMNS))
    f = 2 * np.sin(1.5 * x[:, 0]) + x[:, 1] * x[:, 2]
    return x, f + 0.3 * rng.normal(size=rows), f


def relevance(posterior: zoo.Posterior) -> np.ndarray:
    """How strongly each input is read, ``(23,)``, the greatest being 1: medians over draws."""
    draws = posterior.draws
    scale = draws["relevance"] if "relevance" in draws else np.sqrt(np.mean(draws["w_0"] ** 2, axis=-1))
    middle = np.median(scale, axis=(0, 1)).astype(float)
    return middle / middle.max()


def judge(posterior: zoo.Posterior, x: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """One line of the table, from a fit and a test set."""
    points, shown = posterior.diagnose().inner, relevance(posterior)
    return {
        "divergences": int(posterior.stats["diverging"].sum()),
        "R-hat median": points.rhat.median(),
        "R-hat max": points.rhat.max(),
        "ESS median": points.ess_bulk.median(),
        "least used": shown[:USED].min(),
        "most unused": shown[USED:].max(),
        "RMSE": float(np.sqrt(np.mean((posterior.predict(x).mean - f) ** 2))),
        "noise": float(posterior.draws["noise"].mean()),
        "leapfrogs": posterior.stats["n_steps"].mean(),
    }


def main() -> None:
    """Fit every model and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=1000, help="of warm-up, and as many kept")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    shown = {}
    for seed in range(arguments.seeds):
        x, y, _ = make(arguments.rows, 2 * seed)
        new, _, truth = make(1000, 2 * seed + 1)
        for name in arguments.models:
            model = MODELS[name](hidden=(arguments.width,), activation=arguments.activation)
            lengths = {"num_warmup": arguments.iterations, "num_samples": arguments.iterations}
            begin = time.perf_counter()
            method = zoo.methods.NUTS(**lengths, num_chains=arguments.chains)
            posterior = zoo.fit(model, method, (x, y), seed=seed, progress=False)
            seconds = time.perf_counter() - begin
            row = {"seed": seed, "model": name} | judge(posterior, new, truth) | {"s": seconds}
            table = pd.DataFrame([row])
            print(table.to_string(index=False, header=not shown, float_format="%.3f"), flush=True)
            shown[f"{name}, {seed}"] = relevance(posterior)
    print(f"\nrelevance by input: the first {USED} matter")
    print(pd.DataFrame(shown).round(3).to_string())


if __name__ == "__main__":
    main()
