"""A plot of the log posterior over a plane through weight space, with the draws on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.errors import bad_type, bad_value, check_choice, check_count
from bnn_zoo.reports import surfaces
from bnn_zoo.reports.drawing import (
    CHAIN_COLOURS,
    MOST_MARKS,
    axes_for,
    describe,
    legend_below,
)
from bnn_zoo.reports.subjects import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

PLANES = ("modes", "components")
MOST_DRAWS = 400  # projected, of every chain; principal components are of as many in all
MARGIN = 0.2
# Shares of the plane below each contour: fine where it is low, as a basin is often a small part of what is shown.
QUANTILES = (0.0, 0.01, 0.03, 0.07, 0.15, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)


def loss_surface(
    posterior: Posterior,
    ax: Axes | None = None,
    *,
    plane: str | None = None,
    which: tuple[int, int, int] = (0, 1, 2),
    num: int = 41,
) -> Figure:
    """Show minus the log posterior over a plane through weight space, with the draws projected on it.

    Colours are nats above the lowest point of the grid, an equal step of grey for each quantile of the plane, so that
    a basin shows however high the walls about it. Weights and all other sites are in unconstrained coordinates, the
    Jacobian counted; distances are Euclidean there. The draws lie off the plane, by the distance that the title gives
    as a median, and their log posterior is not that of the point below them.

    Parameters
    ----------
    posterior : Posterior
        Of any kind, with three draws or more. Where its rows stayed on disk the surface is that of the sample in
        memory, which stands for all of them.
    ax : matplotlib.axes.Axes, optional
        Where to draw; the scale of colours takes its room from it.
    plane : str or None
        ``"modes"``: through three points, which are means of modes for ``MultiSWAG``, members of an ensemble, and the
        last draws of three chains. ``"components"``: through the mean, along the first two principal components, of
        the iterates for ``SWAG`` and of the draws otherwise. ``None``: modes where there are three, else components.
    which : tuple of three int
        Which modes, members or chains, counted from 0.
    num : int
        Points along each side of the grid.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there are no three modes, or too few draws for a plane, or the log posterior is finite nowhere on it.

    References
    ----------
    Garipov et al. (2018), Loss surfaces, mode connectivity, and fast ensembling of DNNs, figure 1, for planes through
    three networks. Maddox et al. (2019), section 4 and figure 1, for those along the iterates of SWAG. Wilson &
    Izmailov (2020), figure 3, for what MultiSWAG holds of them.
    """
    check_choice("plane", plane, (None, *PLANES))
    check_count("num", num, 5)
    modes = _modes(posterior)
    if plane is None:
        plane = "modes" if len(modes) >= 3 else "components"
    found, corners = _through(modes, which) if plane == "modes" else (_along(posterior), None)
    shown = [spread(chain[None], MOST_DRAWS) for chain in posterior.result.positions]
    projected = [found.coordinates(chain) for chain in shown]
    reach = np.concatenate([*projected, *([] if corners is None else [found.coordinates(corners)])])
    across, up = (_side(reach[:, i], num) for i in range(2))
    heights = -surfaces.heights(posterior, found, across, up)
    finite = heights[np.isfinite(heights)]
    if not finite.size:
        mend = "Draw a plane through other points with which=."
        raise bad_value("the log posterior", "finite somewhere on the plane", "not finite anywhere", mend)
    figure, ax = axes_for(ax)
    _contours(figure, ax, across, up, heights - finite.min())
    _points(posterior, ax, projected, None if corners is None else found.coordinates(corners), which)
    off = np.median(np.concatenate([found.distances(chain) for chain in shown]))
    names = ("first direction", "second direction") if corners is not None else ("first component", "second component")
    describe(ax, names[0], names[1], f"draws lie {off:.2g} off the plane (median)")
    legend_below(ax)
    return figure


def _modes(posterior: Posterior) -> np.ndarray:
    """One point ``(M, p)`` for every mode, member or chain; none where there is one Gaussian or chain."""
    positions = posterior.result.positions
    if posterior.kind == "members":
        return positions[0]
    if posterior.num_chains == 1:
        return positions[0, :0]
    if posterior.kind == "independent" and np.shape(posterior.result.info.get("mean", ())) == positions[:, 0].shape:
        return np.asarray(posterior.result.info["mean"])
    return positions[:, -1]


def _through(modes: np.ndarray, which: Any) -> tuple[surfaces.Plane, np.ndarray]:
    """The plane through three of the modes ``(M, p)``, and these ``(3, p)``."""
    if len(modes) < 3:
        mend = "Take plane='components', or fit three chains, members or modes."
        raise bad_value("plane", "'components' where there are fewer than three modes", "'modes'", mend)
    numbers = list(which) if isinstance(which, (tuple, list)) else [which]
    if not all(isinstance(one, (int, np.integer)) and not isinstance(one, bool) for one in numbers):
        raise bad_type("which", "three whole numbers", repr(which), "Take (0, 1, 2).")
    if len(set(numbers)) != 3 or len(numbers) != 3 or not all(0 <= one < len(modes) for one in numbers):
        raise bad_value("which", f"three different numbers from 0 to {len(modes) - 1}", repr(which), "Take (0, 1, 2).")
    return surfaces.through(modes[numbers]), modes[numbers]


def _along(posterior: Posterior) -> surfaces.Plane:
    """The plane along two principal components, of SWAG's iterates where they are known and of the draws otherwise."""
    info, size = posterior.result.info, posterior.problem.size
    if np.shape(info.get("deviations", ()))[:1] == (1,) and np.shape(info.get("mean", ())) == (1, size):
        return surfaces.along_components(info["mean"][0], info["deviations"][0])
    draws = spread(posterior.result.positions, MOST_DRAWS).astype(np.float64)
    if len(draws) < 3:
        got = f"{len(draws)}"
        raise bad_value("the posterior", "of three draws or more, for a plane", got, "Fit an ensemble, or 'swag'.")
    mean = draws.mean(0)
    return surfaces.along_components(mean, draws - mean[None, :])


