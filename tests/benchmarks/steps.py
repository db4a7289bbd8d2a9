"""Steps of stochastic-gradient MCMC, against a bare scan of the same, the bare gradient, and the library posteriors.

    python -m tests.benchmarks.steps [--rounds 5] [--short] [--disk]

One chain, float32, batches drawn with replacement. Three tasks: 32 of 500 rows of 8 inputs, 50 ReLU units; 512 of
100,000 and of 1,000,000 rows of 20 inputs, 100 units. ``bare scan`` is one compiled `lax.fori_loop` of SGLD on the same
NumPyro model, the fastest known here: a batch, its gradient, noise, a step; ``bare gradient`` the same without noise.
``posteriors`` is the library of that name on PyTorch (one thread, as one chain of ours), where it is installed. Of
``zoo.fit`` the time of a step is the difference between two runs that differ in length, so that what is done once does
not count; with ``--disk`` the rows are first written to a file, and read from there as `numpy.memmap`.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax import lax

import bnn_zoo as zoo
from bnn_zoo.engine.checks import join
from tests.benchmarks import sides
from tests.benchmarks.rows import Row, command, parser

STEP = 1e-11
METHODS = {
    "SGLD": zoo.methods.SGLD(step_size=STEP),
    "SGHMC": zoo.methods.SGHMC(step_size=1e-7, friction=1e5),
    "SGLD with control variates": zoo.methods.SGLD(step_size=STEP, control_variates=True),
}
Table = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Task:
    """Rows, and the network."""

    rows: int
    inputs: int
    width: int
    batch: int
    steps: int  # of the longer run

    @property
    def model(self) -> zoo.models.MLP:
        """Noise is fixed."""
        return zoo.models.MLP(hidden=(self.width,), noise=0.3)

    def data(self, folder: Path | None) -> Table:
        """Rows of a smooth function with noise, from memory or from a file."""
        generator = np.random.default_rng(0)
        x = generator.standard_normal((self.rows, self.inputs), np.float32)
        noise = generator.standard_normal(self.rows, np.float32)
        y = np.sin(x[:, 0] + x[:, 1]) + 0.5 * x[:, 2] * x[:, 3] + 0.3 * noise
        if folder is None:
            return x, y
        for name, array in (("x", x), ("y", y)):
            kept = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", array.dtype, array.shape)
            kept[:] = array
            kept.flush()
        return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")  # type: ignore[return-value]

    def __str__(self) -> str:
        return f"{self.batch} of {self.rows:,} rows"


SMALL = Task(500, 8, 50, 32, 60_000)
LARGE = Task(100_000, 20, 100, 512, 12_000), Task(1_000_000, 20, 100, 512, 12_000)


def zoo_side(task: Task, name: str, table: Table) -> Callable[[int], float]:
    """Seconds a step of a chain."""

    def seconds(steps: int, seed: int) -> float:
        lengths = {"num_warmup": 0, "num_samples": 10, "num_chains": 1, "thinning": steps // 10}
        method = replace(METHODS[name], **lengths, batch_size=task.batch, start="prior")
        return zoo.fit(task.model, method, table, seed=seed, standardize=False, progress=False).timing.run_seconds

    short = task.steps // 6
    return lambda seed: (seconds(task.steps, seed) - seconds(short, seed)) / (task.steps - short)


def bare_side(task: Task, table: Table, noisy: bool) -> Callable[[int], float]:
    """Seconds a step of a compiled loop."""
    problem = join(task.model, *(np.asarray(a) for a in table))

    @jax.jit
    def run(problem: object, z: jax.Array, key: jax.Array) -> jax.Array:
        def step(_: jax.Array, state: tuple) -> tuple:
            z, key = state
            key, key_batch, key_noise = jax.random.split(key, 3)
            rows = jax.random.randint(key_batch, (task.batch,), 0, problem.num_rows)
            z = z + 0.5 * STEP * jax.grad(problem.log_posterior)(z, (problem.x[rows], problem.y[rows]))
            if noisy:  # behind a barrier: XLA otherwise draws it several times over, at three times the cost of a step
                z = z + STEP**0.5 * lax.optimization_barrier(jax.random.normal(key_noise, z.shape))
            return z, key

        return lax.fori_loop(0, task.steps, step, (z, key))[0]

    def seconds(seed: int) -> float:
        key = jax.random.PRNGKey(seed)
        z = jax.random.normal(key, (problem.size,))
        begin = time.perf_counter()
        jax.block_until_ready(run(problem, z, key))
        return (time.perf_counter() - begin) / task.steps

    return seconds


def posteriors_side(task: Task, table: Table) -> Callable[[int], float]:
    """Seconds a step of SGLD as the library posteriors writes it."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import posteriors

    torch.set_num_threads(1)
    x, y = (torch.as_tensor(np.array(a)) for a in table)
    steps = task.steps // 6

    def log_posterior(p: dict, batch: tuple) -> tuple:
        h = torch.relu(batch[0] @ p["w0"] + p["b0"])
        off = batch[1] - (h @ p["w1"] + p["b1"])[:, 0]
        prior = sum((v**2).sum() for v in p.values())
        return -0.5 * prior - 0.5 * task.rows / task.batch * (off**2).sum() / 0.3**2, torch.tensor([])

    transform = posteriors.sgmcmc.sgld.build(log_posterior, lr=0.5 * STEP)

    def seconds(seed: int) -> float:
        torch.manual_seed(seed)
        shapes = {"w0": (task.inputs, task.width), "b0": (task.width,), "w1": (task.width, 1), "b1": (1,)}
        state = transform.init({name: torch.randn(shape) for name, shape in shapes.items()})
        begin = time.perf_counter()
        for _ in range(steps):
            where = torch.randint(task.rows, (task.batch,))
            state, _ = transform.update(state, (x[where], y[where]))
        return (time.perf_counter() - begin) / steps

    return seconds


def measure(rounds: int, short: bool, disk: bool = False) -> list[Row]:
    """Interleave the sides of each task, in this process."""
    with_peer, rows = sides.installed("torch", "posteriors"), []
    tasks = (replace(SMALL, steps=12_000),) if short else (SMALL, *LARGE)
    for task in tasks:
        names = list(METHODS) if task is not SMALL and not short else ["SGLD", "SGHMC"]
        with tempfile.TemporaryDirectory() as folder:
            table = task.data(Path(folder) if disk else None)
            runs = {name: zoo_side(task, name, table) for name in names}
            runs |= {"bare scan": bare_side(task, table, True), "bare gradient": bare_side(task, table, False)}
            if with_peer:
                runs["posteriors"] = posteriors_side(task, table)
            found = {name: [1e6 * s for s in all_] for name, all_ in sides.in_turns(runs, rounds).items()}

        def row(
            name: str,
            other: str,
            faster: bool,
            asked: float | None = None,
            found: dict[str, list[float]] = found,
            task: Task = task,
        ) -> Row:
            item, asked = f"a step of {name}, {task}", asked if task.rows == SMALL.rows else None
            return Row(item, other, "warm", "µs", found[name], found[other], faster=faster, asked=asked)

        rows += [row("SGLD", "bare scan", False, 1.15)]
        rows += [row("SGLD", "posteriors", True, 10)] if with_peer else []
        rows += [row(name, "bare gradient", False) for name in names]
    return rows


def main() -> None:
    """Run all, from memory or from a file."""
    asks = parser(__doc__, 5)
    asks.add_argument("--disk", action="store_true")
    given = asks.parse_args()
    command(__doc__, partial(measure, disk=given.disk), 5, given)


if __name__ == "__main__":
    main()
