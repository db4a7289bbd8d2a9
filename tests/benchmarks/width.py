"""From a finite network to the infinite one: how far NUTS's predictions are from the exact limit, by width.

    python -m tests.benchmarks.width [--widths 10,100,1000] [--seeds 3] [--draws 500]

Twenty-four rows of a smooth function in one dimension, one hidden layer, priors of variance 1 / inputs, noise fixed at
that of the data. Each width is fitted by NUTS and held against `bnn_zoo.infinite_width` of the same model at 41 inputs
among, between and beyond the rows: ``wasserstein2`` between predictive distributions, as a share of the limit's mean
sd, ``mean`` (root mean square difference of means) and ``epistemic`` (root mean square relative difference of sds of
f(x)), over data sets of several seeds, ± a standard error. ``floor`` is the first for as many independent functions of
the limit itself as NUTS's draws are worth (bulk ESS, its least over inputs), which no draws of a converged chain beat.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from scipy.stats import norm

import bnn_zoo as zoo
from bnn_zoo.reports.comparison import distances

NOISE = 0.2
NEW = np.linspace(-3.0, 3.0, 41)[:, None]
ACTIVATIONS = ("relu", "tanh")
LEVELS = (np.arange(400) + 0.5) / 400


def data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-2.0, -0.3, 12), rng.uniform(0.5, 2.0, 12)])
    return x[:, None], np.sin(2 * x) + 0.5 * x + NOISE * rng.normal(size=24)


def model(width: int, activation: str) -> zoo.models.MLP:
    return zoo.models.MLP(hidden=(width,), activation=activation, weight_scale=2.0, bias_scale=1.5, noise=NOISE)


def floor(limit: zoo.GaussianProcess, count: int) -> float:
    """Wasserstein-2, as a share of the sd, of a mixture over ``count`` functions of the limit from the limit itself."""
    said, z = limit.predict(NEW), np.random.default_rng(1).standard_normal((max(count, 2), len(NEW)))
    mean, sd = z.mean(0) * said.epistemic_std, z.std(0) * said.epistemic_std
    there = norm.ppf(LEVELS)[:, None]
    gap = mean + there * (np.hypot(sd, NOISE) - said.std)
    return float(np.sqrt((gap**2).mean(0)).mean() / said.std.mean())


def row(width: int, activation: str, seed: int, draws: int) -> dict[str, float]:
    begin = time.perf_counter()
    method = zoo.methods.NUTS(num_warmup=draws, num_samples=draws, num_chains=4, max_tree_depth=8)
    found = zoo.fit(model(width, activation), method, data(seed), seed=seed, standardize=False, progress=False)
    limit = zoo.infinite_width(model(width, activation), data(seed), standardize=False)
    one, other, points = found.predict(NEW), limit.predict(NEW), found.diagnose(NEW).inner
    return {
        "wasserstein2": distances(one, other)[0] / other.std.mean(),
        "mean": float(np.sqrt(np.mean((one.mean - other.mean) ** 2)) / other.std.mean()),
        "epistemic": float(np.sqrt(np.mean((one.epistemic_std / other.epistemic_std - 1) ** 2))),
        "floor": floor(limit, int(points["ess_bulk"].min())),
        "R-hat": float(points["rhat"].max()),
        "ESS": float(points["ess_bulk"].min()),
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="10,100,1000")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=500)
    settings = parser.parse_args()
    found = {}
    for activation in ACTIVATIONS:
        for width in map(int, settings.widths.split(",")):
            rows = pd.DataFrame([row(width, activation, seed, settings.draws) for seed in range(settings.seeds)])
            table = rows.mean()
            table["± "] = rows["wasserstein2"].std(ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.nan
            table["R-hat"] = rows["R-hat"].max()
            found[activation, width] = table
            print(f"{activation} {width}: wasserstein2 {table['wasserstein2']:.4f}", flush=True)
    print(pd.DataFrame(found).T.round(4).to_string())


if __name__ == "__main__":
    main()
