"""Every method's exact answer: conjugate linear regression, where posterior and predictive are Normal and known.

Monte Carlo errors come from ArviZ's ESS of the very series whose mean is compared, and every tolerance is 4 of them:
with normal errors a comparison fails once in 16 000. Draws are many, so that 4 errors are about 5 % of a posterior sd.
Seeds are fixed; pass rates are in the docstrings.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import bnn_zoo as zoo

NUM_ERRORS = 4

# Few rows, so that the prior matters; inputs correlated and of unequal scales; all scales unlike each other.
WEIGHT_SCALE, BIAS_SCALE, NOISE = 0.7, 2.5, 0.6
NEW = np.array([[0.3, -1.0, 2.0], [-2.0, 0.5, 1.0], [4.0, 3.0, -6.0], [0.0, 0.0, 0.0]])
MODEL = zoo.models.Linear(weight_scale=WEIGHT_SCALE, bias_scale=BIAS_SCALE, noise=NOISE)
METHODS = {
    "nuts": zoo.methods.NUTS(num_warmup=500, num_samples=4000, start="prior"),
    # A trajectory of one length is a multiple of half a period in some direction or other, and the ESS of what then
    # hardly moves cannot be estimated; a full mass matrix makes it a quarter period in all of them.
    "hmc": zoo.methods.HMC(num_warmup=500, num_samples=4000, start="prior", dense_mass=True),
    "mh": zoo.methods.MetropolisHastings(num_warmup=4000, num_samples=4000, thinning=20, start="prior"),
}


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """14 rows; the second column follows the first, the third has three times their spread and is off centre."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.5, -0.6], [0.0, 0.0, 3.0]]) + [0.5, 0.0, -1.0]
    return x, x @ [1.2, -0.4, 0.3] + 1.7 + NOISE * rng.normal(size=14)


DATA = make_data()
ORACLE = oracles.LinearPosterior(*DATA, WEIGHT_SCALE, BIAS_SCALE, NOISE)


