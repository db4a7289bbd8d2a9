"""``Problem`` against NumPyro's own density of the same program, for models of the zoo and for foreign callables.

All is in float64. NumPyro and the package add the same terms in other orders, so values agree to about 1e-13 of their
size; 1e-9 leaves room for cancellation and is far below any term left out, counted twice or scaled.
Monte Carlo tolerances are 5 standard errors: a comparison fails once in 1.7 million; seeds are fixed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import potential_energy
from scipy import special

import bnn_zoo as zoo
from bnn_zoo.engine import density
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.density import Problem
from bnn_zoo.errors import ZooTypeError, ZooValueError

ROWS, BATCH, COLUMNS = 12, 4, 2
RNG = np.random.default_rng(3)
X = RNG.normal(size=(ROWS, COLUMNS)) * [1.0, 2.0] + [0.5, 0.0]
Y = X @ [0.8, -0.3] + 0.4 + 0.3 * RNG.normal(size=ROWS)
RELATIVE = 1e-9
NUM_ERRORS = 5


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


# --- foreign programs -------------------------------------------------------------------------------------------------


def make_closure(power: float) -> Callable:
    """A closure, which has no name of its own to be told apart by."""

    def model(x, y=None):
        w = numpyro.sample("w", dist.Normal(jnp.zeros(COLUMNS), 1.5))
        numpyro.sample("y", dist.Normal(x**power @ w, 0.7), obs=y)

    return model


def plate_over_rows(x, y=None):
    w = numpyro.sample("w", dist.LogNormal(0.3, 0.8).expand((COLUMNS,)).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def plate_over_features(x, y=None):
    with numpyro.plate("features", COLUMNS):
        w = numpyro.sample("w", dist.HalfNormal(1.3))
    numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def observed_as_event(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand((COLUMNS,)).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 0.7).to_event(1), obs=y)


def many_supports(x, y=None):
    spread = numpyro.sample("spread", dist.LogNormal(-0.2, 0.5))
    noise = numpyro.sample("noise", dist.HalfNormal(0.8))
    share = numpyro.sample("share", dist.Dirichlet(jnp.array([1.5, 2.0, 4.0])))
    slope = numpyro.sample("slope", dist.Uniform(-2.0, 3.0))
    numpyro.sample("y", dist.Normal(slope * x[:, 0] + spread * share[0] - share[2], noise), obs=y)


def vector_of_positive_numbers(x, y=None):
    """Batch and not event dimensions, and two of them: every one has a Jacobian."""
    w = numpyro.sample("w", dist.HalfNormal(jnp.array([[0.5, 1.0, 2.0], [3.0, 0.2, 1.0]])))
    numpyro.sample("y", dist.Normal((x @ w)[:, 0], 0.7), obs=y)


@handlers.reparam(config={"w": LocScaleReparam(0.0)})
def reparameterised(x, y=None):
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    w = numpyro.sample("w", dist.Normal(jnp.full(COLUMNS, 0.4), spread * jnp.ones(COLUMNS)).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def with_deterministic(x, y=None):
    w = numpyro.sample("w", dist.Normal(jnp.zeros(COLUMNS), 1.5))
    numpyro.deterministic("length", jnp.sqrt(jnp.sum(w**2)))
    numpyro.deterministic("doubled", 2 * w)
    f = numpyro.deterministic("f", x @ w)
    numpyro.sample("y", dist.Normal(f, 0.7), obs=y)


def with_factor(x, y=None):
    w = numpyro.sample("w", dist.Normal(jnp.zeros(COLUMNS), 1.5))
    numpyro.factor("ridge", -0.8 * jnp.sum(w**4))
    numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def tempered_likelihood(x, y=None):
    w = numpyro.sample("w", dist.HalfNormal(1.5).expand((COLUMNS,)).to_event(1))
    with handlers.scale(scale=0.3):
        numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def tempered_prior(x, y=None):
    with handlers.scale(scale=0.3):
        w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand((COLUMNS,)).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def tempered_positive_prior(x, y=None):
    with handlers.scale(scale=0.3):
        w = numpyro.sample("w", dist.HalfNormal(1.5).expand((COLUMNS,)).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


def student_t(x, y=None):
    w = numpyro.sample("w", dist.Normal(jnp.zeros(COLUMNS), 1.5))
    df = numpyro.sample("df", dist.Gamma(3.0, 0.5))
    numpyro.sample("y", dist.StudentT(df, x @ w, 0.7), obs=y)


ZOO = {
    "linear": zoo.models.Linear(weight_scale=0.7, bias_scale=2.0),
    "mlp": zoo.models.MLP(hidden=(3, 2), activation="tanh", noise=0.4),
    "mlp, priors on scales": zoo.models.MLP(
        hidden=(3,), activation="tanh", weight_scale=dist.HalfNormal(1.0), bias_scale=dist.LogNormal(0.0, 0.5)
    ),
    "heteroscedastic_mlp": zoo.models.HeteroscedasticMLP(hidden=(3,), activation="tanh"),
    "rank1_mlp": zoo.models.Rank1MLP(hidden=(3,), activation="tanh"),
    "scale mixture": zoo.models.MLP(hidden=(3,), activation="tanh", prior=zoo.priors.ScaleMixture(narrow=0.1)),
    "residual_mlp": zoo.models.ResidualMLP(hidden=(3, 3), activation="tanh"),
    "ard_mlp": zoo.models.ARDMLP(hidden=(3,), activation="tanh"),
    "horseshoe_mlp": zoo.models.HorseshoeMLP(hidden=(3,), activation="tanh"),
    "layer scale": zoo.models.MLP(
        hidden=(3,),
        activation="tanh",
        prior=zoo.priors.LayerScale(hyper=dist.InverseGamma(2.0, 1.0), on="variance"),
    ),
    "horseshoe, into": zoo.models.MLP(hidden=(3,), activation="tanh", prior=zoo.priors.RegularisedHorseshoe()),
    "student t": zoo.models.MLP(hidden=(3,), activation="tanh", prior=zoo.priors.StudentT(df=3.0)),
    "laplace": zoo.models.MLP(hidden=(3,), activation="tanh", prior=zoo.priors.Laplace(scale=0.7)),
}
FOREIGN = {
    "closure": make_closure(1.0),
    "tempered whole": handlers.scale(many_supports, 0.6),
    **{
        model.__name__: model
        for model in (
            plate_over_rows,
            plate_over_features,
            observed_as_event,
            many_supports,
            vector_of_positive_numbers,
            with_deterministic,
            with_factor,
            tempered_likelihood,
            tempered_prior,
            tempered_positive_prior,
            student_t,
        )
    },
    "reparameterised": reparameterised,
}
MODELS = ZOO | FOREIGN
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def some(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("model", [MODELS[name] for name in names], ids=names)


def quick(function: Callable) -> Callable:
    """Compile with little optimisation: run once, one program is far cheaper than its operations one by one."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def points(problem: Problem, count: int = 3) -> jax.Array:
    """Points ``(count, p)`` away from 0, where transforms and priors are curved."""
    return jnp.asarray(0.2 + 0.8 * np.random.default_rng(problem.size).normal(size=(count, problem.size)))


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    """Largest difference, relative to the largest entry."""
    return float(np.max(np.abs(found - truth)) / np.max(np.abs(truth)))


