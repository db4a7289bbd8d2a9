"""The plot of simulation-based calibration: how far ranks are from uniform, with a band of chance."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bnn_zoo.errors import bad_type, check_between
from bnn_zoo.reports.drawing import BLUE, GREEN, GREY, PURPLE, VERMILLION, axes_for, describe, legend_below, text_colour
from bnn_zoo.reports.score_plots import uniform_band
from bnn_zoo.reports.uniformity import FUNCTIONS, Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sbc(calibration: Calibration, ax: Axes | None = None, *, prob: float = 0.95) -> Figure:
    """Show, for every quantity, the distribution function of its ranks minus that of uniform ranks.

    Where a method is exact all curves stay inside the band with probability ``prob``. Intervals that are too narrow
    make an S that first rises above it and then falls below, as too many true values lie below or above all draws; too
    wide ones make a mirrored S; a bias makes a single arch. A curve that leaves the band somewhere is drawn thick.

    Parameters
    ----------
    calibration : Calibration
        What `bnn_zoo.sbc` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    prob : float
        Probability of the band, for all curves together.

    Notes
    -----
    The band is simultaneous over all ranks: the pointwise binomial intervals of Säilynoja et al. (2022), section 2.2,
    at the level at which ``prob`` of all uniform samples stay inside everywhere, which 4,000 simulated samples tell
    (their algorithm 1). It is split evenly over the quantities (Bonferroni), so that it holds all curves at once.

    References
    ----------
    Säilynoja, Bürkner & Vehtari (2022), Graphical test for discrete uniformity and its applications in goodness of fit
    evaluation and multiple sample comparison.

    Raises
    ------
    ZooTypeError, ZooValueError
        If it is no calibration, or ``prob`` is not strictly between 0 and 1.
    """
    if not isinstance(calibration, Calibration):
        raise bad_type("calibration", "what zoo.sbc returns", type(calibration).__name__, "Call zoo.sbc first.")
    check_between("prob", prob, 0, 1, "0.95 is usual.")
    names, count = list(calibration.ranks.columns), len(calibration.ranks)
    grid, excess = excesses(calibration.ranks.to_numpy(), calibration.num_ranks)
    low, high = band(count, calibration.num_ranks, 1 - (1 - prob) / len(names))
    outside = ((excess < low[:, None] - 1e-9) | (excess > high[:, None] + 1e-9)).any(axis=0)
    figure, ax = axes_for(ax)
    ends = np.concatenate([[0.0], grid, [1.0]])
    label = f"{100 * prob:g} % band, all curves"
    ax.fill_between(ends, np.pad(low, 1), np.pad(high, 1), color=GREY, alpha=0.3, linewidth=0, label=label)
    ax.axhline(0, color=GREY, linestyle="--", linewidth=1)
    others = [name for name in names if not name.startswith(FUNCTIONS)]
    colours = dict(zip(others, (VERMILLION, GREEN, PURPLE), strict=False))
    labelled: set[str] = set()
    for name, curve, out in zip(names, excess.T, outside, strict=True):
        said = name if name in others else "f(x*), each point"
        ax.plot(
            ends,
            np.pad(curve, 1),
            color=colours.get(name, BLUE if name not in others else text_colour()),
            linewidth=2.2 if out else 1.0,
            label=None if said in labelled else said,
        )
        labelled.add(said)
    ax.set_xlim(0, 1)
    found = "all inside the band" if not outside.any() else f"{outside.sum()} of {len(names)} leave the band"
    describe(ax, "rank of the truth, as a share", "ECDF of ranks minus uniform", f"{count} data sets: {found}")
    legend_below(ax)
    return figure


def excesses(ranks: np.ndarray, num_ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares u at the inner borders of ranks ``(K - 1,)``, and there the share of ``ranks (N, q)`` below, minus u."""
    border = np.arange(1, num_ranks)
    below = (ranks[None, :, :] < border[:, None, None]).mean(axis=1)
    return border / num_ranks, below - border[:, None] / num_ranks


@lru_cache(maxsize=32)
def band(count: int, num_ranks: int, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends ``(K - 1,)``, minus uniform, at the inner borders, which hold ``prob`` of all uniform samples."""
    grid = np.arange(1, num_ranks) / num_ranks
    return uniform_band(count, grid, prob)
