"""``zoo.compare``: distances between known distributions, paired errors, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm, spearmanr

import bnn_zoo as zoo
from bnn_zoo.engine import simplex
from bnn_zoo.reports import comparison, left_out

METHOD = zoo.methods.NUTS(num_warmup=5, num_samples=5, num_chains=1, start="prior")
X = np.linspace(-1, 1, 40)[:, None]
Y = 2 * X[:, 0] + 0.5 * np.sin(37 * X[:, 0])


def fitted(noise: float) -> zoo.Posterior:
    model = zoo.models.Linear(noise=noise)
    return zoo.fit(model, METHOD, (X, Y), standardize=False, precision="float64", progress=False)


@pytest.fixture(scope="module")
def narrow() -> zoo.Posterior:
    return fitted(0.5)


@pytest.fixture(scope="module")
def wide() -> zoo.Posterior:
    return fitted(1.3)


def with_lines(posterior: zoo.Posterior, *lines: tuple[float, float]) -> zoo.Posterior:
    """The same model with draws put by hand: slope and intercept, so that every prediction is a known mixture."""
    positions = np.array(lines, float)[None]
    return replace(posterior, result=replace(posterior.result, positions=positions, stats={}), attributes={})


def distances(one, other, x):
    return comparison.distances(one.predict(x), other.predict(x))


@pytest.mark.parametrize("shift", [0.0, 0.01, 1.0, 8.0])
def test_two_normals_of_one_width(narrow, shift):
    """W2 is the shift, TV is 2Φ(shift/2σ) − 1. To 1e-6: fails if TV loses its ½."""
    x = np.array([[0.3], [-2.0]])
    found = distances(with_lines(narrow, (2, 1)), with_lines(narrow, (2, 1 + shift)), x)
    assert found == pytest.approx((shift, 2 * ndtr(shift / 2 / 0.5) - 1), abs=1e-6)


def test_two_normals_of_different_widths_and_places(narrow, wide):
    """W2² = (μ₁ − μ₂)² + (σ₁ − σ₂)²; TV from where the densities cross; fails if levels are not weighted."""
    x = np.array([[0.0], [1.0], [3.0]])
    w2, tv = [], []
    for gap in x[:, 0]:  # slopes 2 and 1: the means differ by x
        w2.append(np.hypot(gap, 1.3 - 0.5))

        def difference(y, gap=gap):
            return norm.logpdf(y, gap, 0.5) - norm.logpdf(y, 0, 1.3)

        low, high = brentq(difference, gap - 20, gap), brentq(difference, gap, gap + 20)
        inside = [norm.cdf(high, m, s) - norm.cdf(low, m, s) for m, s in ((gap, 0.5), (0, 1.3))]
        tv.append(inside[0] - inside[1])
    found = distances(with_lines(narrow, (2, 0)), with_lines(wide, (1, 0)), x)
    assert found[0] == pytest.approx(np.mean(w2), rel=1e-5)  # what lies beyond 5 sds is 1.5e-5 of (σ₁ − σ₂)²
    assert found[1] == pytest.approx(np.mean(tv), rel=2e-3)  # what cancels inside a cell, of 1/20 sd


def test_mixtures_with_a_gap(narrow, wide):
    """Two modes 12 sds apart, unequal weights, against dense exact quantiles and densities, to 1 % and 1 %."""
    one = with_lines(narrow, (0, -3), (0, 3), (0, 3.2))
    other = with_lines(wide, (0, -1), (0, 2))
    x = np.zeros((1, 1))
    u = (np.arange(20_000) + 0.5) / 20_000
    w2 = np.sqrt(np.mean((one.predict(x).quantile(u) - other.predict(x).quantile(u)) ** 2))
    y = np.linspace(-12, 12, 20_001)
    density = [
        np.mean([norm.pdf(y, c, s) for c in centres], axis=0) for centres, s in (((-3, 3, 3.2), 0.5), ((-1, 2), 1.3))
    ]
    tv = np.trapezoid(np.abs(density[0] - density[1]), y) / 2
    found = distances(one, other, x)
    assert found[0] == pytest.approx(w2, rel=0.01)
    assert found[1] == pytest.approx(tv, rel=0.01)


def test_distances_are_symmetric_and_zero_from_itself(narrow, wide):
    one, other, x = with_lines(narrow, (1, 0), (2, 1)), with_lines(wide, (1, 1)), X[:5]
    assert distances(one, other, x) == pytest.approx(distances(other, one, x), rel=1e-12)
    assert distances(one, one, x) == pytest.approx((0, 0), abs=1e-9)


def test_the_table(narrow, wide):
    """Scores are those of `evaluate`; differences are paired, so that their error is far below that of nll itself."""
    posteriors = {"a": with_lines(narrow, (2, 0.1), (2.1, 0)), "b": with_lines(wide, (1, 0), (1.2, 0.1))}
    frame = zoo.compare(posteriors, (X, Y), reference="b")
    assert list(frame.index) == ["a", "b"]
    notes = frame.attrs.pop("notes")
    assert frame.attrs == {"rows": 40, "best": "a", "reference": "b"}
    assert len(notes) == 2 and "'a' has 2 draws, too few for Pareto k-hat." in notes[0]
    assert frame.loc[:, ["elpd_loo", "k_high", "loo_weight", "log_evidence"]].isna().all(axis=None)
    pointwise: dict[str, dict[str, np.ndarray]] = {"nll": {}, "crps": {}, "squared_error": {}}
    for name, posterior in posteriors.items():
        scores = posterior.evaluate(X, Y)
        for score, value in scores.items():
            assert frame.loc[name, score] == pytest.approx(value)
            assert frame.loc[name, f"{score}_se"] == pytest.approx(scores.attrs["standard_error"][score])
        prediction = posterior.predict(X)
        pointwise["nll"][name] = -prediction.log_prob(Y)
        pointwise["crps"][name] = prediction.crps(Y)
        pointwise["squared_error"][name] = (prediction.mean - Y) ** 2
        assert frame.loc[name, "draws"] == 2
        assert frame.loc[name, "gradients"] == posterior.timing.gradient_evaluations
        assert frame.loc[name, "verdict"] == posterior.diagnose().verdict
        assert frame.loc[name, "megabytes"] == pytest.approx(2 * 2 * 8 / 1e6)
    for score, values in pointwise.items():
        gap = values["b"] - values["a"]
        assert gap.mean() > 0
        assert frame.loc["b", f"{score}_difference"] == pytest.approx(gap.mean())
        assert frame.loc["b", f"{score}_difference_se"] == pytest.approx(gap.std(ddof=1) / np.sqrt(40))
        assert tuple(frame.loc["a", [f"{score}_difference", f"{score}_difference_se"]]) == (0, 0)
    assert frame.loc["b", list(comparison.DISTANCES)].tolist() == [0, 0, 1, 1]
    one, other = (posteriors[name].predict(X) for name in "ab")
    assert frame.loc["a", "epistemic_ratio"] == pytest.approx((one.epistemic_std / other.epistemic_std).mean())
    rank = spearmanr(one.std, other.std).statistic
    assert frame.loc["a", "uncertainty_rank_correlation"] == pytest.approx(rank)
    assert abs(rank) < 0.999


def about(posterior: zoo.Posterior, slope: float, intercept: float, seed: int) -> zoo.Posterior:
    """2 × 100 draws about a line."""
    drawn = [slope, intercept] + 0.05 * np.random.default_rng(seed).normal(size=(2, 100, 2))
    return replace(posterior, result=replace(posterior.result, positions=drawn, stats={}))


def as_members(posterior: zoo.Posterior) -> zoo.Posterior:
    return replace(posterior, result=replace(posterior.result, kind="members"))


def test_leave_one_out_columns(narrow, wide):
    """Scores, paired differences and weights are those of `zoo.loo`; a point has none, and says so."""
    parts = {"a": about(narrow, 2, 0, 0), "b": about(wide, 1.5, 0.2, 1), "c": as_members(with_lines(narrow, (2, 0)))}
    frame = zoo.compare(parts, (X, Y))
    found = {name: zoo.loo(parts[name]) for name in "ab"}
    for name, one in found.items():
        row = frame.loc[name]
        assert (row["elpd_loo"], row["elpd_loo_se"], row["p_loo"]) == pytest.approx((one.elpd, one.se, one.p))
        assert row["k_high"] == (one.pareto_k > 0.7).sum() and row["loo_by"] == "psis"
    gap = (found["b"].elpd_i - found["a"].elpd_i).values
    assert gap.sum() < 0
    assert frame.loc["b", "elpd_difference"] == pytest.approx(gap.sum())
    assert frame.loc["b", "elpd_difference_se"] == pytest.approx(gap.std(ddof=1) * np.sqrt(40))
    assert frame.loc["a", "elpd_difference"] == 0
    weights, _ = simplex.most_likely(np.stack([one.elpd_i.values for one in found.values()], 1))
    assert tuple(frame.loc[["a", "b"], "loo_weight"]) == pytest.approx(tuple(weights), abs=1e-9)
    assert np.isnan(frame.loc["c", "elpd_loo"]) and frame.loc["c", "loo_by"] == ""
    (note,) = frame.attrs["notes"]
    assert note.startswith("'c' has members")
    bare = zoo.compare(parts, (X, Y), loo=False)
    assert not any("loo" in column or "elpd" in column for column in bare)


def test_leave_one_out_of_other_rows_cannot_be_compared(narrow, caplog):
    parts = {"a": about(narrow, 2, 0, 0), "b": replace(about(narrow, 1, 0, 1), data=zoo.Dataset(X, Y + 1))}
    frame = zoo.compare(parts, (X, Y))
    assert frame["elpd_loo"].isna().all() and "not fitted to the same rows" in caplog.text
    assert "not fitted to the same rows" in frame.attrs["notes"][0]


def test_folds_are_fitted_only_when_asked_for(narrow, monkeypatch):
    """K-fold where PSIS-LOO means nothing, with the posterior's own model, method, seed and scaling; never unasked."""
    asked = []

    def folds(model, method, data, **settings):
        asked.append((model, method, data, settings))
        return real(model, method, data, **settings | {"progress": False})

    real = left_out.kfold
    monkeypatch.setattr(left_out, "kfold", folds)
    parts = {"a": about(narrow, 2, 0, 0), "b": as_members(narrow)}
    zoo.compare(parts, (X, Y))
    assert asked == []
    frame = zoo.compare(parts, (X, Y), loo="kfold")
    ((model, method, data, settings),) = asked
    assert (model, method) == (narrow.model, narrow.method) and data is narrow.data
    assert settings == {"k": 10, "seed": 0, "standardize": False, "precision": "float64"}
    assert frame["loo_by"].tolist() == ["psis", "kfold"] and frame["elpd_loo"].notna().all()
    lppd = parts["b"].predict(X).log_prob(Y).sum()
    assert frame.loc["b", "p_loo"] == pytest.approx(lppd - frame.loc["b", "elpd_loo"])
    assert "by 10 folds" in frame.attrs["notes"][0]