# --- densities --------------------------------------------------------------------------------------------------------


@every_model
def test_log_posterior_is_numpyros(model):
    """A Jacobian forgotten, counted once a plate row or scaled with its site; a factor dropped; float32 somewhere.

    Also its parts: a term in both or in neither, a potential of the wrong sign, targets that reach the prior.
    """
    problem, other = join(model, X, Y), join(model, X, Y + 1.0)

    def all_of(z):
        theirs = -potential_energy(model, (problem.x, problem.y), {}, problem.layout.unflatten(z))
        parts = problem.log_prior(z), problem.log_likelihood(z)
        moved = other.log_prior(z), other.log_likelihood(z)
        return theirs, problem.log_posterior(z), problem.potential(z), parts, moved

    for z in points(problem):
        theirs, ours, potential, parts, moved = quick(all_of)(z)
        assert ours.shape == () and ours.dtype == jnp.float64
        np.testing.assert_allclose(ours, theirs, rtol=RELATIVE, atol=RELATIVE)
        np.testing.assert_allclose(sum(parts), theirs, rtol=RELATIVE, atol=RELATIVE)
        np.testing.assert_allclose(potential, -ours, rtol=RELATIVE)
        np.testing.assert_allclose(moved[0], parts[0], rtol=RELATIVE)
        assert abs(moved[1] - parts[1]) > 1e-3


