"""Plots of what a posterior predicts, and of whether it is calibrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo import datasets
from bnn_zoo.datasets import Dataset
from bnn_zoo.errors import bad_value, check_between, check_count
from bnn_zoo.inputs import as_inputs
from bnn_zoo.reports.drawing import (
    BLUE,
    GREEN,
    GREY,
    MOST_MARKS,
    VERMILLION,
    axes_for,
    describe,
    legend_below,
    marks,
    shortened,
    text_colour,
)
from bnn_zoo.reports.subjects import GRID, column_of, grid_over, inputs_along, inside, matched, named, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior


def predictive(
    posterior: Posterior,
    data: Any = None,
    *,
    feature: str | int | None = None,
    prob: float = 0.9,
    ax: Axes | None = None,
) -> Figure:
    """Show what the posterior predicts, against data.

    With one feature: data, predictive mean, a few functions, and two bands over the data's range and a quarter of it
    to either side: the inner holds f(x) with probability ``prob``, the outer, exact for the mixture, an observation.
    The curve that synthetic data were drawn from is shown where it is known.

    With several: observed against predicted, each with its central interval; on the diagonal a prediction is right,
    and observations outside their interval are marked.

    Parameters
    ----------
    posterior : Posterior
        Of any kind.
    data : Dataset, pair or str, optional
        ``x (m, d)`` and ``y (m,)`` to compare with; the training data by default.
    feature : str or int, optional
        With several features: draw the curve along this one, all others at their medians in the training data.
    prob : float
        Probability of the intervals, strictly between 0 and 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the data do not fit, there is no such feature, or ``prob`` is not a probability.
    """
    check_between("prob", prob, 0, 1, "0.9 is usual.")
    data = matched(posterior, data)
    if feature is None and data.num_features > 1:
        return _observed_against_predicted(posterior, data, prob, ax)
    return _curve(posterior, data, column_of(data, feature), prob, ax)


def functions(posterior: Posterior, x: Any = None, num: int = 30, ax: Axes | None = None) -> Figure:
    """Show functions f(x) of single draws, with the training data: one feature only.

    Parameters
    ----------
    posterior : Posterior
        Of data with one feature.
    x : array-like, optional
        Where to evaluate, ``(m, 1)`` or ``(m,)``; by default the data's range and a quarter of it to either side.
    num : int
        How many draws, spread evenly over all chains.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there are several features, ``num`` is not a count, or ``x`` does not fit.
    """
    check_count("num", num)
    data = posterior.data
    if data.num_features > 1:
        mend = "Use plots.predictive(posterior, feature=…), which holds the other features fixed."
        raise bad_value("the posterior", "of data with one feature", f"{data.num_features} features", mend)
    if x is None:
        x = grid_over(data.x[:, 0])
    x = np.sort(as_inputs(x if np.ndim(x) != 1 else np.asarray(x)[:, None], data.feature_names), axis=0)
    figure, ax = axes_for(ax)
    curves = spread(posterior.function_draws(x), num)
    ax.plot(x[:, 0], curves.T, color=BLUE, linewidth=0.8, alpha=max(0.25, min(1.0, 4 / len(curves))))
    marks(ax, data.x[:, 0], data.y, "data")
    ax.lines[-len(curves)].set_label(f"f(x) of {len(curves)} draws")
    describe(ax, x=data.feature_names[0], y=data.target_name)
    legend_below(ax)
    return figure


def calibration(posterior: Posterior, data: Any, ax: Axes | None = None) -> Figure:
    """Show the share of observations inside their central interval, for intervals of every probability.

    On the diagonal all is well; below it intervals are too narrow, above it too wide. The band holds 95 % of the
    shares that a perfectly calibrated forecast would have at that level with as many observations, by chance.

    Parameters
    ----------
    posterior : Posterior
        Of any kind.
    data : Dataset, pair or str
        Observations, ``x (m, d)`` and ``y (m,)``; held-out ones: a fit flatters itself on the rows it has seen.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the data do not fit.
    """
    from scipy.stats import binom

    data, what = named(posterior, data)
    levels, count = np.linspace(0, 1, GRID + 1), len(data)
    low, high = binom.ppf([[0.025], [0.975]], count, levels) / count
    figure, ax = axes_for(ax)
    ax.fill_between(levels, low, high, color=GREY, alpha=0.3, linewidth=0, label="95 % band of chance")
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    ax.plot(levels, inside(posterior.predict(data.x), data.y, levels), color=BLUE, linewidth=2, label="observed")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    describe(ax, "nominal level of the central interval", "share of observations inside", what)
    legend_below(ax)
    return figure


# --- two ways to show predictions -------------------------------------------------------------------------------------


def _truth(data: Dataset) -> Callable | None:
    """The curve that ``data`` were drawn from, if they are rows of a synthetic set and do not merely share its name."""
    try:
        curve, _ = datasets.truth(data.name)
        known = datasets.load(data.name)
    except ValueError:
        return None
    return curve if np.isin(data.x, known.x).all() and np.isin(data.y, known.y).all() else None


def _curve(posterior: Posterior, data: Dataset, column: int, prob: float, ax: Axes | None) -> Figure:
    grid = grid_over(data.x[:, column])[:, 0]
    inputs = inputs_along(posterior, grid, column)
    prediction, draws = posterior.predict(inputs), posterior.function_draws(inputs)
    low, high = prediction.interval(prob).T
    figure, ax = axes_for(ax)
    said = f"{100 * prob:g} %"
    ax.fill_between(grid, low, high, color=BLUE, alpha=0.25, linewidth=0, label=f"{said} of observations")
    if prediction.epistemic_std.any():
        inner = epistemic_band(prediction, draws, prob)
        ax.fill_between(grid, *inner, color=BLUE, alpha=0.4, linewidth=0, label=f"{said} of f(x)")
        ax.plot(grid, spread(draws, 5).T, color=GREEN, linewidth=0.8)
        ax.lines[-1].set_label("f(x) of single draws")
    ax.plot(grid, prediction.mean, color=BLUE, linewidth=2, label="mean")
    curve = _truth(data) if data.num_features == 1 else None
    if curve is not None:
        ax.plot(grid, curve(grid), color=VERMILLION, linestyle="--", linewidth=1.5, label="truth")
    marks(ax, data.x[:, column], data.y, f"{data.name} ({len(data)})")
    ax.set_xlim(grid[0], grid[-1])
    title = "" if data.num_features == 1 else "all other features at their medians"
    describe(ax, data.feature_names[column], data.target_name, title)
    legend_below(ax)
    return figure


def epistemic_band(prediction: Any, draws: np.ndarray, prob: float) -> np.ndarray:
    """Return the central interval ``(2, m)`` of f(x): of draws where they make the prediction, else of a Normal."""
    levels = [0.5 - prob / 2, 0.5 + prob / 2]
    if prediction.kind == "monte_carlo":
        return np.quantile(draws, levels, axis=(0, 1))
    from scipy.stats import norm

    return prediction.mean + norm.ppf(levels)[:, None] * prediction.epistemic_std


def _observed_against_predicted(posterior: Posterior, data: Dataset, prob: float, ax: Axes | None) -> Figure:
    prediction = posterior.predict(data.x)
    low, high = prediction.interval(prob).T
    inside = (low <= data.y) & (data.y <= high)
    figure, ax = axes_for(ax)
    pixels = len(data) > MOST_MARKS
    for where, colour, marker, word in ((inside, BLUE, "o", "inside"), (~inside, VERMILLION, "X", "outside")):
        thin: dict[str, Any] = {"color": colour, "linewidth": 0.7, "alpha": 0.7, "rasterized": pixels}
        ax.vlines(prediction.mean[where], low[where], high[where], **thin)
        label = f"{word} the {100 * prob:g} % interval: {where.sum()} of {len(data)} ({where.mean():.0%})"
        marks(ax, prediction.mean[where], data.y[where], label, color=colour, marker=marker, pixels=pixels)
    ends = [min(prediction.mean.min(), data.y.min()), max(prediction.mean.max(), data.y.max())]
    ax.plot(ends, ends, color=text_colour(), linestyle="--", linewidth=1, label="observed = predicted")
    name = shortened(data.target_name)
    describe(ax, f"predicted {name} (mean)", f"observed {name}", "")
    legend_below(ax, columns=1)
    return figure