def test_scores_of_a_prediction_run_the_network_once(narrow, monkeypatch):
    """`evaluate`, paired differences and the page ask for the same rows; other rows are not mistaken for them."""
    prediction, ran = with_lines(narrow, (2, 0), (1, 0)).predict(X), []
    real = comparison.mixture.evaluate

    def counted(name, parts, *args):
        ran.append(name)
        return real(name, parts, *args)

    monkeypatch.setattr(comparison.mixture, "evaluate", counted)
    first = prediction.crps(Y)
    first[:] = 0
    assert (prediction.crps(Y) > 0).all() and ran == ["crps"]
    assert not np.array_equal(prediction.crps(Y + 1), prediction.crps(Y)) and ran == ["crps"] * 3


def test_columns_that_were_not_fitted_are_left_out(narrow):
    data = zoo.Dataset(np.column_stack([np.full(40, 9.0), X[:, 0]]), Y, feature_names=("other", "x0"), target_name="y")
    known = replace(narrow, data=zoo.Dataset(X, Y, feature_names=("x0",)))
    frame = zoo.compare({"one": known}, data)
    assert frame.loc["one", "rmse"] == pytest.approx(narrow.evaluate(X, Y)["rmse"])


def test_one_network_has_no_ratio_and_no_ranks(narrow):
    point = with_lines(narrow, (2, 0))
    frame = zoo.compare({"point": point, "two": with_lines(narrow, (2, 0), (1, 0))}, (X, Y), reference="point")
    assert frame.loc[:, ["epistemic_ratio", "uncertainty_rank_correlation"]].isna().all(axis=None)
    assert frame.loc["two", "wasserstein2"] > 0