def test_parts_of_a_density_by_hand():
    """A factor or a Jacobian counted as likelihood: batches would then scale it."""
    problem = join(with_factor, X, Y)
    w = points(problem, 1)[0]
    ridge = -0.8 * jnp.sum(w**4)
    prior = jnp.sum(dist.Normal(0.0, 1.5).log_prob(w)) + ridge
    np.testing.assert_allclose(problem.log_prior(w), prior, rtol=RELATIVE)
    rows = dist.Normal(X @ w, 0.7).log_prob(Y)
    np.testing.assert_allclose(problem.log_likelihood(w), jnp.sum(rows), rtol=RELATIVE)
    np.testing.assert_allclose(problem.pointwise_log_likelihood(w, problem.x, problem.y), rows, rtol=RELATIVE)

    problem = join(plate_over_rows, X, Y)
    z = points(problem, 1)[0]
    # w = exp(z) with z Normal(0.3, 0.8²): the density in z, Jacobian included, is that Normal.
    np.testing.assert_allclose(problem.log_prior(z), jnp.sum(dist.Normal(0.3, 0.8).log_prob(z)), rtol=RELATIVE)


@some(
    "linear",
    "mlp, priors on scales",
    "heteroscedastic_mlp",
    "closure",
    "tempered whole",
    "plate_over_rows",
    "observed_as_event",
    "many_supports",
    "reparameterised",
    "with_factor",
    "tempered_likelihood",
    "student_t",
)
def test_batches_give_an_unbiased_gradient(model):
    """The prior scaled with the batch, N / n forgotten or upside down, a program that keeps the full data."""
    problem = join(model, X, Y)
    z = points(problem, 1)[0]
    order = np.random.default_rng(1).permutation(ROWS).reshape(-1, BATCH)
    batches = (problem.x[order], problem.y[order])

    def all_of(z):
        by_batch = jax.vmap(lambda batch: problem.grad_log_posterior(z, batch))(batches)
        likelihood = jax.vmap(lambda batch: jax.grad(problem.log_likelihood)(z, batch))(batches)
        return problem.grad_log_posterior(z), by_batch, jax.grad(problem.log_prior)(z), likelihood

    full, by_batch, of_prior, of_likelihood = map(np.asarray, quick(all_of)(z))
    assert relative(by_batch.mean(0), full) < RELATIVE
    assert relative(of_prior + of_likelihood.mean(0), full) < RELATIVE
    # The batches differ, and the two mistakes would be seen.
    assert relative(by_batch[0], full) > 1e-3
    assert relative(of_prior * ROWS / BATCH + of_likelihood.mean(0), full) > 1e-3
    assert relative(of_prior + of_likelihood.mean(0) * BATCH / ROWS, full) > 1e-3


# --- sites ------------------------------------------------------------------------------------------------------------


