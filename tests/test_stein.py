"""Kernel Stein discrepancy: its kernel against autodiff, silence on exact draws, alarm on those of a bias."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bnn_zoo as zoo
from bnn_zoo.reports import stein

NUM_DRAWS = 200
MODEL = zoo.models.Linear(weight_scale=0.7, noise=0.5)


def make_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 0.7, 0.2], [0.0, 0.0, 1.0]])
    return x, x @ [0.8, -0.5, 0.1] + 0.3 + 0.5 * rng.normal(size=30)


DATA = make_data()


@functools.cache
def exact(seed: int = 0) -> zoo.Posterior:
    """The full Laplace approximation of a linear model is its posterior: p = 4."""
    method = zoo.methods.Laplace(covariance="full", num_samples=NUM_DRAWS)
    return zoo.fit(MODEL, method, DATA, seed=seed, standardize=False, progress=False)


def moved(posterior: zoo.Posterior, spread: float = 1.0, shift: float = 0.0) -> zoo.Posterior:
    """Draws spread about their mean, and shifted by so many of their sds in every coordinate."""
    z = posterior.result.positions
    mean, sd = z.mean((0, 1)), z.std((0, 1))
    z = (mean + spread * (z - mean) + shift * sd).astype(z.dtype)
    return replace(posterior, result=replace(posterior.result, positions=z))


def test_kernel_is_what_autodiff_says():
    """Against the definition, differentiated by JAX in float64. Fails if any of the four terms changes its sign."""
    rng = np.random.default_rng(0)
    z, s = rng.normal(size=(2, 6, 3))
    found = stein.stein_kernel(z, s)
    with jax.enable_x64(True):

        def k(a, b):
            return (1 + jnp.sum((a - b) ** 2)) ** -0.5

        for i, j in ((0, 1), (4, 2), (3, 3)):
            a, b, at, to = (jnp.asarray(v) for v in (z[i], z[j], s[i], s[j]))
            mixed = jnp.trace(jax.jacfwd(jax.grad(k, 1), 0)(a, b))
            whole = at @ to * k(a, b) + at @ jax.grad(k, 1)(a, b) + to @ jax.grad(k, 0)(a, b) + mixed
            assert found[i, j] == pytest.approx(float(whole), rel=1e-10)


def test_exact_draws_pass():
    """Ten seeds: p-values are uniform, so more than one below 0.01 has a chance of 0.004, and U has mean zero.

    Fails if the noise is wrong in the scores, or the bootstrap's signs are all alike.
    """
    found = [zoo.kernel_stein_discrepancy(exact(seed), NUM_DRAWS) for seed in range(10)]
    p_values = np.array([one.p_value for one in found])
    assert (p_values < 0.01).sum() <= 1
    assert 0.2 < p_values.mean() < 0.8  # uniform: 0.5 ± 0.09
    u = np.array([one.u_statistic for one in found])
    assert abs(u.mean()) < 4 * u.std(ddof=1) / np.sqrt(len(u))
    assert {(one.num_draws, one.num_gradients, one.num_blocks) for one in found} == {(200, 200, 200)}
    assert all(one.v_statistic > max(one.u_statistic, 0) for one in found)
    assert all(one.value == np.sign(one.u_statistic) * np.sqrt(abs(one.u_statistic)) for one in found)


@pytest.mark.parametrize(("spread", "shift"), [(1.5, 0.0), (0.7, 0.0), (1.0, 0.5)])
def test_a_bias_is_found(spread, shift):
    """At p = 4 with 200 draws; on each of five seeds."""
    for seed in range(5):
        assert zoo.kernel_stein_discrepancy(moved(exact(seed), spread, shift), NUM_DRAWS).p_value < 0.01


def test_a_little_too_wide_is_found_with_more_draws():
    """An sd 1.3 times too large: of 200 draws on most seeds, of 600 on all."""
    z = np.concatenate([exact(seed).result.positions for seed in range(3)], axis=1)
    posterior = replace(exact(), result=replace(exact().result, positions=z))
    assert zoo.kernel_stein_discrepancy(moved(posterior, 1.3), 600).p_value < 0.01
    assert zoo.kernel_stein_discrepancy(posterior, 600).p_value > 0.01


def test_steps_that_are_too_long_are_found():
    """SGLD whose step makes the stiffest variance 5 times too large, h λ = 3.2, and one of an eightieth of it."""
    x = np.c_[DATA[0], np.ones(30)]
    stiff = np.linalg.eigvalsh(x.T @ x / 0.5**2 + np.eye(4) / 0.7**2)[-1]
    p_values = {}
    for share in (1, 80):
        step = float(3.2 / stiff / share)
        method = zoo.methods.SGLD(step_size=step, thinning=400, num_warmup=2000, num_samples=150, start="prior")
        posterior = zoo.fit(MODEL, method, DATA, standardize=False, progress=False)
        p_values[share] = zoo.kernel_stein_discrepancy(posterior, 600).p_value
    assert p_values[1] < 0.01 < p_values[80]


def test_chains_that_move_slowly_are_no_alarm():
    """Exact autoregressions, of which every draw is correlated with the ten before it: of 20, at most 2 below 0.02.

    Of 60 seeds 1 is below 0.01, 3 or 4 below 0.05. Signs for single draws alone give 16 below 0.01.
    """
    p_values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z = np.zeros((4, 50, 4))
        z[:, 0] = rng.normal(size=(4, 4))
        for t in range(1, 50):
            z[:, t] = 0.8 * z[:, t - 1] + 0.6 * rng.normal(size=(4, 4))
        flat = z.reshape(-1, 4)
        kernel = stein.stein_kernel(flat, -flat)
        length = stein.block_length(kernel, 4)
        assert length > 1
        found, replicates, _ = stein.wild_bootstrap(kernel, 4, length)
        p_values.append(np.mean(replicates >= found))
    assert np.sum(np.array(p_values) < 0.02) <= 2


def test_what_cannot_be_judged_is_refused():
    point = zoo.fit(MODEL, zoo.methods.MAP(num_steps=20, num_restarts=1), DATA, progress=False)
    with pytest.raises(zoo.errors.ZooValueError, match="at least 10 draws; got one of 1"):
        zoo.kernel_stein_discrepancy(point)
    with pytest.raises(zoo.errors.ZooValueError, match="num_draws should be at least 10"):
        zoo.kernel_stein_discrepancy(exact(), 5)
    with pytest.raises(zoo.errors.ZooTypeError, match="posterior should be a posterior"):
        zoo.kernel_stein_discrepancy(DATA)
    with pytest.raises(zoo.errors.ZooValueError, match="draws differ"):
        zoo.kernel_stein_discrepancy(moved(exact(), 0.0))
    with pytest.raises(zoo.errors.ZooValueError, match="finite draws"):
        zoo.kernel_stein_discrepancy(moved(exact(), np.nan))