def test_distances_of_many_rows_are_of_some(narrow, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_POINTS", 7)
    rows = comparison._some_rows(40)
    assert len(set(rows)) == 7 and rows.max() < 40
    posteriors = {"a": with_lines(narrow, (2, 0)), "b": with_lines(narrow, (1, 0))}
    frame = zoo.compare(posteriors, (X, Y), reference="a")
    assert frame.loc["b", "wasserstein2"] == pytest.approx(np.abs(X[rows, 0]).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("posteriors", "reference", "mend"),
    [
        ([1], None, "Pass {'nuts': posterior"),
        ({}, None, "Pass {'nuts': posterior"),
        ({"a": 3}, None, "zoo.fit and zoo.load return"),
        ("one", "nust", "Did you mean 'nuts'"),
    ],
)
def test_refusals(narrow, posteriors, reference, mend):
    posteriors = {"nuts": narrow} if posteriors == "one" else posteriors
    with pytest.raises(zoo.errors.ZooError, match=mend):
        zoo.compare(posteriors, (X, Y), reference=reference)


def test_an_unknown_way_to_leave_out_is_refused(narrow):
    with pytest.raises(zoo.errors.ZooValueError, match="loo should be one of 'auto', 'kfold', False"):
        zoo.compare({"a": narrow}, (X, Y), loo="psis")
