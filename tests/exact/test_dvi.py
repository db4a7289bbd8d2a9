"""Deterministic VI: its bound against samples and closed forms, its optimum, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import oracles
import pytest
from numpyro import distributions as dist

import bnn_zoo as zoo
from bnn_zoo.engine import moments
from bnn_zoo.engine.checks import join
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.methods.variational import expected
from bnn_zoo.methods.variational.expected import Expected, best_variance

NUM_ERRORS = 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2)) @ np.array([[1.0, 0.6], [0.0, 1.5]]) + [0.5, -1.0]
Y = np.sin(X @ [1.2, -0.4]) + 0.3 * RNG.normal(size=30)
PRIOR = dist.LogNormal(-1.0, 0.5)

# Models for which sending moments is exact: one hidden layer, whose pre-activations are Normal, or no activation.
EXACT = {
    "linear": zoo.models.Linear(noise=PRIOR),
    "fixed noise": zoo.models.Linear(weight_scale=0.7, noise=0.4),
    "an interval": zoo.models.Linear(noise=dist.Uniform(0.1, 2.0)),
    "deep, no activation": zoo.models.MLP(hidden=(4, 3), activation="identity", noise=PRIOR),
    "relu": zoo.models.MLP(hidden=(6,), noise=PRIOR),
    "tanh": zoo.models.MLP(hidden=(6,), activation="tanh", noise=PRIOR),
    "residual, no activation": zoo.models.ResidualMLP(hidden=(4, 4), activation="identity", noise=PRIOR),
}
# Otherwise pre-activations, or the two outputs, are not quite Normal: what is left of the bound, a row.
LEFT = {
    "two layers": (zoo.models.MLP(hidden=(8, 8), noise=PRIOR), 0.002),
    "residual": (zoo.models.ResidualMLP(hidden=(8, 8), noise=PRIOR), 0.005),
    "log variance": (zoo.models.HeteroscedasticMLP(hidden=(8,)), 0.01),
}
CASES = {name: (model, 0.0) for name, model in EXACT.items()} | LEFT


def fit(model, method=None, **settings) -> zoo.Posterior:
    method = method or zoo.methods.DeterministicVI(**settings)
    return zoo.fit(model, method, (X, Y), standardize=False, progress=False)


def parameters(problem) -> jax.Array:
    """A mean and sds of moderate size."""
    rng = np.random.default_rng(1)
    mean = np.asarray(problem.prior_draw(jax.random.PRNGKey(2))) * 0.7
    return jnp.asarray(np.concatenate([mean, np.log(0.15) + 0.3 * rng.normal(size=problem.size)]))


@pytest.mark.parametrize("name", CASES)
def test_the_bound_is_the_sampled_one(name):
    """Mean of log p(y, z) − log q(z) over 200,000 draws of z, within 4 standard errors, and what is left where stated.

    Fails if the noise's expectations are taken at its mean, the entropy lacks its ½ a coordinate, or a Jacobian is
    lost.
    """
    model, left = CASES[name]
    with jax.enable_x64(True):
        problem = join(model, X, Y)
        z = parameters(problem)
        mean, log_sd = np.split(np.asarray(z), 2)
        white = np.random.default_rng(3).normal(size=(200_000, problem.size))
        log_q = -0.5 * (white**2 + np.log(2 * np.pi)).sum(1) - log_sd.sum()
        draws = jnp.asarray(mean + np.exp(log_sd) * white)
        terms = np.asarray(jax.jit(lambda z: jax.lax.map(problem.log_posterior, z, batch_size=500))(draws)) - log_q
        found = float(jax.jit(Expected().objective)(problem, z))
    assert abs(found - terms.mean()) < NUM_ERRORS * terms.std() / len(terms) ** 0.5 + left * len(Y)


@pytest.mark.parametrize("name", ["relu", "log variance"])
def test_batches_give_the_bound_of_all_rows(name, monkeypatch):
    """The mean over batches that part the rows; and rows in blocks, the last one not full, with their gradient."""
    with jax.enable_x64(True):
        problem = join(CASES[name][0], X, Y)
        z, task = parameters(problem), Expected()
        bound = jax.jit(jax.value_and_grad(task.objective, argnums=1))
        whole, slope = bound(problem, z)
        parts = [bound(problem, z, jnp.arange(i, i + 5))[0] for i in range(0, 30, 5)]
        assert np.ptp(parts) > 1
        assert np.mean(parts) == pytest.approx(float(whole), rel=1e-10)
        monkeypatch.setattr(moments, "MOST_ROWS", 8)
        blocks, its_slope = jax.jit(jax.value_and_grad(Expected().objective, argnums=1))(problem, z)
        assert float(blocks) == pytest.approx(float(whole), rel=1e-10)
        np.testing.assert_allclose(its_slope, slope, rtol=1e-8, atol=1e-8)
        value, told = jax.jit(task.judge)(problem, z)
        assert float(value) == pytest.approx(float(whole), rel=1e-10)
        np.testing.assert_allclose(told, slope, rtol=1e-8, atol=1e-8)


def test_the_optimum_of_a_linear_model_is_the_mean_field_one():
    """Mean to 1e-6 of an sd, variances 1 / diag(Λ) to 1e-6, and the bound log p(y) − KL(q ‖ posterior) to 1e-6.

    In float64: in float32 bounds of restarts that end 0.002 sds apart cannot be told from each other.
    """
    oracle = oracles.LinearPosterior(X, Y, 0.7, 2.5, 0.6)
    model, method = zoo.models.Linear(weight_scale=0.7, bias_scale=2.5, noise=0.6), zoo.methods.DeterministicVI
    posterior = zoo.fit(
        model, method(num_samples=50_000), (X, Y), standardize=False, progress=False, precision="float64"
    )
    info, precision = posterior.result.info, np.diagonal(oracle.precision)
    np.testing.assert_allclose(info["mode"], oracle.mean, atol=1e-6 * precision.max() ** -0.5)
    np.testing.assert_allclose(info["block_0_precision"], precision, rtol=1e-6)
    divergence = 0.5 * (np.log(precision).sum() - np.linalg.slogdet(oracle.precision)[1])
    assert info["elbo"] == pytest.approx(oracle.log_evidence - divergence, abs=1e-6)
    z = posterior.result.positions[0]
    assert (np.abs(z.mean(0) - oracle.mean) < NUM_ERRORS / np.sqrt(precision * len(z)) + 1e-3).all()
    assert (np.abs(z.var(0) * precision - 1) < NUM_ERRORS * np.sqrt(2 / len(z)) + 1e-3).all()
    log_q = 0.5 * (np.log(precision / (2 * np.pi)) - precision * (z - oracle.mean) ** 2).sum(1)
    np.testing.assert_allclose(posterior.stats["log_q"][0], log_q, atol=1e-4)


@pytest.mark.parametrize("model", [EXACT["relu"], LEFT["log variance"][0]], ids=["relu", "log variance"])
def test_predictions_by_moments_are_those_of_the_draws(model):
    """Mean and sds within 5 standard errors of 20,000 networks, 1 % more for log variances; and one Normal a row."""
    posterior = fit(model, num_samples=20_000, num_restarts=1, num_steps=1000)
    own, drawn = posterior.predict(X), posterior.predict(X, kind="monte_carlo")
    info = posterior.result.info
    assert abs(info["sampled_elbo"] - info["elbo"]) < NUM_ERRORS * info["sampled_elbo_error"] + 0.01 * len(Y)
    assert (own.kind, own.is_normal, posterior.kind) == ("moments", True, "independent")
    error = drawn.epistemic_std / 20_000**0.5
    assert (np.abs(own.mean - drawn.mean) < 5 * error).all()
    assert (np.abs(own.epistemic_std - drawn.epistemic_std) < 5 * error).all()  # tails heavier than a Normal's: √2 more
    np.testing.assert_allclose(own.aleatoric_std, drawn.aleatoric_std, rtol=0.02)
    np.testing.assert_allclose(own.quantile([0.5])[0], own.mean, atol=1e-6)
    np.testing.assert_allclose(own.interval(0.6827)[:, 1] - own.mean, own.std, rtol=1e-3)
    assert own.sample(3, seed=1).shape == (3, 30)
    with pytest.raises(ZooValueError, match="kind should be 'moments' or 'monte_carlo' for method dvi"):
        posterior.predict(X, kind="linearized")


def test_scales_with_priors_are_points_at_a_maximum():
    """Draws repeat them, and the bound falls to either side."""
    model = zoo.models.MLP(hidden=(3,), weight_scale=dist.HalfNormal(1.0), noise=PRIOR)
    posterior = fit(model, num_samples=50, num_restarts=1)
    scale = posterior.draws["weight_scale"]
    assert np.ptp(scale) == 0
    assert np.ptp(posterior.draws["noise"]) > 0
    info = posterior.result.info
    log_sd, where = np.zeros(posterior.problem.size), np.flatnonzero(moments.roles(posterior.problem) == -2)
    log_sd[info["block_0_index"]] = -0.5 * np.log(info["block_0_precision"])
    bound = jax.jit(Expected().objective)
    values = []
    for shift in (-0.2, 0.0, 0.2):
        mean = info["mode"].copy()
        mean[where] += shift
        values.append(float(bound(posterior.problem, jnp.asarray(np.concatenate([mean, log_sd]), jnp.float32))))
    assert values[1] == pytest.approx(info["elbo"], abs=1e-2)
    assert values[1] > max(values[0], values[2])


def test_empirical_priors_are_the_best_for_the_approximation():
    """s* is the maximum of its bound, the hyperprior a density with its mode at the model's variance, as fitted too."""
    square, prior = jnp.asarray([0.3, 2.0, 0.1]), jnp.full(3, 0.5)

    def bound(s):
        return -0.5 * jnp.sum(jnp.log(s) + square / s) + expected._log_inverse_gamma(s, prior)

    best = best_variance(square, prior)
    assert float(jax.grad(bound)(best)) == pytest.approx(0, abs=1e-5)
    assert bound(best) > max(bound(0.8 * best), bound(1.25 * best))
    s = np.linspace(1e-3, 40, 400_000)
    density = np.exp(np.asarray(expected._log_inverse_gamma(jnp.asarray(s), prior)))
    assert density.sum() * (s[1] - s[0]) == pytest.approx(1, abs=1e-3)
    assert s[density.argmax()] == pytest.approx(0.5, abs=1e-3)

    posterior = fit(zoo.models.MLP(hidden=(6,), noise=0.3), prior="empirical", num_samples=2000)
    info = posterior.result.info
    squares = info["mode"] ** 2 + 1 / info["block_0_precision"]
    sites = {slot.name: squares[slot.where] for slot in posterior.problem.layout.slots}
    variances = {"w_0": 1 / 2, "b_0": 1.0, "w_1": 1 / 6, "b_1": 1.0}
    wanted = [
        (sites[name].sum() + 2 * 5.4798 * v) / (sites[name].size + 2 * 4.4798 + 2) for name, v in variances.items()
    ]
    np.testing.assert_allclose(info["prior_scales"] ** 2, wanted, rtol=1e-3)
    assert abs(info["sampled_elbo"] - info["elbo"]) < NUM_ERRORS * info["sampled_elbo_error"]


