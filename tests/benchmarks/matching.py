"""Priors matched to Gaussian processes: are their functions like the process's, and their posteriors?

    python -m tests.benchmarks.matching [--targets rbf matern52 periodic] [--draws 4000] [--no-nuts] [--out FOLDER]

One input on [-2, 2], a 1×50 network. ``covariance`` is ‖C − K‖ / ‖K‖ (Frobenius) at 50 held-out points between those
matched at, C the second moments of 4000 functions, with its Monte Carlo error: the sd over 10 parts, over the root of
10. ``floor`` is what as many draws of the process itself give. The posterior is that of NUTS under each prior, noise
known, for 12 observations of a draw of the process, against exact regression: ``mean`` is the root mean square distance
between means over the exact posterior's root mean square sd, ``overlap`` the shared length of the two central 90 %
bands over their union, averaged over 101 inputs.

Plots: ``matching_functions.png`` (functions of the process, and of the prior before and after) and
``matching_posteriors.png`` (bands of the exact posterior and of both networks').
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from tinygp import kernels

import bnn_zoo as zoo
from bnn_zoo.reports.drawing import BLUE, GREY, VERMILLION
from bnn_zoo.reports.mixing import chain_diagnostics

NOISE = 0.1
GRID = np.linspace(-2, 2, 101)[:, None]
HELD_OUT = np.random.default_rng(3).uniform(-2, 2, (50, 1))
ROWS = np.linspace(-2, 2, 64)[:, None]
TARGETS: dict[str, Any] = {
    "rbf": kernels.ExpSquared(scale=0.7),
    "matern52": kernels.Matern52(scale=0.7),
    "periodic": kernels.ExpSineSquared(scale=2.0, gamma=1.0),
}
# A periodic function is made of a few frequencies, found only from weights that begin spread over them.
WIDE = {"weight_scale": 4.0, "bias_scale": 2.0}
HOW: dict[str, tuple[dict, dict]] = {
    "wasserstein, layer": ({}, {"divergence": "wasserstein", "parameters": "layer"}),
    "kl, layer": ({}, {"divergence": "kl", "parameters": "layer"}),
    "kl, group": ({}, {"divergence": "kl", "parameters": "group"}),
    "wasserstein, weight": (WIDE, {"divergence": "wasserstein", "parameters": "weight", "num_steps": 1000}),
}
FITTED = {"rbf": "kl, layer", "matern52": "kl, group", "periodic": "wasserstein, weight"}


def network(**scales: float) -> zoo.models.MLP:
    """The network whose prior is matched, before it is."""
    return zoo.models.MLP(hidden=(50,), activation="sin", noise=NOISE, **scales)


def gram(kernel: Any, x: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """Covariance of the process, in float64."""
    return np.asarray(kernel(x, x if other is None else other), float)


def drawn(covariance: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Functions of a Gaussian process ``(num, n)``."""
    values, vectors = np.linalg.eigh(covariance)
    return np.random.default_rng(seed).normal(size=(num, len(values))) @ (vectors * np.sqrt(np.clip(values, 0, None))).T


def off(functions: np.ndarray, covariance: np.ndarray, parts: int = 10) -> tuple[float, float]:
    """Relative distance of the second moments of ``functions`` from ``covariance``, and its Monte Carlo error."""

    def distance(some: np.ndarray) -> float:
        return float(np.linalg.norm(some.T @ some / len(some) - covariance) / np.linalg.norm(covariance))

    # Leave-one-part-out, as the distance of a small part is biased upwards by its own noise.
    left = [distance(np.delete(functions, slice(i, None, parts), axis=0)) for i in range(parts)]
    return distance(functions), float(np.sqrt((parts - 1) * np.var(left)))


