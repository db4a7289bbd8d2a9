"""Four NUTS chains on this machine, each way that chains can run: what ``chain_method="auto"`` goes by.

    python -m tests.benchmarks.devices [--rounds 3] [--rows 500] [--width 50] [--chains 4] [--iterations 100]

Prints, for every way, the median and the range over rounds of the seconds that compiling and running took, gradients a
second over all chains, and which way is taken by itself. Every run is a process of its own and compiles anew; ways take
turns. ``sharded`` has as many of XLA's host devices as there are cores where the platform is the CPU, and all devices
otherwise. The draws are the same in all ways but for rounding; vectorised, every chain waits for that of the deepest
tree.
"""

from __future__ import annotations

import argparse
import json
import os

from tests.benchmarks.sides import cores, each, interleaved, median

SIDES = ("threads", "vectorized", "sharded")


def main() -> None:
    """Run every way in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--width", type=int, default=50)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--side", choices=SIDES)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(run(asked.side, asked.rows, asked.width, asked.chains, asked.iterations)))
        return
    passed = [f"--{name}={getattr(asked, name)}" for name in ("rows", "width", "chains", "iterations")]
    found = interleaved("tests.benchmarks.devices", SIDES, asked.rounds, *passed)
    print(f"{asked.chains} NUTS chains, {asked.rows} rows, 1×{asked.width}, 2 × {asked.iterations} iterations")
    print(f"{'way':12}{'devices':>8}{'compile s':>11}{'run s':>8}  range           gradients a second")
    for side, runs in found.items():
        line = f"{side:12}{runs[0]['devices']:8.0f}{median(runs, 'compile'):11.2f}{median(runs, 'run'):8.2f}"
        seconds = each(runs, "run")
        print(f"{line}  {f'{min(seconds):.3g} to {max(seconds):.3g}':16}{median(runs, 'rate'):10,.0f}")
    best = min(SIDES, key=lambda side: median(found[side], "run"))
    taken = SIDES[int(found["threads"][0]["taken"])]
    print(f"least time running: {best}; taken by itself on one device: {taken}")


def run(side: str, rows: int, width: int, chains: int, iterations: int) -> dict[str, float]:
    """Fit once, one way, in this process."""
    if side == "sharded":  # before JAX is imported; of no effect but on the CPU
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={cores()}"
    import jax
    import numpy as np

    import bnn_zoo as zoo
    from bnn_zoo.engine import places
    from bnn_zoo.engine.context import Context

    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5))
    y = np.sin(x[:, 0]) + 0.3 * rng.normal(size=rows)
    method = zoo.methods.NUTS(
        num_warmup=iterations, num_samples=iterations, num_chains=chains, max_tree_depth=7, start="prior"
    )
    model = zoo.models.MLP(hidden=(width,), noise=0.3)
    posterior = zoo.fit(model, method, (x, y), progress=False, chain_method=side)
    timing = posterior.timing
    own = places.choose("chains", chains, posterior.problem, Context(), True, by_threads=True)
    return {
        "devices": jax.local_device_count() if side == "sharded" else 1,
        "compile": timing.compile_seconds,
        "run": timing.run_seconds,
        "rate": timing.gradient_evaluations / timing.run_seconds,
        "taken": SIDES.index(own.how),
    }


if __name__ == "__main__":
    main()
