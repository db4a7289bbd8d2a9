"""Scores against independent implementations, their standard errors against simulation, gaps, and plots of scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import scoringrules as sr
from arviz_stats.ecdf_utils import ecdf_pit
from matplotlib.figure import Figure
from numpyro import distributions as dist
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import roc_auc_score

import bnn_zoo as zoo
from bnn_zoo import plots
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.reports import gaps, scores
from bnn_zoo.reports.score_plots import uniform_band
from bnn_zoo.reports.sparsification import area_under_error, curve

COVERAGES = ["coverage_50", "coverage_80", "coverage_90", "coverage_95"]
MAP = zoo.methods.MAP(num_restarts=1, num_steps=20, polish_steps=0)
ENSEMBLE = zoo.methods.DeepEnsemble(num_members=3, num_steps=20)


@dataclass(frozen=True, eq=False)
class Known:
    """Components ``(T, n)`` put by hand."""

    parameters: dict
    family: type = dist.Normal

    @property
    def scaling(self) -> Scaling:
        return Scaling.none(1)

    @property
    def num_draws(self) -> int:
        return len(next(iter(self.parameters.values())))

    @property
    def is_normal(self) -> bool:
        return self.family is dist.Normal

    def blocks(self) -> Iterator[tuple[slice, Likelihood]]:
        rows = next(iter(self.parameters.values())).shape[1]
        yield slice(0, rows), Likelihood(self.parameters, self.family)


def mixture(loc: np.ndarray, scale: np.ndarray) -> zoo.Prediction:
    """Prediction by an equal mixture of Normals, ``loc`` and ``scale`` ``(T, n)``."""
    source = Known({"loc": loc, "scale": scale})
    return zoo.Prediction(loc.mean(0), loc.std(0), np.sqrt((scale**2).mean(0)), "monte_carlo", source)


def normal(loc: np.ndarray, scale: np.ndarray) -> zoo.Prediction:
    return mixture(loc[None], scale[None])


@pytest.fixture(scope="module")
def mixed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means and sds ``(7, 40)`` that overlap, and observations some of which lie far out."""
    generator = np.random.default_rng(3)
    loc, scale = generator.normal(size=(7, 40)), generator.uniform(0.2, 1.5, (7, 40))
    return loc, scale, 1.5 * generator.normal(size=40)


# --- against other implementations ------------------------------------------------------------------------------------


def test_one_normal_scores_as_scoringrules_says():
    generator = np.random.default_rng(1)
    loc, scale, y = generator.normal(size=50), generator.uniform(0.1, 3, 50), 2 * generator.normal(size=50)
    found = normal(loc, scale)
    got = scores.evaluate(found, y)
    low, high = norm.ppf([[0.05], [0.95]], loc, scale)
    assert got["crps"] == pytest.approx(sr.crps_normal(y, loc, scale).mean(), rel=1e-10)
    assert got["interval_score_90"] == pytest.approx(sr.interval_score(y, low, high, 0.1).mean(), rel=1e-9)
    assert got["interval_width_90"] == pytest.approx((high - low).mean(), rel=1e-9)
    assert got["mae"] == pytest.approx(np.abs(y - loc).mean(), rel=1e-10)
    assert got["nll"] == pytest.approx(-norm.logpdf(y, loc, scale).mean(), rel=1e-10)
    assert got["sharpness"] == pytest.approx(scale.mean())


def test_a_mixture_scores_as_scoringrules_says(mixed):
    loc, scale, y = mixed
    assert scores.evaluate(mixture(loc, scale), y)["crps"] == pytest.approx(
        sr.crps_mixnorm(y, loc, scale, np.full_like(loc, 1 / 7), m_axis=0).mean(), rel=1e-9
    )


