"""Equal weights, stacking weights and single chains on held-out rows, where four chains of NUTS find different modes.

A small tanh network from random starts on sin(5x) with noise of sd 0.1, 200 rows: chains stay in modes that lack some
of the curve's turns, and an equal mixture counts a chain in a poor mode as much as one in a good mode. Stacked on 100
other rows, the mixture is scored on 1,000 more: mean nll there, and the least and the most of single chains; for
reference, R-hat of f(x) at its worst. The last columns are rows of Pareto k above 0.7 in PSIS-LOO of the whole, and
seconds that `zoo.loo`, `zoo.stack` and the solver alone took.

    python -m tests.benchmarks.stacking
"""

from __future__ import annotations

import time

import numpy as np

import bnn_zoo as zoo
from bnn_zoo.engine import simplex

METHOD = zoo.methods.NUTS(num_warmup=300, num_samples=300, num_chains=4, max_tree_depth=7, start="prior")
MODEL = zoo.models.MLP(hidden=(6,), activation="tanh", weight_scale=2.0)


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (count, 1))
    return x, np.sin(5 * x[:, 0]) + 0.1 * rng.normal(size=count)


def main() -> None:
    """Print one line a seed."""
    print(
        " seed  R-hat    equal  stacked     best    worst   weights                  k_high   loo s  stack s  solver s"
    )
    for seed in range(4):
        train, weigh, test = (rows(count, 10 * seed + i) for i, count in enumerate((200, 100, 1000)))
        posterior = zoo.fit(MODEL, METHOD, train, seed=seed, progress=False)
        worst = float(np.nanmax(posterior.diagnose().inner["rhat"]))
        begin = time.perf_counter()
        found = zoo.loo(posterior)
        loo_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        stack = zoo.stack(posterior, weigh)
        stack_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        simplex.most_likely(stack.log_scores)
        solver_seconds = time.perf_counter() - begin
        singles = [part.evaluate(*test)["nll"] for part in stack.parts.values()]
        nll = [one.evaluate(*test)["nll"] for one in (posterior, stack)]
        shown = " ".join(f"{weight:.3f}" for weight in stack.weights)
        high = int((~(found.pareto_k <= 0.7)).sum())
        print(
            f"{seed:5d}  {worst:5.2f}  {nll[0]:7.3f}  {nll[1]:7.3f}  {np.min(singles):7.3f}  {np.max(singles):7.3f}   "
            f"{shown:23s}  {high:3d}/200  {loo_seconds:5.2f}  {stack_seconds:7.2f}  {solver_seconds:6.3f}"
        )


if __name__ == "__main__":
    main()
