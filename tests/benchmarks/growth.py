"""How time and memory grow with rows, weights, chains and members.

    python -m tests.benchmarks.growth [--rounds 2] [--short] [--plot growth.png]

**rows**: 10³ to 10⁷ of 10 inputs, batches of 512 and a 1×50 network; in memory up to 10⁶, from a file of NumPy's
beyond. **weights**: 10² to 10⁶ in one hidden layer, 500 rows: batches of 100 (SGHMC), all rows a step (MAP), and, of
which nothing is asked, a compiled loop of bare gradients, which grow with more than the weights where activations no
longer fit in the processor's caches.
**chains** and **members**: 1 to 64, 1×50, all of 500 rows a step. Seconds are those of one step of all chains or
members, by the difference of two runs of which one is eight times as long, the better of two each, so that compiling
and what is done once do not count. Every point is a process of its own, and sizes take turns; what the first fit took
to compile, and the most memory that was held, are printed beside the seconds.

A slope is that of log seconds against log size, by least squares over the upper half of the range (of logs): 10⁵ rows,
10⁴ weights, 16 chains and more, where what a step costs whatever its size is a small part. Work in proportion to size
has a slope of 1, and nothing should have more. `ALLOWED` is for noise: that of the slopes of rounds is printed.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks import sides
from tests.benchmarks.rows import Row, command, parser
from tests.benchmarks.streaming import held

if TYPE_CHECKING:
    from bnn_zoo.posterior import Timing

INPUTS, WIDTH, FEW = 10, 50, 500
ON_DISK = 10**6  # rows beyond which they come from a file
SECONDS = 0.5  # that the longer of two runs takes beyond the other, about
LEAST, DRAWS = 4, 4  # steps, and draws that a chain keeps of them
TIMES = 8  # as many steps in the longer run
BARE = "bare gradient"
SIZES = {
    "rows": (10**3, 10**4, 10**5, 10**6, 10**7),
    "weights": (10**2, 10**3, 10**4, 10**5, 10**6),
    "chains": (1, 4, 16, 32, 64),
    "members": (1, 4, 16, 32, 64),
}
BATCHES = {
    ("rows", "SGLD"): 512,
    ("rows", "MAP"): 512,
    ("weights", "SGHMC"): 100,
    ("weights", "MAP"): None,
    ("weights", BARE): None,
    ("chains", "SGHMC"): None,
    ("members", "DeepEnsemble"): None,
}
ALLOWED = 0.1  # above 1
PANELS = {"rows": "rows, in batches of 512", "weights": "weights", "chains": "chains, or members"}


def data(rows: int, folder: Path) -> Any:
    """A smooth function with noise, written a million rows at a time where there are more."""
    import bnn_zoo as zoo

    x, y = np.empty((rows, INPUTS), np.float32), np.empty(rows, np.float32)
    if rows > ON_DISK:
        x, y = (np.lib.format.open_memmap(folder / f"{i}.npy", "w+", np.float32, a.shape) for i, a in enumerate((x, y)))
    generator = np.random.default_rng(0)
    for begin in range(0, rows, ON_DISK):
        some = slice(begin, begin + ON_DISK)
        x[some] = generator.standard_normal(x[some].shape, np.float32)
        y[some] = np.sin(x[some, 0]) + 0.3 * generator.standard_normal(len(y[some]), np.float32)
    if rows <= ON_DISK:
        return x, y
    # One stream for all fits: it goes through all rows for their means and sds once.
    return zoo.Stream(*(np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(2)))


def bare(model: Callable, table: tuple[np.ndarray, np.ndarray]) -> Callable[[int], Timing]:
    """So many gradients of the log posterior, one after the other."""
    import jax

    from bnn_zoo.engine.checks import join
    from bnn_zoo.posterior import Timing

    problem, count = join(model, *table), np.int32(0)

    def run_all(problem: Any, z: jax.Array, steps: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, steps, lambda _, z: z + 1e-9 * jax.grad(problem.log_posterior)(z), z)

    z, begin = jax.numpy.full(problem.size, 0.01), time.perf_counter()
    run = jax.jit(run_all).lower(problem, z, count).compile()
    compiling = time.perf_counter() - begin

    def some(steps: int) -> Timing:
        seconds = sides.timed(lambda: jax.block_until_ready(run(problem, z, np.int32(steps))))
        return Timing(compiling, seconds, steps)

    return some


def fitter(direction: str, name: str, size: int, folder: Path) -> Callable[[int], Timing]:
    """A fit of so many steps."""
    import bnn_zoo as zoo

    width = max(1, round((size - 1) / (INPUTS + 2))) if direction == "weights" else WIDTH
    model = zoo.models.MLP(hidden=(width,), noise=0.3)
    table = data(size if direction == "rows" else FEW, folder)
    if name == BARE:
        return bare(model, table)
    many = size if direction in ("chains", "members") else 1
    chain = {"num_chains": many, "num_warmup": 0, "num_samples": DRAWS, "start": "prior"}
    settings: dict[str, Any] = {
        "SGLD": chain | {"step_size": 1e-12},
        "SGHMC": chain | {"step_size": 1e-7, "friction": 1e5},
        "MAP": {"num_restarts": many, "polish_steps": 0},
        "DeepEnsemble": {"num_members": many, "polish_steps": 0},
    }[name]
    settings["batch_size"] = BATCHES[direction, name]

    def fit(steps: int) -> Timing:
        length = {"thinning": steps // DRAWS} if name in ("SGLD", "SGHMC") else {"num_steps": steps}
        method = getattr(zoo.methods, name)(**settings, **length)
        return zoo.fit(model, method, table, standardize=False, progress=False).timing

    return fit


def one(direction: str, name: str, size: int, seconds: float) -> sides.Run:
    """Seconds a step at one size, those of compiling, and the most memory held, pages of files not counted."""
    most, done = [held()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most.append(max(most.pop(), held()))

    with tempfile.TemporaryDirectory() as folder:
        fit, steps = fitter(direction, name, size, Path(folder)), LEAST
        threading.Thread(target=watch, daemon=True).start()
        compiling = fit(steps).compile_seconds
        while True:  # until the longer run takes long enough to be told from the other, whatever else the machine does
            shorter, longer = (min(fit(count).run_seconds for _ in range(2)) for count in (steps, TIMES * steps))
            gained = longer - shorter
            if gained > max(0.5 * seconds, 2 * shorter):
                break
            steps *= round(min(max(seconds / max(gained, 1e-9), 4), 64))
        done.set()
    return {"seconds": gained / ((TIMES - 1) * steps), "compiling": compiling, "MiB": most[0]}


def slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Of logs, over the upper half of their range."""
    x, y = np.log(sizes), np.log(seconds)
    upper = x >= min((x[0] + x[-1]) / 2 - 1e-9, x[-2])
    return float(np.polyfit(x[upper], y[upper], 1)[0])


