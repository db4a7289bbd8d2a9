"""Stochastic-gradient samplers against NUTS, where NUTS is affordable, all of them for about equally many gradients.

    python -m tests.benchmarks.stochastic [--steps 100000] [--methods NAME ...]

500 rows of 5 inputs, 1×50 ReLU network, noise fixed at that of the data, 4 chains, step sizes found. Points are 200
rows like those of training (``near``) and 100 whose inputs are three times as large (``off``).

``W2``: mean over all points of the Wasserstein-2 distance between predictive distributions, in units of NUTS's mean
predictive sd. ``sd near``, ``sd off``: median over points of the epistemic sd over that of NUTS. ``temperature``: mean
over draws, 1 for a chain that has arrived and has no bias. ``R-hat``: median of f(x), as in the diagnosis. ``step``:
mean over chains and draws. The first row is NUTS against itself, two chains against the other two: the least that can
be seen. A step with control variates takes two gradients, so those runs have half as many steps.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.reports.comparison import distances

NOISE = 0.3
MODEL = zoo.models.MLP(hidden=(50,), noise=NOISE)
DRAWS, CYCLES, BATCH = 500, 10, 64
WARMUP = 0.2  # of the steps after it


def sgld(steps: int, **settings: object) -> object:
    """SGLD of so many steps a chain after its warm-up."""
    return zoo.methods.SGLD(num_warmup=int(WARMUP * steps), num_samples=DRAWS, thinning=steps // DRAWS, **settings)


def sghmc(steps: int, **settings: object) -> object:
    """SGHMC, likewise."""
    return zoo.methods.SGHMC(num_warmup=int(WARMUP * steps), num_samples=DRAWS, thinning=steps // DRAWS, **settings)


def cyclical(name: str, steps: int) -> object:
    """A cyclical method, whose explorations count as steps and take four fifths of them."""
    lengths = {"num_samples": DRAWS, "samples_per_cycle": DRAWS // CYCLES, "thinning": max(1, steps // (5 * DRAWS))}
    return getattr(zoo.methods, name)(num_warmup=int(WARMUP * steps), batch_size=BATCH, **lengths)


METHODS = {
    "SGLD, all rows": lambda steps: sgld(steps),
    "SGLD": lambda steps: sgld(steps, batch_size=BATCH),
    "SGLD, control variates": lambda steps: sgld(steps // 2, batch_size=BATCH, control_variates=True),
    "SGLD, rmsprop": lambda steps: sgld(steps, batch_size=BATCH, preconditioner="rmsprop"),
    "SGLD, warm restarts": lambda steps: sgld(steps, batch_size=BATCH, warm_restarts=2000),
    "SGHMC, all rows": lambda steps: sghmc(steps),
    "SGHMC": lambda steps: sghmc(steps, batch_size=BATCH),
    "SGHMC, noise estimate": lambda steps: sghmc(steps, batch_size=BATCH, noise_estimate=True),
    "SGHMC, control variates": lambda steps: sghmc(steps // 2, batch_size=BATCH, control_variates=True),
    "CyclicalSGLD": lambda steps: cyclical("CyclicalSGLD", steps),
    "CyclicalSGHMC": lambda steps: cyclical("CyclicalSGHMC", steps),
}


def data() -> tuple[tuple[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Training rows, and new inputs by where they are."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5))
    y = np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + NOISE * rng.normal(size=len(x))
    return (x, y), {"near": rng.normal(size=(200, 5)), "off": 3 * rng.normal(size=(100, 5))}


def fit(method: object) -> zoo.Posterior:
    """Fit on the scale on which model and noise are written."""
    return zoo.fit(MODEL, method, data()[0], standardize=False, progress=False)


def some_chains(posterior: zoo.Posterior, which: slice) -> zoo.Posterior:
    """Return the posterior of some of its chains."""
    stats = {name: value[which] for name, value in posterior.stats.items()}
    return replace(
        posterior, result=replace(posterior.result, positions=posterior.result.positions[which], stats=stats)
    )


def far(posterior: zoo.Posterior, reference: zoo.Posterior) -> dict[str, float]:
    """How far predictions are from those of the reference."""
    places = data()[1]
    x = np.concatenate(list(places.values()))
    found = {"W2": distances(posterior.predict(x), reference.predict(x))[0] / reference.predict(x).std.mean()}
    for where, x in places.items():
        ratio = posterior.predict(x).epistemic_std / reference.predict(x).epistemic_std
        found[f"sd {where}"] = float(np.median(ratio))
    return found


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Fit NUTS and then everything, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="of sampling, a chain")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    reference = fit(zoo.methods.NUTS(num_warmup=500, num_samples=500))
    rhat = reference.diagnose().inner.rhat
    print(
        f"NUTS: R-hat of f(x) {rhat.median():.3f} in the median, {rhat.max():.3f} at most; "
        f"{reference.timing.run_seconds:.0f} s, {reference.timing.gradient_evaluations:,} gradients",
        flush=True,
    )
    halves = some_chains(reference, slice(0, 2)), some_chains(reference, slice(2, 4))
    rows = {"NUTS, two chains": far(*halves)}
    for name in arguments.methods:
        posterior = fit(METHODS[name](arguments.steps))
        diagnosis = posterior.diagnose()
        rows[name] = far(posterior, reference) | {
            "temperature": float(posterior.stats["temperature"].mean()),
            "R-hat": diagnosis.inner.rhat.median(),
            "step": f"{posterior.stats['step_size'].mean():.1e}",
            "seconds": f"{posterior.timing.run_seconds:.0f}",
            "verdict": diagnosis.verdict,
        }
        print(", ".join([name, *(f"{key} {_shown(value)}" for key, value in rows[name].items())]), flush=True)
    print(pd.DataFrame.from_dict(rows, orient="index").to_string(float_format="%.3f", na_rep=""))


if __name__ == "__main__":
    main()
