"""Do predictive complexity priors prune what is not needed?  Blocks of a residual network, units of an MLP.

    python -m tests.benchmarks.complexity [--draws 1000] [--seeds 3]

Data of a line and of a wiggly function, 60 rows in one dimension, noise known. A residual network of three blocks under
`bnn_zoo.priors.predictive_complexity(part="block")`, an MLP of ten units under ``part="unit"``, and the same with a
half-Cauchy of the same median in its place as a yardstick, all by NUTS. Of the posterior of the scales, as divergences
in nats a row: ``nats``, medians of the largest, second and least of a draw; ``in use``, the mean number of blocks or
units above 0.05; ``prior``, what that is under the prior. On 500 new rows: RMSE against f itself, and NLL. Means over
seeds of the data.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd
from numpyro import distributions as dist

import bnn_zoo as zoo

NOISE = 0.2
USED = 0.05  # nats a row
FUNCTIONS = {"line": lambda x: 0.8 * x, "wiggly": lambda x: np.sin(3 * x)}
MODELS = {
    "block": (zoo.models.ResidualMLP(hidden=(16, 16, 16), activation="relu", weight_scale=1.5, noise=NOISE), 3),
    "unit": (zoo.models.MLP(hidden=(10,), activation="relu", weight_scale=1.5, noise=NOISE), 10),
}


def data(function: str, seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, rows)
    return x[:, None], FUNCTIONS[function](x) + NOISE * rng.normal(size=rows)


def row(part: str, function: str, heavy: bool, seed: int, draws: int) -> dict[str, float]:
    plain, count = MODELS[part]
    train, (x, y) = data(function, seed), data(function, 1000 + seed, 500)
    model: Any = zoo.priors.predictive_complexity(plain, train[0], part=part)
    prior = getattr(model, f"{part}_scale")
    yardstick = dist.HalfCauchy(float(prior.icdf(0.5)))
    if heavy:
        model = dataclasses.replace(model, **{f"{part}_scale": yardstick})
    method = zoo.methods.NUTS(num_warmup=draws, num_samples=draws, num_chains=4, max_tree_depth=8)
    posterior = zoo.fit(model, method, train, seed=seed, standardize=False, progress=False)
    nats = np.asarray(prior.divergence(posterior.draws[f"{part}_scale"]))
    before = np.asarray(prior.divergence((yardstick if heavy else prior).sample(jax.random.PRNGKey(0), (20_000,))))
    prediction, ordered = posterior.predict(x), np.sort(nats, axis=2)
    points = posterior.diagnose().inner
    return {
        "nats, largest": float(np.median(ordered[..., -1])),
        "nats, second": float(np.median(ordered[..., -2])),
        "nats, least": float(np.median(ordered[..., 0])),
        "in use": float((nats > USED).sum(2).mean()),
        "prior": float(count * (before > USED).mean()),
        "rmse of f": float(np.sqrt(np.mean((prediction.mean - FUNCTIONS[function](x[:, 0])) ** 2))),
        "nll": float(-prediction.log_prob(y).mean()),
        "R-hat": float(points["rhat"].max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    settings = parser.parse_args()
    found = {}
    for part in MODELS:
        for function in FUNCTIONS:
            for heavy in (False, True):
                rows = [row(part, function, heavy, seed, settings.draws) for seed in range(settings.seeds)]
                name = "half-Cauchy" if heavy else "complexity"
                found[part, function, name] = pd.DataFrame(rows).mean()
                print(part, function, name, found[part, function, name].round(3).to_dict(), flush=True)
    print(pd.DataFrame(found).T.round(3).to_string())


if __name__ == "__main__":
    main()
