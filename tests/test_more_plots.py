"""What the plots of dependence, intervals and checks draw is right: held against closed forms and brute force."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import norm

import bnn_zoo as zoo
from bnn_zoo import plots
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.reports import check_plots, dependence_plots
from tests import plotted
from tests.plotted import toy

one = pytest.fixture(plotted.one, scope="module", name="one")
three = pytest.fixture(plotted.three, scope="module", name="three")
ard = pytest.fixture(plotted.ard, scope="module", name="ard")
point = pytest.fixture(plotted.point, scope="module", name="point")
guide = pytest.fixture(plotted.guide, scope="module", name="guide")

SIGMA = 0.3


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.fixture(scope="module")
def left_out() -> SimpleNamespace:
    """Twelve rows, one of them far away and off the line, under a model whose posteriors are Normal."""
    generator = np.random.default_rng(5)
    x = np.append(generator.uniform(-1, 1, 11), 1.2)[:, None]
    y = 2 * x[:, 0] + SIGMA * generator.uniform(-1.5, 1.5, 12)
    y[11] += SIGMA
    method = zoo.methods.NUTS(num_warmup=300, num_samples=500, start="prior")
    fitted = zoo.fit(zoo.models.Linear(noise=SIGMA), method, (x, y), standardize=False, progress=False)
    columns = np.column_stack([x, np.ones(12)])

    def exact(i: int) -> float:
        """Normal(a·m, σ² + a·P⁻¹a) with P = AᵀA / σ² + I and m = P⁻¹Aᵀy / σ², of the other rows."""
        others, targets = np.delete(columns, i, axis=0), np.delete(y, i)
        precision = others.T @ others / SIGMA**2 + np.eye(2)
        mean = np.linalg.solve(precision, others.T @ targets / SIGMA**2)
        variance = SIGMA**2 + columns[i] @ np.linalg.solve(precision, columns[i])
        return float(norm.cdf((y[i] - columns[i] @ mean) / np.sqrt(variance)))

    return SimpleNamespace(posterior=fitted, x=x, y=y, pit=np.array([exact(i) for i in range(12)]))


# --- partial dependence -----------------------------------------------------------------------------------------------


def test_partial_dependence_of_a_linear_model_is_the_line_of_each_draw(three):
    """Its slope is w_j y_scale / x_scale_j, and it passes through the mean of f over rows at the feature's mean."""
    data, scaling = three.data, three.scaling
    values = np.linspace(-2.0, 1.0, 7)
    found = dependence_plots.dependence(three, 1, values, np.arange(len(data)))
    slope = three.draws["w_0"][..., 1, 0].reshape(-1) * scaling.y_scale / scaling.x_scale[1]
    middle = data.x.mean(0)
    through = three.function_draws(middle[None, :])[..., 0].reshape(-1)
    expected = through[:, None] + slope[:, None] * (values - middle[1])[None, :]
    # float32 rounds f, of order 1, to 1e-7; a mean over 40 rows of it no more.
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_partial_dependence_of_a_network_is_the_mean_over_rows(ard):
    """Fails if another column is set, rows are left out, or the grid is in the model's units."""
    rows, values = np.array([1, 5, 9, 30]), np.array([-1.0, 0.5, 2.0])
    found = dependence_plots.dependence(ard, 2, values, rows)
    for k, value in enumerate(values):
        x = ard.data.x[rows].copy()
        x[:, 2] = value
        np.testing.assert_allclose(found[:, k], ard.function_draws(x).mean(2).reshape(-1), atol=2e-5)


def test_partial_dependence_draws_mean_and_band_of_the_draws(three):
    (ax,) = plots.partial_dependence(three, 0, prob=0.5).axes
    line = next(line for line in ax.lines if line.get_label() == "mean")
    found = dependence_plots.dependence(three, 0, line.get_xdata(), np.arange(40))
    np.testing.assert_allclose(line.get_ydata(), found.mean(0), rtol=1e-6)
    band = ax.collections[0].get_paths()[0].vertices
    low, high = np.quantile(found[:, 0], [0.25, 0.75])
    left = band[np.isclose(band[:, 0], line.get_xdata()[0]), 1]
    assert left.min() == pytest.approx(low)
    assert left.max() == pytest.approx(high)
    assert "50 % of draws" in legend(ax)
    assert ax.get_title() == "mean over 40 training rows"


