"""How often XLA compiles: the first and the second fit of every method, and NumPyro's `MCMC.run` by hand.

    python -m tests.benchmarks.compilations

The second fit has other data of the same shape, another seed, and a newly built model that equals the first.
"""

from __future__ import annotations

import jax
import jax.monitoring
import numpy as np
import numpyro.infer

import bnn_zoo as zoo

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


def main() -> None:
    """Print a line a method."""
    counter = Counter()
    short = {"num_warmup": 20, "num_samples": 20}
    methods = {
        "nuts": lambda: zoo.methods.NUTS(**short),
        "hmc": lambda: zoo.methods.HMC(**short),
        "mh": lambda: zoo.methods.MetropolisHastings(**short),
        "map": lambda: zoo.methods.MAP(num_steps=50),
    }
    print(f"{'fit':<28}{'first':>8}{'second':>8}")
    for name, make in methods.items():
        counts = []
        for seed in (0, 1):
            generator = np.random.default_rng(seed)
            x, y = generator.normal(size=(100, 3)), generator.normal(size=100)
            counter.take()
            zoo.fit(zoo.models.MLP(hidden=(20,)), make(), (x, y), seed=seed, progress=False)
            counts.append(counter.take())
        print(f"zoo.fit, {name:<19}{counts[0]:>8}{counts[1]:>8}")
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(zoo.models.MLP(hidden=(20,))),
        **short,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    counts = []
    for seed in (0, 1):
        key = jax.random.PRNGKey(seed)
        counter.take()
        mcmc.run(key, x, y)
        jax.block_until_ready(mcmc.get_samples())
        counts.append(counter.take())
    print(f"{'NumPyro MCMC.run, NUTS':<28}{counts[0]:>8}{counts[1]:>8}")


if __name__ == "__main__":
    main()
