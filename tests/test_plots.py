"""Plots: each returns its figure, draws where it is told to, names its axes, and refuses what it cannot show."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import bnn_zoo as zoo
from bnn_zoo import plots
from bnn_zoo.errors import ZooTypeError, ZooValueError
from tests import plotted

one = pytest.fixture(plotted.one, scope="module", name="one")
three = pytest.fixture(plotted.three, scope="module", name="three")
ard = pytest.fixture(plotted.ard, scope="module", name="ard")
point = pytest.fixture(plotted.point, scope="module", name="point")
guide = pytest.fixture(plotted.guide, scope="module", name="guide")


# Each plot, the posterior it is of, and the words its axes carry.
PLOTS = {
    "predictive": (plots.predictive, "one", "rain", "yield"),
    "predictive_3d": (plots.predictive, "three", "predicted yield (mean)", "observed yield"),
    "predictive_along": (lambda p, ax=None: plots.predictive(p, feature="$sun_", ax=ax), "three", "$sun_", "yield"),
    "predictive_point": (plots.predictive, "point", "rain", "yield"),
    "functions": (plots.functions, "one", "rain", "yield"),
    "calibration": (
        lambda p, ax=None: plots.calibration(p, p.data, ax),
        "three",
        "nominal level of the central interval",
        "share of observations inside",
    ),
    "traces": (plots.traces, "three", "draw", "f(x), yield"),
    "ranks": (plots.ranks, "three", "rank of f(x) among all chains", ""),
    "noise": (plots.noise, "three", "noise, yield", "density"),
    "noise_point": (plots.noise, "point", "noise, yield", ""),
    "relevance": (plots.relevance, "ard", "relevance (scale of the feature's weights)", ""),
    "losses": (plots.losses, "point", "step", "minus log posterior per row"),
    "losses_guide": (plots.losses, "guide", "step", "minus lower bound per row"),
    "bound": (plots.bound, "guide", "step", "evidence lower bound, nats"),
    "energy": (plots.energy, "three", "energy, nats", "density"),
    "loo_pit": (plots.loo_pit, "three", "PIT, the row left out", "cumulative share − PIT"),
    "posterior_predictive": (plots.posterior_predictive, "three", "yield", "density"),
    "posterior_predictive_point": (plots.posterior_predictive, "point", "yield", "density"),
    "prior_and_posterior": (plots.prior_and_posterior, "one", "rain", "yield"),
    "prior_and_posterior_along": (
        lambda p, ax=None: plots.prior_and_posterior(p, feature="$sun_", ax=ax),
        "three",
        "$sun_",
        "yield",
    ),
    "partial_dependence": (plots.partial_dependence, "one", "rain", "yield"),
    "partial_dependence_of_one": (lambda p, ax=None: plots.partial_dependence(p, "soil", ax), "three", "soil", "yield"),
    "forest": (plots.forest, "three", "f(x), yield", ""),
    "forest_point": (plots.forest, "point", "f(x), yield", ""),
    "forest_sites": (
        lambda p, ax=None: plots.forest(p, sites="noise", ax=ax),
        "three",
        "value, in each site's own units",
        "",
    ),
}


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_returns_a_figure_of_its_own_with_named_axes(name, request):
    draw, fitted, x, y = PLOTS[name]
    before = plt.get_fignums()
    figure = draw(request.getfixturevalue(fitted))
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == before
    (ax,) = figure.axes
    assert ax.get_xlabel().removesuffix(" (1 draw in 2 kept)").startswith(x)
    assert ax.get_ylabel() == y
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_draws_in_given_axes(name, request):
    draw, fitted, x, _ = PLOTS[name]
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert draw(request.getfixturevalue(fitted), ax=right) is figure
    assert right.get_xlabel().startswith(x)
    assert not left.has_data()


def test_axes_must_be_axes(one):
    with pytest.raises(ZooTypeError, match=r"axes\[0\]"):
        plots.predictive(one, ax=Figure().subplots(1, 2))


@pytest.mark.parametrize("draw", [plots.traces, plots.ranks])
def test_what_is_of_chains_refuses_a_point(draw, point):
    with pytest.raises(ZooValueError, match="Fit with 'nuts'"):
        draw(point)


def test_ranks_of_one_chain_say_nothing(three):
    alone = zoo.methods.NUTS(num_warmup=20, num_samples=30, num_chains=1, start="prior")
    posterior = zoo.fit(zoo.models.Linear(), alone, three.data, progress=False)
    with pytest.raises(ZooValueError, match="num_chains=4"):
        plots.ranks(posterior)
    (ax,) = plots.traces(posterior).axes
    assert "one chain" in ax.get_title()
    assert len(ax.lines) == 1


def test_predictive_of_one_feature_reaches_beyond_the_data_and_shows_bands_and_data(one):
    (ax,) = plots.predictive(one).axes
    x = one.data.x[:, 0]
    low, high = ax.get_xlim()
    assert low == pytest.approx(x.min() - 0.25 * np.ptp(x))
    assert high == pytest.approx(x.max() + 0.25 * np.ptp(x))
    assert {"90 % of observations", "90 % of f(x)", "mean", "field (40)"} <= set(legend(ax))
    assert "truth" not in legend(ax)
    np.testing.assert_allclose(ax.collections[-1].get_offsets()[:, 1], one.data.y)


def test_predictive_of_a_point_has_no_band_of_functions(point):
    (ax,) = plots.predictive(point, prob=0.5).axes
    assert "50 % of observations" in legend(ax)
    assert not any("f(x)" in word for word in legend(ax))


def test_predictive_of_several_features_counts_who_is_outside(three):
    (ax,) = plots.predictive(three, prob=0.5).axes
    low, high = three.predict(three.data.x).interval(0.5).T
    inside = int(((low <= three.data.y) & (three.data.y <= high)).sum())
    assert any(f"inside the 50 % interval: {inside} of 40" in word for word in legend(ax))
    assert any(f"outside the 50 % interval: {40 - inside} of 40" in word for word in legend(ax))


def test_predictive_refuses_an_unknown_feature_and_an_impossible_probability(three):
    with pytest.raises(ZooValueError, match="soil"):
        plots.predictive(three, feature="moon")
    with pytest.raises(ZooValueError, match="0 to 2"):
        plots.predictive(three, feature=3)
    with pytest.raises(ZooValueError, match="prob"):
        plots.predictive(three, prob=1.5)


def test_the_truth_is_shown_for_rows_of_a_synthetic_set_only():
    name = next(n for n in zoo.datasets.table()["name"] if n not in ("diabetes",) and _has_truth(n))
    data = zoo.datasets.load(name)
    posterior = zoo.fit(
        zoo.models.Linear(), zoo.methods.MAP(num_restarts=1, num_steps=5, polish_steps=0), data, progress=False
    )
    assert "truth" in legend(plots.predictive(posterior).axes[0])
    other = zoo.Dataset(data.x + 1.0, data.y, data.feature_names, data.target_name, name)
    assert "truth" not in legend(plots.predictive(posterior, other).axes[0])


def _has_truth(name: str) -> bool:
    try:
        zoo.datasets.truth(name)
    except ZooValueError:
        return False
    return zoo.datasets.load(name).num_features == 1


def test_functions_are_as_many_as_asked_for_and_of_one_feature(one, three):
    (ax,) = plots.functions(one, np.linspace(-1, 1, 7), num=12).axes
    assert sum(len(line.get_xdata()) == 7 for line in ax.lines) == 12
    assert "f(x) of 12 draws" in legend(ax)
    with pytest.raises(ZooValueError, match="feature="):
        plots.functions(three)
    with pytest.raises((ZooValueError, ZooTypeError), match="num"):
        plots.functions(one, num=0)


def test_calibration_ends_at_all_inside_and_says_which_rows(three):
    (ax,) = plots.calibration(three, three.data).axes
    observed = ax.lines[-1].get_ydata()
    assert observed[-1] == 1
    assert (np.diff(observed) >= 0).all()
    assert "training" in ax.get_title()
    assert "training" not in plots.calibration(three, (three.data.x[:9], three.data.y[:9])).axes[0].get_title()


def test_traces_are_the_values_of_f_where_chains_agree_least(three):
    (ax,) = plots.traces(three).axes
    drawn = np.array([line.get_ydata() for line in ax.lines])
    points = three.diagnose().inner
    assert drawn.shape == (2, 100)
    assert drawn.mean() == pytest.approx(points["mean"][points["rhat"].idxmax()], rel=1e-4)
    assert f"R-hat {points['rhat'].max():.3f}" in ax.get_title()


def test_relevance_is_sorted_with_the_largest_on_top(ard):
    (ax,) = plots.relevance(ard).axes
    medians = next(line for line in ax.lines if line.get_label() == "median").get_xdata()
    assert (np.diff(medians) >= 0).all()
    names = [label.get_text() for label in ax.get_yticklabels()]
    expected = np.argsort(np.median(ard.draws["relevance"], axis=(0, 1)))
    assert names == [ard.data.feature_names[i] for i in expected]
    assert ax.get_xscale() == "log"


def test_relevance_refuses_a_model_without_it(one):
    with pytest.raises(ZooValueError, match="ARDMLP"):
        plots.relevance(one)


def test_losses_reach_the_last_step_and_mark_the_one_kept(point, one):
    (ax,) = plots.losses(point).axes
    assert ax.lines[0].get_xdata()[-1] == 40
    assert {"3 trained side by side", "the one kept"} <= set(legend(ax))
    with pytest.raises(ZooValueError, match=r"plots\.traces"):
        plots.losses(one)


def test_noise_comes_with_its_prior_and_needs_a_scalar_site(one):
    (ax,) = plots.noise(one).axes
    assert "prior" in legend(ax)
    with pytest.raises(ZooValueError, match="site"):
        plots.noise(one, site="weights")
    known = zoo.fit(
        zoo.models.Linear(noise=0.3),
        zoo.methods.MAP(num_restarts=1, num_steps=5, polish_steps=0),
        one.data,
        progress=False,
    )
    with pytest.raises(ZooValueError, match="prior"):
        plots.noise(known)
