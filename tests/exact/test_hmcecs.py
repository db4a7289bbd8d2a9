"""HMCECS on a linear model: exact where its Taylor polynomials are, and Dang's perturbed law where they are not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from arviz_stats.base import array_stats

import bnn_zoo as zoo
from bnn_zoo.engine.checks import join
from bnn_zoo.methods.stochastic.hmcecs import expand, taylor_rows

ERRORS = 5
WEIGHT_SCALE, NOISE, BATCH = 0.7, 0.6, 15
NEW = np.array([[0.3, -1.0], [-2.0, 0.5], [0.0, 0.0]])
MODEL = zoo.models.Linear(weight_scale=WEIGHT_SCALE, noise=NOISE)


def make_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)) @ np.array([[1.0, 0.8], [0.0, 0.5]]) + [0.5, 0.0]
    return x, x @ [1.2, -0.4] + 0.7 + NOISE * rng.normal(size=60)


DATA = make_data()
ORACLE = oracles.LinearPosterior(*DATA, WEIGHT_SCALE, WEIGHT_SCALE, NOISE)


def fit(**settings) -> zoo.Posterior:
    method = zoo.methods.HMCECS(batch_size=BATCH, num_warmup=500, num_samples=3000, **settings)
    return zoo.fit(MODEL, method, DATA, standardize=False, progress=False)


def off(functions: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """How many Monte Carlo standard errors mean and covariance of draws ``(C, S, k)`` are off."""
    i, j = np.triu_indices(len(mean))
    centred = functions - mean
    series = np.concatenate([functions, centred[:, :, i] * centred[:, :, j]], axis=2)
    truth = np.concatenate([mean, cov[i, j]])
    return np.abs(series.mean((0, 1)) - truth) / array_stats.mcse(series, chain_axis=0, draw_axis=1, method="mean")


def test_polynomials_of_degree_two_are_exact():
    """A Normal log likelihood is one, so 15 rows of 60 give the closed form: a fresh batch is always taken.

    Fails if the prior is left out or counted n / b times, or the sum over all rows is.
    """
    posterior = fit(num_blocks=3)
    assert posterior.stats["estimate_variance"].max() < 1e-6
    assert posterior.stats["batch_acceptance_rate"].min() > 0.99
    assert off(posterior.function_draws(NEW), *ORACLE.function(NEW)).max() < ERRORS


def test_polynomials_of_degree_one_give_the_perturbed_law():
    """The posterior times the mean over batches of exp(l̂ − σ̂²/2 − l), from 40,000 of its own draws in NumPy.

    d_i is then −(φ_i·(θ − c))² / 2σ², and c the posterior mean. Every draw has batches of its own: with shared ones the
    errors of the weights would not average out. The law is wider
    than the posterior by a tenth, which must be seen. Fails if σ̂² or a batch's redrawing is wrong.
    """
    posterior = fit(degree=1)
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(ORACLE.cov)
    theta = rng.normal(size=(40_000, 3)) @ root.T  # about c
    phi = oracles.with_ones(DATA[0])
    d = -((theta @ phi.T) ** 2) / (2 * NOISE**2)
    weights = np.zeros(len(theta))
    for _ in range(400):
        some = np.take_along_axis(d, rng.integers(0, 60, (len(theta), BATCH)), 1)
        weights += np.exp(60 * some.mean(1) - 60**2 / (2 * BATCH) * some.var(1) - d.sum(1))
    weights /= weights.sum()
    at = theta @ oracles.with_ones(NEW).T
    wide = np.einsum("s,si,sj->ij", weights, at, at)
    mean, cov = ORACLE.function(NEW)
    found = posterior.function_draws(NEW)
    assert off(found, mean, wide).max() < ERRORS
    assert off(found, mean, cov).max() > 4
    assert posterior.stats["batch_acceptance_rate"].mean() < 0.9


def test_polynomials_are_those_of_the_log_likelihood():
    """On a network, in float64: the rows' add up to that of all rows, and are off by the third order alone."""
    with jax.enable_x64(True):
        problem = join(zoo.models.MLP(hidden=(3,), activation="tanh"), *DATA)
        rng = np.random.default_rng(0)
        c, v = (jnp.asarray(a) for a in 0.3 * rng.normal(size=(2, problem.size)))
        for degree in (1, 2):
            whole = expand(problem, degree, c)
            size = []
            for h in (1e-2, 5e-3):
                rows = taylor_rows(problem, degree, c, c + h * v, DATA)
                assert float(rows.sum()) == pytest.approx(float(whole.at(c + h * v)), rel=1e-12)
                size.append(np.abs(problem.pointwise_log_likelihood(c + h * v, *DATA) - rows).max())
            assert size[0] / size[1] == pytest.approx(2 ** (degree + 1), rel=0.05)


def test_what_cannot_run_is_refused():
    with pytest.raises(zoo.errors.ZooValueError, match="batch_size should be below the 60 rows"):
        zoo.fit(MODEL, zoo.methods.HMCECS(), DATA, progress=False)
    with pytest.raises(zoo.errors.ZooValueError, match="num_blocks should be at most batch_size=15"):
        zoo.methods.HMCECS(batch_size=15, num_blocks=16)
    with pytest.raises(zoo.errors.ZooValueError, match="degree should be one of 2, 1"):
        zoo.methods.HMCECS(degree=3)
    wide = zoo.models.MLP(hidden=(200, 100))
    with pytest.raises(zoo.errors.ZooValueError, match="degree should be of a size below 4 GiB"):
        zoo.fit(wide, zoo.methods.HMCECS(batch_size=15), DATA, progress=False)
