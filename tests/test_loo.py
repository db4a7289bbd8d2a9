"""``zoo.loo`` and ``zoo.kfold``: against ArviZ on the same tree, and against closed forms of the linear model."""

from __future__ import annotations

from dataclasses import replace

import arviz_stats
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import bnn_zoo as zoo
from bnn_zoo.reports.loo import relative_efficiency
from tests.oracles import LinearPosterior

RNG = np.random.default_rng(3)
X = RNG.uniform(-2, 2, (30, 2))
Y = X @ [1.5, -0.7] + 0.3 + 0.5 * RNG.standard_t(4, 30)
MODEL = zoo.models.Linear(weight_scale=1.3, bias_scale=0.8, noise=0.5)
EXACT = LinearPosterior(X, Y, 1.3, 0.8, 0.5)
PLAIN = {"standardize": False, "precision": "float64", "progress": False}


def left_out() -> np.ndarray:
    """log p(y_i | y_-i) in closed form: the predictive of the posterior of the other rows."""
    found = np.empty(len(Y))
    for i in range(len(Y)):
        rest = np.arange(len(Y)) != i
        mean, sd = LinearPosterior(X[rest], Y[rest], 1.3, 0.8, 0.5).predictive(X[i : i + 1])
        found[i] = stats.norm.logpdf(Y[i], mean[0], sd[0])
    return found


def with_draws(posterior: zoo.Posterior, positions: np.ndarray, **stats: np.ndarray) -> zoo.Posterior:
    """The same model with draws ``(C, S, p)`` put by hand."""
    return replace(posterior, result=replace(posterior.result, positions=positions, stats=stats))


@pytest.fixture(scope="module")
def short() -> zoo.Posterior:
    return zoo.fit(MODEL, zoo.methods.NUTS(num_warmup=100, num_samples=100, num_chains=2), (X, Y), **PLAIN)


@pytest.fixture(scope="module")
def exact(short) -> zoo.Posterior:
    """4 × 1,000 independent draws from the exact posterior, in the place of NUTS's."""
    assert [slot.name for slot in short.problem.layout.slots] == ["w_0", "b_0"]  # as in the closed form
    drawn = np.random.default_rng(1).multivariate_normal(EXACT.mean, EXACT.cov, (4, 1000))
    return with_draws(short, drawn)


@pytest.mark.filterwarnings("ignore:Estimated shape")
def test_loo_is_arvizs_on_the_same_tree(short):
    """Another row order, float32, a Jacobian forgotten, or draws mixed up. The arithmetic is ArviZ's: to 1e-10."""
    found = zoo.loo(short)
    efficiency = relative_efficiency(short.log_likelihood(X, Y))
    assert 0 < efficiency <= 1
    theirs = arviz_stats.loo(short.idata, reff=efficiency, pointwise=True)
    for name in ("elpd", "se", "p", "good_k", "n_samples", "n_data_points", "warning"):
        assert getattr(found, name) == pytest.approx(getattr(theirs, name), rel=1e-10), name
    np.testing.assert_allclose(found.elpd_i, theirs.elpd_i, rtol=1e-10)
    np.testing.assert_allclose(found.pareto_k, theirs.pareto_k, rtol=1e-8)
    k = array_stats.psislw(np.moveaxis(short.log_likelihood(X, Y).reshape(-1, 30), 0, 1), r_eff=efficiency)[1]
    np.testing.assert_allclose(found.pareto_k, k, rtol=1e-8)


def test_blocks_of_rows_are_put_together_in_order(short, monkeypatch):
    from bnn_zoo.engine import predictive

    whole = zoo.loo(short)
    monkeypatch.setattr(predictive, "block_rows", lambda draws, rows: 16)
    np.testing.assert_allclose(zoo.loo(short).elpd_i, whole.elpd_i, rtol=1e-12)