def foreign(x, y=None):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "settings", "error", "message"),
    [
        (
            foreign,
            {},
            ZooValueError,
            "one of the zoo's dense networks .*got foreign.*'mean_field' and 'nuts' need none",
        ),
        (zoo.models.Rank1MLP(), {}, ZooValueError, "got Rank1MLP.*declare its architecture"),
        (zoo.models.MLP(prior=zoo.priors.ScaleMixture()), {}, ZooValueError, "should be Normal; got MLP.*'mean_field'"),
        (EXACT["relu"], {"batch_size": 31}, ZooValueError, "batch_size should be at most the 30 rows"),
        (EXACT["relu"], {"prior": "emprical"}, ZooValueError, "Did you mean 'empirical'"),
        (EXACT["relu"], {"full_covariance": 1}, ZooTypeError, "full_covariance should be True or False; got 1"),
        (EXACT["relu"], {"num_restarts": 0}, ZooValueError, "num_restarts should be at least 1"),
        (
            zoo.models.MLP(weight_scale=dist.HalfNormal(1.0)),
            {"prior": "empirical"},
            ZooValueError,
            "whose weights' scales have priors.*Fix weight_scale",
        ),
    ],
)
def test_what_cannot_be_is_refused(model, settings, error, message, compilations):
    with pytest.raises(error, match=message):
        fit(model, **settings)
    assert compilations.count == 0
