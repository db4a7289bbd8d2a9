"""Does a posterior sharpen as data grow? The spread of f(x) against the number of rows, for dropout and others.

    python -m tests.benchmarks.sharpen [--rows 50 200 800 3200] [--out FOLDER]

Monte Carlo dropout is said not to be a Bayesian method because its rate is fixed, so that its spread need not fall with
data. One smooth function of two inputs, 1×20 tanh network, noise fixed at that of the data; every set of rows holds
the smaller ones. The spread is the mean over 200 inputs among the data of the sd of f(x); ``slope`` is that of log
spread against log rows: −½ where a regular posterior concentrates.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.reports.drawing import BLUE, GREEN, GREY, PURPLE, VERMILLION

NOISE = 0.2
MODEL = zoo.models.MLP(hidden=(20,), activation="tanh", noise=NOISE)
METHODS = {
    "nuts": zoo.methods.NUTS(num_warmup=500, num_samples=500),
    "laplace": zoo.methods.Laplace(),
    "mean_field": zoo.methods.VI(guide="mean_field", num_steps=10_000, estimator="local"),
    "mc_dropout": zoo.methods.MCDropout(num_steps=10_000),
    "concrete dropout": zoo.methods.MCDropout(num_steps=10_000, concrete=True),
}
COLOURS = dict(zip(METHODS, (GREY, GREEN, BLUE, VERMILLION, PURPLE), strict=True))


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of one long table."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (100_000, 2))
    y = np.sin(3 * x[:, 0]) * x[:, 1] + NOISE * rng.normal(size=len(x))
    return x[:rows], y[:rows]


def plot(table: pd.DataFrame, folder: Path) -> Path:
    """Draw the spread against the rows, both on logarithmic axes."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4))
    for name in table.columns:
        axis.loglog(table.index, table[name], "o-", color=COLOURS[name], label=name)
    axis.loglog(
        table.index, table["nuts"].iloc[0] * np.sqrt(table.index[0] / table.index), "k:", label="rows to the −½"
    )
    # A method that has learnt to have no spread at all would leave no room to tell the others apart.
    axis.set_ylim(bottom=0.5 * table["nuts"].min())
    axis.set_xticks(table.index, [f"{rows:,}" for rows in table.index])
    axis.minorticks_off()
    axis.set_xlabel("rows")
    axis.set_ylabel("mean sd of f(x)")
    axis.legend(fontsize=8)
    figure.tight_layout()
    path = folder / "sharpen.png"
    figure.savefig(path, dpi=150)
    return path


def main() -> None:
    """Fit every method to every number of rows, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 200, 800, 3200])
    parser.add_argument("--out", default=tempfile.gettempdir())
    arguments = parser.parse_args()
    new = np.random.default_rng(1).uniform(-0.9, 0.9, (200, 2))
    table = pd.DataFrame(index=pd.Index(arguments.rows, name="rows"), columns=list(METHODS), dtype=float)
    for rows in arguments.rows:
        for name, method in METHODS.items():
            posterior = zoo.fit(MODEL, method, data(rows), standardize=False, progress=False)
            table.loc[rows, name] = posterior.predict(new).epistemic_std.mean()
            print(f"{rows:>6} rows, {name}: {table.loc[rows, name]:.4f}", flush=True)
    print(table.to_string(float_format="%.4f"))
    slopes = {name: np.polyfit(np.log(table.index), np.log(table[name]), 1)[0] for name in table}
    print("slope", "  ".join(f"{name} {slope:+.2f}" for name, slope in slopes.items()))
    print("plot:", plot(table, Path(arguments.out)))


if __name__ == "__main__":
    main()
