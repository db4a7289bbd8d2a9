"""MC dropout: the bound by enumeration of masks, its minimiser and its draws in closed form on a linear model."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import oracles
import pytest
from scipy import optimize, special

import bnn_zoo as zoo
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.curvature import slot_of
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.methods.variational.dropout import TEMPERATURE, Masked

RATE, WEIGHT_SCALE, BIAS_SCALE, NOISE = 0.2, 0.8, 1.5, 0.5
NUM_ERRORS = 4

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3)) * [1.0, 0.5, 2.0] + [0.5, 0.0, -1.0]
Y = X @ [1.0, -2.0, 0.5] + 0.7 + 0.5 * rng.normal(size=40)
NEW = rng.normal(size=(3, 3)) + 0.5
SCALES = {"weight_scale": WEIGHT_SCALE, "bias_scale": BIAS_SCALE}


def fit(model, data=(X, Y), seed: int = 0, precision: str | None = "float64", **changes) -> zoo.Posterior:
    method = zoo.methods.MCDropout(**changes)
    return zoo.fit(model, method, data, seed=seed, standardize=False, progress=False, precision=precision)


# --- the optimum ------------------------------------------------------------------------------------------------------


def ridge(
    x: np.ndarray, y: np.ndarray, noise: float, on: float, second: float, keep: float
) -> tuple[np.ndarray, float]:
    """Minimiser (M, b) and minimum of minus the bound of a linear model, without the entropy of the masks.

    With f = Σ_j x_j M_j m_j + b, where E m = on and E m² = second, the mean of (y - f)² over masks is
    (y - on x·M - b)² + (second - on²) Σ_j x_j² M_j²: ridge regression with a penalty that depends on the data (Wager
    2013, section 3). The prior adds keep ‖M‖² / (2 σ_p²) and b² / (2 σ_b²).
    """
    phi = oracles.with_ones(x) * np.append(np.full(x.shape[1], on), 1.0)
    spread = (second - on**2) * (x**2).sum(0) / noise**2
    penalty = np.append(spread + keep / WEIGHT_SCALE**2, BIAS_SCALE**-2.0)
    theta = np.linalg.solve(phi.T @ phi / noise**2 + np.diag(penalty), phi.T @ y / noise**2)
    return theta, float(0.5 * np.sum((y - phi @ theta) ** 2) / noise**2 + 0.5 * penalty @ theta**2)


def test_the_minimiser_is_ridge_with_a_penalty_that_depends_on_the_data():
    """Relative distance below 1e-3; that of maximum a posteriori, without the penalty, is 0.11.

    What is left is the noise of masks in the last steps: 0.0002, at most 0.0003 over seeds 0 to 19, so 20 of 20 pass.
    Fails if kept inputs are not rescaled, or a mask is shared by all weights.
    """
    model, keep = zoo.models.Linear(**SCALES, noise=NOISE), 0.9
    posterior = fit(model, rate=1 - keep, num_steps=40_000, learning_rate=0.001, num_particles=64)
    wanted = ridge(X, Y, NOISE, keep, keep, keep)[0] * [keep, keep, keep, 1.0]
    off = np.linalg.norm(posterior.result.info["mean"] - wanted) / np.linalg.norm(wanted)
    assert off < 1e-3, off
    plain = oracles.LinearPosterior(X, Y, WEIGHT_SCALE, BIAS_SCALE, NOISE).mean
    assert np.linalg.norm(plain - wanted) / np.linalg.norm(wanted) > 0.05


def test_the_learned_rate_is_that_of_the_optimum():
    """Rate and M against a minimum by SciPy over the rate alone, M being ridge regression given it.

    The moments of the relaxed mask are means over 200,000 quantiles. Within 2 % for the rate (1 % is usual), 0.5 % for
    M: the noise of masks in the last steps; seeds 0 to 19: 20 of 20 pass. Without the relaxation the rate is a tenth
    lower, as the docstring says.
    """
    x, y, noise = X[:20], Y[:20], 2.0
    quantiles = special.logit((np.arange(200_000) + 0.5) / 200_000)

    def at(logit: float, relaxed: bool) -> tuple[np.ndarray, float]:
        rate = special.expit(logit)
        mask = special.expit(-(logit + quantiles) / TEMPERATURE)
        on, second = (mask.mean(), (mask**2).mean()) if relaxed else (1 - rate, 1 - rate)
        theta, least = ridge(x, y, noise, on / (1 - rate), second / (1 - rate) ** 2, 1 / (1 - rate))
        entropy = -special.xlogy(rate, rate) - special.xlogy(1 - rate, 1 - rate)
        return theta, least - x.shape[1] * entropy

    def best(relaxed: bool) -> float:
        return optimize.minimize_scalar(lambda a: at(a, relaxed)[1], bounds=(-6, 3), method="bounded").x

    model = zoo.models.Linear(**SCALES, noise=noise)
    info = fit(
        model, (x, y), concrete=True, num_steps=20_000, learning_rate=0.01, num_particles=64, num_samples=2
    ).result.info
    found = float(info["rates"][0])
    assert found == pytest.approx(special.expit(best(True)), rel=0.02)
    np.testing.assert_allclose(info["mean"], at(best(True), True)[0], rtol=0.005)
    assert 1.05 < found / special.expit(best(False)) < 1.15


# --- the bound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_scale", [0.7, dist.HalfNormal(1.0)], ids=["centred", "non-centred"])
def test_the_bound_is_the_mean_over_all_masks(weight_scale):
    """Likelihood: the mean over 2⁵ masks a row, against 20,000 draws of them. Prior: by hand, to rounding.

    Within 4 standard errors; keys 0 to 19: 20 of 20 pass. Fails if a mask is left out of a layer, a layer sees
    another's mask, or noise and scales get the factor of the weights.
    """
    model = zoo.models.MLP(
        hidden=(3,), activation="tanh", weight_scale=weight_scale, bias_scale=0.5, noise=dist.HalfNormal(1.0)
    )
    with jax.enable_x64(True):
        problem = join(model, X[:2, :2], Y[:2])
        z = np.random.default_rng(1).normal(size=problem.size)
        rates, names = np.array([0.2, 0.4]), ("w_0", "w_1")
        task = Masked(rates=jnp.asarray(rates), layers=names, inputs=(2, 3))
        prior = float(task.expected_log_prior(problem, jnp.asarray(z), jnp.asarray(rates)))
        keys = jax.random.split(jax.random.key(0), 20_000)
        values = jax.jit(jax.vmap(lambda key: task.objective(problem, jnp.asarray(z), None, key)))(keys)

        every, chance = [], []
        for bits in itertools.product((0, 1), repeat=5):
            masked, p = z.copy(), 1.0
            for name, part, rate in (("w_0", bits[:2], 0.2), ("w_1", bits[2:], 0.4)):
                where = slot_of(problem, name)
                masked[where] *= np.repeat(np.array(part) / (1 - rate), (where.stop - where.start) // len(part))
                p *= np.prod([1 - rate if on else rate for on in part])
            every.append(np.asarray(problem.pointwise_log_likelihood(masked, problem.x, problem.y)))
            chance.append(p)
        exact = float(np.array(chance) @ np.sum(every, axis=1))
        draws = np.asarray(values) - prior
        assert abs(draws.mean() - exact) < NUM_ERRORS * draws.std() / np.sqrt(len(draws))

        # By hand: every site at M, and what a row at 0 saves of ½ z² / scale² in the share of draws that it is there.
        on, saved = z.copy(), 0.0
        for name, rate, inputs in (("w_0", 0.2, 2), ("w_1", 0.4, 3)):
            where = slot_of(problem, name)
            on[where] /= 1 - rate
            scale = 1.0 if isinstance(weight_scale, dist.Distribution) else weight_scale / np.sqrt(inputs)
            saved += rate * 0.5 * np.sum(on[where] ** 2) / scale**2
        assert prior == pytest.approx(float(problem.log_prior(jnp.asarray(on))) + saved, rel=1e-12)


def test_batches_are_scaled_to_all_rows_and_the_rest_is_not():
    """With nothing dropped, the mean over the parts of the rows is the log posterior."""
    with jax.enable_x64(True):
        problem = join(zoo.models.Linear(**SCALES, noise=NOISE), X, Y)
        task = Masked(rates=jnp.zeros(1), layers=("w_0",), inputs=(3,), num_particles=2)
        z, key = jnp.asarray([0.3, -0.8, 0.5, 1.0]), jax.random.key(0)
        parts = [float(task.objective(problem, z, jnp.arange(i, i + 10), key)) for i in range(0, 40, 10)]
        assert np.mean(parts) == pytest.approx(float(problem.log_posterior(z)), rel=1e-12)


# --- draws ------------------------------------------------------------------------------------------------------------


def test_draws_are_the_network_with_whole_rows_at_zero():
    """4,000 draws of 2 × 8 rows: the share at 0 within 4 standard errors; all else is the mean network, rescaled.

    Correlations of rows are within 4.5 standard errors of 0. Seeds 0 to 19: 20 of 20 pass. Fails if two layers share a
    mask, or weights rather than rows are dropped.
    """
    model = zoo.models.MLP(hidden=(8, 8), **SCALES)
    posterior = fit(model, num_steps=200, num_samples=4000, rate=0.3, batch_size=10)
    draws, info = posterior.draws, posterior.result.info
    assert (posterior.kind, posterior.num_chains, posterior.num_draws, posterior.stats) == ("independent", 1, 4000, {})
    assert posterior.predict(X).kind == "monte_carlo"
    for name in ("w_0", "b_0", "b_1", "b_2", "noise"):
        assert (draws[name] == draws[name][:, :1]).all(), name
    mean = posterior.problem.layout.unflatten(info["mean"])
    for name in ("w_1", "w_2"):
        off = draws[name][0] == 0
        assert (off.all(2) == off.any(2)).all()
        rows = off.all(2)
        assert abs(rows.mean() - 0.3) < NUM_ERRORS * np.sqrt(0.3 * 0.7 / rows.size)
        assert (np.abs(np.corrcoef(rows.T)[np.triu_indices(8, 1)]) < 4.5 / np.sqrt(4000)).all()
        np.testing.assert_allclose(draws[name][0], ~rows[:, :, None] * mean[name] / 0.7, rtol=1e-12)
    both = np.concatenate([(draws[name][0] == 0).all(2) for name in ("w_1", "w_2")], axis=1)
    assert (np.abs(np.corrcoef(both.T)[:8, 8:]) < 4.5 / np.sqrt(4000)).all()
    assert "R-hat" not in repr(posterior.diagnose()) and "gradient" not in repr(posterior.diagnose())


def test_functions_of_a_linear_model_have_the_closed_form_moments():
    """f(x) has mean W·x + b and variance rate / (1 - rate) Σ_j x_j² W_j²: 20,000 draws within 4 standard errors.

    Seeds 0 to 19: 20 of 20 pass.
    """
    posterior = fit(zoo.models.Linear(**SCALES, noise=NOISE), num_steps=100, num_samples=20_000, rate=RATE)
    f, w = posterior.function_draws(NEW)[0], posterior.result.info["mean"]
    mean, variance = NEW @ w[:3] + w[3], RATE / (1 - RATE) * NEW**2 @ w[:3] ** 2
    off = f - mean
    assert (np.abs(off.mean(0)) < NUM_ERRORS * off.std(0) / np.sqrt(len(f))).all()
    assert (np.abs((off**2).mean(0) - variance) < NUM_ERRORS * (off**2).std(0) / np.sqrt(len(f))).all()


def test_every_layer_has_its_rate_and_inputs_only_on_request():
    def dropped(model, **settings) -> list[str]:
        return [layer.weight for layer in zoo.methods.MCDropout(**settings)._dropped(join(model, X, Y))]

    net = zoo.models.ResidualMLP(hidden=(4, 4))
    assert dropped(net) == dropped(net, drop_inputs=False) == ["w_1", "w_2", "w_3"]
    assert dropped(net, drop_inputs=True) == ["w_0", "w_1", "w_2", "w_3"]
    assert dropped(zoo.models.Linear()) == dropped(zoo.models.Linear(), drop_inputs=True) == ["w_0"]
    learned = {"concrete": True, "drop_inputs": True, "num_steps": 50, "num_samples": 4}
    rates = fit(zoo.models.MLP(hidden=(4,)), **learned).result.info["rates"]
    assert len(set(rates)) == 2 and (np.abs(rates - 0.1) < 0.05).all()


def test_another_rate_compiles_nothing(compilations):
    net, small = zoo.models.MLP(hidden=(4,)), {"num_steps": 50, "num_samples": 4, "precision": None}
    fit(net, **small, rate=0.1)
    compilations.reset()
    fit(net, **small, rate=0.2)
    assert compilations.count == 0


# --- what is refused --------------------------------------------------------------------------------------------------


def without_layers(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(w * x[:, 0], 1.0), obs=y)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rate": 1.0}, ZooValueError, r"rate should be from 0 to below 1; got 1\.0"),
        ({"rate": -0.1}, ZooValueError, "rate should be from 0 to below 1"),
        ({"rate": "much"}, ZooTypeError, "rate should be a number"),
        ({"rate": 0.0, "concrete": True}, ZooValueError, "above 0 with concrete=True"),
        ({"concrete": 1}, ZooTypeError, "concrete should be True or False"),
        ({"drop_inputs": 1}, ZooTypeError, "drop_inputs should be True, False or None"),
        ({"num_particles": 0}, ZooValueError, "num_particles should be at least 1"),
        ({"batch_size": 41}, ZooValueError, "batch_size should be at most the 40 rows; got 41"),
        ({"drop_inputs": False}, ZooValueError, "True or None for a model of one layer"),
        ({"model": without_layers}, ZooValueError, "made of dense layers.*'nuts', .*'svgd'"),
    ],
)
def test_impossible_settings_are_refused(settings, error, message, compilations):
    with pytest.raises(error, match=message):
        fit(**{"model": "linear"} | settings)
    assert compilations.count == 0


def test_a_rate_of_learning_that_diverges_is_said():
    with pytest.raises(ZooValueError, match="learning_rate should be small enough to train"):
        fit("linear", num_steps=50, learning_rate=1e200)