@some("mlp, priors on scales", "ard_mlp", "many_supports", "plate_over_features", "reparameterised", "student_t")
def test_constrain_and_unconstrain_are_inverse(model):
    """Sites flattened in another order than they are cut; a transform used instead of its inverse."""
    problem = join(model, X, Y)
    z = points(problem, 1)[0]
    sites = quick(problem.constrain)(z)
    assert set(sites) == set(problem.reported)
    # Auxiliary sites of a reparameterisation are not reported; their support is the real line, where z is the value.
    hidden = {name: raw for name, raw in problem.layout.unflatten(z).items() if name not in sites}
    assert all(name.endswith("_decentered") for name in hidden)
    np.testing.assert_allclose(quick(problem.unconstrain)(sites | hidden), z, rtol=RELATIVE, atol=RELATIVE)


def test_constrained_values_lie_in_their_supports():
    """Reporting the unconstrained value, or a simplex with its last entry missing."""
    problem = join(many_supports, X, Y)
    assert problem.size == 1 + 1 + 2 + 1
    for z in points(problem):
        raw, sites = problem.layout.unflatten(z), quick(problem.constrain)(z)
        np.testing.assert_allclose(sites["spread"], np.exp(raw["spread"]), rtol=RELATIVE)
        np.testing.assert_allclose(sites["noise"], np.exp(raw["noise"]), rtol=RELATIVE)
        np.testing.assert_allclose(sites["slope"], -2 + 5 * special.expit(np.asarray(raw["slope"])), rtol=RELATIVE)
        assert sites["share"].shape == (3,) and float(jnp.min(sites["share"])) > 0
        np.testing.assert_allclose(jnp.sum(sites["share"]), 1.0, rtol=RELATIVE)


def test_deterministic_sites_are_reported_unless_they_follow_the_rows():
    """f(x) stored for every draw, or a user's own derived quantity dropped."""
    problem = join(with_deterministic, X, Y)
    assert problem.reported == ("w", "length", "doubled")
    z = points(problem, 1)[0]
    sites = problem.constrain(z)
    np.testing.assert_allclose(sites["length"], jnp.sqrt(jnp.sum(z**2)), rtol=RELATIVE)
    np.testing.assert_allclose(sites["doubled"], 2 * z, rtol=RELATIVE)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_derived_site_as_long_as_the_data_is_still_reported(rows):
    """Telling what follows the rows by its length at one number of rows: d may equal n."""
    problem = join(with_deterministic, X[:rows], Y[:rows])
    assert problem.reported == ("w", "length", "doubled")


def test_auxiliary_sites_are_sampled_but_hidden():
    """A user sees w_decentered, or does not see w."""
    problem = join(reparameterised, X, Y)
    assert {slot.name for slot in problem.layout.slots} == {"spread", "w_decentered"}
    assert set(problem.reported) == {"spread", "w"}
    z = points(problem, 1)[0]
    raw, sites = problem.layout.unflatten(z), problem.constrain(z)
    np.testing.assert_allclose(sites["w"], 0.4 + sites["spread"] * raw["w_decentered"], rtol=RELATIVE)


def test_many_rows_are_taken_in_blocks(monkeypatch):
    """20 rows in blocks of 8, the last one of 4: the same density, gradient and Hessian; fails if a block is lost."""
    model = zoo.models.MLP(hidden=(3,), activation="tanh")
    x = np.random.default_rng(0).normal(size=(20, 2))

    def found(looped: bool) -> tuple:
        problem = join(model, x, x[:, 0] ** 2)

        def every(z: jax.Array) -> tuple:
            hessian = jax.hessian(problem.log_posterior)(z)
            return problem.log_posterior(z), problem.log_likelihood(z), problem.grad_log_posterior(z), hessian

        z = problem.prior_draw(jax.random.PRNGKey(0))
        traced = jax.jit(every).trace(z)
        assert (" scan[" in str(traced.jaxpr)) == looped
        return traced.lower().compile()(z)

    with jax.enable_x64(True):
        whole = found(looped=False)
        monkeypatch.setattr(density, "MOST_AT_ONCE", 19)
        for rows in (8, 10, 64):
            monkeypatch.setattr(density, "BLOCK_ROWS", rows)
            *blocks, hessian = found(looped=True)
            for one, other in zip(blocks, whole[:-1], strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-10)
            np.testing.assert_allclose(hessian, whole[-1], rtol=1e-9, atol=1e-9)


