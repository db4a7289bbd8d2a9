"""Moments through activations, layers and networks, against samples and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to
from scipy.stats import norm

import bnn_zoo as zoo
from bnn_zoo.engine import curvature, moments, propagation
from bnn_zoo.engine.activations import SMOOTH, covariance, through, with_diagonal
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.gaussian import Dense, Diagonal, Gaussian
from bnn_zoo.engine.moments import Belief
from bnn_zoo.engine.propagation import Spread, Weights
from bnn_zoo.methods.variational.expected import two_outputs

NUM_ERRORS, NUM_SAMPLES = 5, 10**6
FUNCTIONS = {"relu": jax.nn.relu, "sin": jnp.sin, "identity": lambda a: a} | SMOOTH
# What six terms leave of the covariance at |ρ| ≤ 0.9 and sd ≤ 2, in units of σ_a σ_b: largest value on a grid.
SERIES = {"relu": 9.4e-4, "tanh": 7.5e-3, "gelu": 1.2e-3, "silu": 4e-4, "sin": 0.0, "identity": 0.0}


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def standard_errors(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and covariance of samples ``(S, k)``, each with its standard error."""
    mean, count = samples.mean(0), len(samples)
    centred = samples - mean
    cov = centred.T @ centred / count
    fourth = (centred**2).T @ centred**2 / count
    return mean, centred.std(0) / count**0.5, cov, np.sqrt((fourth - cov**2) / count)


# --- activations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.05, 0.7, 2.0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_agree_with_a_million_samples(name, scale):
    """Mean, variances and covariances within 5 standard errors, plus what the series leaves out for covariances.

    Fails, for every activation, if a second moment stands in place of a variance, or one term too many is dropped.
    """
    rho = np.array([[1, 0.5, 0.9, -0.7], [0.5, 1, 0.6, -0.2], [0.9, 0.6, 1, -0.6], [-0.7, -0.2, -0.6, 1]])
    sd = scale * np.array([1.0, 0.5, 0.8, 0.3])
    mean, cov = np.array([0.3, -0.4, 0.0, 1.1]) * min(1.0, 2 * scale), rho * np.outer(sd, sd)
    white = np.random.default_rng(0).normal(size=(NUM_SAMPLES, 4))
    drawn = np.asarray(FUNCTIONS[name](jnp.asarray(mean + white @ np.linalg.cholesky(cov).T)))
    made = through(name, jnp.asarray(mean)[None], jnp.asarray(sd**2)[None])
    found = np.asarray(covariance(name, jnp.asarray(mean)[None], jnp.asarray(cov)[None], made))[0]
    its_mean, mean_error, its_cov, cov_error = standard_errors(drawn)
    assert (np.abs(made.mean[0] - its_mean) < NUM_ERRORS * mean_error).all()
    left_out = SERIES[name] * np.outer(sd, sd) * (1 - np.eye(4))
    assert (np.abs(found - its_cov) < NUM_ERRORS * cov_error + left_out).all()
    np.testing.assert_array_equal(np.diagonal(found), made.var[0])
    assert np.linalg.eigvalsh(found).min() > -1e-12
    slope = jax.vmap(jax.grad(FUNCTIONS[name]))(jnp.asarray(mean + white[:, :1] * sd).reshape(-1)).reshape(-1, 4)
    error = np.asarray(slope).std(0) / NUM_SAMPLES**0.5
    assert (np.abs(made.slope[0] - np.asarray(slope).mean(0)) < NUM_ERRORS * error + 1e-12).all()


def exact_relu(m: np.ndarray, n: np.ndarray, rho: float) -> np.ndarray:
    """Cov(relu(a), relu(b)) of unit Normals about m and n: ρ Φ(m) Φ(n) + ∫₀^ρ (ρ − r) φ₂(m, n; r) dr, by Price twice.

    d Cov / dρ = P(a > 0, b > 0), whose own derivative is the density at 0.
    With r = sin t the integrand is smooth up to ρ = 1.
    Gauss-Legendre with 200 nodes then errs below 1e-12 for ρ ≤ 0.99.
    """
    node, weight = np.polynomial.legendre.leggauss(200)
    end = np.arcsin(rho)
    total = rho * norm.cdf(m) * norm.cdf(n)
    for t, w in zip((node + 1) * end / 2, weight * end / 2, strict=True):
        density = np.exp(-(m**2 + n**2 - 2 * m * n * np.sin(t)) / (2 * np.cos(t) ** 2)) / (2 * np.pi)
        total = total + w * (rho - np.sin(t)) * density
    return total