def test_partial_dependence_has_a_panel_a_feature_on_one_scale(three):
    figure = plots.partial_dependence(three)
    assert [ax.get_xlabel() for ax in figure.axes] == list(three.data.feature_names)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    own = Figure()
    axes = own.subplots(1, 3)
    assert plots.partial_dependence(three, ["soil", 0], axes[1:]) is own
    assert [ax.get_xlabel() for ax in axes] == ["", "soil", "rain"]


def test_partial_dependence_takes_the_same_rows_again(three):
    (ax,) = plots.partial_dependence(three, 0, num_rows=9).axes
    (again,) = plots.partial_dependence(three, 0, num_rows=9).axes
    assert ax.get_title() == "mean over 9 training rows drawn at random"
    np.testing.assert_array_equal(ax.lines[-2].get_ydata(), again.lines[-2].get_ydata())
    assert len(set(dependence_plots.rows_for(40, 9, 0))) == 9
    assert set(dependence_plots.rows_for(40, 9, 0)) != set(dependence_plots.rows_for(40, 9, 1))


def test_partial_dependence_compiles_once_for_all_features(ard, compilations):
    plots.partial_dependence(ard, 0)
    compilations.reset()
    plots.partial_dependence(ard, [1, 2])
    assert compilations.count == 0


def test_partial_dependence_refuses_what_it_cannot_draw(three):
    with pytest.raises(ZooValueError, match="soil"):
        plots.partial_dependence(three, "moon")
    with pytest.raises(ZooValueError, match=r"plt\.subplots\(3\)"):
        plots.partial_dependence(three, ax=Figure().subplots(1, 2))
    with pytest.raises(ZooTypeError, match=r"plt\.subplots"):
        plots.partial_dependence(three, ax="here")
    with pytest.raises(ZooValueError, match=r"features=\['a', 'b', 'c'\]"):
        dependence_plots._columns(toy(tuple("abcdefghijklm")), None)


# --- prior and posterior ----------------------------------------------------------------------------------------------


def test_prior_band_is_the_priors_and_the_other_the_posteriors(one):
    (ax,) = plots.prior_and_posterior(one).axes
    scaling, x = one.scaling, ax.get_xlim()[0]
    bands = [collection.get_paths()[0].vertices for collection in ax.collections[:2]]
    prior, found = ([b[np.isclose(b[:, 0], x), 1].min(), b[np.isclose(b[:, 0], x), 1].max()] for b in bands)
    # w x + b of the standardised x, both Normal(0, 1).
    sd = scaling.y_scale * np.sqrt(1 + ((x - scaling.x_centre[0]) / scaling.x_scale[0]) ** 2)
    expected = scaling.y_centre + norm.ppf([0.05, 0.95]) * sd
    # Standard error of a quantile of 500 draws, √(0.05 · 0.95 / 500) / φ(1.645), is 0.095 sd.
    assert np.abs(np.array(prior) - expected).max() < 5 * 0.095 * sd
    expected = np.quantile(one.function_draws(np.array([[x]])), [0.05, 0.95])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_prior_and_posterior_asks_for_a_feature(three):
    with pytest.raises(ZooValueError, match="feature='rain'"):
        plots.prior_and_posterior(three)


# --- forest -----------------------------------------------------------------------------------------------------------


def test_forest_has_medians_by_chain_with_the_first_input_on_top(three):
    x = three.data.x[[3, 8]]
    (ax,) = plots.forest(three, x, names=["here", "$there_"]).axes
    dots = np.array([line.get_xdata() for line in ax.lines])
    np.testing.assert_allclose(dots, np.median(three.function_draws(x), axis=1), rtol=1e-6)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["here", "$there_"]
    assert ax.get_yticks()[0] > ax.get_yticks()[1]
    assert {"chain 0", "chain 1"} <= set(legend(ax))
    (ax,) = plots.forest(three).axes
    assert (np.diff(ax.lines[0].get_xdata()) < 0).all()


