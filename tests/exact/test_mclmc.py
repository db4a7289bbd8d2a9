"""MCLMC on linear models: exact where it is adjusted; of a known bias where it is not, which the diagnosis must see."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import oracles
import pytest
from arviz_stats.base import array_stats
from scipy.optimize import brentq

import bnn_zoo as zoo
from bnn_zoo.methods.mcmc import microcanonical, tuning
from bnn_zoo.reports import half_step

ERRORS = 4  # Monte Carlo standard errors
PRIOR, NOISE = 0.7, 0.6
SIZE = 101  # coordinates of the wide model
QUIET = {"standardize": False, "progress": False}


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """14 rows; columns correlated, of unequal scales, and off centre."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.5, -0.6], [0.0, 0.0, 3.0]]) + [0.5, 0.0, -1.0]
    return x, x @ [1.2, -0.4, 0.3] + 1.7 + NOISE * rng.normal(size=14)


def make_wide(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """150 rows of 100 columns at right angles to each other and to the bias: an independent posterior."""
    rng = np.random.default_rng(1)
    x = np.linalg.qr(np.c_[np.ones(150), rng.normal(size=(150, SIZE - 1))])[0][:, 1:] * np.sqrt(150) * scales
    return x, x @ rng.normal(size=SIZE - 1) + NOISE * rng.normal(size=150)


def weights(posterior: zoo.Posterior) -> np.ndarray:
    """All weights ``(C, S, p)``, the bias last."""
    draws = posterior.draws
    return np.concatenate([draws["w_0"][..., 0], draws["b_0"]], axis=2).astype(float)


def mcse(series: np.ndarray) -> np.ndarray:
    return array_stats.mcse(series, chain_axis=0, draw_axis=1, method="mean")


def off(series: np.ndarray, mean: np.ndarray, cov: np.ndarray, bound: float = 0.0) -> float:
    """How many Monte Carlo errors mean and covariance of ``series (C, S, k)`` are off at most.

    Entries of the covariance may be off by ``bound`` × the product of the sds besides.
    """
    i, j = np.triu_indices(len(mean))
    centred = series - mean
    products = centred[:, :, i] * centred[:, :, j]
    sd = np.sqrt(np.diag(cov))
    of_mean = np.abs(centred.mean((0, 1))) / mcse(series)
    of_cov = np.maximum(np.abs(products.mean((0, 1)) - cov[i, j]) - bound * sd[i] * sd[j], 0) / mcse(products)
    return float(max(of_mean.max(), of_cov.max()))


def stationary_variance(h: float) -> float:
    """r² of `bnn_zoo.reports.microcanonical`: the variance on N(0, 1) of steps h √p, for p → ∞."""
    b = 0.1931833275037836

    def middle(r: float) -> float:
        c = np.tanh(b * h * r)
        s = np.sqrt(r * r - h * r * c + h * h / 4)
        return np.arctanh((r * c - h / 2) / s) + (0.5 - b) * h * s

    return brentq(middle, 0.3, 1.5) ** 2


# --- the law of the draws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("length", [None, pytest.param(4.0, marks=pytest.mark.slow)])
def test_adjusted_draws_have_the_closed_form_law(length, precision):
    """Mean and every entry of the covariance, at steps long enough that without an accept step it would not be so.

    Fails if every proposal is accepted.
    """
    method = zoo.methods.MCLMC(
        adjusted=True,
        length=length,
        target_accept=0.6,
        num_warmup=3000,
        num_samples=4000,
        thinning=10,
        start="prior",
    )
    posterior = zoo.fit(
        zoo.models.Linear(weight_scale=PRIOR, noise=NOISE), method, make_data(), precision=precision, **QUIET
    )
    oracle = oracles.LinearPosterior(*make_data(), PRIOR, PRIOR, NOISE)
    assert off(weights(posterior), oracle.mean, oracle.cov) < ERRORS
    # Dual averaging holds the mean over its way to 0.6. At the mean step it is less, as acceptance falls ever faster
    # with longer steps: 0.545, with an sd of 0.036 over 32 chains of seeds 0 to 3 (L = 4, float32). Four of these too.
    assert posterior.stats["acceptance_rate"].mean(1) == pytest.approx(np.full(4, 0.6), abs=0.055 + 4 * 0.036)
    assert posterior.stats["diverging"].sum() == 0


def at_step(h: float, **settings) -> tuple[zoo.Posterior, oracles.LinearPosterior, float]:
    """Chains on the wide model, isotropic, whose steps are h √p posterior sds, with its oracle and its sd."""
    data = make_wide(np.ones(SIZE - 1))
    oracle = oracles.LinearPosterior(*data, PRIOR, PRIOR, NOISE)
    sd = float(np.sqrt(oracle.cov[0, 0]))
    scale = sd * np.sqrt(SIZE)
    settings = {"num_warmup": 0, "num_samples": 1000, "thinning": 20, "start": "map"} | settings
    method = zoo.methods.MCLMC(step_size=float(h * scale), length=float(2 * scale), **settings)
    return zoo.fit(zoo.models.Linear(weight_scale=PRIOR, noise=NOISE), method, data, **QUIET), oracle, sd


@pytest.mark.parametrize("h", [1.5, 2.0])
def test_unadjusted_draws_have_the_bias_of_their_step(h):
    """Variances r² in place of 1 (0.965 and 0.918), and a temperature of as much.

    All 101 coordinates pooled; r² is exact for p → ∞ only, and half a p-th is allowed for what is left: it is 0.0004
    and 0.002 as measured. Fails for a leapfrog, and if L = ∞.
    """
    posterior, oracle, sd = at_step(h)
    squares = (((weights(posterior) - oracle.mean) / sd) ** 2).mean(2)[:, 50:, None]
    allowed = ERRORS * mcse(squares)[0] + 0.5 / SIZE
    assert abs(squares.mean() - stationary_variance(h)) < allowed
    assert allowed < 0.5 * (1 - stationary_variance(h))
    temperature = posterior.stats["temperature"][:, 50:, None].astype(float)
    assert abs(temperature.mean() - stationary_variance(h)) < ERRORS * mcse(temperature)[0] + 0.5 / SIZE


@pytest.mark.parametrize("first", [None, 0.05])
def test_unadjusted_draws_have_the_law_that_warm_up_promises(first):
    """Columns from 0.1 to 10: with all that is found, means are exact and variances off by no more than 1 − r² = 2 %.

    The bound takes h from the step size found, in sds found. Fails if M⁻¹ is wrong, or the step found too long.
    """
    data = make_wide(np.geomspace(0.1, 10, SIZE - 1))
    oracle = oracles.LinearPosterior(*data, PRIOR, PRIOR, NOISE)
    method = zoo.methods.MCLMC(
        num_warmup=6000, num_samples=1500, thinning=20, start="prior", first_energy_variance=first
    )
    posterior = zoo.fit(zoo.models.Linear(weight_scale=PRIOR, noise=NOISE), method, data, **QUIET)
    h = posterior.stats["step_size"].max() / np.sqrt(SIZE)
    assert 0.9 < h < 1.25  # 1.06 to 1.11 for seeds 1 to 19; 0.2 with one window for M⁻¹
    # Functions at 12 inputs: mean and covariance as they are read.
    new = np.random.default_rng(2).normal(size=(12, SIZE - 1)) / np.geomspace(0.1, 10, SIZE - 1)
    assert off(posterior.function_draws(new), *oracle.function(new), bound=1 - stationary_variance(h)) < ERRORS
    checks = {check.name: check for check in posterior.diagnose().checks}
    assert checks["energy error"].status == checks["configurational temperature"].status == "passed"
    # The step is found for 5e-4, and then kept 10 % shorter, which takes the error to about half.
    assert 5e-5 < posterior.stats["energy_variance"].mean() < 1e-3


def test_steps_without_preconditioner_are_in_the_units_of_the_weights():
    """Columns of equal scale: the step found is as many posterior sds long, told in weights, and the law is exact.

    L, 0.4 of the distance between independent draws, is a few √p sds. Fails if M⁻¹ is set, or L left in other units.
    """
    data = make_wide(np.ones(SIZE - 1))
    oracle = oracles.LinearPosterior(*data, PRIOR, PRIOR, NOISE)
    method = zoo.methods.MCLMC(num_warmup=6000, num_samples=1500, thinning=20, start="prior", preconditioned=False)
    posterior = zoo.fit(zoo.models.Linear(weight_scale=PRIOR, noise=NOISE), method, data, **QUIET)
    unit = np.sqrt(oracle.cov[0, 0] * SIZE)
    h, length = (posterior.stats[name].max() / unit for name in ("step_size", "length"))
    assert 0.9 < h < 1.25  # as with a preconditioner
    assert 0.4 < length < 4
    assert off(weights(posterior), oracle.mean, oracle.cov, bound=1 - stationary_variance(h)) < ERRORS


def test_the_error_of_the_energy_falls_during_warm_up():
    """From 0.05 to 5e-4 over stages 1 to 3, by a hundredth: in the middle of them it is near the geometric mean.

    The finder follows with a memory of 150 steps, over which the target falls by 17 %; 500 errors about the middle, of
    a heavy-tailed law, tell their mean to a factor of 2. Fails if the target is the last throughout, or the first.
    """
    kernel = microcanonical.Microcanonical(
        SimpleNamespace(log_posterior=lambda z: -0.5 * jnp.sum(z**2)),
        microcanonical.Rule(None, None, False, 5e-4, 0.05, preconditioned=False, target_accept=0.9),
    )
    warmup = 10_000
    begin = kernel.init(jax.random.key(0), warmup, jnp.zeros(SIZE), (), {})

    def step(state, _):
        state = kernel.sample(state, (), {})
        return state, state.energy_variance

    _, errors = jax.lax.scan(step, begin, length=warmup)
    middle, end = errors[2750:3250].mean(), errors[5500:8000].mean()
    assert 0.5 < middle / np.sqrt(5e-4 * 0.05) < 2
    assert 0.5 < end / 5e-4 < 2


def test_gradients_are_counted():
    """Two a step of the integrator, warm-up included."""
    method = zoo.methods.MCLMC(num_warmup=40, num_samples=6, num_chains=2, thinning=3, start="prior")
    posterior = zoo.fit("linear", method, make_data(), progress=False)
    assert posterior.timing.gradient_evaluations == 2 * 2 * (40 + 6 * 3)
    assert (posterior.stats["n_steps"] == 6).all()


# --- what goes wrong shows --------------------------------------------------------------------------------------------


def test_steps_that_are_too_long_are_condemned():
    """On the wide model, at h = 2.2, past what is stable: variances are twice too large, and three checks say so."""
    diagnosis = at_step(2.2, num_samples=300)[0].diagnose()
    checks = {check.name: check for check in diagnosis.checks}
    for name in ("energy error", "rejected steps", "configurational temperature"):
        assert checks[name].status == "failed"
        assert "adjusted=True" in checks[name].mend
    assert "step_size=0.72" in checks["energy error"].mend
    assert checks["configurational temperature"].value > 1.3
    assert checks["half the step"].status == "failed" and checks["half the step"].value < 0.8


def test_half_the_step_shows_the_bias_of_a_step():
    """The sd of f(x) at h = 1 over that at h = 2, which is known for p → ∞ (1.037): within 4 of the errors it states.

    The error is seen to be 1 % or less, so that no bias, 1, is three of them away. Fails if the step is not halved.
    """
    posterior, _, _ = at_step(2.0, num_samples=1600)
    x = np.random.default_rng(3).normal(size=(200, SIZE - 1))
    (check,) = half_step.judge(posterior, x)
    wanted = np.sqrt(stationary_variance(1.0) / stationary_variance(2.0))
    error = float(check.finding.split("± ")[1].split()[0])
    assert error <= 0.01
    assert abs(check.value - wanted) < 4 * 0.01
    assert check.value > 1 + 0.02


def test_half_the_step_says_when_it_cannot_tell():
    few = at_step(1.0, num_samples=40)[0]
    (check,) = half_step.judge(few, np.eye(SIZE - 1)[:3])
    assert check.status == "doubtful" and "80 or more" in check.mend
    adjusted = zoo.fit(
        "linear", zoo.methods.MCLMC(adjusted=True, num_warmup=20, num_samples=80, num_chains=2), make_data(), **QUIET
    )
    assert half_step.judge(adjusted, make_data()[0]) == []


def edged(x, y=None):
    """Ten weights, of which the first has a log density that is not a number beyond 1."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([10]).to_event(1))
    numpyro.factor("edge", jnp.where(w[0] > 1, jnp.nan, 0.0))
    numpyro.sample("y", dist.Normal(x[:, 0] * w[1], 1.0), obs=y)


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_density_that_is_no_number_somewhere_is_survived(adjusted):
    """A Normal cut off at 1: mean −φ(1)/Φ(1) = −0.288. Adjusted it is exact; unadjusted steps that fail stay put,
    which is not exact at the edge, and shows as divergences. Fails if a failed step stops the chain, or its step size.
    """
    method = zoo.methods.MCLMC(adjusted=adjusted, num_warmup=4000, num_samples=2000, thinning=10, start="prior")
    posterior = zoo.fit(edged, method, (np.ones((3, 1)), np.zeros(3)), **QUIET)
    w = posterior.draws["w"][..., :1].astype(float)
    assert np.isfinite(posterior.result.positions).all() and w.max() <= 1
    assert posterior.stats["step_size"].min() > 0.01  # the edge is met at any step size, and shortens it for a while
    tolerance = ERRORS * mcse(w)[0] + (0 if adjusted else 0.05)
    assert abs(w.mean() + 0.28760) < tolerance
    assert posterior.stats["diverging"].any()
    assert any(
        c.name in ("divergences", "rejected steps") and c.status != "passed" for c in posterior.diagnose().checks
    )


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_first_step_that_is_absurd_is_recovered_from(adjusted):
    """Posterior sds of 1e-4, where warm-up begins with a step of 0.5: the closed form all the same."""
    x = make_data()[0]
    model = zoo.models.Linear(weight_scale=PRIOR, noise=3e-4)
    method = zoo.methods.MCLMC(adjusted=adjusted, num_warmup=6000, num_samples=1000, thinning=20)
    data = x, x @ [1.2, -0.4, 0.3] + 3e-4 * np.random.default_rng(0).normal(size=14)
    posterior = zoo.fit(model, method, data, precision="float64", **QUIET)
    oracle = oracles.LinearPosterior(*data, PRIOR, PRIOR, 3e-4)
    # Four coordinates, so that the law for many does not hold: a bias of up to 10 % is allowed unadjusted.
    assert off(weights(posterior), oracle.mean, oracle.cov, bound=0.0 if adjusted else 0.1) < ERRORS


def test_a_chain_that_stands_still_is_refused(monkeypatch):
    """At a step size that was asked for, and at one that was found: here all variances are found to be nothing."""
    short = {"num_warmup": 20, "num_samples": 4, "start": "prior"}
    with pytest.raises(zoo.errors.ZooValueError, match=r"step_size .* every chain; got 1e-12 in chain 0.*None finds"):
        zoo.fit("linear", zoo.methods.MCLMC(step_size=1e-12, **short), make_data(), progress=False)
    monkeypatch.setattr(tuning, "inverse_mass", lambda moments: jnp.full_like(moments.mean, 1e-30))
    with pytest.raises(zoo.errors.ZooValueError, match=r"warm-up found should be .* in chain 0.*precision='float64'"):
        zoo.fit(zoo.models.Linear(noise=0.31), zoo.methods.MCLMC(**short), make_data(), progress=False)


def far_away(x, y=None):
    """A log posterior so large that float32 rounds it by 64."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.factor("constant", 1e9)
    numpyro.sample("y", dist.Normal(x[:, 0] * w[0] + w[1], 1.0), obs=y)


def test_rounding_that_hides_the_energy_is_refused():
    method = zoo.methods.MCLMC(num_warmup=500, num_samples=50, start="prior")
    with pytest.raises(zoo.errors.ZooValueError, match=r"log posterior of 1e\+09. Take precision='float64'"):
        zoo.fit(far_away, method, make_data(), **QUIET)
    posterior = zoo.fit(far_away, method, make_data(), precision="float64", **QUIET)
    assert posterior.stats["step_size"].min() > 0.1


def alone(x, y=None):
    numpyro.sample("y", dist.Normal(numpyro.sample("w", dist.Normal(0, 1)), 1.0).expand([x.shape[0]]), obs=y)


def test_what_cannot_run_is_refused():
    with pytest.raises(zoo.errors.ZooValueError, match="two coordinates"):
        zoo.fit(alone, "mclmc", make_data(), progress=False)
    with pytest.raises(zoo.errors.ZooValueError, match="step_size should be positive"):
        zoo.methods.MCLMC(step_size=-1.0)
    with pytest.raises(zoo.errors.ZooValueError, match="length should be positive"):
        zoo.methods.MCLMC(length=0.0)
    with pytest.raises(zoo.errors.ZooTypeError, match="adjusted should be True or False"):
        zoo.methods.MCLMC(adjusted="yes")
    with pytest.raises(zoo.errors.ZooValueError, match="energy_variance should be positive"):
        zoo.methods.MCLMC(energy_variance=0.0)
    with pytest.raises(zoo.errors.ZooValueError, match="first_energy_variance should be at least energy_variance"):
        zoo.methods.MCLMC(first_energy_variance=1e-4)
    with pytest.raises(zoo.errors.ZooTypeError, match="first_energy_variance should be a number"):
        zoo.methods.MCLMC(first_energy_variance="large")
    with pytest.raises(zoo.errors.ZooValueError, match="first_energy_variance should be None"):
        zoo.methods.MCLMC(first_energy_variance=0.1, adjusted=True)
    with pytest.raises(zoo.errors.ZooTypeError, match="preconditioned should be True or False"):
        zoo.methods.MCLMC(preconditioned=1)


# --- tuning -----------------------------------------------------------------------------------------------------------


def found_steps(errors, begin: float, steps: int = 4000) -> np.ndarray:
    """Step sizes ``(steps,)`` that `tuning.find_step` takes where a step ε has ΔE² / p = ``errors(ε)``, in float32."""

    def step(carry, _):
        finder, size = carry
        error = errors(size)
        finder, size = tuning.find_step(finder, size, error, jnp.isfinite(error), 5e-4)
        return (finder, size), size

    first = jnp.float32(begin)
    return np.asarray(jax.lax.scan(step, (tuning.new_finder(first), first), length=steps)[1])


@pytest.mark.parametrize("begin", [1e-5, 1e-3, 1.0, 1e4])
def test_a_step_size_is_found_from_anywhere(begin):
    """ΔE² / p = 5e-4 (ε / 0.02)⁶. From below it takes long, as in BlackJAX: what was, is forgotten in 150 steps."""
    assert found_steps(lambda e: 5e-4 * (e / 0.02) ** 6, begin)[-1] == pytest.approx(0.02, rel=0.01)


def test_a_step_size_stays_below_what_fails():
    """Steps from 0.01 on fail: the step size hovers below, and does not fall for ever."""
    found = found_steps(lambda e: jnp.where(e > 0.01, jnp.nan, 5e-4 * (e / 0.02) ** 6), 1.0)
    assert found[100:].min() > 0.0045
    assert found[100:].max() < 0.0102


def test_correlation_times_are_those_of_an_autoregression():
    """z' = 0.8 z + …: (1 + ρ) / (1 − ρ) = 9 steps, less what 20 batches of 100 miss, known in closed form."""
    rho, size, count, p = 0.8, 100, 20, 400
    rng = np.random.default_rng(0)
    z = np.empty((size * count, p))
    z[0] = rng.normal(size=p)
    for i in range(1, len(z)):
        z[i] = rho * z[i - 1] + np.sqrt(1 - rho**2) * rng.normal(size=p)
    z = jnp.asarray(z * np.geomspace(1e-2, 1e2, p) + 3)
    one, zero = jnp.ones(()), tuning.new_moments(z[0])
    steps, _ = jax.lax.scan(lambda m, x: (tuning.add_to(m, x, one), None), zero, z)
    means = z.reshape(count, size, p).mean(1)
    batches, _ = jax.lax.scan(lambda m, x: (tuning.add_to(m, x, one), None), zero, means)
    np.testing.assert_allclose(steps.variance, z.var(0), rtol=2e-3)
    whole = (1 + rho) / (1 - rho) - 2 * rho * (1 - rho**size) / (size * (1 - rho) ** 2)
    found = float(tuning.correlation_steps(steps, batches, size))
    # A variance of 20 has a relative error of √(2 / 19), and there are 400, whose spread enters only by its sum.
    assert found == pytest.approx(whole * (1 - 1 / count), rel=ERRORS * np.sqrt(2 / (19 * p)))