def errors(series: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many Monte Carlo standard errors the means of ``series (C, S, k)`` are from ``truth (k,)``."""
    mcse = array_stats.mcse(series, chain_axis=0, draw_axis=1, method="mean")
    return np.abs(series.mean((0, 1)) - truth) / mcse


def assert_normal(functions: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> None:
    """Assert that draws ``(C, S, k)`` have this mean and this covariance, each entry within 4 of its errors.

    With the mean known, an entry of the covariance is the mean of the series (f_i - m_i)(f_j - m_j).
    """
    i, j = np.triu_indices(len(mean))
    centred = functions - mean
    of_means = errors(functions, mean)
    of_entries = errors(centred[:, :, i] * centred[:, :, j], cov[i, j])
    assert of_means.max() < NUM_ERRORS, of_means
    assert of_entries.max() < NUM_ERRORS, of_entries


@functools.cache
def fitted(method: str, seed: int = 0, precision: str | None = None) -> zoo.Posterior:
    settings = {"standardize": False, "progress": False, "precision": precision}
    return zoo.fit(MODEL, METHODS[method], DATA, seed=seed, **settings)


@pytest.mark.parametrize(("method", "precision"), [("nuts", None), ("hmc", None), ("mh", None), ("nuts", "float64")])
def test_functions_have_the_closed_form_law(method, precision):
    """Mean and every entry of the covariance of f at four points. Seeds 0 to 19: 20 of 20 pass, for each method.

    Fails if the prior's scale, the noise or a Jacobian is wrong.
    """
    posterior = fitted(method, precision=precision)
    assert posterior.result.positions.dtype == (precision or "float32")
    assert_normal(posterior.function_draws(NEW), *ORACLE.function(NEW))


def test_weights_have_the_closed_form_law():
    """The draws that a user reads, by site, not only the functions; fails if sites are cut from the wrong slice."""
    draws = fitted("nuts").draws
    theta = np.concatenate([draws["w_0"][..., 0], draws["b_0"]], axis=2).astype(float)
    assert_normal(theta, ORACLE.mean, ORACLE.cov)


# --- predictions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A posterior and the closed form of what it should predict, both in the user's units."""

    posterior: zoo.Posterior
    mean: np.ndarray  # (k,) of f at NEW
    cov: np.ndarray  # (k, k) of f at NEW
    noise: float

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(np.diag(self.cov) + self.noise**2)

    @property
    def observation(self) -> stats.rv_continuous:
        return stats.norm(self.mean, self.std)


UNITS = np.array([1e-3, 40.0, 1e4]), np.array([2.0, -300.0, 0.0]), 250.0, 1e4


@functools.cache
def case(standardize: bool, seed: int = 0) -> Case:
    """The data as they are; or in units that standardisation must undo, with the closed form on the standardised data.

    There f = c + s g((x - m) / t), with g the linear model fitted to (x - m) / t and (y - c) / s.
    """
    if not standardize:
        return Case(fitted("nuts", seed), *ORACLE.function(NEW), NOISE)
    x, y = DATA[0] * UNITS[0] + UNITS[1], DATA[1] * UNITS[2] + UNITS[3]
    posterior = zoo.fit(MODEL, METHODS["nuts"], (x, y), seed=seed, progress=False)
    inner = oracles.LinearPosterior(
        (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std(), WEIGHT_SCALE, BIAS_SCALE, NOISE
    )
    mean, cov = inner.function((new_inputs(True) - x.mean(0)) / x.std(0))
    return Case(posterior, y.mean() + y.std() * mean, y.std() ** 2 * cov, y.std() * NOISE)


def new_inputs(standardize: bool) -> np.ndarray:
    return NEW * UNITS[0] + UNITS[1] if standardize else NEW


both_scales = pytest.mark.parametrize("standardize", [False, True])


@both_scales
def test_functions_come_back_in_the_units_of_the_user(standardize):
    """Fails if the scale of the target, or the centre of an input, is not undone."""
    found = case(standardize)
    assert found.posterior.standardize is standardize
    assert_normal(found.posterior.function_draws(new_inputs(standardize)), found.mean, found.cov)


@both_scales
def test_moments_of_a_prediction(standardize):
    """Moments are those of the draws, and of the closed form; fails if the two kinds of sd are mixed up."""
    found = case(standardize)
    x = new_inputs(standardize)
    prediction = found.posterior.predict(x)
    functions = found.posterior.function_draws(x)
    # These are the moments of the draws, to the precision of a mean of 16 000 float32 numbers.
    scale = np.sqrt(np.diag(found.cov))
    assert np.abs(prediction.mean - functions.mean((0, 1))).max() < 1e-4 * scale.min()
    np.testing.assert_allclose(prediction.epistemic_std, functions.std((0, 1)), rtol=1e-4)
    # And those of the closed form, within Monte Carlo error; the noise is fixed, so its share has none.
    assert (np.abs(prediction.mean - found.mean) / _mcse(functions)).max() < NUM_ERRORS
    squared = (functions - found.mean) ** 2
    assert (np.abs(prediction.epistemic_std**2 - np.diag(found.cov)) / _mcse(squared)).max() < NUM_ERRORS
    assert (np.abs(prediction.std**2 - found.std**2) / _mcse(squared)).max() < NUM_ERRORS
    np.testing.assert_allclose(prediction.aleatoric_std, found.noise, rtol=1e-6)
    np.testing.assert_allclose(prediction.std**2, prediction.epistemic_std**2 + prediction.aleatoric_std**2, rtol=1e-12)


@both_scales
def test_quantiles_density_and_distribution_function_of_a_prediction(standardize):
    """Against the exact Normal predictive; fails if the noise is left out of the mixture, or its mean taken for it."""
    found = case(standardize)
    x = new_inputs(standardize)
    prediction = found.posterior.predict(x)
    components = stats.norm(found.posterior.function_draws(x), found.noise)
    for q in (0.02, 0.05, 0.5, 0.9, 0.98):  # farther out the error of a mean of few draws is not normal
        y = found.observation.ppf(q)
        # Near its quantile y the mixture's F is q plus the Monte Carlo error of the mean of the components' F at y.
        error = _mcse(components.cdf(y))
        assert (np.abs(prediction.cdf(y) - q) / error).max() < NUM_ERRORS
        off = np.abs(prediction.quantile(q)[0] - y)
        assert (off / (error / found.observation.pdf(y))).max() < NUM_ERRORS
        # The density is the mean of the components' densities; an error of its log is a relative one.
        off = np.abs(prediction.log_prob(y) - found.observation.logpdf(y))
        assert (off / (_mcse(components.pdf(y)) / found.observation.pdf(y))).max() < NUM_ERRORS
    interval = prediction.interval(0.9)
    np.testing.assert_allclose(interval, prediction.quantile([0.05, 0.95]).T, rtol=1e-11)  # where root finding stops


@both_scales
def test_crps_and_samples_of_a_prediction(standardize):
    """Against the closed form of a Normal; fails if a sample repeats a draw of f, or leaves out the noise."""
    found = case(standardize)
    x = new_inputs(standardize)
    prediction = found.posterior.predict(x)
    functions = found.posterior.function_draws(x)
    y = found.mean + found.std * [1.5, -0.3, 0.0, 2.0]
    z = (y - found.mean) / found.std
    exact = found.std * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - np.pi**-0.5)
    # CRPS(F, y) = ∫ (F(t) - 1{t >= y})² dt. To first order an error e(t) of F moves it by ∫ 2 (F - 1{t >= y}) e dt,
    # which is the mean over draws of g_s = ∫ 2 (F - 1{t >= y}) F_s dt.
    t = found.mean + found.std * np.linspace(-8, 8, 801)[:, None]
    weight = 2 * (found.observation.cdf(t) - (t >= y))
    step = np.diff(t, axis=0)[0]
    thin = functions[:, ::4]
    g = np.zeros(thin.shape)
    for at, w in zip(t, weight, strict=True):
        g += stats.norm.cdf((at - thin) / found.noise) * w * step
    assert (np.abs(prediction.crps(y) - exact) / (_mcse(g))).max() < NUM_ERRORS
    observations = prediction.sample(20_000, seed=1)
    assert observations.shape == (20_000, len(NEW))
    # 20 000 observations from 16 000 draws of f: errors of independent noise and of the draws, added.
    error = np.sqrt(found.noise**2 / 20_000 + _mcse(functions) ** 2)
    assert (np.abs(observations.mean(0) - found.mean) / error).max() < NUM_ERRORS
    error = np.sqrt(2 * found.std**4 / 20_000 + _mcse((functions - found.mean) ** 2) ** 2)
    assert (np.abs(((observations - found.mean) ** 2).mean(0) - found.std**2) / error).max() < NUM_ERRORS


def test_log_likelihood_of_each_draw():
    """To float32's precision, whatever the units; fails if the Jacobian of the target's scale is left out."""
    for standardize in (False, True):
        found = case(standardize)
        x = new_inputs(standardize)
        y = found.mean + found.std
        exact = stats.norm(found.posterior.function_draws(x), found.noise).logpdf(y)
        np.testing.assert_allclose(found.posterior.log_likelihood(x, y), exact, rtol=0, atol=1e-3)


def _mcse(series: np.ndarray) -> np.ndarray:
    return array_stats.mcse(series, chain_axis=0, draw_axis=1, method="mean")


# --- the maximum ------------------------------------------------------------------------------------------------------


def test_density_is_the_normalised_one():
    """log p(θ, y) - log p(θ | y) is the log evidence, whatever θ: exact to float64, constants and all.

    Fails if prior or likelihood is scaled, or any constant is left out.
    """
    with jax.enable_x64(True):
        problem = fitted("nuts", precision="float64").problem
        for theta in np.random.default_rng(1).normal(size=(5, 4)) * 2:
            joint = float(problem.log_posterior(jnp.asarray(theta)))
            assert joint - ORACLE.log_density(theta) == pytest.approx(ORACLE.log_evidence, rel=1e-10)


def ridge_error(posterior: zoo.Posterior, oracle: oracles.LinearPosterior, new: np.ndarray) -> float:
    """Largest distance of f from the ridge solution at ``new``, in posterior standard deviations of f there."""
    assert (posterior.kind, posterior.num_chains, posterior.num_draws) == ("members", 1, 1)
    mean, cov = oracle.function(new)
    return float((np.abs(posterior.function_draws(new)[0, 0] - mean) / np.sqrt(np.diag(cov))).max())


def resolution(posterior: zoo.Posterior) -> float:
    """Distance from the maximum, in posterior sds, that the precision cannot see.

    The log posterior L falls by r²/2 at r sds, and rounding moves it by eps |L|: 4 √(2 eps |L|) allows for several.
    """
    eps = np.finfo(posterior.result.positions.dtype).eps
    return 4 * float(np.sqrt(2 * eps * np.abs(posterior.stats["lp"]).max()))


BAD_UNITS = np.array([1e-2, 1.0, 1e3])


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("method", "units", "centre", "y_units"),
    [
        (zoo.methods.MAP(), 1.0, 0.0, 1.0),
        (zoo.methods.MAP(batch_size=5), 1.0, 0.0, 1.0),
        (zoo.methods.MAP(), BAD_UNITS, 0.0, 10.0),
    ],
    ids=["all rows", "batches", "bad units"],
)
def test_map_is_the_ridge_solution(method, units, centre, y_units, precision):
    """To what the precision can see, and to 1e-4 in float64; fails if the prior is scaled by the batch or left out."""
    x, y = DATA[0] * units + centre, DATA[1] * y_units
    posterior = zoo.fit(MODEL, method, (x, y), standardize=False, progress=False, precision=precision)
    oracle = oracles.LinearPosterior(x, y, WEIGHT_SCALE, BIAS_SCALE, NOISE)
    off = ridge_error(posterior, oracle, NEW * units + centre)
    assert off < resolution(posterior)
    if precision == "float64":
        assert off < 1e-4
        theta = np.append(posterior.draws["w_0"], posterior.draws["b_0"])
        np.testing.assert_allclose(theta, oracle.mean, rtol=1e-4)