def test_forest_of_few_members_shows_each(point):
    (ax,) = plots.forest(point, point.data.x[:2]).axes
    np.testing.assert_allclose(
        np.concatenate([line.get_xdata() for line in ax.lines]), point.function_draws(point.data.x[:2])[0].ravel()
    )


def test_forest_refuses_what_it_cannot_name(three):
    with pytest.raises(ZooValueError, match="one name an input"):
        plots.forest(three, three.data.x[:2], names=["only one"])
    with pytest.raises(ZooValueError, match="noise"):
        plots.forest(three, sites=["noice"])
    with pytest.raises(ZooValueError, match="either inputs"):
        plots.forest(three, three.data.x[:2], sites="noise")


# --- checks -----------------------------------------------------------------------------------------------------------


def test_pit_is_that_of_the_posterior_without_the_row(left_out):
    """Fails if weights are left out (the PIT of a row in its own posterior), upside down, or of another draw.

    100 of 100 seeds of the chains passed, the farthest 2.2 of the 5 errors away.
    """
    fitted = left_out.posterior
    found = check_plots.left_out(fitted)
    below = norm.cdf((left_out.y[None, None, :] - fitted.function_draws(left_out.x)) / SIGMA)
    # Of 2,000 draws at least 400 count (the effective share of these chains is above 0.4, and weights take a half).
    error = 5 * below.std((0, 1)) / np.sqrt(400)
    assert np.median(found.k) < 0.5
    assert (np.abs(found.pit - left_out.pit) < error).all()
    assert (np.abs(below.mean((0, 1)) - left_out.pit) > error).any()


def test_loo_pit_draws_the_share_less_the_pit(left_out):
    (ax,) = plots.loo_pit(left_out.posterior).axes
    line = next(line for line in ax.lines if line.get_label() == "12 training rows")
    pit = np.sort(check_plots.left_out(left_out.posterior).pit)
    above = np.arange(1, 13) / 12 - pit
    np.testing.assert_allclose(line.get_ydata()[2:-1:2], above)
    np.testing.assert_allclose(line.get_ydata()[1:-1:2], above - 1 / 12)
    assert "p = " in ax.get_title()


def test_loo_pit_sees_predictions_that_are_too_narrow(left_out):
    """Targets five sds of the noise away, up and down: PITs pile up at 0 and 1, and the test says so."""
    fitted = left_out.posterior
    y = fitted.predict(left_out.x).mean + 5 * SIGMA * np.resize([1.0, -1.0], 12)
    far = replace(fitted, data=zoo.Dataset(left_out.x, y, ("x",), "y", "far"))
    (ax,) = plots.loo_pit(far).axes
    assert "p = 0.00" in ax.get_title()
    assert "what the test objects to" in legend(ax)


def test_loo_pit_is_of_chains(point, guide):
    for posterior in (point, guide):
        with pytest.raises(ZooValueError, match="Fit with 'nuts'"):
            plots.loo_pit(posterior)


def test_posterior_predictive_has_a_density_a_data_set(three):
    (ax,) = plots.posterior_predictive(three, num=20).axes
    made = three.predict(three.data.x).sample(20, seed=0)
    low, high = np.quantile(made.std(1), [0.05, 0.95])
    assert f"sd of y {three.data.y.std():.3g}, of made-up y {low:.3g} to {high:.3g}" in ax.get_title()
    assert len(ax.lines) == 21
    for line in ax.lines:
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1, abs=0.05)
    with pytest.raises(ZooValueError, match=r"plots\.predictive"):
        plots.posterior_predictive(three, (three.data.x[:4], three.data.y[:4]))


def test_energy_has_the_lowest_fraction_of_missing_information(three, point):
    """E-BFMI by its definition: Σ (E_t − E_{t−1})² / Σ (E_t − Ē)², here of the worse chain."""
    (ax,) = plots.energy(three).axes
    energy = three.stats["energy"].astype(float)
    expected = (np.diff(energy, axis=1) ** 2).sum(1) / ((energy - energy.mean(1, keepdims=True)) ** 2).sum(1)
    assert ax.get_title().startswith(f"E-BFMI {expected.min():.2f}, the lowest of 2 chains")
    with pytest.raises(ZooValueError, match="Fit with 'nuts' or 'hmc'"):
        plots.energy(point)
