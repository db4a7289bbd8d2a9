"""SWA, SWAG and MultiSWAG: the law of SGD's iterates on a quadratic, and of the draws given their moments."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import bnn_zoo as zoo
from bnn_zoo.engine.iterates import Iterates
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.methods.ensembles.swag import gaussian_draws

NUM_ERRORS = 4
SEEDS = 40

# Six rows, so that all 720 orders of an epoch can be gone through; unlike scales everywhere.
X = np.random.default_rng(3).normal(size=(6, 2)) @ np.array([[1.0, 0.6], [0.0, 1.5]]) + [0.5, -1.0]
Y = X @ [1.2, -0.4] + 1.7 + 0.6 * np.random.default_rng(4).normal(size=6)
ORACLE = oracles.LinearPosterior(X, Y, 0.7, 2.5, 0.6)
MODEL = zoo.models.Linear(weight_scale=0.7, bias_scale=2.5, noise=0.6)
RANK, EPOCHS = 1000, 10_000
RATES = {0.0: 0.04, 0.6: 0.02}


def fit(method, seed: int = 0, model=MODEL, data=(X, Y), **settings) -> zoo.Posterior:
    return zoo.fit(model, method, data, seed=seed, progress=False, **{"standardize": False} | settings)


@functools.cache
def walked(momentum: float, first: int = 0) -> list[dict[str, np.ndarray]]:
    """Moments of SGD's iterates at the ends of epochs of three batches of two rows, seed by seed."""
    method = zoo.methods.SWAG(
        **{"num_samples": 2, "rank": RANK, "warm_steps": 4000, "num_steps": 3 * EPOCHS, "collect_every": 3},
        **{"batch_size": 2, "momentum": momentum, "learning_rate": RATES[momentum]},
    )
    return [fit(method, seed).result.info for seed in range(first, first + SEEDS)]


@pytest.mark.parametrize("momentum", RATES)
def test_iterates_have_the_stationary_law_of_sgd(momentum):
    """Mean, variances and covariance from the deviations, each entry within 4 standard errors over 40 seeds.

    Standard errors are at most 1 % of the largest entry. Blocks of 40 seeds from 0 to 399: 10 of 10 pass, for each
    momentum.

    The law holds the noise of batches without replacement, and its growth with the distance from the optimum. Fails if
    the batch is not scaled to all rows, the prior is scaled with the batch, momentum is lost, or squares are not
    centred. K deviations, of which each has covariance S, give K / (K - 1) S in equation 1.
    """
    found = walked(momentum)
    mean, cov = oracles.sgd_law(ORACLE, RATES[momentum], momentum, 2)
    assert np.sqrt(np.diag(cov)).min() > 0.01
    deviations = [info["deviations"][0].astype(float) for info in found]
    for values, truth in (
        ([info["mean"][0] for info in found], mean),
        ([info["variance"][0] for info in found], np.diag(cov)),
        ([d.T @ d / (RANK - 1) for d in deviations], cov * RANK / (RANK - 1)),
    ):
        series = np.array(values, float)
        error = series.std(0, ddof=1) / np.sqrt(SEEDS)
        assert error.max() < 0.02 * np.abs(truth).max()
        off = np.abs(series.mean(0) - truth) / error
        assert off.max() < NUM_ERRORS, off


def test_moments_are_those_of_the_iterates_collected():
    """Against NumPy on the iterates themselves: count, mean, variance, and the last three deviations in their slots."""
    series = 100 + np.random.default_rng(0).normal(size=(11, 2, 5)).astype(np.float32)
    moments = Iterates.none(jnp.zeros((2, 5)), rank=3)
    for step, z in enumerate(series):
        moments = moments.add(jnp.asarray(z), jnp.asarray(step % 2 == 1))
    kept = series[1::2].astype(float)  # five of them
    assert int(moments.taken) == len(kept) == 5
    np.testing.assert_allclose(moments.mean, kept.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, kept.var(0), rtol=1e-4)
    running = np.cumsum(kept, 0) / np.arange(1, 6)[:, None, None]
    for index in (2, 3, 4):
        np.testing.assert_allclose(moments.deviations[:, index % 3], (kept - running)[index], atol=2e-5)


def test_draws_have_the_law_of_equation_1():
    """Mean and all entries of the covariance of 200,000 draws, within 4 standard errors of Normal theory.

    Fails where variances stand in place of standard deviations, or a half is missing.
    """
    rng, count = np.random.default_rng(1), 200_000
    mean, variance = rng.normal(size=4), np.array([0.04, 0.5, 3.0, 0.2])
    deviations = rng.normal(size=(3, 4)) * [0.3, 1.0, 0.2, 2.0]
    draws = np.asarray(
        gaussian_draws(*(jnp.asarray(a, jnp.float32) for a in (mean, variance, deviations)), jax.random.key(0), count),
        float,
    )
    cov = 0.5 * np.diag(variance) + deviations.T @ deviations / (2 * (3 - 1))
    sd = np.sqrt(np.diag(cov))
    assert (np.abs(draws.mean(0) - mean) < NUM_ERRORS * sd / np.sqrt(count)).all()
    error = np.sqrt((np.outer(sd**2, sd**2) + cov**2) / count)
    assert (np.abs(np.cov(draws.T) - cov) < NUM_ERRORS * error).all()


