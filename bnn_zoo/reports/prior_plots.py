"""Plots of a prior: the functions that it draws, beside the data, and beside those that the data leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bnn_zoo import datasets, models
from bnn_zoo.datasets import as_dataset
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_value, check_count
from bnn_zoo.inputs import as_inputs, as_matrix, default_names
from bnn_zoo.priors.functions import sample_functions
from bnn_zoo.priors.predictive import scaling_of
from bnn_zoo.reports.drawing import BLUE, GREY, axes_for, describe, legend_below, marks
from bnn_zoo.reports.predictive_plots import epistemic_band
from bnn_zoo.reports.subjects import GRID, MARGIN, column_of, grid_over, inputs_along, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

BEHIND_BAND = 500  # draws


def prior_functions(
    model: Any,
    x: Any = None,
    data: Any = None,
    *,
    num: int = 20,
    seed: int = 0,
    standardize: bool | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Show functions that the prior draws, and the band that holds nine tenths of them, against the data's scale.

    With data all is in their units, and the grey band is the mean of y and two standard deviations to either side: the
    prior should reach it, and not dwarf it. Without data inputs are taken as they are and functions are on the scale
    that the model works on. One feature only: for several see `bnn_zoo.priors.prior_predictive`.

    Parameters
    ----------
    model : str or Callable
        A registered name, a `bnn_zoo.models` object, or any NumPyro callable ``model(x, y=None)``.
    x : array-like, optional
        Where to evaluate, ``(m, 1)`` or ``(m,)``; by default the data's range and a quarter of it to either side, or
        -2 to 2 without data.
    data : Dataset, pair or str, optional
        What the model is to be fitted to, ``x (n, 1)`` and ``y (n,)``.
    num : int
        Functions to draw.
    seed : int
        Repeats them.
    standardize : bool or None
        As in `bnn_zoo.fit`; for data only.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there are several features, ``num`` is not a count, or ``x`` does not fit.
    """
    check_count("num", num)
    model = models.registry.look_up(model)
    data = None if data is None else as_dataset(data)
    names = default_names(1) if data is None else data.feature_names
    if len(names) > 1:
        mend = "Take zoo.priors.prior_predictive(model, data) and arviz_plots.plot_ppc_dist."
        raise bad_value("data", "of one feature", f"{len(names)} features", mend)
    grid = _grid(x, data, names)
    scaling = Scaling.none(1) if data is None else scaling_of(model, data, standardize)
    curves = scaling.from_model(sample_functions(model, scaling.inputs(grid), max(num, BEHIND_BAND), seed))
    low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    figure, ax = axes_for(ax)
    if data is not None:
        middle, reach = data.y.mean(), 2 * data.y.std()
        ax.axhspan(middle - reach, middle + reach, color=GREY, alpha=0.25, linewidth=0, label="mean of y ± 2 sd")
    ax.fill_between(grid[:, 0], low, high, color=BLUE, alpha=0.15, linewidth=0, label="90 % of f(x)")
    lines = ax.plot(grid[:, 0], curves[:num].T, color=BLUE, linewidth=0.8, alpha=max(0.3, min(1.0, 6 / num)))
    lines[0].set_label(f"f(x) of {num} prior draws")
    if data is not None:
        marks(ax, data.x[:, 0], data.y, "data")
    describe(ax, x=names[0], y="f(x), on the model's scale" if data is None else data.target_name)
    legend_below(ax)
    return figure


def prior_and_posterior(
    posterior: Posterior,
    *,
    feature: str | int | None = None,
    num: int = 15,
    seed: int = 0,
    ax: Axes | None = None,
) -> Figure:
    """Show functions of the prior beside those of the posterior: what the data have taught, and where.

    Grey is the prior, blue the posterior: bands hold nine tenths of f(x), of 500 functions of the prior and of all
    draws of the posterior (for Laplace, of the linearised network, as ``predict`` has it); lines are single functions.
    Where the blue band is as wide as the grey one, the data say nothing. The prior is the model's, as ``fit`` saw it;
    what a method fits of the prior itself, as an empirical one, is not in it. Lines of the prior that leave the bands
    far behind are cut off.

    Parameters
    ----------
    posterior : Posterior
        Of any kind.
    feature : str or int, optional
        With several features: the one to draw along, all others at their medians in the training data.
    num : int
        Single functions of each.
    seed : int
        Repeats those of the prior.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there are several features and none is named, there is no such feature, or ``num`` is not a count.
    """
    check_count("num", num)
    check_count("seed", seed, 0)
    data, scaling = posterior.data, posterior.scaling
    if feature is None and data.num_features > 1:
        mend = f"Name one, such as feature={data.feature_names[0]!r}; all others are held at their medians."
        raise bad_value("feature", f"one of {data.num_features} features", "none", mend)
    column = column_of(data, feature)
    values = grid_over(data.x[:, column])[:, 0]
    inputs = inputs_along(posterior, values, column)
    with jax.enable_x64(posterior.x64):
        model_inputs = scaling.inputs(inputs, posterior.problem.x.dtype)
        drawn = sample_functions(posterior.problem.model, model_inputs, max(num, BEHIND_BAND), seed)
    prior, found = scaling.from_model(drawn), posterior.function_draws(inputs)
    figure, ax = axes_for(ax)
    seen = [float(data.y.min()), float(data.y.max())]
    bands = np.quantile(prior, [0.05, 0.95], axis=0), epistemic_band(posterior.predict(inputs), found, 0.9)
    shown = (("prior", prior[None], GREY, 0.25, "--"), ("posterior", found, BLUE, 0.4, "-"))
    for (low, high), (name, curves, colour, alpha, style) in zip(bands, shown, strict=True):
        seen += [float(low.min()), float(high.max())]
        ax.fill_between(values, low, high, color=colour, alpha=alpha, linewidth=0, label=f"{name}: 90 % of f(x)")
        lines = ax.plot(values, spread(curves, num).T, color=colour, linewidth=0.8, alpha=0.8, linestyle=style)
        lines[0].set_label(f"{name}: single draws")
    marks(ax, data.x[:, column], data.y, "data")
    margin = 0.1 * (max(seen) - min(seen))
    ax.set(xlim=(values[0], values[-1]), ylim=(min(seen) - margin, max(seen) + margin))
    title = "" if data.num_features == 1 else "all other features at their medians"
    describe(ax, data.feature_names[column], data.target_name, title)
    legend_below(ax)
    return figure


def _grid(x: Any, data: datasets.Dataset | None, names: tuple[str, ...]) -> np.ndarray:
    """Inputs ``(m, 1)`` in ascending order."""
    if x is None:
        low, high = (-2.0, 2.0) if data is None else (float(data.x.min()), float(data.x.max()))
        margin = 0.0 if data is None else MARGIN * (high - low)
        return np.linspace(low - margin, high + margin, GRID)[:, None]
    column = np.asarray(x)[:, None] if np.ndim(x) == 1 else x
    found = as_matrix(column) if data is None else as_inputs(column, names)
    if found.shape[1] != 1:
        raise bad_value("x", "of one column", f"shape {found.shape}", "Draw along one feature at a time.")
    return np.sort(found, axis=0)