def test_a_mixture_scores_as_its_own_samples(mixed):
    """Thirty sets of 4,000 samples a row give thirty estimates, whose scatter is the tolerance: 5 standard errors.

    Sample quantiles of 4,000 are biased by less than 1/4000 of an sd, far below it. Fails if α is not halved.
    """
    loc, scale, y = mixed
    generator = np.random.default_rng(5)
    found: dict[str, list] = {"crps": [], "interval_score_90": [], "mae": []}
    for _ in range(30):
        which = generator.integers(0, 7, size=(4000, 40))
        drawn = generator.normal(np.take_along_axis(loc, which, 0), np.take_along_axis(scale, which, 0)).T
        low, median, high = np.quantile(drawn, [0.05, 0.5, 0.95], axis=1)
        found["crps"].append(sr.crps_ensemble(y, drawn, estimator="pwm").mean())
        found["interval_score_90"].append(sr.interval_score(y, low, high, 0.1).mean())
        found["mae"].append(np.abs(y - median).mean())
    got = scores.evaluate(mixture(loc, scale), y)
    for name, values in found.items():
        error = np.std(values, ddof=1) / np.sqrt(30)
        assert abs(got[name] - np.mean(values)) < 5 * error, name
        assert error < 0.01 * got[name]


def test_quantiles_behind_the_scores_by_brute_force(mixed):
    loc, scale, y = mixed

    def quantile(q: float, row: int) -> float:
        return brentq(lambda at: norm.cdf(at, loc[:, row], scale[:, row]).mean() - q, -30, 30, xtol=1e-13)

    low, median, high = (np.array([quantile(q, row) for row in range(40)]) for q in (0.05, 0.5, 0.95))
    got = scores.evaluate(mixture(loc, scale), y)
    assert got["mae"] == pytest.approx(np.abs(y - median).mean(), rel=1e-9)
    assert got["interval_width_90"] == pytest.approx((high - low).mean(), rel=1e-9)
    assert got["coverage_90"] == ((low <= y) & (y <= high)).mean()
    assert got["coverage_80"] == np.mean([quantile(0.1, row) <= y[row] <= quantile(0.9, row) for row in range(40)])


def naive_ause(squared: np.ndarray, by: np.ndarray) -> float:
    """By the definition, row after row; no ties."""
    order, oracle = np.argsort(-by), np.argsort(-squared)
    total, whole = 0.0, np.sqrt(squared.mean())
    for removed in range(len(by)):
        left = [np.sqrt(squared[rows[removed:]].mean()) for rows in (order, oracle)]
        total += (left[0] - left[1]) / whole
    return total / len(by)


def test_ause_by_a_plain_loop():
    generator = np.random.default_rng(2)
    by = np.exp(generator.normal(size=60))
    squared = (by * generator.normal(size=60)) ** 2
    found = area_under_error(squared, by)[0]
    assert found == pytest.approx(naive_ause(squared, by), rel=1e-12)
    # Without unit, whatever the scale of either; and 0 for the order of the errors themselves.
    assert area_under_error(1e6 * squared, 7 * by)[0] == pytest.approx(found, rel=1e-12)
    assert area_under_error(squared, np.sqrt(squared)) == pytest.approx((0, 0), abs=1e-12)
    assert area_under_error(squared, -squared)[0] > found


def test_tied_sds_come_in_no_order():
    """A constant sd has a flat curve; a few values give the same whatever the order of rows, near the mean over it."""
    generator = np.random.default_rng(4)
    squared, by = generator.normal(size=90) ** 2, generator.integers(0, 3, 90).astype(float)
    np.testing.assert_allclose(curve(squared, np.ones(90)), np.sqrt(squared.mean()), rtol=1e-12)
    found, shuffled = area_under_error(squared, by), []
    for _ in range(200):
        order = generator.permutation(90)
        assert area_under_error(squared[order], by[order]) == pytest.approx(found, rel=1e-12)
        shuffled.append(naive_ause(squared[order], by[order] + 1e-9 * np.arange(90)))
    # Not exactly its mean, as the root of a mean is above the mean of roots: by 1 % where few rows are left.
    assert found[0] == pytest.approx(np.mean(shuffled), abs=5 * np.std(shuffled) / np.sqrt(200) + 0.01)


def test_no_error_at_all_is_no_area():
    assert area_under_error(np.zeros(5), np.arange(5.0)) == (0, 0)
    assert area_under_error(np.array([0.0, 0, 0, 4]), np.arange(4.0))[0] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("decimals", [12, 0])
