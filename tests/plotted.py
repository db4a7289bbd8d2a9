"""Posteriors that tests of plots share: each is fitted once, whichever test asks first."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

import bnn_zoo as zoo

SHORT = zoo.methods.NUTS(num_warmup=100, num_samples=100, num_chains=2, start="prior")


def toy(names: tuple[str, ...], rows: int = 40) -> zoo.Dataset:
    """Rows whose target is twice the last feature, and noise."""
    generator = np.random.default_rng(len(names))
    x = generator.normal(size=(rows, len(names)))
    return zoo.Dataset(x, 2 * x[:, -1] + 0.3 * generator.normal(size=rows), names, "yield", "field")


@cache
def one() -> zoo.Posterior:
    """Linear, of one feature, by two chains."""
    return zoo.fit(zoo.models.Linear(), SHORT, toy(("rain",)), progress=False)


@cache
def three() -> zoo.Posterior:
    """Linear, of three features, by two chains."""
    return zoo.fit(zoo.models.Linear(), SHORT, toy(("rain", "$sun_", "soil")), progress=False)


@cache
def ard() -> zoo.Posterior:
    """A network that weighs its features, by two chains."""
    model = zoo.models.ARDMLP(hidden=(4,), activation="tanh")
    return zoo.fit(model, replace(SHORT, max_tree_depth=4), toy(("rain", "$sun_", "soil")), progress=False)


@cache
def point() -> zoo.Posterior:
    """The best of three trained networks without hidden layers."""
    method = zoo.methods.MAP(num_restarts=3, num_steps=40, polish_steps=0)
    return zoo.fit(zoo.models.Linear(), method, toy(("rain",)), progress=False)


@cache
def guide() -> zoo.Posterior:
    """A guide that holds the posterior, a Normal, exactly; targets are far from their standardised scale."""
    data = toy(("rain",))
    method = zoo.methods.VI(guide="full_rank", num_steps=3000, num_samples=400)
    far = zoo.Dataset(data.x, 50 * data.y + 300, ("rain",), "yield", "field")
    return zoo.fit(zoo.models.Linear(noise=0.3), method, far, progress=False)
