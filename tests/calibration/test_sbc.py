"""Simulation-based calibration: exact methods pass; a wrong prior, and methods known to be over-confident, do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bnn_zoo as zoo
from bnn_zoo.reports import calibration_plots, score_plots
from bnn_zoo.reports.uniformity import Calibration, inside, ranks_among
from tests.benchmarks.sbc import cases, contrasts, correlated, inputs, mean_field, mean_field_ratios


def calibrate(case: dict, simulations: int, seed: int = 0):
    return zoo.sbc(x=inputs(), num_simulations=simulations, seed=seed, progress=False, **case)


@pytest.mark.parametrize("name", ["Linear", pytest.param("MLP", marks=pytest.mark.slow)])
def test_nuts_is_calibrated(name):
    """χ² of 16 bins, p > 0.01 for f(x*), the noise and the log likelihood.

    All seven pass on 9 of 10 seeds for `Linear` and 10 of 10 for `MLP`, where right samplers would on 93 %.
    """
    found = calibrate(cases()[name], 256)
    assert (found.table["p_value"] > 0.01).all(), found
    assert list(found.ranks.columns[-2:]) == ["noise", "log likelihood"]
    assert found.ok


def test_a_wrong_prior_is_found_out():
    """The truth has a prior scale of 3, the fit believes 1: true functions fall outside the draws.

    Found out on 10 of 10 seeds.
    """
    wrong = next(case for case in cases().values() if "truth" in case)
    found = calibrate(wrong, 256)
    assert not found.ok, found
    assert found.table["p_value"].min() < 1e-4
    assert "NOT CALIBRATED" in repr(found)


def test_methods_that_are_no_kernel_run_one_by_one():
    """A sampler with trained starts is run through its own `run`; ranks come in the same form."""
    method = zoo.methods.NUTS(num_warmup=100, num_samples=64, num_chains=1, start="map")
    found = zoo.sbc(zoo.models.Linear(noise=0.5), method, inputs(), num_simulations=80, progress=False)
    assert found.ranks.shape == (80, 6)
    assert found.ranks.to_numpy().min() >= 0 and found.ranks.to_numpy().max() <= 63
    assert found.ok, found


def test_too_few_draws_or_simulations_are_refused():
    with pytest.raises(ValueError, match="Draw more"):
        zoo.sbc("linear", zoo.methods.NUTS(num_samples=10, num_chains=1, start="prior"), inputs(), progress=False)
    with pytest.raises(ValueError, match="80 in all"):
        zoo.sbc("linear", "nuts", inputs(), num_simulations=10)


def test_ranks_count_draws_below_the_truth():
    """All draws below the truth give rank 63, all above give 0, on a hand-made case."""
    from bnn_zoo.reports.calibration import _rank

    draws = np.arange(200.0)[:, None] * np.array([[1.0, 1.0, 1.0]])
    assert _rank(np.array([-1.0, 1e9, 100.5]), draws).tolist() == [0, 63, 32]


# --- what an approximation covers, in closed form ---------------------------------------------------------------------


def rank_law(ratio: float, num_ranks: int = 64) -> np.ndarray:
    """Law ``(num_ranks,)`` of the rank of a truth N(0, ratio²) among independent draws of N(0, 1).

    Given the truth t each draw lies below it with probability Φ(t), so that the rank is binomial; t is integrated out
    over its own quantiles.
    """
    t = ratio * stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    rank = np.arange(num_ranks)
    return stats.binom.pmf(rank[:, None], num_ranks - 1, stats.norm.cdf(t)[None, :]).mean(axis=1)


def covered(ratio: float, level: float) -> float:
    return float(rank_law(ratio) @ inside(np.arange(64), 64, level))


def test_mean_field_covers_what_its_closed_form_says():
    """Mean-field variances are 1 / diag(precision): along the data too wide, across them far too narrow.

    20 numbers, each within 4 binomial standard errors of its closed form: a false alarm on 1 seed of 800 at most.
    """
    case = mean_field()
    found = zoo.sbc(num_simulations=160, progress=False, **case)
    ratios = mean_field_ratios()
    assert ratios.max() > 2 and ratios.min() < 0.8  # of the truth's sd to the approximation's: both errors are there
    for i, ratio in enumerate(ratios):
        for level in (0.5, 0.8, 0.9, 0.95):
            expected = covered(ratio, level)
            error = np.sqrt(expected * (1 - expected) / 160)
            share = found.coverage.loc[f"f(x*[{i}])", f"coverage_{100 * level:.0f}"]
            assert abs(share - expected) < 4 * error, (i, level, share, expected)
    assert not found.ok
    assert found.table.loc[f"f(x*[{ratios.argmax()}])", "ranks"] == "too narrow"


def linear_case(method, **more):
    return {"model": zoo.models.Linear(noise=0.5), "method": method, "x": correlated(), "at": contrasts(), **more}


def test_full_laplace_is_exact_for_a_linear_model():
    """Ranked in the linearised Normal that it predicts; p > 0.01 / 5 for 5 quantities: a false alarm on 1 % of seeds.

    The pooled coverage is within 4 of its standard errors.
    """
    method = zoo.methods.Laplace(num_steps=300, num_restarts=1, num_samples=64)
    found = zoo.sbc(num_simulations=80, progress=False, **linear_case(method))
    assert found.kind == "linearized" and list(found.ranks.columns) == [f"f(x*[{i}])" for i in range(5)]
    assert found.ok, found
    every = found.coverage.iloc[0]
    assert abs(every["coverage_90"] - 0.9) < 4 * every["error_90"]


def test_an_anchored_ensemble_is_exact_for_a_linear_model_and_a_plain_one_has_no_spread():
    """Anchored members are draws of the posterior; plain ones all reach its mode, and hold nothing between them.

    Anchored: 16 ranks among 15 members, p > 0.01 / 6, a false alarm on 1 % of seeds. Plain: members agree to 1e-3
    posterior sds, between which a truth lies once in a thousand.
    """
    small = {"num_steps": 200, "learning_rate": 0.05, "polish_steps": 50}
    anchored = zoo.methods.DeepEnsemble(anchored=True, num_members=15, **small)
    found = zoo.sbc(num_simulations=80, progress=False, **linear_case(anchored))
    assert found.num_ranks == 16 and found.ok, found
    plain = zoo.methods.DeepEnsemble(num_members=5, **small)
    found = zoo.sbc(num_simulations=80, progress=False, **linear_case(plain))
    assert found.num_ranks == 6 and not found.ok
    assert found.coverage.iloc[0]["coverage_50"] < 0.02
    assert np.isnan(found.coverage.iloc[0]["coverage_95"])  # five members have no 95 % interval


# --- every method -----------------------------------------------------------------------------------------------------


def few(monkeypatch, method, x=None, **more):
    """Five data sets: too few for a verdict, enough to see that it runs."""
    monkeypatch.setattr("bnn_zoo.reports.calibration.NUM_BINS", 1)
    model = zoo.models.MLP(hidden=(3,), activation="tanh", noise=0.3)
    x = inputs() if x is None else x
    return zoo.sbc(model, method, x, num_simulations=5, progress=False, **more)


def test_particles_and_moments_are_ranked(monkeypatch):
    """SVGD has a kernel and is no sampler; moments of DVI give the ranks unless its draws are asked for."""
    found = few(monkeypatch, zoo.methods.SVGD(num_members=8, num_steps=20))
    assert found.num_ranks == 9 and found.ranks.columns[-1] == "log likelihood"
    dvi = zoo.methods.DeterministicVI(num_steps=20, num_samples=63)
    assert few(monkeypatch, dvi).kind == "moments"
    assert few(monkeypatch, dvi, kind="monte_carlo").ranks.columns[-1] == "log likelihood"


def test_what_cannot_be_ranked_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="Take 'laplace', 'ensemble' or 'nuts'"):
        few(monkeypatch, zoo.methods.MAP(num_steps=5))
    with pytest.raises(ValueError, match="Draw more"):
        few(monkeypatch, zoo.methods.VI(num_steps=20, num_samples=10))
    with pytest.raises(ValueError, match="batch_size should be below the 12 rows"):
        few(monkeypatch, zoo.methods.HMCECS(start="prior", num_samples=64, num_chains=1))


def test_data_sets_after_the_first_compile_nothing(monkeypatch, compilations):
    method = zoo.methods.VI(num_steps=20, num_samples=63)
    few(monkeypatch, method)
    compilations.reset()
    few(monkeypatch, method, seed=1)
    assert compilations.count <= 1  # splitting the keys of the data sets


# --- the numbers and the plot -----------------------------------------------------------------------------------------


def calibration_of(sd: float, seed: int, count: int = 200, num_ranks: int = 64, quantities: int = 3) -> Calibration:
    rng = np.random.default_rng(seed)
    truth = sd * rng.normal(size=(count, quantities))
    ranks = (rng.normal(size=(num_ranks - 1, count, quantities)) < truth).sum(axis=0)
    return Calibration(pd.DataFrame(ranks, columns=["f(x*[0])", "f(x*[1])", "noise"]), num_ranks)


def test_intervals_hold_uniform_ranks_as_often_as_they_say():
    for num_ranks in (4, 6, 16, 48, 64):
        for level in (0.5, 0.8, 0.9, 0.95):
            held = inside(np.arange(num_ranks), num_ranks, level).mean()
            assert np.isnan(held) if num_ranks * (1 - level) < 2 - 1e-9 else abs(held - level) < 1e-12
    assert [ranks_among(n) for n in (3, 14, 15, 20, 47, 62, 63, 5000)] == [4, 15, 16, 16, 48, 48, 64, 64]


def test_coverage_of_draws_too_narrow():
    """Within 4 standard errors of the closed form of draws with half the sd; and the frame's own errors are right."""
    found = calibration_of(2.0, 0, count=2000).coverage
    for level in (0.5, 0.8, 0.9, 0.95):
        expected, key = covered(2.0, level), f"{100 * level:.0f}"
        error = np.sqrt(expected * (1 - expected) / 2000)
        assert (abs(found[f"coverage_{key}"] - expected) < 4 * error).all()
        assert abs(found.loc["noise", f"error_{key}"] / error - 1) < 0.1
    # Two independent points are worth √2 as much as one: their pooled error says so, to its own error of 2 %.
    assert 0.62 < found.loc["f(x*), all", "error_50"] / found.loc["noise", "error_50"] < 0.75


