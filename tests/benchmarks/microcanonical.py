"""Microcanonical chains against NUTS, both from trained networks: what an effective draw of f(x) costs, and its spread.

    python -m tests.benchmarks.microcanonical [FOLDER] [--rounds 5] [--sets wave cubic diabetes] [--iterations 500]

FOLDER holds ``NAME/data.txt`` of the UCI sets, as ``BNN_ZOO_DATA`` does; without either they are downloaded. 1×50 ReLU,
4 chains, warm starts; NUTS takes ``--iterations`` of warm-up and as many of sampling, MCLMC 40 steps for each of these
in warm-up and 100 in sampling (kept every 5th), adjusted 12 and 40 trajectories (kept every 20th).

A seed a round, and one line a run. ``ESS``: bulk, over training points and points between, the least and the median.
``a 1000 g``: ESS for 1000 gradients of sampling, ``all in``: for 1000 gradients of everything, starts and warm-up
included; ``a second``: of run time, everything included, compilation not. ``sd``: median over test points of the
epistemic sd over the mean of those of NUTS over seeds: the lines of NUTS say how far that is from 1 by chance. Then
medians over seeds, and in brackets the least and the most, of each over NUTS's of the same seed. Thinned chains cannot
have more ESS than draws: where it is near that, figures are floors. Other programs on the machine change seconds, and
nothing else.
"""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pandas as pd

import bnn_zoo as zoo
from tests.benchmarks.rows import Row, command, parser

COSTS = ["least a 1000 g", "median a 1000 g", "median all in", "least a second", "median a second"]


def methods(iterations: int) -> dict[str, object]:
    """What is compared, at lengths that cost about the same."""
    return {
        "nuts": zoo.methods.NUTS(num_warmup=iterations, num_samples=iterations),
        "mclmc": zoo.methods.MCLMC(num_warmup=40 * iterations, num_samples=20 * iterations, thinning=5),
        "adjusted": zoo.methods.MCLMC(
            adjusted=True, num_warmup=12 * iterations, num_samples=2 * iterations, thinning=20
        ),
    }


def load(name: str) -> tuple[zoo.Dataset, zoo.Dataset]:
    """Training and test rows: a standard split where there is one."""
    if name in ("wave", "diabetes", "cubic"):
        return zoo.datasets.load(name).split(test_size=0.2, seed=0)
    return zoo.datasets.load(name, split=0)


def run(method: object, train: zoo.Dataset, test: zoo.Dataset, seed: int) -> tuple[dict[str, float], np.ndarray]:
    """One fit: its figures, and epistemic sds ``(n,)`` at the test points."""
    posterior = zoo.fit("mlp", method, train, seed=seed, progress=False)
    diagnosis, timing = posterior.diagnose(), posterior.timing
    points = diagnosis.points[diagnosis.points["where"] != "beyond"]
    least, median = points.ess_bulk.min(), points.ess_bulk.median()
    sampling, spent = float(posterior.stats["n_steps"].sum()), timing.gradient_evaluations
    figures = {
        "ESS least": least,
        "ESS median": median,
        "least a 1000 g": 1000 * least / sampling,
        "median a 1000 g": 1000 * median / sampling,
        "median all in": 1000 * median / spent,
        "least a second": least / timing.run_seconds,
        "median a second": median / timing.run_seconds,
        "R-hat": points.rhat.max(),
        "nll": posterior.evaluate(test.x, test.y)["nll"],
        "energy error": float(np.mean(posterior.stats.get("energy_variance", np.nan))),
        "seconds": timing.run_seconds,
        "verdict": diagnosis.verdict,
    }
    return figures, posterior.predict(test.x).epistemic_std


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Costs over those of NUTS with the same set and seed: median, least and most over seeds."""
    indexed = rows.set_index(["set", "seed", "method"])[COSTS]
    nuts = indexed.xs("nuts", level="method")
    over = {method: indexed.xs(method, level="method") / nuts for method in rows["method"].unique() if method != "nuts"}
    frame = pd.concat(over, names=["method"])

    def shown(values: pd.Series) -> str:
        return f"{values.median():.2f} ({values.min():.2f} to {values.max():.2f})"

    return frame.groupby(["set", "method"], sort=False).agg(shown)


def measure(rounds: int, short: bool, sets: list[str] | None = None, iterations: int = 500) -> list[Row]:
    """Fit everything with a seed a round, print a line for each and what it comes to."""
    sets = sets or (["wave"] if short else ["wave", "cubic", "diabetes"])
    iterations = 100 if short else iterations
    rows, spreads = [], {}
    for name in sets:
        train, test = load(name)
        for seed in range(rounds):
            for label, method in methods(iterations).items():
                figures, spreads[name, label, seed] = run(method, train, test, seed)
                rows.append({"set": name, "seed": seed, "method": label} | figures)
                shown = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items())
                print(shown, flush=True)
    frame = pd.DataFrame(rows)
    frame["sd"] = [
        float(np.median(spreads[s, m, k] / np.mean([spreads[s, "nuts", i] for i in range(rounds)], axis=0)))
        for s, m, k in zip(frame["set"], frame["method"], frame["seed"], strict=True)
    ]
    print("\nover those of NUTS: median over seeds (least to most)")
    print(ratios(frame).to_string())
    print("\nmeans over seeds")
    print(frame.drop(columns=["seed", "verdict"]).groupby(["set", "method"], sort=False).mean().round(4).T.to_string())
    print("\nepistemic sd over NUTS's: least and most over seeds")
    print(frame.groupby(["set", "method"], sort=False)["sd"].agg(["min", "max"]).round(3).to_string())
    return [row for name in sets for row in compared(frame[frame["set"] == name], name)]


def compared(frame: pd.DataFrame, name: str) -> list[Row]:
    """What an effective draw of f(x) costs on one set, and the ratio of sds of f(x)."""
    by = {method: frame[frame["method"] == method] for method in ("nuts", "mclmc")}
    found = []
    for what, column, size, unit in (
        ("gradients", "median a 1000 g", 1000.0, ""),
        ("time", "median a second", 1000.0, "ms"),
    ):
        each = ([float(size / value) for value in by[method][column]] for method in ("mclmc", "nuts"))
        found.append(Row(f"{what} an effective draw of f(x), MCLMC, {name}", "NUTS", "warm", unit, *each, asked=2))
    off = [abs(float(value) - 1) for value in by["mclmc"]["sd"]]
    return [*found, Row(f"epistemic sd of MCLMC off NUTS's, {name}", "", "", "", off, faster=False, asked=0.05)]


def main() -> None:
    """Run all."""
    asks = parser(__doc__, 5)
    asks.add_argument("folder", nargs="?")
    asks.add_argument("--sets", nargs="+")
    asks.add_argument("--iterations", type=int, default=500)
    given = asks.parse_args()
    if given.folder:
        os.environ["BNN_ZOO_DATA"] = given.folder
    command(__doc__, partial(measure, sets=given.sets, iterations=given.iterations), 5, given)


if __name__ == "__main__":
    main()