def exact(kernel: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of f on the grid under exact Gaussian process regression."""
    root = np.linalg.cholesky(gram(kernel, x) + NOISE**2 * np.eye(len(x)))
    cross = np.linalg.solve(root, gram(kernel, x, GRID))
    variance = np.diag(gram(kernel, GRID)) - (cross**2).sum(0)
    return cross.T @ np.linalg.solve(root, y), np.sqrt(np.maximum(variance, 1e-10))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Shared length of intervals ``(n, 2)`` over the length of their union, averaged."""
    shared = np.maximum(np.minimum(one[:, 1], other[:, 1]) - np.maximum(one[:, 0], other[:, 0]), 0)
    union = np.ptp(one, axis=1) + np.ptp(other, axis=1) - shared
    return float((shared / union).mean())


def band(posterior: zoo.Posterior) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and central 90 % band of f on the grid."""
    f = posterior.function_draws(GRID).reshape(-1, len(GRID))
    return f.mean(0), np.quantile(f, [0.05, 0.95], axis=0).T


def main() -> None:
    """Match, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--no-nuts", action="store_true")
    parser.add_argument("--out", default=tempfile.gettempdir())
    arguments = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count, folder = len(arguments.targets), Path(arguments.out)
    shown, drawings = plt.subplots(count, 3, figsize=(9, 2.2 * count), sharex=True, squeeze=False, layout="constrained")
    seen, bands = plt.subplots(count, 2, figsize=(8, 2.4 * count), sharex=True, squeeze=False, layout="constrained")
    matches, fits = [], []
    for i, name in enumerate(arguments.targets):
        kernel = TARGETS[name]
        covariance = gram(kernel, HELD_OUT)
        models = {"N(0, 1)": network()}
        for how, (scales, settings) in HOW.items():
            clock = time.perf_counter()
            models[how] = zoo.priors.match_gp(network(**scales), kernel, ROWS, progress=False, **settings)
            seconds, record = time.perf_counter() - clock, models[how].prior.record
            matches.append({"target": name, "prior": how, "before": record.before, "after": record.after, "s": seconds})
        floor, error = off(drawn(covariance, arguments.draws, seed=5), covariance)
        matches.append({"target": name, "prior": "the process itself", "covariance": floor, "error": error})
        matches.append({"target": name, "prior": "N(0, 1)"})
        for row in matches:
            if row["target"] == name and row["prior"] in models:
                functions = zoo.priors.sample_functions(models[row["prior"]], HELD_OUT, arguments.draws, seed=7)
                row["covariance"], row["error"] = off(functions.astype(float), covariance)
        print(pd.DataFrame([m for m in matches if m["target"] == name]).to_string(index=False, float_format="%.3f"))
        best = models[FITTED[name]]
        panels = {
            f"{name}: the process": drawn(gram(kernel, GRID), 12, seed=6),
            f"matched ({FITTED[name]})": zoo.priors.sample_functions(best, GRID, 12, seed=1),
            "N(0, 1) prior": zoo.priors.sample_functions(network(), GRID, 12, seed=1),
        }
        for axis, (title, lines) in zip(drawings[i], panels.items(), strict=True):
            axis.plot(GRID[:, 0], lines.T, color=BLUE, linewidth=0.8, alpha=0.7)
            axis.set_title(title, fontsize=8)
            axis.set_ylim(-5, 5)
        if arguments.no_nuts:
            continue
        x = np.random.default_rng(11).uniform(-2, 2, (12, 1))
        y = drawn(gram(kernel, x), 1, seed=12)[0] + NOISE * np.random.default_rng(13).normal(size=12)
        mean, sd = exact(kernel, x, y)
        truth = np.stack([mean - 1.6449 * sd, mean + 1.6449 * sd], axis=1)
        for axis, (title, model) in zip(bands[i], {"matched": best, "N(0, 1)": network()}.items(), strict=True):
            method = zoo.methods.NUTS(num_warmup=500, num_samples=500, num_chains=2)
            posterior = zoo.fit(model, method, (x, y), standardize=False, progress=False)
            found, interval = band(posterior)
            fits.append(
                {
                    "target": name,
                    "prior": title,
                    "mean": float(np.sqrt(np.mean((found - mean) ** 2)) / np.sqrt(np.mean(sd**2))),
                    "overlap": overlap(interval, truth),
                    "width": float(np.ptp(interval, axis=1).mean() / np.ptp(truth, axis=1).mean()),
                    "rhat": float(np.max(chain_diagnostics(posterior.function_draws(GRID))["rhat"])),
                }
            )
            print(fits[-1], flush=True)
            axis.fill_between(GRID[:, 0], *truth.T, color=GREY, alpha=0.4, linewidth=0, label="exact, 90 %")
            axis.plot(GRID[:, 0], interval, color=VERMILLION, linewidth=1)
            axis.plot(GRID[:, 0], found, color=VERMILLION, linewidth=1, linestyle="--", label="network, mean and 90 %")
            axis.plot(x[:, 0], y, "k.", markersize=5)
            axis.set_title(f"{name}: {title}", fontsize=8)
            axis.set_ylim(-4, 4)
    print(pd.DataFrame(fits).to_string(index=False, float_format="%.3f"))
    shown.savefig(folder / "matching_functions.png", dpi=110)
    if not arguments.no_nuts:
        bands[0, 0].legend(fontsize=7)
        seen.savefig(folder / "matching_posteriors.png", dpi=110)
    print("plots:", folder / "matching_functions.png", folder / "matching_posteriors.png")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
