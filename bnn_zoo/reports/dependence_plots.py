"""A plot of how f depends on one feature, averaged over all others, with the posterior's doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.datasets import Dataset
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.predictive import AT_ONCE
from bnn_zoo.errors import bad_value, check_between, check_count
from bnn_zoo.reports.drawing import BLUE, GREEN, SIZE, SMALL, describe, legend_below, panels_for, text_colour
from bnn_zoo.reports.subjects import column_of, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

POINTS = 40
MOST_DRAWS = 400
MOST_PANELS = 12
MOST_TICKS = 300
VALUES_AT_ONCE = 8


def partial_dependence(
    posterior: Posterior,
    features: str | int | Sequence[str | int] | None = None,
    ax: Any = None,
    *,
    prob: float = 0.9,
    num_rows: int = 200,
    seed: int = 0,
) -> Figure:
    """Show how f depends on each feature, averaged over the data's other features, and how sure that is.

    Of every draw φ, the partial dependence on feature j is the function of one number

        g_j(v; φ) = (1 / n) Σ_i f(x_i with x_ij = v; φ),

    so the draws are a posterior of functions: the line is their mean, the band holds ``prob`` of them at each v
    (doubt about f, without the noise), and thin lines are single ones. The scale of f is the same in all panels, in the
    units of the target; where a band is level and narrow the feature has no effect on average. Features that depend on
    each other make inputs that never occur: there the average is of what the network makes up. Ticks are the feature's
    values in the training data.

    Parameters
    ----------
    posterior : Posterior
        Of any kind. Draws are thinned evenly to 400, and are networks, also where ``predict`` makes them linear
        (Laplace).
    features : str, int, sequence of these, optional
        One panel each, by name or number; all of them by default, where they are 12 or fewer.
    ax : matplotlib.axes.Axes or sequence of Axes, optional
        Where to draw: as many as there are features.
    prob : float
        Probability of the band, strictly between 0 and 1.
    num_rows : int
        Rows x_i to average over: a random subset of the training rows where they are more, the same for every feature.
    seed : int
        Repeats the subset.

    Raises
    ------
    ZooTypeError, ZooValueError
        If there is no such feature, more than 12 are to be drawn, or there are not as many axes.

    References
    ----------
    Friedman (2001), Greedy function approximation: a gradient boosting machine, section 8.2. Chipman, George &
    McCulloch (2010), BART: Bayesian additive regression trees, section 3.2, for its posterior.
    """
    check_between("prob", prob, 0, 1, "0.9 is usual.")
    check_count("num_rows", num_rows)
    check_count("seed", seed, 0)
    columns = _columns(posterior.data, features)
    rows = rows_for(len(posterior.data), num_rows, seed)
    many = len(columns) > 1
    across = min(3, len(columns))
    tall = 1.2 + 1.45 * -(-len(columns) // across) if many else SIZE[1]
    figure, axes = panels_for(ax, len(columns), across, height=max(tall, 2.6))
    lows, highs = [], []
    for axis, j in zip(axes, columns, strict=True):
        values = np.linspace(posterior.data.x[:, j].min(), posterior.data.x[:, j].max(), POINTS)
        curves = dependence(posterior, j, values, rows)
        ends = _draw(axis, posterior.data, j, values, curves, prob)
        lows.append(ends[0])
        highs.append(ends[1])
        first = not many or axis is axes[0]
        describe(axis, posterior.data.feature_names[j], posterior.data.target_name if first else "")
    margin = 0.08 * (max(highs) - min(lows)) or 1.0
    for axis in axes:
        axis.set_ylim(min(lows) - margin, max(highs) + margin)
        if many:
            axis.tick_params(labelsize=SMALL - 2, labelleft=axis in axes[::across] or ax is not None)
            axis.xaxis.label.set_fontsize(SMALL)
            axis.locator_params(axis="x", nbins=3)
    said = f"mean over {len(rows)} training rows" + (" drawn at random" if len(rows) < len(posterior.data) else "")
    if not many:
        axes[0].set_title(said, fontsize=SMALL)
        legend_below(axes[0])
    elif ax is None:
        figure.suptitle(said, fontsize=SMALL)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL)
    return figure


def dependence(posterior: Posterior, feature: int, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the partial dependence on a feature of at most 400 draws, ``(T, len(values))``, in the target's units.

    ``values`` are the feature's, in the user's units; ``rows`` are numbers of training rows to average over.
    """
    data, scaling = posterior.data, posterior.scaling
    dtype = posterior.problem.x.dtype
    positions = spread(posterior.result.positions, MOST_DRAWS)
    grid = np.tile(data.x[:1], (len(values), 1))
    grid[:, feature] = values
    grid = scaling.inputs(grid, dtype)[:, feature].astype(dtype)
    inputs = scaling.inputs(data.x[rows], dtype).astype(dtype)
    with jax.enable_x64(posterior.x64):
        found = call(_dependence, (), posterior.problem, positions, inputs, grid, np.int32(feature))
    return scaling.from_model(np.asarray(found))


def rows_for(available: int, wanted: int, seed: int) -> np.ndarray:
    """Return numbers of rows to average over, in order: all, or a random ``wanted`` of them."""
    if available <= wanted:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).choice(available, wanted, replace=False))


def _columns(data: Dataset, features: Any) -> list[int]:
    if features is None:
        columns = list(range(data.num_features))
    elif isinstance(features, (str, int, np.integer)):
        columns = [column_of(data, features)]
    else:
        columns = [column_of(data, one) for one in features]
    if not 1 <= len(columns) <= MOST_PANELS:
        mend = f"Name those to draw, such as features={list(data.feature_names[:3])}."
        raise bad_value("features", f"from 1 to {MOST_PANELS}", len(columns), mend)
    return columns


def _draw(
    ax: Axes, data: Dataset, feature: int, values: np.ndarray, curves: np.ndarray, prob: float
) -> tuple[float, float]:
    """Draw one panel; return the lowest and highest value of what should be seen of it."""
    low, high = np.quantile(curves, [0.5 - prob / 2, 0.5 + prob / 2], axis=0)
    if len(curves) > 1:
        ax.fill_between(values, low, high, color=BLUE, alpha=0.4, linewidth=0, label=f"{100 * prob:g} % of draws")
        ax.plot(values, spread(curves[None], 5).T, color=GREEN, linewidth=0.7)
        ax.lines[-1].set_label("single draws")
    ax.plot(values, curves.mean(0), color=BLUE, linewidth=2, label="mean")
    seen = data.x[:, feature]
    ticks = seen[:: -(-len(seen) // MOST_TICKS)]
    ax.plot(
        ticks,
        np.zeros(len(ticks)),
        "|",
        color=text_colour(),
        alpha=0.5,
        markersize=5,
        transform=ax.get_xaxis_transform(),
        label="_",
    )
    return float(low.min()), float(high.max())


# --- compiled programs ----------------------------------------------------------------------------------------------


def _dependence(problem: Problem, positions: jax.Array, x: jax.Array, grid: jax.Array, feature: jax.Array) -> jax.Array:
    """Mean of f over the rows of ``x (n, d)`` for every draw and value of the feature: ``(T, len(grid))``."""

    def at(z: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.mean(problem.likelihood(z, x.at[:, feature].set(value)).location)

    at_once = max(1, AT_ONCE // (x.shape[0] * VALUES_AT_ONCE))

    def curve(z: jax.Array) -> jax.Array:
        return lax.map(lambda value: at(z, value), grid, batch_size=VALUES_AT_ONCE)

    return lax.map(curve, positions, batch_size=at_once)
