"""Where the seconds of `evaluate` go: 1,000 draws of a 1x50 MLP, 500 rows; and its bookkeeping, 100,000 rows.

    python -m tests.benchmarks.scores [--rows 500] [--draws 1000]

Each quantity of the mixture that the scores are made of is computed alone, once warm: their time grows with rows times
draws. Bookkeeping is `evaluate` on a stand-in that has all of these at hand for 100,000 rows: errors, coverages, their
standard errors, sorting for AUSE, the bootstrap. It does not grow with draws.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

import bnn_zoo as zoo
from bnn_zoo.reports.scores import evaluate

MANY = 100_000


class AtHand(SimpleNamespace):
    """A prediction whose every answer is known already."""

    def __len__(self) -> int:
        return len(self.mean)


def many_draws(draws: int) -> zoo.Posterior:
    """Give a posterior of draws that were never sampled: weights from the prior's scale."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(200, 8)), generator.normal(size=200)
    method = zoo.methods.NUTS(num_warmup=5, num_samples=4, num_chains=1, start="prior", max_tree_depth=2)
    posterior = zoo.fit(zoo.models.MLP(hidden=(50,)), method, (x, y), progress=False)
    positions = 0.5 * generator.normal(size=(1, draws, posterior.problem.size)).astype(np.float32)
    return replace(posterior, result=replace(posterior.result, positions=positions))


def main() -> None:
    """Print a line a quantity."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args()
    posterior = many_draws(given.draws)
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(given.rows, 8)), generator.normal(size=given.rows)
    evaluate(posterior.predict(-x), y)  # compiles, at other rows: a posterior remembers what it said of the last

    def timed(name: str, work: Callable) -> object:
        clock = time.perf_counter()
        found = work()
        print(f"{name:<44}{time.perf_counter() - clock:>8.2f} s", flush=True)
        return found

    prediction = timed("predict: mean and sds", lambda: posterior.predict(x))
    ends = timed("quantiles 0.05, 0.95", lambda: prediction.quantile([0.05, 0.95]))
    three = timed("quantiles 0.05, 0.5, 0.95", lambda: prediction.quantile([0.05, 0.5, 0.95]))
    assert np.array_equal(three[[0, 2]], ends)
    found = {name: timed(name, lambda name=name: getattr(prediction, name)(y)) for name in ("cdf", "log_prob", "crps")}
    timed("evaluate, all of it", lambda: evaluate(prediction, y))
    which = generator.integers(0, given.rows, MANY)
    answers = {name: lambda *_, value=value[which]: value for name, value in found.items()}
    known = {name: getattr(prediction, name)[which] for name in ("mean", "std", "epistemic_std")}
    stand_in = AtHand(**known, is_normal=True, quantile=lambda q: three[:, which], **answers)
    timed(f"bookkeeping alone, {MANY:,} rows", lambda: evaluate(stand_in, y[which]))
    timed("the same, with as many rows outside", lambda: evaluate(stand_in, y[which], outside=stand_in))


if __name__ == "__main__":
    main()