def fitted_relu(m: np.ndarray, n: np.ndarray, rho: float) -> np.ndarray:
    """The closed form of Wu (2019), table 1: ρ (Φ(m) Φ(n) + A e^{-Q})."""
    root = 1 + np.sqrt(1 - rho**2)
    angle = np.arcsin(rho) - rho / root
    q = (m**2 + n**2) * rho / (2 * angle * root) - m * n * (np.arcsin(rho) - rho) / (angle * rho)
    return rho * (norm.cdf(m) * norm.cdf(n) + angle / (2 * np.pi) * np.exp(-q))


@pytest.mark.parametrize(("rho", "bound"), [(0.2, 2e-8), (0.7, 1.3e-4), (0.9, 9.5e-4), (0.99, 2.6e-3), (-0.9, 9.5e-4)])
def test_relu_is_closer_than_the_paper(rho, bound):
    """Largest error over a grid of means from -4 to 4 sd: below the stated one, and below a third of the paper's."""
    grid = np.linspace(-4, 4, 33)
    m, n = (a.reshape(-1) for a in np.meshgrid(grid, grid))
    mean, cov = np.stack([m, n], 1), np.tile([[1.0, rho], [rho, 1.0]], (m.size, 1, 1))
    found = covariance(
        "relu", jnp.asarray(mean), jnp.asarray(cov), through("relu", *map(jnp.asarray, (mean, 0 * mean + 1)))
    )
    exact = exact_relu(m, n, rho)
    error = np.abs(np.asarray(found)[:, 0, 1] - exact).max()
    assert error < bound
    assert error < np.abs(fitted_relu(m, n, rho) - exact).max() / 3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_certain_pre_activations_stay_certain(name):
    """In float32: a variance of 1e-12, and means a million sds from zero, give finite moments and gradients."""
    with jax.enable_x64(False):
        mean, var = jnp.array([[-2.0, 0.5, 3.0]]), jnp.full((1, 3), 1e-12)

        def total(mean, var):
            cov = 0.5 * jnp.sqrt(var[:, :, None] * var[:, None, :])
            made = through(name, mean, var)
            return jnp.sum(covariance(name, mean, with_diagonal(cov, var), made)), made

        made = total(mean, var)[1]
        np.testing.assert_allclose(made.mean, FUNCTIONS[name](mean), rtol=1e-5)
        assert (np.asarray(made.var) >= 0).all()
        assert (np.asarray(made.var) < 2e-12).all()
        gradients = jax.jit(jax.grad(lambda *a: total(*a)[0], argnums=(0, 1)))(mean, var)
        assert all(np.isfinite(g).all() for g in gradients)


def test_the_series_has_the_derivative_that_jax_finds():
    rng = np.random.default_rng(1)
    root, mean, ahead = (jnp.asarray(rng.normal(size=shape)) for shape in ((2, 3, 3), (2, 3), (2, 3, 3)))

    def total(root, mean, derived):
        cov = root @ jnp.swapaxes(root, 1, 2)
        made = through("relu", mean, jnp.diagonal(cov, axis1=1, axis2=2))
        if not derived:
            return jnp.sum(ahead * covariance("relu", mean, cov, made))
        sd = jnp.sqrt(jnp.diagonal(cov, axis1=1, axis2=2))
        rho = cov / sd[:, :, None] / sd[:, None, :]
        found = sum(rho ** (k + 1) * t[:, :, None] * t[:, None, :] for k, t in enumerate(made.terms))
        return jnp.sum(ahead * with_diagonal(found, made.var))

    slope = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnums=2)
    ours, theirs = (slope(root, mean, derived) for derived in (False, True))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