def test_auroc_is_that_of_scikit_learn_and_its_error_that_of_delong(decimals):
    """With ties and without; the error by its definition, over all pairs."""
    generator = np.random.default_rng(6)
    inside = generator.normal(size=37).round(decimals)
    outside = (generator.normal(size=23) + 0.8).round(decimals)
    truth = np.repeat([0, 1], [37, 23])
    found, error = scores.auroc(inside, outside)
    assert found == pytest.approx(roc_auc_score(truth, np.concatenate([inside, outside])), rel=1e-12)
    won = (outside[:, None] > inside[None]) + 0.5 * (outside[:, None] == inside[None])
    expected = np.sqrt(won.mean(1).var(ddof=1) / 23 + won.mean(0).var(ddof=1) / 37)
    assert error == pytest.approx(expected, rel=1e-12)


def test_intervals_of_coverages_are_wilsons(mixed):
    loc, scale, y = mixed
    got = scores.evaluate(mixture(loc, scale), y)
    frame = got.attrs["interval"]
    assert list(frame.index) == COVERAGES
    for name in COVERAGES:
        expected = binomtest(round(got[name] * 40), 40).proportion_ci(0.95, method="wilson")
        assert tuple(frame.loc[name]) == pytest.approx((expected.low, expected.high), rel=1e-12)


# --- standard errors --------------------------------------------------------------------------------------------------


def test_standard_errors_are_the_scatter_over_data_sets():
    """250 sets of 300 rows, sds too small by a fifth: the sd of 250 values is known to 1/√500, 4.5 %; 5 of these.

    Fails if a mean's error lacks its √n or the root its 2.
    """
    generator = np.random.default_rng(7)
    values, errors = [], []
    for _ in range(250):
        loc, scale = generator.normal(size=300), generator.uniform(0.5, 2, 300)
        prediction = mixture(loc + np.outer([-0.5, 0.5], scale), np.stack([scale, scale]))
        away = generator.uniform(0.5, 2, 100) * generator.uniform(0.7, 2, 100)
        outside = mixture(np.outer([-0.5, 0.5], away), np.ones((2, 100)))
        y = generator.normal(loc, 1.25 * np.sqrt(1.25) * scale)
        got = scores.evaluate(prediction, y, outside=outside)
        values.append(got)
        errors.append(got.attrs["standard_error"])
    scatter = np.std(values, axis=0, ddof=1)
    ratio = dict(zip(values[0].index, np.mean(errors, axis=0) / scatter, strict=True))
    assert len(ratio) == 14
    for name, value in ratio.items():
        assert value == pytest.approx(1, abs=5 / np.sqrt(500)), name


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_error_of_the_calibration_error(calibrated):
    """700 sets: the sd is known to 2.7 %. Where nothing is wrong the bootstrap is above it, by an eighth or so."""
    generator = np.random.default_rng(8)
    values, errors = [], []
    for _ in range(700):
        reach = np.abs(2 * norm.cdf((1 if calibrated else 1.6) * generator.normal(size=200)) - 1)
        value, error = scores.calibration_error(reach)
        values.append(value)
        errors.append(error)
    ratio = np.mean(errors) / np.std(values, ddof=1)
    low, high = (1.0, 1.25) if calibrated else (1.0, 1.0)
    assert low - 5 / np.sqrt(1400) < ratio < high + 5 / np.sqrt(1400)
    if calibrated:  # what the docstring says of chance
        assert np.mean(values) == pytest.approx(
            0.32 / np.sqrt(200), rel=5 * 0.43 / np.sqrt(700)
        )  # the sd of one is 0.43 of its mean


def test_the_error_of_ause_is_that_of_the_jackknife():
    """Leaving out one row after the other; both are estimates, which agree to a few per cent at 300 rows.

    Fails if the derivative forgets the denominator, or what a row does to those that are removed before it.
    """
    generator = np.random.default_rng(9)
    by = generator.uniform(0.5, 2, 300)
    squared = (by * generator.normal(size=300)) ** 2
    for order in (by, by.round(1), np.ones(300)):
        left = [area_under_error(np.delete(squared, i), np.delete(order, i))[0] for i in range(300)]
        jackknife = np.sqrt(299 / 300 * np.sum((left - np.mean(left)) ** 2))
        assert area_under_error(squared, order)[1] == pytest.approx(jackknife, rel=0.15)


