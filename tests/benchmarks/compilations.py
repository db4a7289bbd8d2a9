"""How often XLA compiles: the first and the second fit of every method, and NumPyro's `MCMC.run` by hand.

    python -m tests.benchmarks.compilations [--short]

The second fit has other data of the same shape, another seed, and a newly built model that equals the first. Counted
are XLA's compilations of whatever kind, those of single operations included, with no programs taken from disk. Settings
are those of the contract's tests, which hold every method to 0.
"""

from __future__ import annotations

import jax
import jax.monitoring
import numpy as np
import numpyro.infer

import bnn_zoo as zoo
from tests.benchmarks.rows import Row, command
from tests.contract.small import GUIDES, METHODS, SLOW, make_data, make_method, make_model

COMPILED = "/jax/core/compile/backend_compile_duration"


class Counter:
    """Counts XLA compilations from when it is made."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, _: float, **__: object) -> None:
        self.count += event == COMPILED

    def take(self) -> int:
        """Return the count and start again from 0."""
        count, self.count = self.count, 0
        return count


def measure(rounds: int, short: bool) -> list[Row]:
    """Fit twice by each method; ``short`` leaves out the slowest to compile."""
    zoo.compile_cache(False)
    counter, worst = Counter(), 0
    print(f"{'fit':<28}{'first':>8}{'second':>8}")
    for name in METHODS:
        if short and name in (*SLOW, *GUIDES):
            continue
        counts = []
        for seed in (0, 1):
            data, method = make_data(seed), make_method(name)
            counter.take()
            zoo.fit(make_model("mlp"), method, data, seed=seed, progress=False)
            counts.append(counter.take())
        worst = max(worst, counts[1])
        print(f"zoo.fit, {name:<19}{counts[0]:>8}{counts[1]:>8}", flush=True)
    by_hand = _numpyro(counter)
    print(f"{'NumPyro MCMC.run, NUTS':<28}{by_hand[0]:>8}{by_hand[1]:>8}")
    item = "compilations of a second fit, the most of all methods"
    return [Row(item, "", "", "", [worst], faster=False, asked=0)]


def _numpyro(counter: Counter) -> list[int]:
    generator, counts = np.random.default_rng(0), []
    x, y = (generator.normal(size=shape).astype(np.float32) for shape in ((100, 3), (100,)))
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(zoo.models.MLP(hidden=(20,))),
        num_warmup=20,
        num_samples=20,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    for seed in (0, 1):
        key = jax.random.PRNGKey(seed)
        counter.take()
        mcmc.run(key, x, y)
        jax.block_until_ready(mcmc.get_samples())
        counts.append(counter.take())
    return counts


if __name__ == "__main__":
    command(__doc__, measure, 1)