def measure(rounds: int, short: bool, plot: Path | None = None) -> list[Row]:
    """Every point once a round, and a slope a round."""
    rows, drawn = [], {}
    for direction, name in BATCHES:
        if short and name in ("MAP", BARE):
            continue
        sizes = SIZES[direction][:3:2] if short else SIZES[direction]
        points = [f"{direction}/{name}/{size}" for size in sizes]
        seconds = ("--seconds", str(0.1 * SECONDS if short else SECONDS))
        found = list(sides.interleaved("tests.benchmarks.growth", points, rounds, *seconds).values())
        print(f"{name}, {direction}")
        for size, runs in zip(sizes, found, strict=True):
            step, compiling, memory = (sides.median(runs, what) for what in ("seconds", "compiling", "MiB"))
            print(f"{size:>12,}{1e6 * step:>14,.1f} µs a step{compiling:>8.1f} s compiling{memory:>10,.0f} MiB")
        each = [slope(sizes, [runs[i]["seconds"] for runs in found]) for i in range(rounds)]
        error = f" ± {np.std(each, ddof=1) / np.sqrt(rounds):.3f}" if rounds > 1 else ""
        print(f"slope {np.mean(each):.3f}{error}", flush=True)
        drawn[direction, name] = sizes, [sides.median(runs, "seconds") for runs in found], float(np.median(each))
        item = f"seconds a step of {name} as a power of {direction}, {sizes[0]:,} to {sizes[-1]:,}"
        asked = None if name == BARE else 1 + ALLOWED
        rows.append(Row(item, "", "warm", "", each, faster=False, asked=asked))
    if plot is not None:
        draw(drawn, plot)
    return rows


def draw(drawn: dict[tuple[str, str], tuple[tuple[int, ...], list[float], float]], path: Path) -> None:
    """Three panels: rows, weights, chains and members; dashed, what is in proportion to size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    panels = dict(zip(PANELS, axes, strict=True))
    for (direction, name), (sizes, seconds, power) in drawn.items():
        panel = panels.get(direction, panels["chains"])
        micro = 1e6 * np.asarray(seconds)
        panel.loglog(sizes, micro, "o-", label=f"{name}, slope {power:.2f}")
        panel.loglog(sizes, micro[-1] / sizes[-1] * np.asarray(sizes), "--", color="0.7", linewidth=1, zorder=0)
    for name, panel in panels.items():
        points = np.concatenate([line.get_ydata() for line in panel.lines if line.get_marker() == "o"])
        panel.set_ylim(min(points) / 3, max(points) * 3)
        panel.set_xlabel(PANELS[name])
        panel.legend(frameon=False, loc="upper left")
        panel.grid(alpha=0.3)
    panels["chains"].set_xticks(SIZES["chains"], [str(size) for size in SIZES["chains"]])
    panels["chains"].minorticks_off()
    axes[0].set_ylabel("µs a step")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    """Run one point, or all of them."""
    asks = parser(__doc__, 2)
    asks.add_argument("--seconds", type=float, default=SECONDS)
    asks.add_argument("--plot", type=Path, help="a file to draw all points in")
    asks.add_argument("--side")
    given = asks.parse_args()
    if given.side:
        direction, name, size = given.side.split("/")
        print(json.dumps(one(direction, name, int(size), given.seconds)))
        return
    command(__doc__, partial(measure, plot=given.plot), 2, given)


if __name__ == "__main__":
    main()
