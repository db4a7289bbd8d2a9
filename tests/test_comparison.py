"""``zoo.compare``: distances between known distributions, paired errors, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm, spearmanr

import bnn_zoo as zoo
from bnn_zoo.reports import comparison

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
    assert frame.attrs == {"rows": 40, "best": "a", "reference": "b"}
    nll = {}
    for name, posterior in posteriors.items():
        scores = posterior.evaluate(X, Y)
        for score, value in scores.items():
            assert frame.loc[name, score] == pytest.approx(value)
            if score != "calibration_error":
                assert frame.loc[name, f"{score}_se"] == pytest.approx(scores.attrs["standard_error"][score])
        nll[name] = -posterior.predict(X).log_prob(Y)
        assert frame.loc[name, "draws"] == 2
        assert frame.loc[name, "gradients"] == posterior.timing.gradient_evaluations
        assert frame.loc[name, "verdict"] == posterior.diagnose().verdict
    gap = nll["b"] - nll["a"]
    assert frame.loc["b", "nll_difference"] == pytest.approx(gap.mean())
    assert frame.loc["b", "nll_difference_se"] == pytest.approx(gap.std(ddof=1) / np.sqrt(40))
    assert tuple(frame.loc["a", ["nll_difference", "nll_difference_se"]]) == (0, 0)
    assert frame.loc["b", list(comparison.DISTANCES)].tolist() == [0, 0, 1, 1]
    one, other = (posteriors[name].predict(X) for name in "ab")
    assert frame.loc["a", "epistemic_ratio"] == pytest.approx((one.epistemic_std / other.epistemic_std).mean())
    rank = spearmanr(one.std, other.std).statistic
    assert frame.loc["a", "uncertainty_rank_correlation"] == pytest.approx(rank)
    assert abs(rank) < 0.999


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
