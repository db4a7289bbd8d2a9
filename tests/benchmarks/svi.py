"""Steps of variational inference a second: this loop, a bare scan of the same bound, `SVI.run`, bayesian-torch.

    python -m tests.benchmarks.svi [--steps 20000] [--rounds 5]

The same work everywhere: a 1×50 ReLU network with a prior on nothing, 500 rows of 8 features, all rows a step, one
draw a step, Adam. ``bare`` is `jax.lax.scan` over `numpyro.infer.SVI.update` of ``AutoNormal`` with
``TraceMeanField_ELBO``, compiled once and kept; ``zoo`` is ``zoo.fit`` with ``guide="mean_field"`` of which the
training alone is counted, progress, trace and checks included; NumPyro's ``SVI.run`` compiles at every call, as users
meet it. bayesian-torch (its Bayes-by-backprop linear layers) runs where it is installed, and says so otherwise.
``network`` is the same loop on the network alone (``MAP``), which is what a rank-1 guide should cost little more than.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
from numpyro.infer import SVI, TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoNormal

import bnn_zoo as zoo
from bnn_zoo.engine import training

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


def bare_side(steps: int) -> Callable[[int], float]:
    """Seconds of a compiled scan over NumPyro's update."""
    x, y = map(jnp.asarray, data())
    svi = SVI(MODEL, AutoNormal(MODEL), numpyro.optim.Adam(0.01), TraceMeanField_ELBO())

    @jax.jit
    def run_all(state):
        return jax.lax.scan(lambda s, _: svi.update(s, x, y), state, length=steps)

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


def main() -> None:
    """Interleave the sides and print steps a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    steps = arguments.steps
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    few = {"num_steps": steps, "num_samples": 2, "num_particles": 1}
    sides = {
        "zoo": zoo_side(zoo.methods.VI(**few)),
        "bare": bare_side(steps),
        "SVI.run": svi_run_side(steps),
        "zoo, local": zoo_side(zoo.methods.VI(**few, estimator="local")),
        "zoo, rank1": zoo_side(zoo.methods.VI(**few, guide="rank1")),
        "network": zoo_side(zoo.methods.MAP(num_restarts=1, num_steps=steps, polish_steps=0)),
    }
    if importlib.util.find_spec("bayesian_torch"):
        sides["bayesian-torch"] = bayesian_torch_side(steps)
    else:
        print("bayesian-torch is not installed, and left out: pip install bayesian-torch")
    for run in sides.values():
        run(0)  # compile what is compiled once
    seconds = {name: [] for name in sides}
    for seed in range(arguments.rounds):
        for name, run in sides.items():
            seconds[name].append(run(seed + 1))
    median = pd.Series({name: float(np.median(values)) for name, values in seconds.items()})
    table = pd.DataFrame(
        {"steps a second": (steps / median).round(0), "seconds": median.round(3), "of bare": (median / median["bare"])}
    )
    print(table.to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