def test_intervals_hold_the_coverage_they_are_of():
    """Over 1,500 sets of 60 rows by a calibrated prediction. Wilson's interval holds p with a probability that is known
    exactly from the binomial distribution (0.93 to 0.97 here), and that is what is found, to 5 standard errors."""
    generator = np.random.default_rng(10)
    prediction, held = normal(np.zeros(60), np.ones(60)), []
    levels = np.array(scores.COVERAGES)
    for _ in range(1500):
        reach = np.abs(2 * norm.cdf(generator.normal(size=60)) - 1)
        low, high = scores.wilson((reach[:, None] <= levels).mean(0), 60)
        held.append((low <= levels) & (levels <= high))
    low, high = scores.wilson(np.arange(61) / 60, 60)
    exact = [binom.pmf(np.arange(61), 60, p)[(low <= p) & (p <= high)].sum() for p in levels]
    assert np.mean(exact) == pytest.approx(0.95, abs=0.02)
    tolerance = 5 * np.sqrt(0.95 * 0.05 / 1500)
    assert np.mean(held, axis=0) == pytest.approx(exact, abs=tolerance)
    # And those that `evaluate` gives are these.
    y = generator.normal(size=60)
    got = scores.evaluate(prediction, y)
    np.testing.assert_allclose(got.attrs["interval"].to_numpy().T, scores.wilson(got[COVERAGES].to_numpy(), 60))
    everywhere = scores.evaluate(prediction, np.zeros(60)).attrs["interval"].loc["coverage_95"]
    assert everywhere["low"] < 0.95 < 1 == pytest.approx(everywhere["high"])


def test_scores_are_the_same_every_time_and_in_the_same_order(mixed):
    loc, scale, y = mixed
    one, other = (scores.evaluate(mixture(loc, scale), y, outside=mixture(2 * loc, scale)) for _ in range(2))
    assert one.equals(other)
    assert one.attrs["standard_error"].equals(other.attrs["standard_error"])
    assert list(one.attrs["standard_error"].index) == list(one.index)
    assert list(one.index) == [
        "rmse", "mae", "nll", "crps", *COVERAGES, "interval_width_90", "interval_score_90", "sharpness",
        "calibration_error", "ause", "auroc_epistemic",
    ]  # fmt: skip
    assert np.isfinite(one).all() and (one.attrs["standard_error"] > 0).all()


def test_one_row_has_scores_and_no_errors():
    got = scores.evaluate(normal(np.zeros(1), np.ones(1)), [0.5])
    assert np.isfinite(got).all()
    assert got.attrs["standard_error"].isna().all()
    assert got["ause"] == 0


@pytest.fixture(scope="module")
def posterior() -> zoo.Posterior:
    return zoo.fit("mlp", ENSEMBLE, table().subset(slice(0, 48)), progress=False)


# --- what there is not ------------------------------------------------------------------------------------------------


def test_one_network_has_no_epistemic_sd_to_rank_by():
    rows = zoo.datasets.load("diabetes").subset(slice(0, 40))
    point = zoo.fit("linear", MAP, rows, progress=False)
    got = point.evaluate(rows.x, rows.y, outside=rows.x + 1)
    assert np.isnan(got["auroc_epistemic"])
    assert np.isnan(got.attrs["standard_error"]["auroc_epistemic"])
    assert "one network" in got.attrs["missing"]["auroc_epistemic"]
    assert point.evaluate(rows.x, rows.y).attrs["missing"] == {}
    with pytest.raises(ZooValueError, match="10 columns wide"):
        point.evaluate(rows.x, rows.y, outside=rows.x[:, :3])


def test_another_likelihood_has_no_crps_and_an_infinite_sd_no_error():
    """Cauchy's, said to have infinite sds, of which the mean is infinite too."""
    parameters = {"loc": np.zeros((1, 30)), "scale": np.ones((1, 30))}
    found = zoo.Prediction(np.zeros(30), np.zeros(30), np.full(30, np.inf), "plug_in", Known(parameters, dist.Cauchy))
    got = scores.evaluate(found, np.linspace(-2, 2, 30))
    assert np.isnan(got["crps"]) and "not Normal" in got.attrs["missing"]["crps"]
    assert got["sharpness"] == np.inf and np.isnan(got.attrs["standard_error"]["sharpness"])
    assert got["mae"] == pytest.approx(np.abs(np.linspace(-2, 2, 30)).mean(), abs=1e-9)


