"""Memory and seconds of a prediction: 1,000 draws at 10,000 rows, against NumPyro's `Predictive`; 4,000 at 100,000.

    python -m tests.benchmarks.prediction [--rounds 3] [--short]

Means and sds of a 1×50 network. Each side runs in a process of its own; memory is the rise of the peak over what the
process held before, compilation included. Draws are made up: what they are does not matter here.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.benchmarks import sides
from tests.benchmarks.rows import Row, command, parser

SIDES = {  # who, draws a chain of four, rows
    "zoo": ("zoo", 250, 10_000),
    "serial": ("serial", 250, 10_000),
    "parallel": ("parallel", 250, 10_000),
    "zoo, many": ("zoo", 1000, 100_000),
}


def peak() -> float:
    """Peak resident memory of this process, in MB.

    Not `resource.getrusage`: its peak is inherited from the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024 / 1e6


def one(side: str, draws: int, rows: int) -> sides.Run:
    """Predict means and sds once, cold, and once more at other rows: the zoo remembers what it said of the last."""
    import jax
    import numpyro.infer

    import bnn_zoo as zoo

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(200, 8)), generator.normal(size=200)
    model = zoo.models.MLP(hidden=(50,))
    method = zoo.methods.NUTS(num_warmup=5, num_samples=4, start="prior", max_tree_depth=2)
    posterior = zoo.fit(model, method, (x, y), progress=False)
    positions = generator.normal(size=(4, draws, posterior.problem.size)).astype(np.float32)
    posterior = replace(posterior, result=replace(posterior.result, positions=positions))
    first, second = generator.normal(size=(2, rows, 8))
    sites = {name: value.reshape(-1, *value.shape[2:]) for name, value in posterior.draws.items()}

    def predict(new: np.ndarray) -> None:
        if side == "zoo":
            posterior.predict(new)
        else:
            predictive = numpyro.infer.Predictive(model, sites, parallel=side == "parallel")
            drawn = predictive(jax.random.PRNGKey(0), new.astype(np.float32))["y"]
            jax.block_until_ready((drawn.mean(0), drawn.std(0)))

    before, seconds = peak(), []
    for new in (first, second):
        clock = time.perf_counter()
        predict(new)
        seconds.append(time.perf_counter() - clock)
    return {"MB": peak() - before, "cold": seconds[0], "again": seconds[1]}


def measure(rounds: int, short: bool) -> list[Row]:
    """Interleave the sides."""
    names = [name for name in SIDES if not (short and name == "zoo, many")]
    found = sides.interleaved("tests.benchmarks.prediction", names, rounds)

    def row(item: str, other: str, state: str, unit: str, what: str, asked: float | None = None) -> Row:
        against = {"serial": "`Predictive(parallel=False)`", "parallel": "`Predictive(parallel=True)`"}
        return Row(
            item, against[other], state, unit, *(sides.each(found[s], what) for s in ("zoo", other)), asked=asked
        )

    item = "1,000 draws × 10,000 rows"
    memory = [Row(f"{item}, memory", "", "", "MB", sides.each(found["zoo"], "MB"), faster=False, asked=200)]
    if not short:
        many = sides.each(found["zoo, many"], "MB")
        memory.append(Row("4,000 draws × 100,000 rows, memory", "", "", "MB", many, faster=False, asked=200))
    return [
        row(item, "parallel", "warm", "s", "again", 4),
        row(item, "serial", "warm", "s", "again"),
        *memory,
        row(f"{item}, memory", "parallel", "", "MB", "MB"),
        row(f"{item}, memory", "serial", "", "MB", "MB"),
    ]


def main() -> None:
    """Run one side, or all of them in turn."""
    asks = parser(__doc__, 3)
    asks.add_argument("--side", choices=SIDES)
    given = asks.parse_args()
    if given.side:
        print(json.dumps(one(*SIDES[given.side])))
        return
    command(__doc__, measure, 3, given)


if __name__ == "__main__":
    main()
