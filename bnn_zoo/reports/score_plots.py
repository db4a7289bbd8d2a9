"""Plots of scores: are probabilities uniform that should be, and do the largest errors come announced?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.errors import check_between
from bnn_zoo.reports.drawing import BLUE, GREY, VERMILLION, axes_for, describe, legend_below, text_colour
from bnn_zoo.reports.sparsification import area_under_error, curve
from bnn_zoo.reports.subjects import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

MOST_LEVELS = 200
SIMULATIONS = 4000


def pit(posterior: Posterior, data: Any, *, prob: float = 0.95, ax: Axes | None = None) -> Figure:
    """Show whether P(Y ≤ y), the probability integral transform of the observations, is uniform, as it should be.

    The line is the share of observations whose transform is at most u, less u: a calibrated prediction stays in the
    band, as a whole, with probability ``prob``. Where the line leaves it, it is drawn in another colour. Observations
    lie too often below the prediction's lower quantiles where it is above the band at the left, and too often above the
    upper ones where it is below the band at the right: first up and then down are intervals that are too narrow, first
    down and then up too wide; up all along is a prediction that is too high, down all along one that is too low.

    Parameters
    ----------
    posterior : Posterior
        Of any kind.
    data : Dataset, pair or str
        Observations, ``x (m, d)`` and ``y (m,)``; held-out ones: a fit flatters itself on the rows it has seen.
    prob : float
        Probability of the band, strictly between 0 and 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the data do not fit, or ``prob`` is not a probability.

    References
    ----------
    Säilynoja, Bürkner & Vehtari (2022), Graphical test for discrete uniformity and its applications, Statistics and
    Computing 32, algorithm 1. The pointwise level is found by simulation, with a fixed seed.
    """
    check_between("prob", prob, 0, 1, "0.95 is usual.")
    data, what = named(posterior, data)
    values = np.sort(posterior.predict(data.x).cdf(data.y))
    levels = np.linspace(0, 1, min(len(data), MOST_LEVELS) + 1)[1:-1]
    low, high = uniform_band(len(data), levels, prob)
    levels, low, high = (np.pad(a, 1, constant_values=ends) for a, ends in ((levels, (0, 1)), (low, 0), (high, 0)))
    off = np.searchsorted(values, levels, side="right") / len(data) - levels
    figure, ax = axes_for(ax)
    ax.fill_between(levels, low, high, color=GREY, alpha=0.3, linewidth=0, label=f"{100 * prob:g} % band of chance")
    ax.axhline(0, color=GREY, linestyle="--", linewidth=1, label="uniform")
    ax.plot(levels, off, color=BLUE, linewidth=2, label="observed")
    beyond = (off < low - 1e-12) | (off > high + 1e-12)
    if beyond.any():
        # With marks, as one level alone has no line.
        beyond_off = np.where(beyond, off, np.nan)
        ax.plot(levels, beyond_off, "o-", color=VERMILLION, linewidth=3, markersize=3.5, label="outside the band")
    ax.set_xlim(0, 1)
    describe(ax, "probability u", "ECDF of P(Y ≤ y), less u", what)
    legend_below(ax)
    return figure


def sparsification(posterior: Posterior, data: Any, ax: Axes | None = None) -> Figure:
    """Show how the error falls as rows are removed, those of the largest predictive sd first.

    The lower line removes those of the largest errors first, which nobody can know: the nearer the two, the better the
    sd says where errors are to be expected. A flat line is an sd that does not, as it must be where the noise is the
    same everywhere and the network sure of itself. The area between the lines, over the error of all rows, is the
    score ``ause`` of `Posterior.evaluate` (Ilg 2018).

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
    data, what = named(posterior, data)
    prediction = posterior.predict(data.x)
    squared = (data.y - prediction.mean) ** 2
    area, error = area_under_error(squared, prediction.std)
    # Left to right from all rows to one; a vector graphic needs no more points than can be seen.
    removed = np.unique(np.linspace(0, len(data) - 1, 1000).round().astype(int))
    by_sd, oracle = (curve(squared, by)[::-1][removed] for by in (prediction.std, squared))
    share = removed / len(data)
    figure, ax = axes_for(ax)
    between = f"AUSE {area:.2f} ± {error:.2f}" if np.isfinite(error) else f"AUSE {area:.2f}"
    ax.fill_between(share, oracle, by_sd, color=GREY, alpha=0.3, linewidth=0, label=between)
    ax.plot(share, by_sd, color=BLUE, linewidth=2, label="largest sd removed first")
    ax.axhline(by_sd[0], color=GREY, linestyle="--", linewidth=1, label="in no order")
    ax.plot(share, oracle, color=text_colour(), linewidth=1.2, linestyle=":", label="largest error removed first")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    describe(ax, "share of rows removed", f"RMSE of the rest, {data.target_name}", what)
    legend_below(ax)
    return figure


def uniform_band(count: int, levels: np.ndarray, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a band that holds (ECDF − level) of ``count`` uniform numbers at all ``levels`` at once with ``prob``.

    Its pointwise tails γ/2 are the same at every level, from the binomial distribution of the counts; γ is the
    (1 − prob) quantile, over simulated samples, of the smallest tail probability that a sample has anywhere (Säilynoja
    2022, eqs. 12 and 13).

    Parameters
    ----------
    count : int
        How many numbers.
    levels : ndarray
        ``(k,)``, ascending, strictly between 0 and 1; none at all gives an empty band.
    prob : float
        Strictly between 0 and 1.
    """
    from scipy.stats import binom

    if len(levels) == 0:
        return np.zeros(0), np.zeros(0)
    gamma = pointwise_level(count, levels, prob)
    low, high = binom.ppf([[gamma / 2], [1 - gamma / 2]], count, levels[None, :]) / count - levels[None, :]
    return low, high


def pointwise_level(count: int, levels: np.ndarray, prob: float) -> float:
    """Return the γ of `uniform_band`: pointwise intervals of 1 − γ hold ``prob`` of all samples at all levels."""
    from scipy.stats import binom

    cells = np.diff(np.concatenate([[0.0], levels, [1.0]]))
    counts = np.random.default_rng(0).multinomial(count, cells, size=SIMULATIONS).cumsum(axis=1)[:, :-1]
    tails = 2 * np.minimum(binom.cdf(counts, count, levels[None, :]), binom.sf(counts - 1, count, levels[None, :]))
    return float(min(np.quantile(tails.min(axis=1), 1 - prob), 1.0))