def test_the_band_holds_95_percent_of_exact_calibrations():
    """Of 1,000 calibrations of 3 quantities; Bonferroni over 3 independent ones gives 0.9508. 4 binomial errors."""
    low, high = calibration_plots.band(100, 64, 1 - 0.05 / 3)
    ranks = np.random.default_rng(0).integers(0, 64, (1000, 100, 3))
    held = 0
    for each in ranks:
        excess = calibration_plots.excesses(each, 64)[1]
        held += ((excess > low[:, None] - 1e-9) & (excess < high[:, None] + 1e-9)).all()
    # The level is itself a quantile of 4,000 simulations: an error of 0.0020 a curve, 0.006 of three.
    assert abs(held / 1000 - 0.951) < 4 * np.hypot(np.sqrt(0.05 * 0.95 / 1000), 0.006)


def test_the_band_is_that_of_arviz():
    """Two simulations of the same pointwise level, each with its Monte Carlo error (about 6 % of 0.004)."""
    ecdf = pytest.importorskip("arviz_stats.ecdf_utils")
    grid = np.arange(1, 64) / 64
    other = 1 - ecdf.simulate_confidence_bands(256, 1, grid, 0.95, 4000, np.random.default_rng(1))
    assert abs(score_plots.pointwise_level(256, np.arange(1, 64) / 64, 0.95) / other - 1) < 0.3


def test_the_plot_says_which_curves_leave():
    from matplotlib.figure import Figure

    good, bad = calibration_of(1.0, 0), calibration_of(2.0, 0)
    figure = zoo.plots.sbc(good)
    assert figure.axes[0].get_title() == "200 data sets: all inside the band"
    ax = Figure().add_subplot()
    assert zoo.plots.sbc(bad, ax) is ax.get_figure()
    assert ax.get_title() == "200 data sets: 3 of 3 leave the band"
    with pytest.raises(TypeError, match=r"Call zoo\.sbc first"):
        zoo.plots.sbc(bad.ranks)


def test_a_notebook_sees_verdict_and_coverage():
    found = calibration_of(2.0, 0)
    page = found._repr_html_()
    assert "NOT CALIBRATED" in page and "in 95 %" in page and page.count("<tr") >= 5
    assert "hold the truth in" in repr(found)