def test_map_of_bad_units_far_off_centre():
    """A condition number above 1e10: float32 cannot hold it, float64 must reach the ridge solution all the same."""
    x, y = DATA[0] * BAD_UNITS + [1.0, 100.0, 1e4], DATA[1] * 10
    posterior = zoo.fit(MODEL, "map", (x, y), standardize=False, progress=False, precision="float64")
    oracle = oracles.LinearPosterior(x, y, WEIGHT_SCALE, BIAS_SCALE, NOISE)
    assert np.linalg.cond(oracle.precision) > 1e10
    assert ridge_error(posterior, oracle, NEW * BAD_UNITS + [1.0, 100.0, 1e4]) < 1e-4


def test_map_of_batches_alone():
    """Adam on batches alone comes within a tenth of a posterior sd; fails if N / n is forgotten."""
    method = zoo.methods.MAP(batch_size=5, polish_steps=0, num_steps=20_000, learning_rate=0.003, num_restarts=2)
    posterior = zoo.fit(MODEL, method, DATA, standardize=False, progress=False)
    assert ridge_error(posterior, ORACLE, NEW) < 0.1


def test_map_predicts_with_the_noise_alone():
    """A point fit has no epistemic part: its prediction is Normal(f(x), noise²), exactly."""
    posterior = zoo.fit(MODEL, "map", DATA, standardize=False, progress=False)
    prediction = posterior.predict(NEW)
    assert prediction.kind == "plug_in"
    assert np.array_equal(prediction.epistemic_std, np.zeros(len(NEW)))
    normal = stats.norm(posterior.function_draws(NEW)[0, 0], NOISE)
    np.testing.assert_allclose(prediction.std, NOISE, rtol=1e-6)
    np.testing.assert_allclose(prediction.quantile([0.05, 0.5, 0.99]), normal.ppf([[0.05], [0.5], [0.99]]), rtol=1e-6)