# --- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("certain", [False, True])
def test_a_linear_layer_is_exact(certain, correlated):
    """Mean and covariance of pre-activations within 5 standard errors of a million samples of inputs and weights.

    Fails if the weights' variance meets the inputs' means alone, or the bias's covariance with weights is lost.
    """
    rng = np.random.default_rng(2)
    root = rng.normal(size=(2, 2))
    h, cov = np.array([0.7, -1.2]), np.zeros((2, 2)) if certain else root @ root.T
    centre, root = rng.normal(size=(3, 2)), 0.5 * rng.normal(size=(6, 6))
    spread = root @ root.T if correlated else np.diag(np.diagonal(root @ root.T))
    weights = Weights(
        jnp.asarray(centre),
        jnp.asarray(np.diagonal(spread).reshape(3, 2)),
        jnp.asarray(spread.reshape(3, 2, 3, 2)) if correlated else None,
    )
    inputs = Spread(jnp.asarray(h)[None])
    if not certain:
        inputs = Spread(inputs.mean, jnp.asarray(np.diagonal(cov))[None], jnp.asarray(cov)[None])
    drawn_h = rng.multivariate_normal(h, cov, NUM_SAMPLES)
    drawn_w = rng.multivariate_normal(centre.reshape(-1), spread, NUM_SAMPLES).reshape(-1, 3, 2)
    out = np.einsum("si,sij->sj", np.pad(drawn_h, ((0, 0), (0, 1)), constant_values=1), drawn_w)
    mean, mean_error, its, error = standard_errors(out)
    for full in (True, False):
        found = propagation.linear(inputs, weights, full)
        assert (np.abs(found.mean[0] - mean) < NUM_ERRORS * mean_error).all()
        assert (np.abs(found.var[0] - np.diagonal(its)) < NUM_ERRORS * np.diagonal(error)).all()
        matrix = np.diag(found.var[0]) if found.cov is None else np.asarray(found.cov[0])
        if full:
            assert (np.abs(matrix - its) < NUM_ERRORS * error + 1e-12).all()
            assert (found.cov is None) == (certain and not correlated)


MODELS = {
    "linear": zoo.models.Linear(noise=0.3),
    "relu": zoo.models.MLP(hidden=(20, 20), noise=0.3),
    "tanh": zoo.models.MLP(hidden=(20, 20), activation="tanh", noise=0.3),
    "sin": zoo.models.MLP(hidden=(20, 20), activation="sin", noise=0.3),
    "residual": zoo.models.ResidualMLP(hidden=(20, 20), noise=0.3),
    "log variance": zoo.models.HeteroscedasticMLP(hidden=(20, 20)),
    "ard": zoo.models.ARDMLP(hidden=(6,), activation="silu"),
    "scale": zoo.models.MLP(hidden=(5,), activation="gelu", weight_scale=dist.HalfNormal(2.0), bias_scale=0.5),
}
X = np.random.default_rng(3).normal(size=(5, 2))


def make(model, share: float) -> tuple:
    """Problem, and independent Normals about a prior draw, of ``share`` of the prior's sd."""
    problem = join(model, X, X[:, 0])
    # Site by site: what is said of one draw below is not to change with how the package draws.
    trace = handlers.trace(handlers.seed(problem.model, jax.random.PRNGKey(4))).get_trace(problem.x, problem.y)
    sites = {slot.name: trace[slot.name] for slot in problem.layout.slots}
    z = problem.layout.flatten({name: biject_to(s["fn"].support).inv(s["value"]) for name, s in sites.items()})
    sd = np.ones(problem.size)
    for layer in curvature.layers_of(problem):
        sd[curvature.coordinates(problem, layer)[:-1]] = layer.inputs.shape[1] ** -0.5
    return problem, Belief(jnp.asarray(z), jnp.asarray((share * sd) ** 2), (None,) * len(curvature.layers_of(problem)))


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_without_variance_moments_are_the_network(name, full):
    """What a model declares of its architecture is what it computes, and its weights are those of z."""
    problem, belief = make(MODELS[name], 0.0)
    found = jax.jit(moments.outputs, static_argnums=3)(problem, belief, problem.x, full)
    said = jax.jit(lambda z: problem.likelihood(z, problem.x).parameters)(belief.mean)
    np.testing.assert_allclose(found.mean[:, 0], said["loc"], rtol=1e-6, atol=1e-9)
    assert np.abs(found.var).max() < 1e-12
    if name == "log variance":
        np.testing.assert_allclose(np.exp(0.5 * np.asarray(found.mean[:, 1])), said["scale"], rtol=1e-6)


# --- networks -------------------------------------------------------------------------------------------------------