def test_likelihood_is_taken_apart():
    """Parameters swapped, or not spread to one value a row."""
    problem = join(student_t, X, Y)
    z = points(problem, 1)[0]
    found, sites = problem.likelihood(z, problem.x), problem.constrain(z)
    assert found.family is dist.StudentT and not found.is_normal
    np.testing.assert_allclose(found.parameters["df"], np.full(ROWS, sites["df"]), rtol=RELATIVE)
    np.testing.assert_allclose(found.parameters["loc"], X @ sites["w"], rtol=RELATIVE)
    np.testing.assert_allclose(found.parameters["scale"], np.full(ROWS, 0.7), rtol=RELATIVE)


# --- starts -----------------------------------------------------------------------------------------------------------

NUM_DRAWS = 4000


def assert_moments(draws: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
    """Mean and variance of ``draws (N, k)``; standard errors from the truth and from the draws' fourth moment."""
    count = len(draws)
    assert (np.abs(draws.mean(0) - mean) < NUM_ERRORS * np.sqrt(variance / count)).all()
    squares = (draws - mean) ** 2
    assert (np.abs(squares.mean(0) - variance) < NUM_ERRORS * squares.std(0) / np.sqrt(count)).all()


def test_prior_draws_have_the_moments_of_the_prior():
    """Draws on the constrained scale, draws of another site's prior, or one key for all sites."""
    problem = join(many_supports, X, Y)
    draws = quick(jax.vmap(problem.prior_draw))(jax.random.split(jax.random.PRNGKey(0), NUM_DRAWS))
    raw = jax.vmap(problem.layout.unflatten)(draws)
    # The log of a LogNormal is Normal; that of |N(0, s²)| is log s + (log 2 + log Gamma(1/2, 1)) / 2.
    half_normal = np.log(0.8) + 0.5 * (np.log(2) + special.digamma(0.5))
    logs = np.column_stack([raw["spread"], raw["noise"]])
    assert_moments(logs, np.array([-0.2, half_normal]), np.array([0.25, np.pi**2 / 8]))
    # A Uniform's logit is logistic, of variance π²/3.
    assert_moments(np.asarray(raw["slope"])[:, None], np.zeros(1), np.array([np.pi**2 / 3]))
    alpha = np.array([1.5, 2.0, 4.0])
    mean = alpha / alpha.sum()
    share = quick(jax.vmap(problem.constrain))(draws)["share"]
    assert_moments(np.asarray(share), mean, mean * (1 - mean) / (alpha.sum() + 1))
    # Independent sites: a correlation over N draws has standard error 1 / √N.
    correlation = np.corrcoef(np.column_stack([logs, raw["slope"], raw["share"][:, 0]]).T)
    assert np.abs(correlation - np.eye(4)).max() < NUM_ERRORS / np.sqrt(NUM_DRAWS)


def test_prior_draws_of_auxiliary_sites_are_standard_normal():
    """A draw of w put where w_decentered belongs: it would be multiplied by the spread twice."""
    problem = join(reparameterised, X, Y)
    draws = quick(jax.vmap(problem.prior_draw))(jax.random.split(jax.random.PRNGKey(1), NUM_DRAWS))
    raw = jax.vmap(problem.layout.unflatten)(draws)
    assert_moments(np.asarray(raw["w_decentered"]), np.zeros(COLUMNS), np.ones(COLUMNS))


@some("heteroscedastic_mlp", "many_supports", "reparameterised")
def test_a_start_has_a_finite_value_which_is_its_own(model):
    """The value of another try than that returned, or the potential instead."""
    problem = join(model, X, Y)
    z, value = quick(problem.starts)(jax.random.split(jax.random.PRNGKey(5), 2))
    assert z.shape == (2, problem.size) and bool(jnp.all(jnp.isfinite(z))) and bool(jnp.all(jnp.isfinite(value)))
    np.testing.assert_allclose(value, jax.vmap(problem.log_posterior)(z), rtol=RELATIVE)


def half_forbidden(x, y=None, below=0.0):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.factor("cut", jnp.where(w > below, 0.0, -jnp.inf))
    numpyro.sample("y", dist.Normal(w * x[:, 0], 0.7), obs=y)


def nowhere_finite(x, y=None):
    half_forbidden(x, y, below=jnp.inf)


def test_a_start_tries_again_until_the_density_is_finite():
    """One try only, or the same key at every try: half of the chains would start at -inf."""
    problem = join(half_forbidden, X, Y)
    z, value = quick(problem.starts)(jax.random.split(jax.random.PRNGKey(0), 40))
    assert bool(jnp.all(jnp.isfinite(value))) and bool(jnp.all(z > 0))
    assert len(np.unique(np.asarray(z))) == 40


def test_a_start_gives_up_where_no_try_is_finite():
    """A loop without end, or a made-up finite value."""
    _, value = quick(join(nowhere_finite, X, Y).starts)(jax.random.split(jax.random.PRNGKey(0), 2))
    assert not bool(jnp.any(jnp.isfinite(value)))


def test_simulated_targets_come_from_the_simulated_weights():
    """Calibration with y of other weights than those reported: ranks would be wrong, or y without noise."""
    problem = join(make_closure(1.0), X, Y)
    z, y = quick(jax.vmap(problem.simulate))(jax.random.split(jax.random.PRNGKey(2), NUM_DRAWS))
    noise = np.asarray(y - z @ problem.x.T)
    assert_moments(noise, np.zeros(ROWS), np.full(ROWS, 0.49))
    assert_moments(np.asarray(z), np.zeros(COLUMNS), np.full(COLUMNS, 2.25))


# --- refusals ---------------------------------------------------------------------------------------------------------


def weights() -> jax.Array:
    return numpyro.sample("w", dist.Normal(jnp.zeros(COLUMNS), 1.0))


def unobserved(x, y=None):
    numpyro.sample("y", dist.Normal(x @ weights(), 1.0))


def only_rows_of_y_unused(x, y=None):
    weights()


def twice_observed(x, y=None):
    f = x @ weights()
    numpyro.sample("y", dist.Normal(f, 1.0), obs=y)
    numpyro.sample("again", dist.Normal(f, 2.0), obs=y)


def discrete_latent(x, y=None):
    switch = numpyro.sample("switch", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(switch * (x @ weights()), 1.0), obs=y)


def local_latent(x, y=None):
    with numpyro.plate("rows", x.shape[0]):
        effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(effect, 1.0), obs=y)