def hmc(**given) -> zoo.Posterior:
    method = zoo.methods.HMC(num_samples=20, num_chains=2, start="prior", **given)
    return zoo.fit(MODEL, method, DATA, standardize=False, progress=False)


@pytest.mark.parametrize("most", [1, 7, 1000, 1023, 1024, 50_000])
def test_trajectories_are_cut_off_at_so_many_steps(most):
    """At a step size too small for them, by as many steps as were asked, however they round in float32."""
    posterior = hmc(num_warmup=0, step_size=3.7e-9, max_steps=most)
    assert (posterior.stats["n_steps"] == most).all()
    (check,) = (check for check in posterior.diagnose().checks if check.name == "trajectory length")
    assert check.status == "doubtful"
    assert f"100 % of trajectories are cut off at {most} steps" in check.finding


def test_trajectories_that_are_short_are_left_as_they_are():
    free, bounded = (hmc(num_warmup=100, max_steps=most) for most in (10**6, 200))
    assert free.stats["n_steps"].max() < 200
    for name, drawn in free.draws.items():
        np.testing.assert_array_equal(bounded.draws[name], drawn)
    (check,) = (check for check in bounded.diagnose().checks if check.name == "trajectory length")
    assert check.status == "passed"


def test_warm_up_is_cut_off_as_well():
    """Where its first moves are all rejected the step size falls by e each or more, and NumPyro's trajectories, which
    have no bound, become longer by as much."""
    model, lengths = zoo.models.Linear(noise=0.01), {"num_warmup": 10, "num_samples": 4, "num_chains": 2}
    made = {}
    for most in (50, 10**4):
        method = zoo.methods.HMC(**lengths, start="prior", max_steps=most)
        made[most] = zoo.fit(model, method, DATA, standardize=False, progress=False).timing.gradient_evaluations
    assert made[50] <= 2 * 50 * (10 + 4)
    assert made[10**4] > 2 * 10**4
