"""Simulation-based calibration: exact methods, a wrong prior, which must fail, and approximations that are too sure.

    python -m tests.benchmarks.sbc [--simulations 1024] [--fits 256] [--seed 0] [--plots FOLDER]

First NUTS on `Linear` and on a small `MLP`, ranked in f at five inputs, the noise and the log likelihood. Then one line
a method. On `Linear` of known noise with two inputs that go together (correlation 0.99) the posterior of the weights is
long and narrow, and f is ranked along the data and across them: exact methods cover what they should, others what their
closed form says, if there is one. On a small tanh `MLP` nobody is exact but NUTS. Seconds hold compilation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpyro.distributions as dist

import bnn_zoo as zoo
from tests.oracles import LinearPosterior, with_ones

NOISE = dist.LogNormal(-0.5, 0.5)


def inputs() -> np.ndarray:
    """Twelve rows of two correlated features."""
    return np.random.default_rng(0).normal(size=(12, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])


def correlated() -> np.ndarray:
    """Twelve rows of two features that hardly differ."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 1)) + 0.15 * rng.normal(size=(12, 2))


def contrasts() -> np.ndarray:
    """Five inputs: along the data, in between, and across them."""
    return np.array([[1.0, 1.0], [-0.5, -0.7], [1.0, 0.0], [1.0, -1.0], [-2.0, 1.5]])


def mean_field() -> dict[str, Any]:
    """Arguments of `zoo.sbc` for mean-field VI on `Linear`, whose variances are 1 / diag(precision)."""
    method = zoo.methods.VI(guide="mean_field", num_steps=1000, learning_rate=0.03, num_particles=16, num_samples=1000)
    return {"model": zoo.models.Linear(noise=0.5), "method": method, "x": correlated(), "at": contrasts()}


def mean_field_ratios() -> np.ndarray:
    """Sd of f under the posterior by that under its mean-field approximation, ``(5,)``: above 1 is over-confident.

    Neither depends on the targets: the precision A of (w, b) does not, and the approximation's is its diagonal.
    """
    exact = LinearPosterior(correlated(), np.zeros(12), 1.0, 1.0, 0.5)
    variance = np.diag(exact.function(contrasts())[1])
    return np.sqrt(variance / (with_ones(contrasts()) ** 2 @ (1 / np.diag(exact.precision))))


def cases() -> dict[str, dict[str, Any]]:
    """Arguments of `zoo.sbc` for each case of NUTS."""
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


def of_methods() -> dict[str, tuple[str, dict[str, Any]]]:
    """What each method should show, and the arguments of `zoo.sbc`, on `Linear` and on a small `MLP`."""
    m, training = zoo.methods, {"num_steps": 1000, "learning_rate": 0.02}
    nuts = m.NUTS(num_warmup=300, thinning=3, num_chains=1, num_samples=126, start="prior", max_tree_depth=7)
    anchored = m.DeepEnsemble(anchored=True, num_members=31, **training)
    linear = {"model": zoo.models.Linear(noise=0.5), "x": correlated(), "at": contrasts()}
    mlp = {"model": zoo.models.MLP(hidden=(4,), activation="tanh", noise=0.3), "x": inputs()}
    guide = {"num_steps": 1000, "learning_rate": 0.03, "num_particles": 16}
    return {
        "Linear, nuts": ("exact", {**linear, "method": nuts}),
        "Linear, laplace, full": ("exact", {**linear, "method": m.Laplace(num_steps=300, num_restarts=1)}),
        "Linear, anchored ensemble of 31": ("exact", {**linear, "method": anchored}),
        "Linear, mean_field": ("both errors, in closed form", mean_field()),
        "Linear, ensemble of 5": ("no spread", {**linear, "method": m.DeepEnsemble(num_members=5, **training)}),
        "Linear, swag": ("the optimiser's spread", {**linear, "method": m.SWAG(num_steps=2000, warm_steps=500)}),
        "MLP, nuts": ("exact", {**mlp, "method": nuts}),
        "MLP, laplace, linearised": ("one mode", {**mlp, "method": m.Laplace(num_steps=500, num_restarts=1)}),
        "MLP, laplace, draws of weights": (
            "one mode",
            {**mlp, "method": m.Laplace(num_steps=500, num_restarts=1), "kind": "monte_carlo"},
        ),
        "MLP, mean_field": ("independent weights, one mode", {**mlp, "method": m.VI(**guide)}),
        "MLP, dvi": ("the same, by moments", {**mlp, "method": m.DeterministicVI(num_steps=1000)}),
        "MLP, ensemble of 5": ("too narrow", {**mlp, "method": m.DeepEnsemble(num_members=5, **training)}),
        "MLP, mc_dropout": ("the rate's spread", {**mlp, "method": m.MCDropout(num_steps=1000)}),
        "MLP, swag": ("the optimiser's spread", {**mlp, "method": m.SWAG(num_steps=2000, warm_steps=500)}),
    }


def table(simulations: int, seed: int, folder: Path | None) -> None:
    """Print a line a method: least p-value, coverage of f(x*) at all points and where it is least, verdict."""
    print(f"\n{simulations} data sets each; share of true f(x*) inside central intervals ± standard error")
    print(f"{'':<34}{'50 %':>15}{'90 %':>15}{'least 90 %':>11}{'least p':>9}{'s':>6}  verdict (expected)")
    for name, (expected, case) in of_methods().items():
        clock = time.perf_counter()
        found = zoo.sbc(num_simulations=simulations, seed=seed, progress=False, **case)
        seconds, coverage = time.perf_counter() - clock, found.coverage
        line = f"{name:<34}"
        for level in (50, 90):
            line += f"{coverage.iloc[0][f'coverage_{level}']:>8.3f} ±{coverage.iloc[0][f'error_{level}']:.3f}"
        functions = coverage.index.str.startswith("f(x*[")
        line += f"{coverage.loc[functions, 'coverage_90'].min():>11.3f}{found.table['p_value'].min():>9.1g}"
        print(f"{line}{seconds:>6.0f}  {'ok' if found.ok else 'NOT OK'} ({expected})", flush=True)
        if folder is not None:
            zoo.plots.sbc(found).savefig(folder / f"sbc {name}.png", dpi=110)


def main() -> None:
    """Print the table of every case, and that of methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1024, help="of NUTS; 0 leaves these cases out")
    parser.add_argument("--fits", type=int, default=256, help="of every other method; 0 leaves these out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plots", type=Path, help="a folder for one plot a method")
    arguments = parser.parse_args()
    for name, case in cases().items() if arguments.simulations else ():
        clock = time.perf_counter()
        found = zoo.sbc(x=inputs(), num_simulations=arguments.simulations, seed=arguments.seed, **case)
        print(f"\n{name}: {time.perf_counter() - clock:.0f} s\n{found}")
    if arguments.fits:
        table(arguments.fits, arguments.seed, arguments.plots)


if __name__ == "__main__":
    main()
