"""Prior draws, which are made of one array of normals where they can be, have the law that the model says."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from bnn_zoo.engine import keys
from bnn_zoo.engine.checks import join

S = 4000
LOC, SCALE = np.array([[1.0, -2.0, 0.0], [5.0, 0.5, 3.0]]), np.array([0.5, 2.0, 10.0])


def every_kind(x, y=None):
    """Sites of Normals plain, spread, in plates, reparameterised and nested, and of what is no Normal."""
    numpyro.sample("spread", dist.Normal(LOC, SCALE).to_event(2))
    tau = numpyro.sample("tau", dist.HalfNormal(jnp.array([0.5, 4.0])).to_event(1))
    rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    with numpyro.plate("units", 2):
        numpyro.sample("unit", dist.Normal(0.0, tau))
        numpyro.sample("cauchy", dist.HalfCauchy(2.0))
        with numpyro.plate("deep", 3):
            numpyro.sample("grid", dist.Normal(1.0, 3.0))
    with numpyro.handlers.reparam(config={"off": numpyro.infer.reparam.LocScaleReparam(0)}):
        off = numpyro.sample("off", dist.Normal(2.0, rate))
    numpyro.sample("log", dist.LogNormal(0.5, 1.0))
    numpyro.sample("joint", dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.6], [0.6, 2.0]])))
    numpyro.sample("y", dist.Normal(off * jnp.ones(len(x)), 1.0), obs=y)


@pytest.fixture(scope="module")
def scores():
    """Normal scores ``(S,)`` of every entry of every site, given its parents: independent standard normals."""
    problem = join(every_kind, np.zeros((4, 1)), np.zeros(4), jnp.float32)
    z = jax.vmap(problem.prior_draw)(jax.random.split(jax.random.PRNGKey(3), S))
    drawn = {name: np.asarray(value, float) for name, value in jax.vmap(problem.constrain)(z).items()}
    norm = stats.norm
    found = {
        "spread": (drawn["spread"] - LOC) / SCALE,
        "tau": norm.ppf(stats.halfnorm.cdf(drawn["tau"] / [0.5, 4.0])),
        "rate": norm.ppf(stats.gamma.cdf(drawn["rate"] * 2.0, 3.0)),
        "unit": drawn["unit"] / drawn["tau"],
        "cauchy": norm.ppf(stats.halfcauchy.cdf(drawn["cauchy"] / 2.0)),
        "grid": (drawn["grid"] - 1.0) / 3.0,
        "off": (drawn["off"] - 2.0) / drawn["rate"],
        "log": np.log(drawn["log"]) - 0.5,
        "joint": np.linalg.solve(np.linalg.cholesky([[1.0, 0.6], [0.6, 2.0]]), drawn["joint"].T).T,
    }
    return {f"{name}[{i}]": column for name, value in found.items() for i, column in enumerate(value.reshape(S, -1).T)}


def test_every_entry_has_its_law(scores):
    assert len(scores) == 6 + 2 + 1 + 2 + 2 + 6 + 1 + 1 + 2
    # 23 Kolmogorov-Smirnov tests at one fixed seed: one below 1e-5 would be seen once in 4,000 seeds.
    assert {name: p for name, column in scores.items() if (p := stats.kstest(column, "norm").pvalue) < 1e-5} == {}


def test_entries_are_independent(scores):
    # Sampling correlations have sd 1 / sqrt(S); of 253 pairs none beyond 4.5 sd, once in 600 seeds.
    far = 4.5 / np.sqrt(S)
    pairs = itertools.combinations(scores, 2)
    assert [(a, b) for a, b in pairs if abs(np.corrcoef(scores[a], scores[b])[0, 1]) > far] == []
    squares = {name: column**2 for name, column in scores.items()}  # heavier tails, so more room
    pairs = itertools.combinations(squares, 2)
    assert [(a, b) for a, b in pairs if abs(np.corrcoef(squares[a], squares[b])[0, 1]) > 1.5 * far] == []


def test_keys_made_of_one_differ_and_do_not_depend_on_how_many():
    made = [keys.spawned(keys.seed_key(seed), 1000) for seed in (0, 1, 2**32, 2**63)]
    assert all(part.dtype == np.uint32 and part.shape == (1000, 2) for part in made)
    assert len({tuple(key) for part in made for key in part.tolist()}) == 4000
    np.testing.assert_array_equal(keys.spawned(keys.seed_key(1), 3), made[1][:3])