def test_far_inputs_are_told_from_near_ones(posterior):
    """Networks of ReLUs go on in straight lines, which part with the distance."""
    data = posterior.data
    assert posterior.evaluate(data.x, data.y, outside=50 * data.x)["auroc_epistemic"] > 0.95
    assert posterior.evaluate(data.x, data.y, outside=data.x)["auroc_epistemic"] == pytest.approx(0.5)


# --- gaps -------------------------------------------------------------------------------------------------------------


def table(rows: int = 90) -> zoo.Dataset:
    generator = np.random.default_rng(13)
    x = np.column_stack([generator.normal(size=rows), generator.integers(0, 2, rows), np.full(rows, 3.0)])
    return zoo.Dataset(x, x[:, 0] + generator.normal(size=rows), ("size", "kind", "fixed"), "price", "houses")


@pytest.fixture(scope="module")
def found() -> zoo.reports.gaps.Gaps:
    return zoo.evaluate_gaps("mlp", ENSEMBLE, table(), near_size=0.2, seed=2, progress=False)


def test_a_gap_is_the_middle_third_and_its_scores_are_those_of_evaluate(found):
    data = table()
    order = np.argsort(data.x[:, 0], kind="stable")
    train, near = data.subset(np.concatenate([order[:30], order[60:]])).split(0.2, 2)
    gap = data.subset(order[30:60])
    posterior = zoo.fit("mlp", ENSEMBLE, train, seed=2, progress=False)
    row, inside = found.table.loc["size"], posterior.evaluate(gap.x, gap.y)
    beside = posterior.evaluate(near.x, near.y, outside=gap.x)
    for name, value in inside.items():
        assert row[f"{name}_gap"] == pytest.approx(value)
        assert row[f"{name}_near"] == pytest.approx(beside[name])
    assert row["auroc_epistemic"] == pytest.approx(beside["auroc_epistemic"])
    assert row["epistemic_std_gap"] == pytest.approx(posterior.predict(gap.x).epistemic_std.mean())
    assert tuple(row[["rows_train", "rows_gap", "rows_near", "shared"]]) == (48, 30, 12, 0)


def test_a_feature_of_few_values_has_hardly_a_gap_and_one_of_one_value_none(found):
    assert list(found.table.index) == ["size", "kind"]
    assert found.table.loc["kind", "shared"] == 1
    assert "Hardly gaps, as most of their values were trained on: kind." in repr(found)


def test_the_summary_is_the_mean_over_gaps(found):
    values = found.table["nll_gap"]
    assert tuple(found.summary.loc["nll", ["gap", "gap_se"]]) == pytest.approx(
        (values.mean(), values.std(ddof=1) / np.sqrt(2))
    )
    assert found.summary.loc["rmse", "near"] == pytest.approx(found.table["rmse_near"].mean())
    assert found.summary.loc["auroc_epistemic", "gap"] == pytest.approx(found.table["auroc_epistemic"].mean())
    assert "rows" not in found.summary.index


def test_published_gaps_are_taken_where_there_are_some(monkeypatch):
    """A set given by name; rows by rank for any other, or for the same rows without the name."""
    data, asked = table(), []
    monkeypatch.setattr(gaps.datasets, "load", lambda name, gap: asked.append((name, gap)))
    gaps._parted("yacht", data, 4)
    assert asked == [("yacht", 4)]
    assert [len(part) for part in gaps._parted("diabetes", data, 0)] == [60, 30]
    assert [len(part) for part in gaps._parted(data, data, 0)] == [60, 30]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"features": "size"}, ZooTypeError, r"Pass \['size'\]"),
        ({"features": ["seize"]}, ZooValueError, "size"),
        ({"features": [3]}, ZooValueError, "numbers from 0 to 2"),
        ({"features": []}, ZooValueError, "Leave it out for all"),
        ({"features": ["fixed"]}, ZooValueError, "3 in every row"),
        ({"near_size": 0.0}, ZooValueError, "near_size"),
        ({"data": (np.arange(8.0)[:, None], np.arange(8.0))}, ZooValueError, "9 rows or more"),
    ],
)
def test_gaps_refuse_before_any_fit(given, error, words):
    with pytest.raises(error, match=words):
        zoo.evaluate_gaps("mlp", "nuts", **{"data": table(), **given})