def test_loo_of_the_linear_model_is_the_closed_form(exact):
    """The weights 1 / p forgotten (then lppd, off by p_loo, 3 here), or their inverse.

    The error of a row is about sd(r) / √T, r the normalised ratio p(y_i|z)⁻¹ times p(y_i|z) over its mean, so that the
    estimate of the sum of 30 rows is judged by batches: its sd over 8 parts of the draws, over √8, and five of that.
    """
    found = zoo.loo(exact)
    assert (found.pareto_k < 0.5).all()
    parts = [zoo.loo(with_draws(exact, exact.result.positions[:, i::8])).elpd for i in range(8)]
    error = np.std(parts, ddof=1) / np.sqrt(8)
    assert error < 0.1
    assert abs(found.elpd - left_out().sum()) < 5 * error
    lppd = exact.predict(X).log_prob(Y).sum()
    assert abs(lppd - left_out().sum()) > 20 * error
    assert found.p == pytest.approx(lppd - found.elpd, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Estimated shape")
def test_draws_from_a_wide_density_are_weighted_to_the_posterior(short):
    """q has 1.5 times the posterior's sds: without log p − log q the score is of q. Against ArviZ, and closed form."""
    cov = 1.5**2 * EXACT.cov
    drawn = np.random.default_rng(2).multivariate_normal(EXACT.mean, cov, 4000)
    log_q = stats.multivariate_normal(EXACT.mean, cov).logpdf(drawn)
    method = zoo.methods.VI(guide="mean_field")
    wide = with_draws(replace(short, method=method, method_name="mean_field"), drawn[None], log_q=log_q[None])
    wide = replace(wide, result=replace(wide.result, kind="independent"))
    found = zoo.loo(wide)
    log_p = np.array([EXACT.log_density(theta) for theta in drawn])
    theirs = arviz_stats.loo_approximate_posterior(wide.idata, log_p, log_q, pointwise=True)
    np.testing.assert_allclose(found.elpd_i, theirs.elpd_i, rtol=1e-8)
    np.testing.assert_allclose(found.pareto_k, theirs.pareto_k, rtol=1e-5, atol=1e-8)
    assert found.approx_posterior
    # Weights to the posterior have an efficiency of (1.5² / √(2·1.5² − 1))⁻³ ≈ 0.6: as 2,400 draws of the exact one.
    parts = []
    for i in range(8):
        some = with_draws(wide, wide.result.positions[:, i::8], log_q=log_q[None, i::8])
        parts.append(zoo.loo(some).elpd)
    assert abs(found.elpd - left_out().sum()) < 5 * np.std(parts, ddof=1) / np.sqrt(8)


@pytest.mark.slow
def test_laplace_of_the_linear_model(short):
    """Laplace is exact here: its log ratios, found anew, are constant and change nothing."""
    laplace = zoo.fit(MODEL, zoo.methods.Laplace(num_samples=2000), (X, Y), **PLAIN)
    assert abs(zoo.loo(laplace).elpd - left_out().sum()) < 0.2  # 2,000 draws: five times the error of 4,000 found above


def test_a_row_that_weighs_too_much_has_a_high_k(exact):
    """An outlier at a corner: leaving it out moves the posterior, and k says that draws cannot tell."""
    y = Y.copy()
    x = X.copy()
    x[0], y[0] = (9.0, 9.0), -20.0
    shifted = LinearPosterior(x, y, 1.3, 0.8, 0.5)
    drawn = np.random.default_rng(4).multivariate_normal(shifted.mean, shifted.cov, (4, 500))
    found = zoo.loo(replace(with_draws(exact, drawn), data=zoo.Dataset(x, y)))
    assert found.pareto_k[0] > 1 and found.pareto_k[1:].median() < 0.7 and found.warning


def test_a_stuck_chain_has_no_score(short):
    """All weights equal: ArviZ cannot fit a tail, and raises; here the rows are not a number."""
    positions = np.repeat(short.result.positions[:, :1], 50, axis=1)[:1]
    found = zoo.loo(with_draws(short, positions))
    assert np.isnan(found.elpd) and found.elpd_i.isnull().all() and found.warning


def test_relative_efficiency_of_a_slow_chain():
    """Of an AR(1) chain of correlation ρ it is (1 − ρ) / (1 + ρ), 1/9 here; the likelihood is smooth in it."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(4, 5000, 3))
    z = np.empty_like(noise)
    z[:, 0] = noise[:, 0]
    for t in range(1, 5000):
        z[:, t] = 0.8 * z[:, t - 1] + 0.6 * noise[:, t]
    # About 2,200 effective draws of each of three: the ESS is known to some 10 %.
    assert relative_efficiency(0.1 * z) == pytest.approx(1 / 9, rel=0.3)
    assert relative_efficiency(0.1 * noise) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "members"}, "members, by nuts"),
        ({"kind": "independent"}, "whose density is not known"),
        ({"positions": np.zeros((1, 20, 3))}, "20 draws, too few"),
    ],
)
def test_where_loo_means_nothing_it_is_refused(short, change, said):
    with pytest.raises(zoo.errors.ZooValueError, match=f"{said}.*kfold"):
        zoo.loo(replace(short, result=replace(short.result, stats={}, **change)))


def test_tempered_chains_are_refused(short):
    cold = replace(short, method=zoo.methods.SGLD(temperature=0.1), method_name="sgld")
    with pytest.raises(zoo.errors.ZooValueError, match=r"temperature 0\.1"):
        zoo.loo(cold)


# --- K-fold -----------------------------------------------------------------------------------------------------------


def test_kfold_of_the_linear_model_is_the_closed_form(compilations):
    """A row scored by a fit that saw it, or scores in another order. Linearised Laplace is exact here: to 1e-5."""
    found = zoo.kfold(MODEL, zoo.methods.Laplace(num_samples=10), (X, Y), k=5, **PLAIN)
    fold = np.random.default_rng(0).permutation(30) % 5
    truth = np.empty(30)
    for i in range(5):
        rest = fold != i
        mean, sd = LinearPosterior(X[rest], Y[rest], 1.3, 0.8, 0.5).predictive(X[~rest])
        truth[~rest] = stats.norm.logpdf(Y[~rest], mean, sd)
    np.testing.assert_allclose(found.elpd_i, truth, rtol=1e-5)
    assert found.elpd == pytest.approx(truth.sum(), rel=1e-5)
    assert found.se == pytest.approx(np.sqrt(30) * truth.std(ddof=1), rel=1e-5)
    assert np.isnan(found.p) and found.n_folds == 5 and "kfold" in repr(found)
    compilations.reset()
    zoo.kfold(MODEL, zoo.methods.Laplace(num_samples=10), (X, Y), k=5, seed=1, **PLAIN)
    assert compilations.count == 0  # folds are of one size


@pytest.mark.parametrize(("k", "mend"), [(1, "at least 2"), (31, "10 is usual"), (2.5, "whole number")])
def test_folds_that_cannot_be_made(k, mend):
    with pytest.raises(zoo.errors.ZooError, match=mend):
        zoo.kfold(MODEL, "map", (X, Y), k=k)


def test_the_tree_has_beside_each_draw_the_observations_that_it_makes():
    """ArviZ's loo_pit weighs predictive draws by the likelihood of the draw beside them.

    Fails where predictive draws come in an order of their own: f(x) of other draws is off by its sd.
    """
    x = np.random.default_rng(0).normal(size=(5, 1))
    method = zoo.methods.NUTS(num_warmup=100, num_samples=50, num_chains=2, start="prior")
    posterior = zoo.fit(zoo.models.Linear(noise=1.0), method, (x, x[:, 0]), standardize=False, progress=False)
    made = posterior.idata["posterior_predictive"]["y"].to_numpy()
    residuals = made - posterior.function_draws(x)
    # Residuals of their own draw are the noise, sd 1 over 500 numbers to 1 / √1000; of another's they are wider.
    assert residuals.std() == pytest.approx(1, abs=4 / np.sqrt(1000))
    assert (made - posterior.function_draws(x)[:, ::-1]).std() > 1.1
    assert abs(np.corrcoef(residuals.ravel(), posterior.function_draws(x).ravel())[0, 1]) < 4 / np.sqrt(500)