def _side(values: np.ndarray, num: int) -> np.ndarray:
    """``num`` points over the range of ``values`` and a fifth of it to either side."""
    margin = MARGIN * np.ptp(values)
    return np.linspace(values.min() - margin, values.max() + margin, num)


def _contours(figure: Figure, ax: Axes, across: np.ndarray, up: np.ndarray, heights: np.ndarray) -> None:
    """Draw nats above the lowest point, light where low; what is not finite is left the colour of the background."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm, ListedColormap

    levels = np.unique(np.quantile(heights[np.isfinite(heights)], QUANTILES))
    if len(levels) < 2:
        levels = np.array([0.0, 1.0])
    greys = ListedColormap(colormaps["Greys"](np.linspace(0.02, 0.62, len(levels) - 1)))
    shades = ax.contourf(
        across, up, np.ma.masked_invalid(heights), levels, cmap=greys, norm=BoundaryNorm(levels, len(levels) - 1)
    )
    ax.contour(across, up, np.ma.masked_invalid(heights), levels[1:-1], colors="0.35", linewidths=0.4)
    scale = figure.colorbar(shades, ax=ax, ticks=levels, format=_in_short, spacing="uniform")
    scale.set_label("nats above the lowest point")


def _in_short(nats: float, _: Any = None) -> str:
    """Three digits."""
    return f"{nats:.3g}" if abs(nats) < 1000 else f"{float(f'{nats:.3g}'):,.0f}"


def _points(
    posterior: Posterior, ax: Axes, projected: list[np.ndarray], corners: np.ndarray | None, which: tuple
) -> None:
    """Draw the projections, a colour a chain, and the three points that span the plane."""
    word = {"markov": "chain", "independent": "mode", "members": "member"}[posterior.kind]
    alone = len(projected) == 1
    others = [] if alone or corners is None else [chain for chain in range(len(projected)) if chain not in which]
    for chain, points in enumerate(projected):
        among = chain not in others
        order = list(which).index(chain) if corners is not None and not alone and among else chain
        label = f"{word}s" if alone and word == "member" else "draws" if alone else f"{word} {chain}"
        ax.scatter(
            points[:, 0],
            points[:, 1],
            s=9 if len(points) > 30 else 20,
            color=CHAIN_COLOURS[order % len(CHAIN_COLOURS)] if among else "0.5",
            linewidths=0,
            alpha=0.75,
            label=label if among else f"other {word}s" if chain == others[0] else None,
            rasterized=len(projected) * len(points) > MOST_MARKS,
            zorder=3 if among else 2,
        )
    star: dict[str, Any] = {"s": 110, "marker": "*", "color": "white", "edgecolors": "black", "linewidths": 0.8}
    said = {"markov": "their last draws", "independent": "their means", "members": "the three"}
    if corners is not None:
        ax.scatter(corners[:, 0], corners[:, 1], zorder=2.5, label=said[posterior.kind], **star)
    elif posterior.kind != "members":
        ax.scatter(0, 0, zorder=2.5, label="mean", **star)
