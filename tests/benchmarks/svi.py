"""Steps of variational inference: this loop, a bare scan of the same bound, `SVI.run`, bayesian-torch.

    python -m tests.benchmarks.svi [--rounds 5] [--short]

The same work everywhere: a 1×50 ReLU network with a prior on nothing, 500 rows of 8 features, all rows a step, one
draw a step, Adam. ``bare`` is `jax.lax.scan` over `numpyro.infer.SVI.update` of ``AutoNormal`` with
``TraceMeanField_ELBO``, compiled once and kept. XLA draws its noise several times over, which doubles its time, unless
a barrier keeps it apart: a floor is that second one. ``zoo`` is ``zoo.fit`` with ``guide="mean_field"`` of which the
training alone is counted, progress, trace and checks included; NumPyro's ``SVI.run`` compiles at every call, as users
meet it. bayesian-torch (its Bayes-by-backprop linear layers) runs where it is installed.
``network`` is the same loop on the network alone (``MAP``), which is what a rank-1 guide should cost little more than.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpyro.infer import SVI, TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoNormal

import bnn_zoo as zoo
from bnn_zoo.engine import training
from tests.benchmarks import sides
from tests.benchmarks.rows import Row, command

ROWS, INPUTS, WIDTH = 500, 8, 50
MODEL = zoo.models.MLP(hidden=(WIDTH,), noise=0.3)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Standardised rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, INPUTS)).astype(np.float32)
    return x, (np.sin(x[:, 0]) + 0.3 * rng.normal(size=ROWS)).astype(np.float32)


def zoo_side(method: object) -> Callable[[int], float]:
    """Seconds of the training loop of a fit, of whatever it is asked to train."""
    x, y = data()
    spent = []
    inner = training.train

    def timed(*args: object, **settings: object) -> object:
        begin = time.perf_counter()
        found = inner(*args, **settings)  # type: ignore[arg-type]
        spent.append(time.perf_counter() - begin)
        return found

    def run(seed: int) -> float:
        training.train = timed  # type: ignore[assignment]
        try:
            zoo.fit(MODEL, method, (x, y), seed=seed, standardize=False, progress=False)
        finally:
            training.train = inner
        return spent[-1]

    return run


def bare_side(steps: int, barrier: bool) -> Callable[[int], float]:
    """Seconds of a compiled scan over NumPyro's update, with a barrier behind its noise or as it is."""
    x, y = map(jnp.asarray, data())
    svi = SVI(MODEL, AutoNormal(MODEL), numpyro.optim.Adam(0.01), TraceMeanField_ELBO())

    @jax.jit
    def run_all(state):
        return lax.scan(lambda s, _: svi.update(s, x, y), state, length=steps)

    def behind(*args: Any, **settings: Any) -> jax.Array:
        return lax.optimization_barrier(normal(*args, **settings))

    normal = jax.random.normal
    with patch("jax.random.normal", behind if barrier else normal):
        jax.block_until_ready(run_all(svi.init(jax.random.PRNGKey(0), x, y)))

    def run(seed: int) -> float:
        state = svi.init(jax.random.PRNGKey(seed), x, y)
        begin = time.perf_counter()
        jax.block_until_ready(run_all(state))
        return time.perf_counter() - begin

    return run


def svi_run_side(steps: int) -> Callable[[int], float]:
    """Seconds of NumPyro's own loop."""
    x, y = map(jnp.asarray, data())

    def run(seed: int) -> float:
        svi = SVI(MODEL, AutoNormal(MODEL), numpyro.optim.Adam(0.01), TraceMeanField_ELBO())
        begin = time.perf_counter()
        jax.block_until_ready(svi.run(jax.random.PRNGKey(seed), steps, x, y, progress_bar=False).params)
        return time.perf_counter() - begin

    return run


def bayesian_torch_side(steps: int) -> Callable[[int], float]:
    """Seconds of bayesian-torch's layers under a plain PyTorch loop, one thread."""
    import torch
    from bayesian_torch.layers import LinearReparameterization

    torch.set_num_threads(1)
    x, y = (torch.as_tensor(a) for a in data())

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        first, last = LinearReparameterization(INPUTS, WIDTH), LinearReparameterization(WIDTH, 1)
        optimizer = torch.optim.Adam([*first.parameters(), *last.parameters()], lr=0.01)
        begin = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            h, kl_first = first(x)
            f, kl_last = last(torch.relu(h))
            loss = 0.5 * torch.sum((y - f[:, 0]) ** 2) / 0.3**2 + kl_first + kl_last
            (loss / ROWS).backward()
            optimizer.step()
        return time.perf_counter() - begin

    return run


def measure(rounds: int, short: bool, steps: int = 20_000) -> list[Row]:
    """Interleave the sides, in this process."""
    steps = steps // 10 if short else steps
    few = {"num_steps": steps, "num_samples": 2, "num_particles": 1}
    runs = {
        "zoo": zoo_side(zoo.methods.VI(**few)),
        "bare": bare_side(steps, barrier=False),
        "barrier": bare_side(steps, barrier=True),
        "SVI.run": svi_run_side(steps),
        "rank1": zoo_side(zoo.methods.VI(**few, guide="rank1")),
        "network": zoo_side(zoo.methods.MAP(num_restarts=1, num_steps=steps, polish_steps=0)),
    }
    if sides.installed("torch", "bayesian_torch"):
        runs["bayesian-torch"] = bayesian_torch_side(steps)
    found = {name: [1e6 * s / steps for s in seconds] for name, seconds in sides.in_turns(runs, rounds).items()}

    def row(item: str, one: str, other: str, name: str, state: str = "warm", **asked: Any) -> Row:
        return Row(item, name, state, "µs", found[one], found[other], **asked)

    item = "a step of mean-field VI"
    scan = "bare scan of NumPyro's `SVI.update`"
    rows = [row(item, "zoo", "bare", scan, faster=False, asked=1.15)]
    rows.append(row(item, "zoo", "barrier", f"{scan}, noise behind a barrier", faster=False, asked=1.15))
    rows.append(row(item, "zoo", "SVI.run", "NumPyro's `SVI.run`, which compiles", ""))
    if "bayesian-torch" in found:
        rows.append(row(item, "zoo", "bayesian-torch", "bayesian-torch", asked=4))
    rows.append(row("a step of VI, rank 1", "rank1", "network", "the network alone", faster=False))
    return rows


if __name__ == "__main__":
    command(__doc__, measure, 5)