# --- plots ------------------------------------------------------------------------------------------------------------


def test_the_band_holds_uniform_numbers_as_often_as_it_says():
    """5,000 fresh samples of 80: share inside the band, to 5 standard errors of it and of the 4,000 that made it.

    Counts are whole numbers, so that it can hold a little more than it says. Fails if the band is the pointwise one,
    which holds 45 %.
    """
    levels = np.linspace(0, 1, 81)[1:-1]
    low, high = uniform_band(80, levels, 0.9)
    drawn = np.sort(np.random.default_rng(14).uniform(size=(5000, 80)), axis=1)
    off = np.stack([np.searchsorted(row, levels, side="right") / 80 - levels for row in drawn])
    held = ((off >= low - 1e-12) & (off <= high + 1e-12)).all(1).mean()
    error = np.sqrt(0.9 * 0.1 * (1 / 5000 + 1 / 4000))
    assert 0.9 - 5 * error < held < 0.9 + 5 * error + 0.01


def test_the_band_is_that_of_arviz():
    """On the same levels; both simulate, and both have whole counts: one of 60 here or there."""
    levels = np.arange(1, 60) / 60
    found = uniform_band(60, levels, 0.95)
    _, _, low, high = ecdf_pit(np.random.default_rng(15).uniform(size=60), 0.95, 4000)
    for ours, theirs in zip(found, (low, high), strict=True):
        assert np.abs(ours - (theirs[1:-1] - levels[:])).max() < 1.5 / 60


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_pit_shows_what_leaves_the_band(posterior):
    """Observations pushed away from the mean make intervals too narrow: up at the left, down at the right."""
    data = table()
    mean = posterior.predict(data.x).mean
    y = mean + 6 * (data.y - mean)
    (ax,) = plots.pit(posterior, (data.x, y)).axes
    line = next(line for line in ax.lines if line.get_label() == "observed")
    u, off = line.get_data()
    cdf = posterior.predict(data.x).cdf(y)
    np.testing.assert_allclose(off, [(cdf <= level).mean() - level for level in u], atol=1e-12)
    assert off[u < 0.2].max() > 0.1 and off[u > 0.8].min() < -0.1
    assert "outside the band" in labels(ax)
    assert ax.get_title() == "90 observations of data"
    (ax,) = plots.pit(posterior, posterior.data, prob=0.999).axes
    assert "99.9 % band of chance" in labels(ax) and "48 training observations" in ax.get_title()


def test_sparsification_shows_the_area_that_is_the_score(posterior):
    (ax,) = plots.sparsification(posterior, posterior.data).axes
    got = posterior.evaluate(posterior.data.x, posterior.data.y)
    assert f"AUSE {got['ause']:.2f} ± {got.attrs['standard_error']['ause']:.2f}" in labels(ax)
    by_sd, oracle = (
        next(line for line in ax.lines if line.get_label() == f"largest {what} removed first").get_data()[1]
        for what in ("sd", "error")
    )
    assert by_sd[0] == pytest.approx(got["rmse"]) and oracle[0] == pytest.approx(got["rmse"])
    assert np.mean(by_sd - oracle) / got["rmse"] == pytest.approx(got["ause"], rel=1e-9)
    assert ax.get_ylabel() == "RMSE of the rest, price"


@pytest.mark.parametrize("draw", [plots.pit, plots.sparsification])
def test_scores_are_drawn_in_given_axes(draw, posterior):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(posterior, posterior.data, ax=right) is figure
    assert right.has_data() and not left.has_data()
    assert isinstance(draw(posterior, posterior.data), Figure)


def test_one_observation_can_be_drawn(posterior):
    one = posterior.data.subset([0])
    for draw in (plots.pit, plots.sparsification):
        draw(posterior, one)


def test_a_band_needs_a_probability(posterior):
    with pytest.raises(ZooValueError, match="prob"):
        plots.pit(posterior, posterior.data, prob=1.0)
