"""What a leapfrog step of NUTS costs beyond the gradient it takes.

    python -m tests.benchmarks.leapfrog [--rounds 15] [--short]

1×50 ReLU, 500 rows of 8 inputs, one chain on one core. ``bare gradient``: one compiled `lax.fori_loop` over the value
and gradient of the same log posterior, each at a point that depends on the last gradient, so that none can be left out.
Of ``zoo.fit`` the sampling that `resume` adds is timed, and divided by its leapfrogs. NumPyro's ``MCMC`` runs the same
kernel, but compiles its loop at every ``run``, so that it has no such number.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jax
import numpy as np
from jax import lax

import bnn_zoo as zoo
from bnn_zoo.engine.checks import join
from tests.benchmarks import sides
from tests.benchmarks.cold import data
from tests.benchmarks.rows import Row, command

MODEL = zoo.models.MLP(hidden=(50,))


def zoo_side(method: object, precision: str, draws: int) -> Callable[[int], float]:
    """Seconds a leapfrog."""
    posterior = zoo.fit(MODEL, method, data(), standardize=False, precision=precision, progress=False)

    def run(_: int) -> float:
        more = posterior.resume(draws, progress=False)
        steps = more.timing.gradient_evaluations - posterior.timing.gradient_evaluations
        return (more.timing.run_seconds - posterior.timing.run_seconds) / steps

    return run


def bare_side(precision: str, steps: int) -> Callable[[int], float]:
    """Seconds a gradient."""
    x, y = data()
    with jax.enable_x64(precision == "float64"):
        problem = join(MODEL, *(a.astype(precision) for a in (x, y)))

        @jax.jit
        def run_all(problem: object, z: jax.Array) -> jax.Array:
            def step(_: jax.Array, state: tuple) -> tuple:
                z, total = state
                value, slope = jax.value_and_grad(problem.potential)(z)
                return z - 1e-9 * slope, total + value

            return lax.fori_loop(0, steps, step, (z, z[0]))

        z = np.asarray(0.1 * np.random.default_rng(0).normal(size=problem.size), precision)
        jax.block_until_ready(run_all(problem, z))

    def run(_: int) -> float:
        with jax.enable_x64(precision == "float64"):
            begin = time.perf_counter()
            jax.block_until_ready(run_all(problem, z))
            return (time.perf_counter() - begin) / steps

    return run


def measure(rounds: int, short: bool) -> list[Row]:
    """Interleave the sides, on one core."""
    sides.use_cores(1)
    few = {"num_chains": 1, "num_warmup": 300, "num_samples": 4, "start": "prior"}
    draws, rows = (10 if short else 40), []
    for precision in ("float32",) if short else ("float32", "float64"):
        runs = {
            "NUTS": zoo_side(zoo.methods.NUTS(**few), precision, draws),
            "HMC": zoo_side(zoo.methods.HMC(**few), precision, 10 * draws),
            "bare gradient": bare_side(precision, 200 * draws),
        }
        found = {name: [1e6 * s for s in all_] for name, all_ in sides.in_turns(runs, rounds).items()}
        for name in ("NUTS", "HMC"):
            asked = 1.25 if (name, precision) == ("NUTS", "float32") else None
            item, bare = f"a leapfrog of {name}, {precision}", found["bare gradient"]
            rows.append(Row(item, "bare gradient", "warm", "µs", found[name], bare, faster=False, asked=asked))
    return rows


if __name__ == "__main__":
    command(__doc__, measure, 15)
