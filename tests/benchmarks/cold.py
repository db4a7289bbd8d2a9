"""Four NUTS chains, each run in a process of its own: `zoo.fit` against NumPyro's vectorised MCMC by hand.

    python -m tests.benchmarks.cold [--rounds 5] [--short]

The same model object (1×50 ReLU, noise with a prior), the same 500 × 8 standardised data, 200 warm-up and 200 draws,
float32. Seconds are from the call to the last draw, compilation included and imports not. Sides are interleaved. Cold:
nothing is taken from disk. Warm cache: the zoo finds in its folder what an earlier process has compiled, as it does by
default; NumPyro's side is as its users have it, without. ``short`` sides are fits of one chain, 20 + 20 iterations of
at most 31 leapfrogs from a prior draw, in which compiling is nearly all.
"""

from __future__ import annotations

import json
import time
from tempfile import TemporaryDirectory

import numpy as np

from tests.benchmarks import sides
from tests.benchmarks.rows import Row, command, parser

SIDES = ("numpyro", "zoo", "zoo start=prior", "short")


def data() -> tuple[np.ndarray, np.ndarray]:
    """500 rows of 8 features and a non-linear target, standardised."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 8))
    y = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * generator.normal(size=500)
    return x, (y - y.mean()) / y.std()


def one(side: str, iterations: int) -> sides.Run:
    """Run one side in this process and return its seconds and leapfrog steps."""
    import jax
    import numpyro.infer

    import bnn_zoo as zoo

    x, y = data()
    model = zoo.models.MLP(hidden=(50,))
    clock = time.perf_counter()
    if side == "numpyro":
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(model),
            num_warmup=iterations,
            num_samples=iterations,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.PRNGKey(0), x.astype(np.float32), y.astype(np.float32), extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.get_samples())
        seconds = time.perf_counter() - clock
        steps = float(np.asarray(mcmc.get_extra_fields()["num_steps"]).mean())
    else:
        start = "ensemble" if side == "zoo" else "prior"
        length, chains, depth = (20, 1, 5) if side == "short" else (iterations, 4, 10)
        lengths = {"num_warmup": length, "num_samples": length, "num_chains": chains}
        method = zoo.methods.NUTS(**lengths, start=start, max_tree_depth=depth)
        posterior = zoo.fit(model, method, (x, y), standardize=False, progress=False)
        seconds = time.perf_counter() - clock
        steps = float(posterior.stats["n_steps"].mean())
    return {"seconds": seconds, "steps": steps}


def measure(rounds: int, short: bool) -> list[Row]:
    """Interleave the sides, once without a cache and once with one that a process before has filled."""
    settings = "--iterations", "20" if short else "200"
    cold = sides.interleaved("tests.benchmarks.cold", SIDES, rounds, *settings)
    with TemporaryDirectory() as cache:
        sides.interleaved("tests.benchmarks.cold", SIDES[1:], 1, *settings, cache=cache)
        warm = sides.interleaved("tests.benchmarks.cold", SIDES[1:], rounds, *settings, cache=cache)
    steps = {side: f"{np.mean(sides.each(runs, 'steps')):.0f}" for side, runs in cold.items()}
    print("leapfrogs a draw:", ", ".join(f"{side} {count}" for side, count in steps.items()))
    theirs = sides.each(cold["numpyro"], "seconds")
    rows = []
    for side, item in (("zoo", "four chains of NUTS"), ("zoo start=prior", "four chains of NUTS from prior draws")):
        for state, runs, asked in (("cold", cold, 0.45), ("warm cache", warm, 0.25)):
            ours, asked = sides.each(runs[side], "seconds"), asked if side == "zoo" else None
            rows.append(Row(item, "NumPyro's `MCMC` by hand", state, "s", ours, theirs, faster=False, asked=asked))
    first = (sides.each(runs["short"], "seconds") for runs in (warm, cold))
    return [*rows, Row("first short NUTS fit, warm cache", "without a cache", "", "s", *first, asked=3)]


def main() -> None:
    """Run one side, or all of them in turn."""
    asks = parser(__doc__, 5)
    asks.add_argument("--iterations", type=int, default=200)
    asks.add_argument("--side", choices=SIDES)
    given = asks.parse_args()
    if given.side:
        print(json.dumps(one(given.side, given.iterations)))
        return
    command(__doc__, measure, 5, given)


if __name__ == "__main__":
    main()
