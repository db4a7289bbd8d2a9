"""Plots of a posterior: what it predicts, whether it is calibrated, whether its chains agree.

Every function returns the Matplotlib figure it drew in. Give ``ax`` to draw in axes of your own; without it the figure
is new, fits a column of a paper, and belongs to no window, so that nothing is left open. Backgrounds and text follow
Matplotlib's style; the colours are of Okabe & Ito, told apart by colour-blind readers, and chosen to stand out (3 : 1)
on white as well as on black. Matplotlib is imported when the first plot is drawn.

Eight plots make this file longer than 300 lines: they are one vocabulary, read side by side; `drawing.py` is what they
share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo import datasets
from bnn_zoo.datasets import Dataset, as_dataset
from bnn_zoo.errors import bad_value, check_between, check_choice, check_count
from bnn_zoo.inputs import as_inputs, default_names
from bnn_zoo.reports.drawing import (
    BLUE,
    GREEN,
    GREY,
    MOST_MARKS,
    SIZE,
    VERMILLION,
    axes_for,
    chain_look,
    describe,
    legend_below,
    marks,
    shortened,
    text_colour,
)
from bnn_zoo.reports.mixing import chain_diagnostics
from bnn_zoo.reports.prior_plots import prior_functions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

__all__ = [
    "calibration",
    "functions",
    "losses",
    "noise",
    "predictive",
    "prior_functions",
    "ranks",
    "relevance",
    "traces",
]

GRID = 200
MARGIN = 0.25


# --- predictions ------------------------------------------------------------------------------------------------------


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
    return _curve(posterior, data, _column(data, feature), prob, ax)


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
        x = _grid(data.x[:, 0])
    x = np.sort(as_inputs(x if np.ndim(x) != 1 else np.asarray(x)[:, None], data.feature_names), axis=0)
    figure, ax = axes_for(ax)
    curves = _spread(posterior.function_draws(x), num)
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

    data = matched(posterior, data)
    levels, count = np.linspace(0, 1, GRID + 1), len(data)
    reach = np.sort(np.abs(2 * posterior.predict(data.x).cdf(data.y) - 1))
    inside = np.searchsorted(reach, levels, side="right") / count
    low, high = binom.ppf([[0.025], [0.975]], count, levels) / count
    figure, ax = axes_for(ax)
    ax.fill_between(levels, low, high, color=GREY, alpha=0.3, linewidth=0, label="95 % band of chance")
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    ax.plot(levels, inside, color=BLUE, linewidth=2, label="observed")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    what = f"{count} training observations" if same_rows(data, posterior.data) else f"{count} observations"
    describe(ax, "nominal level of the central interval", "share of observations inside", f"{what} of {data.name}")
    legend_below(ax)
    return figure


# --- chains -----------------------------------------------------------------------------------------------------------


def traces(posterior: Posterior, ax: Axes | None = None) -> Figure:
    """Show f(x) along each chain, in the units of the target, at the input where chains agree least.

    That input has the highest R-hat of those that ``posterior.diagnose()`` judges (the smallest effective sample size
    where there is one chain). Chains should overlap, and none should drift.

    Parameters
    ----------
    posterior : Posterior
        Made of Markov chains.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooValueError
        If the draws are not chains.
    """
    values, title = _worst_point(posterior)
    figure, ax = axes_for(ax)
    for chain, line in enumerate(values):
        ax.plot(line, linewidth=0.7, alpha=0.85, label=f"chain {chain}", **chain_look(chain))
    describe(ax, "draw", f"f(x), {shortened(posterior.data.target_name)}", title)
    legend_below(ax)
    return figure


def ranks(posterior: Posterior, ax: Axes | None = None) -> Figure:
    """Show where each chain's draws of f(x) rank among all chains', at the input where chains agree least.

    Chains that agree have flat histograms, inside the band that holds 95 % of a bar's heights by chance. Draws are
    thinned by their chain's own effective sample size first, as the band is that of independent draws.

    Parameters
    ----------
    posterior : Posterior
        Made of two Markov chains or more.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooValueError
        If the draws are not chains, or there is one chain, whose ranks say nothing.
    """
    from scipy.stats import hypergeom, rankdata

    values, title = _worst_point(posterior)
    chains = len(values)
    if chains == 1:
        mend = "Fit with num_chains=4: one chain cannot disagree with itself."
        raise bad_value("the posterior", "made of two chains or more", "one", mend)
    effective = min(float(chain_diagnostics(chain[None, :, None])["ess_bulk"][0]) for chain in values)
    # Sixteen draws a chain are kept at least: a chain that hardly moves would otherwise have nothing left to show.
    thinning = max(1, min(round(values.shape[1] / max(effective, 1.0)), values.shape[1] // 16))
    kept = values[:, ::thinning]
    bins = int(np.clip(kept.shape[1] // 8, 2, 20))
    edges = np.linspace(0.5, kept.size + 0.5, bins + 1)
    counts = np.array([np.histogram(row, edges)[0] for row in rankdata(kept).reshape(kept.shape)])
    expected = kept.shape[1] / bins
    low, high = hypergeom.ppf([0.025, 0.975], kept.size, kept.shape[1], round(kept.size / bins))
    scale = 1.15 * max(counts.max(), high)  # each chain has a strip of height 1
    figure, ax = axes_for(ax)
    for chain, row in enumerate(counts):
        ax.fill_between(edges[[0, -1]], chain + low / scale, chain + high / scale, color=GREY, alpha=0.3, linewidth=0)
        ax.plot(edges[[0, -1]], [chain + expected / scale] * 2, color=GREY, linewidth=0.8, linestyle="--")
        ax.stairs(chain + row / scale, edges, baseline=None, linewidth=1.6, **chain_look(chain))
    ax.set(xlim=(edges[0], edges[-1]), ylim=(0, chains))
    ax.set_yticks(np.arange(chains) + 0.5 * expected / scale, [f"chain {chain}" for chain in range(chains)])
    kept_share = f" (1 draw in {thinning} kept)" if thinning > 1 else ""
    describe(ax, f"rank of f(x) among all chains{kept_share}", "", title)
    return figure


# --- parameters and training ------------------------------------------------------------------------------------------


def noise(posterior: Posterior, ax: Axes | None = None, *, site: str | None = None) -> Figure:
    """Show the posterior of a scalar site, the noise if there is one, chain by chain, with its prior.

    The noise is in the units of the target, other sites on the model's scale. The prior's density is drawn over the
    posterior's range, where it is often nearly flat: the data have spoken.

    Parameters
    ----------
    posterior : Posterior
        Of a model with a scalar site, such as a noise with a prior.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    site : str, optional
        Which scalar site; by default ``"noise"``, or the first there is.

    Raises
    ------
    ZooValueError
        If there is no scalar site, or none of that name.
    """
    known = scalar_sites(posterior)
    if not known:
        mend = "Give noise= or weight_scale= a prior, such as numpyro.distributions.HalfNormal(1.0)."
        raise bad_value("the posterior", "of a model with a scalar site", "none", mend)
    if site is None:
        site = "noise" if "noise" in known else known[0]
    check_choice("site", site, known)
    values = np.asarray(posterior.draws[site], float)
    figure, ax = axes_for(ax)
    if values.shape[1] < 20:  # so few draws, as of an ensemble, make no histogram
        for value in values.flat:
            ax.axvline(value, color=BLUE)
        ax.set_yticks([])
    else:
        edges = np.histogram_bin_edges(values, "auto" if np.ptp(values) else 1)
        for chain, row in enumerate(values):
            ax.hist(row, edges.tolist(), density=True, histtype="step", label=f"chain {chain}", **chain_look(chain))
        _prior_curve(posterior, site, ax)
        legend_below(ax)
    in_units = site in getattr(posterior.model, "sites_in_target_units", ())
    name = f"{site}, {shortened(posterior.data.target_name)}" if in_units else f"{site}, on the model's scale"
    describe(ax, name, "density" if values.shape[1] >= 20 else "", "")
    return figure


def relevance(posterior: Posterior, ax: Axes | None = None) -> Figure:
    """Show how strongly each feature is used: the scales that an ``ARDMLP`` or ``HorseshoeMLP`` has learnt.

    The largest is on top. Dots are posterior medians, thick lines hold half of the posterior, thin ones 90 %. The axis
    is logarithmic; scales refer to features as the model sees them, which is standardised unless ``fit`` was told
    otherwise.

    Parameters
    ----------
    posterior : Posterior
        Of a model with a site ``relevance`` of shape ``(d,)``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooValueError
        If the model has no such site.
    """
    if not has_relevance(posterior):
        mend = "Fit zoo.models.ARDMLP() or HorseshoeMLP(), which learns how much each feature matters."
        raise bad_value("the posterior", "of a model with a site 'relevance'", repr(posterior.model_name), mend)
    values = np.asarray(posterior.draws["relevance"], float).reshape(-1, posterior.data.num_features)
    quantiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    order = np.argsort(quantiles[2])
    low, lower, middle, upper, high = quantiles[:, order]
    rows = np.arange(len(order))
    figure, ax = axes_for(ax, height=max(SIZE[1], 0.8 + 0.22 * len(rows)))
    ax.hlines(rows, low, high, color=BLUE, linewidth=1, label="90 %")
    ax.hlines(rows, lower, upper, color=BLUE, linewidth=3.5, label="50 %")
    ax.plot(middle, rows, "o", color=text_colour(), markersize=4, label="median")
    ax.set_xscale("log")
    ax.set_yticks(rows, [shortened(posterior.data.feature_names[i]) for i in order], parse_math=False)
    describe(ax, "relevance (scale of the feature's weights)", "", "")
    legend_below(ax)
    return figure


def losses(posterior: Posterior, ax: Axes | None = None) -> Figure:
    """Show how training went: minus the log posterior per row, on the model's scale, of every restart or member.

    Parameters
    ----------
    posterior : Posterior
        Of a trained method, such as ``MAP``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooValueError
        If the method keeps no record of losses.
    """
    record = posterior.result.info.get("losses")
    if record is None or len(record) == 0:
        mend = "Use plots.traces for chains; a MAP fit with num_steps=1 or more has losses."
        raise bad_value("the posterior", "of a method that trains", repr(posterior.method_name), mend)
    record = np.asarray(record, float).reshape(len(record), -1)
    # Each point is the last step of an equal share of all steps.
    steps = np.arange(1, len(record) + 1) * getattr(posterior.method, "num_steps", len(record)) / len(record)
    final = posterior.result.info.get("restarts_log_posterior")
    figure, ax = axes_for(ax)
    ax.plot(steps, record, color=GREY, linewidth=1, alpha=0.8)
    ax.lines[-1].set_label(f"{record.shape[1]} trained side by side")
    if final is not None and record.shape[1] > 1:
        ax.plot(steps, record[:, int(np.nanargmax(final))], color=BLUE, linewidth=2, label="the one kept")
    # The first steps, from a draw of the prior, may be of any size, and would flatten all that follows.
    later = record[len(record) // 20 :]
    later = later[np.isfinite(later)]
    if later.size and np.ptp(later):
        ax.set_ylim(later.min() - 0.05 * np.ptp(later), later.max() + 0.05 * np.ptp(later))
    describe(ax, "step", "minus log posterior per row", "")
    legend_below(ax)
    return figure


# --- what data and posteriors hold ------------------------------------------------------------------------------------


def matched(posterior: Posterior, data: Any) -> Dataset:
    """Give ``data`` with the columns, and their names, that ``posterior`` was fitted to; its own data for None.

    Columns of a named set are put in order; data without names are taken by position.

    Raises
    ------
    ZooTypeError, ZooValueError
        If they are not data, or lack a column.
    """
    fitted = posterior.data
    if data is None or data is fitted:
        return fitted
    given = as_dataset(data)
    unnamed = given.feature_names == default_names(given.num_features)
    x = given.x if unnamed else given.to_frame()[list(given.feature_names)]
    return Dataset(as_inputs(x, fitted.feature_names), given.y, fitted.feature_names, fitted.target_name, given.name)


def same_rows(one: Dataset, other: Dataset) -> bool:
    """Whether two sets hold the same rows in the same order."""
    return np.array_equal(one.x, other.x) and np.array_equal(one.y, other.y)


def scalar_sites(posterior: Posterior) -> list[str]:
    """Name the sites of one number a draw, such as the noise."""
    return [name for name, value in posterior.draws.items() if value.ndim == 2]


def has_relevance(posterior: Posterior) -> bool:
    """Whether the model has learnt a scale for each feature."""
    found = posterior.draws.get("relevance")
    return found is not None and found.shape[2:] == (posterior.data.num_features,)


def _worst_point(posterior: Posterior) -> tuple[np.ndarray, str]:
    """Values of f ``(C, S)`` at the worst of the inputs that the diagnosis judges, and a title that says which."""
    if posterior.kind != "markov":
        mend = "Fit with 'nuts' for chains; see plots.losses for how training went, plots.predictive for the result."
        raise bad_value("the posterior", "made of Markov chains", f"one by {posterior.method_name!r}", mend)
    diagnosis = posterior.diagnose()
    inner = (diagnosis.points["where"] != "beyond").to_numpy()
    points, x = diagnosis.points[inner], diagnosis.x[inner]
    if posterior.num_chains > 1:
        row = int(points["rhat"].to_numpy().argmax())
        found = f"R-hat {points['rhat'].iloc[row]:.3f}"
    else:
        row = int(points["ess_bulk"].to_numpy().argmin())
        found = f"ESS {points['ess_bulk'].iloc[row]:.0f}, one chain: no R-hat"
    place = {"training": "a training input", "between": "between training inputs"}[points["where"].iloc[row]]
    return posterior.function_draws(x[row][None, :])[:, :, 0], f"{found}, the worst of {len(x)} inputs ({place})"


def _spread(draws: np.ndarray, num: int) -> np.ndarray:
    """``num`` of all draws ``(C, S, m)``, evenly spread over chains and time: ``(num, m)``."""
    flat = draws.reshape(-1, draws.shape[-1])
    return flat[np.unique(np.linspace(0, len(flat) - 1, min(num, len(flat))).round().astype(int))]


def _grid(values: np.ndarray) -> np.ndarray:
    """Points ``(GRID, 1)`` over the range of ``values`` and a quarter of it to either side."""
    margin = MARGIN * np.ptp(values) or 1.0
    return np.linspace(values.min() - margin, values.max() + margin, GRID)[:, None]


def _column(data: Dataset, feature: str | int | None) -> int:
    names = data.feature_names
    if feature is None:
        return 0
    if isinstance(feature, (int, np.integer)) and not isinstance(feature, bool):
        if not 0 <= feature < len(names):
            raise bad_value("feature", f"a number from 0 to {len(names) - 1}, or a name", feature, "Count from 0.")
        return int(feature)
    check_choice("feature", feature, names)
    return names.index(feature)


def _truth(data: Dataset) -> Callable | None:
    """The curve that ``data`` were drawn from, if they are rows of a synthetic set and do not merely share its name."""
    try:
        curve, _ = datasets.truth(data.name)
        known = datasets.load(data.name)
    except ValueError:
        return None
    return curve if np.isin(data.x, known.x).all() and np.isin(data.y, known.y).all() else None


def _prior_curve(posterior: Posterior, site: str, ax: Axes) -> None:
    """The prior density of a scalar site whose prior is a setting of the model; a foreign model's is not known."""
    from numpyro.distributions import Distribution

    prior = getattr(posterior.model, site, None)
    if not isinstance(prior, Distribution):
        return
    in_units = site in getattr(posterior.model, "sites_in_target_units", ())
    unit = posterior.scaling.y_scale if in_units else 1.0
    grid = np.linspace(*ax.get_xlim(), GRID)[1:]
    grid = grid[grid > 0]
    density = np.exp(np.asarray(prior.log_prob(grid / unit), float)) / unit
    ax.plot(grid, density, color=text_colour(), linestyle=(0, (1, 1)), label="prior")


# --- two ways to show predictions -------------------------------------------------------------------------------------


def _curve(posterior: Posterior, data: Dataset, column: int, prob: float, ax: Axes | None) -> Figure:
    grid = _grid(data.x[:, column])[:, 0]
    inputs = np.tile(np.median(posterior.data.x, axis=0), (GRID, 1))
    inputs[:, column] = grid
    prediction, draws = posterior.predict(inputs), posterior.function_draws(inputs)
    low, high = prediction.interval(prob).T
    figure, ax = axes_for(ax)
    said = f"{100 * prob:g} %"
    ax.fill_between(grid, low, high, color=BLUE, alpha=0.25, linewidth=0, label=f"{said} of observations")
    if prediction.epistemic_std.any():
        inner = _epistemic_band(prediction, draws, prob)
        ax.fill_between(grid, *inner, color=BLUE, alpha=0.4, linewidth=0, label=f"{said} of f(x)")
        ax.plot(grid, _spread(draws, 5).T, color=GREEN, linewidth=0.8)
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


def _epistemic_band(prediction: Any, draws: np.ndarray, prob: float) -> np.ndarray:
    """The central interval of f(x), ``(2, m)``: of the draws where these make the prediction, else of a Normal."""
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
