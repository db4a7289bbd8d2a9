"""The infinite-width limit: kernels against quadrature, closed forms and wide networks; regression against the book."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import jax
import numpy as np
import oracles
import pytest
from scipy.special import erf, expit
from scipy.stats import multivariate_normal, norm

import bnn_zoo as zoo
from bnn_zoo.engine import process, wide

# No symmetry: inputs of unequal lengths and angles, scales unlike each other; two of them nearly the same.
X = np.array([[1.0, 0.3, -0.5], [-0.4, 2.0, 0.7], [0.1, 0.2, 0.1], [2.0, -1.0, 1.5], [2.0, -1.0, 1.5001]])
WEIGHT_SCALE, BIAS_SCALE, NOISE = 1.6, 0.7, 0.3
NUM_ERRORS = 4
ACTIVATIONS = {
    "tanh": np.tanh,
    "gelu": lambda u: 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))),  # as jax.nn.gelu has it
    "silu": lambda u: u * expit(u),
    "sin": np.sin,
    "relu": lambda u: np.maximum(u, 0),
    "identity": lambda u: u,
}
rng = np.random.default_rng(5)
ROWS, NEW = rng.normal(size=(25, 3)), rng.normal(size=(8, 3))
TARGETS = 3 + 2 * np.sin(ROWS[:, 0]) + NOISE * rng.normal(size=25)


def network(activation: str, depth: int) -> process.Network:
    return process.Network(activation, depth, True, WEIGHT_SCALE, BIAS_SCALE, NOISE)


def kernel(activation: str, depth: int, x: np.ndarray, other: np.ndarray, terms: int = 64) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(wide.kernel(activation, depth, terms, True, x, other, WEIGHT_SCALE, BIAS_SCALE))


def by_quadrature(f, depth: int, x: np.ndarray, nodes: int = 240) -> np.ndarray:
    """The recursion of Lee (2018), equation 5, each expectation by trapezoids in both dimensions."""
    t = np.linspace(-9, 9, nodes)
    w = np.exp(-0.5 * t**2) / np.exp(-0.5 * t**2).sum()
    cov = BIAS_SCALE**2 + WEIGHT_SCALE**2 * x @ x.T / x.shape[1]
    for _ in range(depth):
        sd, below = np.sqrt(np.diag(cov)), np.empty_like(cov)
        for i, j in np.ndindex(cov.shape):
            rho = np.clip(cov[i, j] / (sd[i] * sd[j]), -1, 1)
            v = sd[j] * (rho * t[:, None] + np.sqrt(1 - rho**2) * t[None, :])
            below[i, j] = (w * f(sd[i] * t)) @ (f(v) @ w)
        cov = BIAS_SCALE**2 + WEIGHT_SCALE**2 * below
    return cov


# --- the kernel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_relu_is_the_arc_cosine_kernel(depth):
    np.testing.assert_allclose(
        kernel("relu", depth, X, X[:3]), oracles.relu_kernel(X, depth, WEIGHT_SCALE, BIAS_SCALE)[:, :3], rtol=1e-12
    )


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "silu", "sin", "identity"])
def test_kernels_are_those_of_quadrature(activation, depth):
    """Trapezoids in two dimensions are exact here to 1e-9; fails if a term of Mehler's sum has another's power."""
    found = kernel(activation, depth, X, X)
    np.testing.assert_allclose(found, by_quadrature(ACTIVATIONS[activation], depth, X), rtol=2e-7)
    assert np.linalg.eigvalsh(found).min() > -1e-12 * np.trace(found)


def test_mehlers_sum_is_the_arcsine_kernel_of_erf(monkeypatch):
    """E[erf u erf v] = 2/π asin(2 c / √((1 + 2a)(1 + 2b))) (Williams 1997), which nothing here knows of."""
    monkeypatch.setitem(wide.SMOOTH, "erf", jax.scipy.special.erf)
    monkeypatch.setattr(wide, "ODD", ("tanh", "erf"))
    cov = BIAS_SCALE**2 + WEIGHT_SCALE**2 * X @ X.T / 3
    for _ in range(2):
        size = 1 + 2 * np.diag(cov)
        below = 2 / np.pi * np.arcsin(2 * cov / np.sqrt(np.outer(size, size)))
        cov = BIAS_SCALE**2 + WEIGHT_SCALE**2 * below
    np.testing.assert_allclose(kernel("erf", 2, X, X, terms=256), cov, rtol=1e-8)
    np.testing.assert_allclose(np.diag(by_quadrature(erf, 2, X)), np.diag(cov), rtol=1e-8)


def test_what_is_left_out_bounds_the_error():
    """With few terms the kernel is off, not on its diagonal, and by no more than twice what is lumped."""
    exact = by_quadrature(np.tanh, 1, X)
    with jax.enable_x64(True):
        layers, _ = wide.per_row("tanh", 1, 4, True, X, WEIGHT_SCALE, BIAS_SCALE)
        share = float(wide.left_out(layers))
    found = kernel("tanh", 1, X, X, terms=4)
    np.testing.assert_allclose(np.diag(found), np.diag(exact), rtol=1e-8)
    error = np.abs(found - exact).max()
    square = np.diag(exact).max() - BIAS_SCALE**2
    assert 1e-4 < error < 2 * share * square


@pytest.mark.parametrize(("activation", "depth"), [("gelu", 1), ("relu", 3), ("tanh", 2)])
def test_wide_networks_have_the_kernel(activation, depth):
    """The prior of networks drawn by the model itself: second moments within 4 standard errors.

    Of a Gaussian, f_i f_j has variance K_ii K_jj + K_ij². One hidden layer has the covariance at any width; each more
    adds a relative error of the order of 1 / width. The sums of one layer are Gaussian only for many units, so the
    variance of f_i f_j is larger at a finite width by E[h⁴] / E[h²]² − 1 over it: at most 15 / width, as for identity.
    """
    width, count = 50, 4000
    model = zoo.models.MLP(
        hidden=(width,) * depth, activation=activation, weight_scale=WEIGHT_SCALE, bias_scale=BIAS_SCALE, noise=1.0
    )
    functions = zoo.priors.sample_functions(model, X[:4], count, seed=1).astype(float)
    wanted = kernel(activation, depth, X[:4], X[:4])
    size = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    error = np.sqrt((size**2 + wanted**2) * (1 + 15 * depth / width) / count)
    assert (np.abs(functions.T @ functions / count - wanted) < NUM_ERRORS * error + (depth - 1) * size / width).all()


# --- regression -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "depth"), [("relu", 2), ("tanh", 1)])
def test_regression_is_that_of_the_book(activation, depth):
    """Rasmussen & Williams (2006), equations 2.25, 2.26 and 2.30, by dense inverses."""
    model = zoo.models.MLP(
        hidden=(7,) * depth, activation=activation, weight_scale=WEIGHT_SCALE, bias_scale=BIAS_SCALE, noise=NOISE
    )
    found = zoo.infinite_width(model, (ROWS, TARGETS), standardize=False, num_samples=4000)
    everywhere = np.concatenate([ROWS, NEW])
    whole = kernel(activation, depth, everywhere, everywhere, found.fitted.terms)
    among, cross, own = whole[:25, :25] + NOISE**2 * np.eye(25), whole[25:, :25], whole[25:, 25:]
    inverse = np.linalg.inv(among)
    mean, cov = cross @ inverse @ TARGETS, own - cross @ inverse @ cross.T
    said = found.predict(NEW)
    np.testing.assert_allclose(said.mean, mean, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(said.epistemic_std, np.sqrt(np.diag(cov)), rtol=1e-6)
    np.testing.assert_array_equal(said.aleatoric_std, NOISE)
    assert found.log_evidence == pytest.approx(multivariate_normal(np.zeros(25), among).logpdf(TARGETS), rel=1e-9)
    # One Normal a row: quantiles, densities and scores are its own.
    np.testing.assert_allclose(said.quantile([0.1, 0.7]), norm.ppf([[0.1], [0.7]], said.mean, said.std), rtol=1e-6)
    np.testing.assert_allclose(said.log_prob(TARGETS[:8]), norm.logpdf(TARGETS[:8], said.mean, said.std), rtol=1e-6)
    # Joint draws have the joint covariance: entries of a sample covariance have variance (c_ii c_jj + c_ij²) / S.
    f = found.function_draws(NEW)
    assert f.shape == (1, 4000, 8) and np.array_equal(f, found.function_draws(NEW))
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / 4000)
    assert (np.abs(np.cov(f[0].T) - cov) < NUM_ERRORS * error).all()
    assert (np.abs(f[0].mean(0) - mean) < NUM_ERRORS * np.sqrt(np.diag(cov) / 4000)).all()
    y = said.sample(4000, seed=3)
    error = np.sqrt((np.outer(said.std, said.std) ** 2 + cov**2) / 4000)
    assert (np.abs(np.cov(y.T) - cov - NOISE**2 * np.eye(8)) < NUM_ERRORS * error).all()
    np.testing.assert_allclose(found.log_likelihood(NEW, TARGETS[:8]), norm.logpdf(TARGETS[:8], f, NOISE), rtol=1e-10)


def test_a_linear_model_has_its_own_posterior():
    model = zoo.models.Linear(weight_scale=1.5, bias_scale=0.8, noise=NOISE)
    found = zoo.infinite_width(model, (ROWS, TARGETS), standardize=False).predict(NEW)
    design, prior = np.column_stack([ROWS, np.ones(25)]), np.diag([1.5**-2] * 3 + [0.8**-2])
    cov = np.linalg.inv(design.T @ design / NOISE**2 + prior)
    new = np.column_stack([NEW, np.ones(8)])
    np.testing.assert_allclose(found.mean, new @ cov @ design.T @ TARGETS / NOISE**2, rtol=1e-8)
    np.testing.assert_allclose(found.epistemic_std, np.sqrt(np.sum(new @ cov * new, 1)), rtol=1e-7)


def test_units_come_back():
    """Fails if the evidence lacks its Jacobian, or a prediction its scale."""
    model = zoo.models.MLP(hidden=(1,), activation="silu", noise=NOISE)
    plain = zoo.infinite_width(model, (ROWS, TARGETS))
    other = zoo.infinite_width(model, (10 * ROWS - 3, 1000 * TARGETS + 1e5))
    one, two = plain.predict(NEW), other.predict(10 * NEW - 3)
    np.testing.assert_allclose(two.mean, 1000 * one.mean + 1e5, rtol=1e-9)
    np.testing.assert_allclose(two.std, 1000 * one.std, rtol=1e-7)
    np.testing.assert_allclose(other.function_draws(10 * NEW - 3), 1000 * plain.function_draws(NEW) + 1e5, rtol=1e-5)
    assert other.log_evidence == pytest.approx(plain.log_evidence - 25 * np.log(1000), rel=1e-9)
    z, s = (TARGETS - TARGETS.mean()) / TARGETS.std(), TARGETS.std()
    by_hand = zoo.infinite_width(model, ((ROWS - ROWS.mean(0)) / ROWS.std(0), z), standardize=False)
    assert plain.log_evidence == pytest.approx(by_hand.log_evidence - 25 * np.log(s), rel=1e-9)


# --- as a posterior ---------------------------------------------------------------------------------------------------


def test_it_is_compared_as_a_posterior_is():
    model = zoo.models.MLP(hidden=(1,), activation="relu", noise=0.5)
    one = zoo.infinite_width(model, (ROWS, TARGETS))
    other = zoo.infinite_width(dataclasses.replace(model, noise=0.2), (ROWS, TARGETS))
    table = zoo.compare({"one": one, "other": other}, (NEW, TARGETS[:8]), reference="one")
    assert table.loc["one", "wasserstein2"] == 0 < table.loc["other", "wasserstein2"]
    # Two Normals: the squared distance is that of means plus that of sds.
    p, q = one.predict(NEW), other.predict(NEW)
    wanted = np.sqrt((p.mean - q.mean) ** 2 + (p.std - q.std) ** 2).mean()
    assert table.loc["other", "wasserstein2"] == pytest.approx(wanted, rel=1e-3)
    assert table.loc["one", "verdict"] == "passed" and table.loc["one", "gradients"] == 0
    assert one.diagnose(NEW).ok and "exact" in repr(one.diagnose())
    assert set(one.diagnose(NEW).points["where"]) == {"training", "between", "held-out", "beyond"}
    assert one.evaluate(NEW, TARGETS[:8])["rmse"] > 0 and "log evidence" in repr(one)


def test_other_scales_compile_nothing(compilations):
    def once(scale: float) -> None:
        model = zoo.models.MLP(hidden=(3,), activation="sin", weight_scale=scale, noise=scale)
        zoo.infinite_width(model, (ROWS[:9], TARGETS[:9])).predict(NEW)

    once(0.7)
    compilations.reset()
    once(0.9)
    assert compilations.count == 0


def test_depths_differ():
    found = [kernel("relu", depth, X, X) for depth in range(4)]
    assert all(not np.allclose(a, b, rtol=1e-2) for a, b in pairwise(found))


GOOD = zoo.models.MLP(hidden=(5,), noise=0.3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mlp", r"noise should be a number.*dataclasses.replace\(model, noise=0.5\)"),
        ("residual_mlp", "model should be an MLP or Linear; got residual_mlp"),
        (dataclasses.replace(GOOD, fan_in=False), "fan_in should be True"),
        (zoo.models.MLP(noise=0.3, prior=zoo.priors.ScaleMixture()), "model should be one without prior"),
        (dataclasses.replace(GOOD, noise=1e-9), "noise should be large enough for a Cholesky factor"),
        (dataclasses.replace(GOOD, activation="tanh", weight_scale=1e3), "resolved by Mehler's sum"),
    ],
)
def test_what_has_no_limit_is_refused(model, message):
    x = np.concatenate([ROWS[:5], ROWS[:5]])
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        zoo.infinite_width(model, (x, np.concatenate([TARGETS[:5], -TARGETS[:5]])))
    assert isinstance(caught.value, zoo.errors.ZooError)


def test_too_many_rows_are_refused_with_what_they_would_take():
    with pytest.raises(zoo.errors.ZooValueError, match=r"at most 20,000; got 20,001, .* take 8.94 GiB"):
        zoo.infinite_width(GOOD, (np.zeros((20_001, 1)) + np.arange(20_001)[:, None], np.arange(20_001.0)))


@pytest.mark.parametrize("name", ["draws", "idata", "save", "report", "resume"])
def test_what_needs_weights_is_refused(name):
    found = zoo.infinite_width(GOOD, (ROWS, TARGETS))
    with pytest.raises(zoo.errors.ZooValueError, match=f"{name} should be asked of a network with weights"):
        asked = getattr(found, name)
        asked(3)