QUICK = {"warm_steps": 300, "num_steps": 600, "batch_size": 5}
NET = zoo.models.MLP(hidden=(8,), noise=0.3)


@functools.cache
def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(5).normal(size=(40, 2))
    return x, np.sin(2 * x[:, 0]) + 0.3 * np.random.default_rng(6).normal(size=40)


def test_swa_is_the_mean_network_of_swag():
    """One seed, one path, whether deviations are kept or not; and a cycle of rates is another path."""
    swag = fit(zoo.methods.SWAG(**QUICK, collect_every=8), model=NET, data=data())
    swa = fit(zoo.methods.SWA(**QUICK, collect_every=8), model=NET, data=data())
    cyclical = fit(zoo.methods.SWA(**QUICK, collect_every=8, decay="cyclical"), model=NET, data=data())
    np.testing.assert_array_equal(swa.result.positions[0], swag.result.info["mean"])
    assert (swa.kind, swa.num_draws, swa.predict(data()[0]).kind) == ("members", 1, "plug_in")
    assert not np.array_equal(cyclical.result.positions, swa.result.positions)
    assert swag.result.info["iterates"] == 600 // 8


def test_every_mode_has_its_own_gaussian():
    """Draws of a mode have that mode's moments, and modes are different networks; no R-hat is given."""
    posterior = fit(zoo.methods.MultiSWAG(num_modes=3, num_samples=2000, **QUICK), model=NET, data=data())
    info = posterior.result.info
    assert (posterior.kind, posterior.num_chains, posterior.num_draws) == ("independent", 3, 2000)
    for mode in range(3):
        d = info["deviations"][mode].astype(float)
        var = 0.5 * info["variance"][mode] + 0.5 * (d**2).sum(0) / (len(d) - 1)
        z = posterior.result.positions[mode].astype(float)
        assert (np.abs(z.mean(0) - info["mean"][mode]) < 4.5 * np.sqrt(var / 2000)).all()
        assert (np.abs(z.var(0) - var) < 4.5 * var * np.sqrt(2 / 2000)).all()
    f = posterior.function_draws(data()[0])
    assert f.mean(1).std(0).max() > 0.1
    diagnosis = posterior.diagnose()
    assert "rhat" not in diagnosis.points
    assert not diagnosis.table["check"].str.contains("R-hat").any()
    parts = diagnosis.points.sd_within**2 + diagnosis.points.sd_between**2
    np.testing.assert_allclose(parts, diagnosis.points.sd**2, rtol=1e-4)
    share = float((diagnosis.inner.sd_between**2).mean() / (diagnosis.inner.sd**2).mean())
    assert diagnosis.table.set_index("check").loc["width", "status"] == "doubtful"
    said = diagnosis.table.set_index("check").loc["spread between modes"]
    assert said["value"] == pytest.approx(share, rel=1e-4)
    assert f"{100 * share:.0f} % of the variance" in said["sentence"]


def test_the_default_rate_is_stable_whatever_the_noise():
    """A noise of 0.01 makes the loss 10,000 times as curved; a rate from the paper would diverge, and says so."""
    sharp = zoo.models.MLP(hidden=(8,), noise=0.01)
    posterior = fit(zoo.methods.SWAG(**QUICK), model=sharp, data=data())
    assert np.isfinite(posterior.result.positions).all()
    with pytest.raises(ZooValueError, match=r"learning_rate should be .*got 0\.05\. Try a tenth"):
        fit(zoo.methods.SWAG(**QUICK, learning_rate=0.05), model=sharp, data=data())


def test_other_rates_compile_nothing(compilations):
    fit(zoo.methods.SWAG(**QUICK, learning_rate=0.001), model=NET, data=data())
    compilations.reset()
    fit(zoo.methods.SWAG(**QUICK, learning_rate=0.002), model=NET, data=data())
    assert compilations.count == 0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rank": 1}, ZooValueError, "rank should be at least 2; got 1"),
        ({"momentum": 1.0}, ZooValueError, "momentum should be from 0 to below 1"),
        ({"momentum": "much"}, ZooTypeError, "momentum should be a number"),
        ({"decay": "cyclic"}, ZooValueError, "Did you mean 'cyclical'"),
        ({"learning_rate": -1.0}, ZooValueError, "None takes one from the curvature"),
        ({"batch_size": 7}, ZooValueError, "batch_size should be at most the 6 rows; got 7"),
        ({"num_steps": 30, "collect_every": 3}, ZooValueError, "Give num_steps=60 or more"),
    ],
)
def test_impossible_settings_are_refused(settings, error, message, compilations):
    with pytest.raises(error, match=message):
        fit(zoo.methods.SWAG(**settings))
    assert compilations.count == 0
