"""How time and memory grow with rows, weights, chains and members.

    python -m tests.benchmarks.growth [--rounds 2] [--short] [--plot growth.png]

**rows**: 10³ to 10⁷ of 10 inputs, batches of 512 and a 1×50 network; in memory up to 10⁶, from a file of NumPy's
beyond. **weights**: 10² to 10⁶ in one hidden layer, 500 rows: batches of 100 (SGHMC), or all rows a step (MAP, beside a
compiled loop of bare gradients).
**chains** and **members**: 1 to 64, 1×50, all of 500 rows a step. Seconds are those of one step of all chains or
members, by the difference of two runs of which one is eight times as long, the better of two each, so that compiling
and what is done once do not count. Every point is a process of its own, and sizes take turns; what the first fit took
to compile, and the most memory that was held, are printed beside the seconds.

A slope is that of log seconds against log size, by least squares over the upper half of the range (of logs): 10⁵ rows,
10⁴ weights, 16 chains and more, where what a step costs whatever its size is a small part. Work in proportion to size
has a slope of 1, and nothing should have more. `ALLOWED` is for noise: that of the slopes of rounds is printed. MAP is
held to the slope of the bare gradient, which has a little more than 1 itself: activations of 500 rows and 10⁵ or 10⁶
weights no longer fit in a processor's caches.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks import sides
from tests.benchmarks.rows import Row, command, parser

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
    "rows": {"SGLD": 512, "MAP": 512},
    "weights": {"SGHMC": 100, "MAP": None, BARE: None},
    "chains": {"SGHMC": None},
    "members": {"DeepEnsemble": None},
}
ALLOWED = 0.1  # above 1
PANELS = {
    ("rows",): "rows, in batches of 512",
    ("weights",): "weights",
    ("chains", "members"): "chains, or members",
}


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
    settings["batch_size"] = BATCHES[direction][name]

    def fit(steps: int) -> Timing:
        length = {"thinning": steps // DRAWS} if name in ("SGLD", "SGHMC") else {"num_steps": steps}
        method = getattr(zoo.methods, name)(**settings, **length)
        return zoo.fit(model, method, table, standardize=False, progress=False).timing

    return fit


def one(direction: str, name: str, size: int, seconds: float) -> sides.Run:
    """Seconds a step at one size, those of compiling, and the most memory held, pages of files not counted."""
    with tempfile.TemporaryDirectory() as folder, sides.watching() as most:
        fit, steps = fitter(direction, name, size, Path(folder)), LEAST
        compiling = fit(steps).compile_seconds
        while True:  # until the longer run takes long enough to be told from the other, whatever else the machine does
            shorter, longer = (min(fit(count).run_seconds for _ in range(2)) for count in (steps, TIMES * steps))
            gained = longer - shorter
            if gained > max(0.5 * seconds, 2 * shorter):
                break
            steps *= round(min(max(seconds / max(gained, 1e-9), 4), 64))
        return {"seconds": gained / ((TIMES - 1) * steps), "compiling": compiling, "MiB": most()}


@dataclass(frozen=True)
class Line:
    """Points of one method in one direction: of each size, a run a round."""

    direction: str
    name: str
    sizes: tuple[int, ...]
    runs: list[list[sides.Run]]

    @property
    def item(self) -> str:
        """What its slopes are of."""
        return f"seconds a step of {self.name} as a power of {self.direction}, {self.sizes[0]:,} to {self.sizes[-1]:,}"

    @property
    def slopes(self) -> list[float]:
        """Of logs, over the upper half of their range, one a round."""
        x, y = np.log(self.sizes), np.log([sides.each(runs, "seconds") for runs in self.runs])
        upper = x >= min((x[0] + x[-1]) / 2 - 1e-9, x[-2])
        return np.polyfit(x[upper], y[upper], 1)[0].tolist()

    @property
    def micro(self) -> np.ndarray:
        """Microseconds a step at each size."""
        return 1e6 * np.array([sides.median(runs, "seconds") for runs in self.runs])

    def __str__(self) -> str:
        said = [f"{self.name}, {self.direction}"]
        for size, micro, runs in zip(self.sizes, self.micro, self.runs, strict=True):
            compiling, memory = sides.median(runs, "compiling"), sides.median(runs, "MiB")
            said.append(f"{size:>12,}{micro:>14,.1f} µs a step{compiling:>8.1f} s compiling{memory:>10,.0f} MiB")
        rounds = len(self.slopes)
        error = f" ± {np.std(self.slopes, ddof=1) / np.sqrt(rounds):.3f}" if rounds > 1 else ""
        return "\n".join([*said, f"slope {np.mean(self.slopes):.3f}{error}"])


def measure(rounds: int, short: bool, plot: Path | None = None) -> list[Row]:
    """Every point once a round, all of one direction in turn, and a slope a round."""
    rows, drawn = [], []
    seconds = ("--seconds", str(0.1 * SECONDS if short else SECONDS))
    for direction, batches in BATCHES.items():
        sizes, names = SIZES[direction], tuple(batches)
        if short:
            sizes, names = sizes[:3:2], names[:1]
        points = [f"{direction}/{name}/{size}" for name in names for size in sizes]
        found = sides.interleaved("tests.benchmarks.growth", points, rounds, *seconds)
        lines = {
            name: Line(direction, name, sizes, [found[f"{direction}/{name}/{size}"] for size in sizes])
            for name in names
        }
        for name, line in lines.items():
            print(line, flush=True)
            against = BARE if name == "MAP" and BARE in lines else ""
            theirs = lines[BARE].slopes if against else []
            if name != BARE:
                row = Row(line.item, against, "warm", "", line.slopes, theirs, faster=False, asked=1 + ALLOWED)
                rows.append(row)
        drawn += lines.values()
    if plot is not None:
        draw(drawn, plot)
    return rows


def draw(lines: list[Line], path: Path) -> None:
    """Three panels: rows, weights, chains and members."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    for panel, (directions, label) in zip(axes, PANELS.items(), strict=True):
        shown = [line for line in lines if line.direction in directions]
        for line in shown:
            panel.loglog(line.sizes, line.micro, "o-", label=f"{line.name}, slope {np.median(line.slopes):.2f}")
        low, high = (f([f(line.micro) for line in shown]) for f in (min, max))
        ends = np.array([min(shown[0].sizes), max(shown[0].sizes)])
        panel.plot(ends, high / ends[1] * ends, "--", color="0.7", zorder=0, label="in proportion to size")
        panel.set_ylim(low / 8, high * 20)
        panel.set_xlabel(label)
        panel.legend(frameon=False, loc="upper left")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("µs a step")
    axes[2].set_xticks(SIZES["chains"], [str(size) for size in SIZES["chains"]])
    axes[2].minorticks_off()
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
