"""Four NUTS chains, cold, each run in a process of its own: `zoo.fit` against NumPyro's vectorised MCMC by hand.

    python -m tests.benchmarks.cold [--rounds 5]

The same model object (1×50 ReLU, noise with a prior), the same 500 × 8 standardised data, 200 warm-up and 200 draws,
float32. Seconds are from the call to the last draw, compilation included and imports not. Sides are interleaved.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np

SIDES = ("numpyro", "zoo", "zoo start=prior")


def data() -> tuple[np.ndarray, np.ndarray]:
    """500 rows of 8 features and a non-linear target, standardised."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 8))
    y = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.3 * generator.normal(size=500)
    return x, (y - y.mean()) / y.std()


def one(side: str) -> dict[str, float]:
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
            num_warmup=200,
            num_samples=200,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.PRNGKey(0), x.astype(np.float32), y.astype(np.float32), extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.get_samples())
        seconds = time.perf_counter() - clock
        steps = float(np.asarray(mcmc.get_extra_fields()["num_steps"]).mean())
    else:
        start = "prior" if side.endswith("prior") else zoo.methods.NUTS().start
        method = zoo.methods.NUTS(num_warmup=200, num_samples=200, num_chains=4, start=start)
        posterior = zoo.fit(model, method, (x, y), standardize=False, progress=False)
        seconds = time.perf_counter() - clock
        steps = float(posterior.stats["n_steps"].mean())
    return {"seconds": seconds, "steps": steps}


def main() -> None:
    """Interleave the sides and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=SIDES)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(one(arguments.side)))
        return
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "tests.benchmarks.cold", "--side", side]
            out = subprocess.run(command, capture_output=True, text=True, check=True)
            found[side].append(json.loads(out.stdout.splitlines()[-1]))
    base = float(np.median([run["seconds"] for run in found["numpyro"]]))
    print(f"four cold NUTS chains, 200 + 200 iterations, 1x50 MLP, n = 500; {arguments.rounds} interleaved rounds")
    print(f"{'side':<18}{'median s':>10}{'min s':>8}{'max s':>8}{'leapfrogs a draw':>18}{'ratio':>8}")
    for side, runs in found.items():
        seconds = [run["seconds"] for run in runs]
        steps = np.mean([run["steps"] for run in runs])
        middle = float(np.median(seconds))
        print(f"{side:<18}{middle:>10.2f}{min(seconds):>8.2f}{max(seconds):>8.2f}{steps:>18.0f}{middle / base:>8.2f}")


if __name__ == "__main__":
    main()