def subsampled(x, y=None):
    f = x @ weights()
    with numpyro.plate("rows", x.shape[0], subsample_size=BATCH) as rows:
        numpyro.sample("y", dist.Normal(f[rows], 1.0), obs=None if y is None else y[rows])


def one_column(x, y=None):
    numpyro.sample("y", dist.Normal((x @ weights())[:, None], 1.0), obs=y)


def rows_by_rows(x, y=None):
    numpyro.sample("y", dist.Normal(jnp.broadcast_to((x @ weights())[:, None], (len(x), len(x))), 1.0), obs=y)


def factor_by_row(x, y=None):
    f = x @ weights()
    numpyro.factor("rows", -0.5 * (jnp.zeros(len(x)) if y is None else y - f) ** 2)
    numpyro.sample("y", dist.Normal(f, 1.0), obs=y)


def slashed(x, y=None):
    w = numpyro.sample("layer/w", dist.Normal(jnp.zeros(COLUMNS), 1.0))
    numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def without_latents(x, y=None):
    numpyro.sample("y", dist.Normal(x[:, 0], 1.0), obs=y)


def broken(x, y=None):
    w = numpyro.sample("w", dist.Normal(jnp.zeros(COLUMNS + 1), 1.0))
    numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def mixed(x, y=None):
    f = x @ weights()
    either = dist.Normal(jnp.stack([f, -f], -1), 1.0)
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(jnp.full((len(x), 2), 0.5)), either), obs=y)


