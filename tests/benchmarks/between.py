"""Uncertainty between clusters of data: the sd of f(x) in a gap, relative to that of NUTS, for every approximation.

    python -m tests.benchmarks.between [--seeds 3] [--out FOLDER]

After Foong et al. (2019), 'In-between' uncertainty in Bayesian neural networks: two clusters of inputs in one
dimension, 1×20 tanh network, noise fixed at that of the data. ``gap`` is the mean over inputs in the middle of the gap
of sd / sd of NUTS (1 is right, below 1 over-confident), ``data`` the same over inputs among the data; means over seeds
of the data, ± a standard error. The reference is judged too: its median R-hat of f(x) is printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.reports.drawing import BLUE, GREY, VERMILLION

NOISE = 0.1
MODEL = zoo.models.MLP(hidden=(20,), activation="tanh", weight_scale=2.0, noise=NOISE)
GAP = np.linspace(-0.4, 0.4, 21)[:, None]
AMONG = np.concatenate([np.linspace(-1.4, -1.0, 11), np.linspace(1.0, 1.4, 11)])[:, None]
METHODS = {
    **{
        guide: zoo.methods.VI(guide=guide, num_steps=40_000)
        for guide in ("spherical", "mean_field", "layerwise", "low_rank", "full_rank", "rank1", "iaf")
    },
    "mean_field + local": zoo.methods.VI(guide="mean_field", estimator="local", num_steps=40_000),
    "dvi": zoo.methods.DeterministicVI(num_steps=10_000),
    "mc_dropout": zoo.methods.MCDropout(num_steps=20_000),
    "svgd": zoo.methods.SVGD(num_members=50, num_steps=10_000),
    "laplace": zoo.methods.Laplace(),
    "laplace, kron": zoo.methods.Laplace(covariance="kron"),
    "laplace, diag": zoo.methods.Laplace(covariance="diag"),
    "ensemble": zoo.methods.DeepEnsemble(num_members=20),
    "anchored_ensemble": zoo.methods.DeepEnsemble(num_members=20, anchored=True),
    "multiswag": zoo.methods.MultiSWAG(num_modes=10),
}


def data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Forty rows in two clusters of a smooth function."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-1.5, -0.9, 20), rng.uniform(0.9, 1.5, 20)])
    return x[:, None], np.sin(2.5 * x) + NOISE * rng.normal(size=40)


def fit(method: object, seed: int) -> zoo.Posterior:
    """Fit on the scale on which model and noise are written."""
    return zoo.fit(MODEL, method, data(seed), seed=seed, standardize=False, progress=False)


def spread(posterior: zoo.Posterior, x: np.ndarray) -> np.ndarray:
    """Standard deviation of f(x), by the method's own best prediction."""
    return posterior.predict(x).epistemic_std


def plot(found: dict[str, zoo.Posterior], reference: zoo.Posterior, folder: Path) -> Path:
    """Draw bands of one seed, each method over NUTS."""
    import matplotlib.pyplot as plt

    x = np.linspace(-2.2, 2.2, 200)[:, None]
    columns = 4
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 2.1 * rows), sharex=True, sharey=True)
    for axis, (name, posterior) in zip(axes.flat, found.items(), strict=False):
        for one, colour, alpha in ((reference, GREY, 0.35), (posterior, BLUE, 0.45)):
            said = one.predict(x)
            low, high = said.mean - 2 * said.epistemic_std, said.mean + 2 * said.epistemic_std
            axis.fill_between(x[:, 0], low, high, color=colour, alpha=alpha, linewidth=0)
        axis.plot(*data(0), ".", color=VERMILLION, markersize=3)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(-4, 4)
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    figure.suptitle("f(x) ± 2 sd: NUTS grey, the method blue", fontsize=10)
    figure.tight_layout()
    path = folder / "between.png"
    figure.savefig(path, dpi=150)
    return path


def main() -> None:
    """Fit everything on every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--out", default=tempfile.gettempdir())
    arguments = parser.parse_args()
    rows, first = [], {}
    for seed in range(arguments.seeds):
        reference = fit(zoo.methods.NUTS(num_warmup=1000, num_samples=1000), seed)
        rhat = reference.diagnose().inner.rhat
        print(
            f"seed {seed}: NUTS, R-hat of f(x) {rhat.median():.3f} in the median, {rhat.max():.3f} at most", flush=True
        )
        for name in arguments.methods:
            posterior = fit(METHODS[name], seed)
            ratio = {where: np.mean(spread(posterior, x) / spread(reference, x)) for where, x in PLACES.items()}
            rows.append({"method": name, "seed": seed, "seconds": posterior.timing.run_seconds} | ratio)
            if seed == 0:
                first[name] = posterior
        if seed == 0:
            kept = reference
    table = pd.DataFrame(rows).groupby("method", sort=False)
    shown = pd.DataFrame({f"{where} / NUTS": table[where].mean() for where in PLACES})
    if arguments.seeds > 1:
        for where in PLACES:
            shown[f"± {where}"] = table[where].std(ddof=1) / np.sqrt(arguments.seeds)
    shown["seconds"] = table["seconds"].mean()
    print(shown.to_string(float_format="%.2f"))
    print("plot:", plot(first, kept, Path(arguments.out)))


PLACES = {"gap": GAP, "data": AMONG}

if __name__ == "__main__":
    main()
