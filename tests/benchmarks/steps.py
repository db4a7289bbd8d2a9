"""Steps of stochastic-gradient MCMC a second, against the bare gradient of the same batch, and how they grow with rows.

    python -m tests.benchmarks.steps [--rows 100000 1000000] [--rounds 5]

20 inputs, 100 ReLU units, batches of 512 rows drawn with replacement, one chain, float32. ``bare`` is one compiled
`lax.fori_loop` of drawing a batch, the gradient of the log posterior of the same NumPyro model, and a plain step along
it; ``posteriors`` is the library of that name on PyTorch (one thread, as one chain of ours), where it is installed. Of
``zoo.fit`` the time of a step is the difference between two runs that differ in length, so that what is done once does
not count; with ``--disk`` the rows are first written to a file, and read from there as `numpy.memmap`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from jax import lax

import bnn_zoo as zoo
from bnn_zoo.engine.checks import join

INPUTS, WIDTH, BATCH, STEP = 20, 100, 512, 1e-11
MODEL = zoo.models.MLP(hidden=(WIDTH,), noise=0.3)
SHORT, LONG = 2_000, 12_000
METHODS = {
    "sgld": zoo.methods.SGLD(step_size=STEP),
    "sghmc": zoo.methods.SGHMC(step_size=1e-7, friction=1e5),
    "sgld, control variates": zoo.methods.SGLD(step_size=STEP, control_variates=True),
}


def data(rows: int, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a smooth function with noise, from memory or from a file."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((rows, INPUTS), np.float32)
    y = np.sin(x[:, 0] + x[:, 1]) + 0.5 * x[:, 2] * x[:, 3] + 0.3 * generator.standard_normal(rows, np.float32)
    if folder is None:
        return x, y
    for name, array in (("x", x), ("y", y)):
        kept = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", array.dtype, array.shape)
        kept[:] = array
        kept.flush()
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")  # type: ignore[return-value]


def zoo_side(name: str, table: tuple[np.ndarray, np.ndarray]) -> Callable[[int], float]:
    """Seconds a step of a chain."""
    from dataclasses import replace

    def seconds(steps: int, seed: int) -> float:
        lengths = {"num_warmup": 0, "num_samples": 10, "num_chains": 1, "thinning": steps // 10}
        method = replace(METHODS[name], **lengths, batch_size=BATCH, start="prior")
        return zoo.fit(MODEL, method, table, seed=seed, standardize=False, progress=False).timing.run_seconds

    return lambda seed: (seconds(LONG, seed) - seconds(SHORT, seed)) / (LONG - SHORT)


def bare_side(table: tuple[np.ndarray, np.ndarray]) -> Callable[[int], float]:
    """Seconds a step of a compiled loop."""
    problem = join(MODEL, *(np.asarray(a) for a in table))

    @jax.jit
    def run(problem: object, z: jax.Array, key: jax.Array) -> jax.Array:
        def step(_: jax.Array, state: tuple) -> tuple:
            z, key = state
            key, key_batch = jax.random.split(key)
            rows = jax.random.randint(key_batch, (BATCH,), 0, problem.num_rows)
            slope = jax.grad(problem.log_posterior)(z, (problem.x[rows], problem.y[rows]))
            return z + 0.5 * STEP * slope, key

        return lax.fori_loop(0, LONG, step, (z, key))[0]

    def seconds(seed: int) -> float:
        key = jax.random.PRNGKey(seed)
        z = jax.random.normal(key, (problem.size,))
        begin = time.perf_counter()
        jax.block_until_ready(run(problem, z, key))
        return (time.perf_counter() - begin) / LONG

    return seconds


def posteriors_side(table: tuple[np.ndarray, np.ndarray]) -> Callable[[int], float]:
    """Seconds a step of SGLD as the library posteriors writes it."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import posteriors

    torch.set_num_threads(1)
    x, y = (torch.as_tensor(np.array(a)) for a in table)
    rows = len(y)

    def log_posterior(p: dict, batch: tuple) -> tuple:
        h = torch.relu(batch[0] @ p["w0"] + p["b0"])
        off = batch[1] - (h @ p["w1"] + p["b1"])[:, 0]
        prior = sum((v**2).sum() for v in p.values())
        return -0.5 * prior - 0.5 * rows / BATCH * (off**2).sum() / 0.3**2, torch.tensor([])

    transform = posteriors.sgmcmc.sgld.build(log_posterior, lr=0.5 * STEP)

    def seconds(seed: int) -> float:
        torch.manual_seed(seed)
        shapes = {"w0": (INPUTS, WIDTH), "b0": (WIDTH,), "w1": (WIDTH, 1), "b1": (1,)}
        state = transform.init({name: torch.randn(shape) for name, shape in shapes.items()})
        begin = time.perf_counter()
        for _ in range(SHORT):
            where = torch.randint(rows, (BATCH,))
            state, _ = transform.update(state, (x[where], y[where]))
        return (time.perf_counter() - begin) / SHORT

    return seconds


def main() -> None:
    """Interleave the sides, and print microseconds a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--disk", action="store_true")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if not importlib.util.find_spec("posteriors"):
        print("posteriors is not installed, and left out: pip install posteriors")
    found = {}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            table = data(rows, Path(folder) if arguments.disk else None)
            sides = {"bare": bare_side(table), **{name: zoo_side(name, table) for name in METHODS}}
            if importlib.util.find_spec("posteriors"):
                sides["posteriors, sgld"] = posteriors_side(table)
            for run in sides.values():
                run(0)  # compile what is compiled once
            seconds = {name: [] for name in sides}
            for seed in range(arguments.rounds):
                for name, run in sides.items():
                    seconds[name].append(run(seed + 1))
            found[rows] = pd.Series({name: 1e6 * float(np.median(values)) for name, values in seconds.items()})
    table = pd.DataFrame(found)
    table.columns = [f"us a step, {rows:,} rows" for rows in found]
    for rows in found:
        table[f"of bare, {rows:,}"] = found[rows] / found[rows]["bare"]
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