CALLABLE = "A model is any NumPyro callable model(x, y=None) that observes y at one site."
REFUSED = {
    "unobserved": (unobserved, ZooValueError, CALLABLE),
    "no site y": (only_rows_of_y_unused, ZooValueError, f"exactly one observed site; got none. {CALLABLE}"),
    "two observed": (twice_observed, ZooValueError, f"exactly one observed site; got 'y', 'again'. {CALLABLE}"),
    "discrete": (discrete_latent, ZooValueError, "site 'switch', BernoulliProbs. Sum it out of the model."),
    "local": (
        local_latent,
        ZooValueError,
        f"site 'effect', whose shape follows the rows: ({ROWS},). Marginalise it out, or make it a global parameter.",
    ),
    "subsampled": (subsampled, ZooValueError, f"{BATCH} of {ROWS} rows. Give the method a batch_size instead"),
    "(n, 1)": (one_column, ZooValueError, "If the network ends in one column, take it: f[:, 0]."),
    "(n, n)": (rows_by_rows, ZooValueError, "If the network ends in one column, take it: f[:, 0]."),
    "factor": (factor_by_row, ZooValueError, "Observe y through a distribution: numpyro.sample('y', ..., obs=y)."),
    "slash": (slashed, ZooValueError, "got 'layer/w'. Rename the site."),
    "no latents": (without_latents, ZooValueError, "Give its weights priors."),
    "broken": (broken, ZooValueError, "model should be runnable as model(x, y); got TypeError with x (12, 2)"),
    "mixture": (mixed, ZooTypeError, "Observe a Normal, StudentT, Laplace, Gamma, Poisson or the like."),
    "class": (zoo.models.MLP, ZooTypeError, "Call it: MLP()."),
    "not callable": (3.5, ZooTypeError, f"got 3.5. {CALLABLE}"),
}


def factor_as_long_as_the_data(x, y=None):
    w = weights()
    numpyro.factor("sparse", -jnp.abs(jnp.linspace(0.0, 1.0, ROWS) * w[0]))
    numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def test_a_prior_factor_may_be_as_long_as_the_data():
    """Telling a factor of the rows by its length at one number of rows."""
    problem, plain = join(factor_as_long_as_the_data, X, Y), join(without_factor, X, Y)
    z = points(problem, 1)[0]
    extra = -float(jnp.abs(z[0])) * ROWS / 2
    np.testing.assert_allclose(problem.log_prior(z), plain.log_prior(z) + extra, rtol=RELATIVE)
    np.testing.assert_allclose(problem.log_likelihood(z), plain.log_likelihood(z), rtol=RELATIVE)


def without_factor(x, y=None):
    numpyro.sample("y", dist.Normal(x @ weights(), 1.0), obs=y)


@pytest.mark.parametrize(("model", "error", "mend"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_at_the_door_with_a_mend(model, error, mend):
    """A program whose density would be wrong or meaningless let through, or refused without saying what to do."""
    with pytest.raises(error, match=re.escape(mend)):
        join(model, X, Y)


class Unhashable:
    __hash__ = None

    def __call__(self, x, y=None):
        plate_over_rows(x, y)


def test_an_unhashable_callable_is_a_model_too():
    """Compiled programs are kept by model: one that cannot be hashed would fail at the first jit."""
    model = Unhashable()
    problem = join(model, X, Y)
    z = points(problem, 1)[0]
    value = quick(lambda problem, z: problem.log_posterior(z))(problem, z)
    np.testing.assert_allclose(value, join(plate_over_rows, X, Y).log_posterior(z), rtol=RELATIVE)