def walk(name: str, weights: list[Weights], x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Pre-activations of every layer at one row, from a million networks.

    Given its inputs, a unit's pre-activation is Normal, and independent of the layer's others: drawing it is drawing
    its weights, each network having one row.
    """
    h, found = np.tile(x, (NUM_SAMPLES, 1)), []
    for i, layer in enumerate(weights):
        inputs = np.pad(h, ((0, 0), (0, 1)), constant_values=1)
        mean, var = inputs @ np.asarray(layer.mean), inputs**2 @ np.asarray(layer.var)
        a = mean + np.sqrt(var) * rng.normal(size=mean.shape)
        found.append(a)
        if name == "residual":
            h = a if i == 0 else h + np.maximum(a, 0) / np.sqrt(2)
        else:
            h = np.maximum(a, 0) if name in ("relu", "log variance") else np.asarray(FUNCTIONS[name](jnp.asarray(a)))
    return found


DEEP = {name: type(MODELS[name])(**vars(MODELS[name]) | {"hidden": (10, 10)}) for name in ("relu", "tanh", "sin")}
DEEP["residual"] = zoo.models.ResidualMLP(hidden=(10, 10), noise=0.3)
DEEP["log variance"] = zoo.models.HeteroscedasticMLP(hidden=(10, 10))


# What is left of mean and variance in the third layer, in units of its sd and variance: pre-activations of ten units
# with the prior's own spread are not quite Normal. Seen: 2.3 % and 4.2 % for relu, 2.0 % and 5.1 % for its two outputs,
# and nothing that a million samples tell for the others.
LEFT = {"relu": (0.03, 0.06), "log variance": (0.03, 0.06)}


@pytest.mark.parametrize("name", DEEP)
def test_three_layers_agree_with_a_million_networks(name):
    """Layer by layer, each weight with the prior's own sd: exact but for 5 standard errors up to the second layer.

    Fails if covariances between units are dropped: variances of the residual network are then 5 % off, those of two
    outputs 10 %.
    """
    problem, belief = make(DEEP[name], 1.0)
    weights = moments.weights_of(problem, belief)
    architecture, row = moments.architecture_of(problem), X[0]
    propagate = jax.jit(propagation.propagate, static_argnums=(0, 3))
    for depth, drawn in enumerate(walk(name, weights, row, np.random.default_rng(5)), start=1):
        if name == "residual" and 2 < depth < len(weights):
            continue  # what the stream is divided by follows the number of layers
        mean, mean_error, cov, cov_error = standard_errors(drawn)
        var, var_error = np.diagonal(cov), np.diagonal(cov_error)
        made = propagate(architecture, weights[:depth], jnp.asarray(row)[None], True)
        of_mean, of_var = LEFT.get(name, (0.0, 0.0)) if depth > 2 else (0.0, 0.0)
        assert (np.abs(made.mean[0] - mean) < NUM_ERRORS * mean_error + of_mean * np.sqrt(var)).all()
        assert (np.abs(made.var[0] - var) < NUM_ERRORS * var_error + of_var * var).all()
    if made.cov is not None:
        assert abs(made.cov[0, 0, 1] - cov[0, 1]) < NUM_ERRORS * cov_error[0, 1] + of_var * np.sqrt(var[0] * var[1])
    if name in ("residual", "log variance"):
        without = propagate(architecture, weights, jnp.asarray(row)[None], False)
        assert (np.abs(without.var[0] - var) > NUM_ERRORS * var_error + of_var * var).any()


def test_two_outputs_have_their_likelihood_in_closed_form():
    """Against a million pairs (f, l), within 5 standard errors. Fails if their covariance has the other sign."""
    rng = np.random.default_rng(6)
    mean, root = np.array([0.4, -0.7]), np.array([[0.8, 0.0], [0.45, 0.5]])
    f, l = (mean + rng.normal(size=(NUM_SAMPLES, 2)) @ root.T).T
    cov = root @ root.T
    made = Spread(jnp.asarray(mean)[None], jnp.asarray(np.diagonal(cov))[None], jnp.asarray(cov)[None])
    for y in (-1.5, 0.2, 2.0):
        said = norm.logpdf(y, f, np.exp(0.5 * l))
        error = said.std() / NUM_SAMPLES**0.5
        assert abs(two_outputs(made, jnp.asarray([y]))[0] - said.mean()) < NUM_ERRORS * error


# --- predictions under any Gaussian of independent layers -----------------------------------------------------------


def test_a_linear_model_has_its_exact_predictive():
    """Every covariance of weights and bias, in any order of coordinates: mean and variance of f to 1e-9."""
    y = X @ [1.0, -0.5] + 0.3
    oracle = oracles.LinearPosterior(X, y, 1.0, 1.0, 0.3)
    problem, order = join(MODELS["linear"], X, y), np.array([2, 0, 1])
    gaussian = Gaussian(oracle.mean, (Dense.of(order, oracle.precision[np.ix_(order, order)]),))
    new = np.random.default_rng(7).normal(size=(70, 2))
    mean, var, noise = moments.predict(problem, gaussian, new)
    its_mean, its_cov = oracle.function(new)
    np.testing.assert_allclose(mean, its_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(var, np.diagonal(its_cov), rtol=1e-9)
    np.testing.assert_allclose(noise, 0.3**2, rtol=1e-6)


def test_scales_and_noise_that_vary_are_integrated_over():
    """f = s·g with log s and g Normal, and a log-Normal noise: the log-Normal's own moments, to 1e-6.

    Fails if the scale is taken at its mean: the variance of f is then 12 % too small.
    """
    model = zoo.models.Linear(weight_scale=dist.HalfNormal(1.0), noise=dist.HalfNormal(1.0))
    problem = join(model, X, X[:, 0])
    where = {slot.name: slot.start for slot in problem.layout.slots}
    mean, sd = np.zeros(problem.size), np.full(problem.size, 0.4)
    mean[where["w_0_decentered"] : where["w_0_decentered"] + 2] = 1.0, -0.5
    mean[where["weight_scale"]], sd[where["weight_scale"]] = 0.3, 0.25
    mean[where["noise"]], sd[where["noise"]] = -1.0, 0.3
    gaussian = Gaussian(mean, (Diagonal(np.arange(problem.size), sd**-2.0),))
    assert moments.has_moments(problem, gaussian)
    found_mean, var, noise = moments.predict(problem, gaussian, X)
    g, v = X @ [1.0, -0.5], 0.4**2 * ((X**2).sum(1) + 1)
    first, second = np.exp(0.3 + 0.25**2 / 2), np.exp(2 * 0.3 + 2 * 0.25**2)
    np.testing.assert_allclose(found_mean, first * g, rtol=1e-6)
    np.testing.assert_allclose(var, second * (g**2 + v) - (first * g) ** 2, rtol=1e-6)
    np.testing.assert_allclose(noise, np.exp(-2 + 2 * 0.3**2), rtol=1e-6)


def test_correlated_layers_agree_with_networks():
    """Dense covariances of both layers, tanh: mean and variance of f within 5 standard errors of 200,000 networks.

    Pre-activations are Normal here, so nothing but the series is left, 0.5 % of the variance at most. The diagonals
    alone are 10 % off.
    """
    rng = np.random.default_rng(8)
    problem = join(zoo.models.MLP(hidden=(6,), activation="tanh", noise=0.3), X, X[:, 0])
    blocks = []
    for layer in curvature.layers_of(problem):
        index = curvature.coordinates(problem, layer).reshape(-1)
        root = rng.normal(size=(index.size,) * 2) / index.size**0.5 + 0.3
        blocks.append(Dense.of(index, np.linalg.inv(0.1 * (root @ root.T + 0.3 * np.eye(index.size)))))
    gaussian = Gaussian(rng.normal(size=problem.size), tuple(blocks))
    assert moments.has_moments(problem, gaussian)
    mean, var, _ = moments.predict(problem, gaussian, X)
    z, _ = gaussian.draw(rng, 200_000, np.float64)
    f = np.asarray(jax.jit(jax.vmap(lambda z: problem.likelihood(z, problem.x).parameters["loc"]))(z))
    its_mean, mean_error, cov, cov_error = standard_errors(f)
    its, error = np.diagonal(cov), np.diagonal(cov_error)
    assert (np.abs(mean - its_mean) < NUM_ERRORS * mean_error).all()
    assert (np.abs(var - its) < NUM_ERRORS * error + 0.005 * its).all()
    alone = [Diagonal(b.index, 1 / np.diagonal(b.covariance)) for b in blocks]
    _, uncorrelated, _ = moments.predict(problem, Gaussian(gaussian.mode, tuple(alone)), X)
    assert np.abs(uncorrelated / its - 1).max() > 0.1


def test_a_gaussian_across_layers_has_no_moments():
    problem = join(zoo.models.MLP(hidden=(3,), noise=0.3), X, X[:, 0])
    whole = Dense.of(np.arange(problem.size), np.eye(problem.size))
    assert not moments.has_moments(problem, Gaussian(np.zeros(problem.size), (whole,)))
    ard = join(MODELS["ard"], np.tile(X, 2), X[:, 0])  # four inputs, each with a scale
    gaussian = Gaussian(np.zeros(ard.size), (Diagonal(np.arange(ard.size), np.ones(ard.size)),))
    assert not moments.has_moments(ard, gaussian)
