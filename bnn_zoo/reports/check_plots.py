"""Plots that hold a model's own predictions against the data it was fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_zoo.engine import predictive
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.errors import bad_value, check_count
from bnn_zoo.reports.drawing import BLUE, GREY, SMOOTH, VERMILLION, axes_for, describe, legend_below, text_colour
from bnn_zoo.reports.loo import relative_efficiency
from bnn_zoo.reports.subjects import matched, same_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

LEAST_ROWS = 10  # of which a density can be drawn
LEAST_DRAWS = 100
MOST_ROWS = 2000
MOST_FOR_ESS = 64
BEYOND = 0.5  # of the data's range, to either side, is shown
PARETO_K = 0.7  # Vehtari (2024)
LEVEL = 0.05


def posterior_predictive(
    posterior: Posterior, data: Any = None, *, num: int = 50, seed: int = 0, ax: Axes | None = None
) -> Figure:
    """Show the distribution of y beside those of data sets that the posterior makes up at the same inputs.

    Each thin line is the density of one made-up data set: one draw of the weights, with noise of its own in every row.
    Where the observed line leaves the bundle, the model cannot make data like these: another likelihood is wanted, or
    another noise. The title compares standard deviations. On training rows, which the posterior has seen, the check is
    lenient; and it looks at y alone, not at how y depends on x.

    Parameters
    ----------
    posterior : Posterior
        Of any kind.
    data : Dataset, pair or str, optional
        ``x (m, d)`` and ``y (m,)`` to compare with; the training data by default.
    num : int
        Data sets to make up.
    seed : int
        Repeats them.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the data do not fit, have fewer than ten rows or one value of y alone, or ``num`` is not a count.

    References
    ----------
    Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies, section 2.
    Gabry et al. (2019), Visualization in Bayesian workflow, section 5. Densities are ArviZ's.
    """
    from arviz_stats.base import array_stats

    check_count("num", num)
    check_count("seed", seed, 0)
    data = matched(posterior, data)
    if len(data) < LEAST_ROWS or not np.ptp(data.y):
        got = f"{len(data)} rows with {len(np.unique(data.y))} value(s) of y"
        raise bad_value("data", f"of {LEAST_ROWS} rows or more, that differ", got, "Take plots.predictive.")
    made = posterior.predict(data.x).sample(num, seed=seed)
    figure, ax = axes_for(ax)
    for row in made:
        grid, density, _ = array_stats.kde(row, **SMOOTH)
        ax.plot(grid, density, color=BLUE, linewidth=0.7, alpha=max(0.45, min(1.0, 10 / num)))
    ax.lines[-1].set_label(f"{num} made-up data sets")
    grid, density, _ = array_stats.kde(data.y, **SMOOTH)
    ax.plot(grid, density, color=text_colour(), linewidth=2, linestyle="--", label=f"observed ({len(data)})")
    margin = BEYOND * np.ptp(data.y)
    ax.set(xlim=(data.y.min() - margin, data.y.max() + margin))
    ax.set_ylim(bottom=0)
    low, high = np.quantile(made.std(1), [0.05, 0.95])
    rows = "training rows" if same_rows(data, posterior.data) else data.name
    describe(
        ax,
        data.target_name,
        "density",
        f"{rows}: sd of y {data.y.std():.3g}, of made-up y {low:.3g} to {high:.3g} (90 %)",
    )
    legend_below(ax)
    return figure


class LeftOut(NamedTuple):
    """PIT of each row under the posterior of all others.

    Attributes
    ----------
    pit : ndarray
        ``(m,)``, from 0 to 1.
    k : ndarray
        ``(m,)``: Pareto k-hat of the row's weights, above 0.7 where they cannot be trusted.
    rows : ndarray
        ``(m,)``: numbers of the rows in the training data.
    """

    pit: np.ndarray
    k: np.ndarray
    rows: np.ndarray


def loo_pit(posterior: Posterior, ax: Axes | None = None, *, seed: int = 0) -> Figure:
    """Show whether training observations fall evenly into their predictions, each row left out of its own posterior.

    The probability integral transform of row i is p(ỹ_i ≤ y_i | y_−i), with the row left out by Pareto-smoothed
    importance weights, without another fit. Were the model right these would be uniform, and the line, their
    cumulative distribution less that of a uniform, level. First below 0 and then above: predictions are too wide;
    first above and then below: too narrow; above throughout: too high, below throughout: too low. As in ArviZ the test
    of uniformity is one that the dependence of the values on each other does not spoil, and where it says that they
    are not uniform the points that make it say so are marked.

    Parameters
    ----------
    posterior : Posterior
        Made of Markov chains, of 100 draws or more in all.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    seed : int
        Repeats the choice of 2,000 training rows, where they are more.

    Raises
    ------
    ZooValueError
        If the draws are not chains, or too few, or the observed distribution is discrete or has no ``cdf``.

    Notes
    -----
    With w_is the smoothed weights of draw s (Vehtari 2024), normalised, of 1 / p(y_i | x_i, φ_s), the value is
    Σ_s w_is F(y_i | x_i, φ_s), with the model's own distribution function F where ArviZ takes sampled observations.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC.
    Vehtari et al. (2024), Pareto smoothed importance sampling. Tesso et al. (2026), LOO-PIT predictive model checking
    (arXiv:2603.02928), for the test, as ArviZ has it.
    """
    from arviz_stats.base import array_stats

    check_count("seed", seed, 0)
    found = left_out(posterior, seed)
    pit = np.sort(found.pit)
    p_value, blame, _ = array_stats.uniformity_test(pit)
    share = np.arange(len(pit) + 1) / len(pit)
    off = share[1:] - pit
    # Level but for its jumps is the cumulative share; less the PIT it falls by 1 between them.
    line = np.concatenate([[0.0], np.stack([share[:-1] - pit, off], axis=1).ravel(), [0.0]])
    figure, ax = axes_for(ax)
    ax.axhline(0, color=GREY, linestyle="--", linewidth=1, label="uniform")
    at = np.concatenate([[0.0], np.repeat(pit, 2), [1.0]])
    ax.plot(at, line, color=BLUE, linewidth=1.4, label=f"{len(pit)} training rows")
    if p_value < LEVEL:
        guilty = blame > 0
        ax.plot(pit[guilty], off[guilty], "o", color=VERMILLION, markersize=3, label="what the test objects to")
    # Twice what a uniform sample would reach one time in twenty (Dvoretzky, Kiefer & Wolfowitz), or more if need be.
    reach = max(1.3 * np.sqrt(np.log(2 / LEVEL) / (2 * len(pit))), 1.1 * float(np.abs(line).max()))
    ax.set(xlim=(0, 1), ylim=(-reach, reach))
    bad = int((found.k > PARETO_K).sum())
    doubt = f"; {bad} rows with k-hat above {PARETO_K}: not to be trusted" if bad else ""
    describe(ax, "PIT, the row left out", "cumulative share − PIT", f"test of uniformity: p = {p_value:.2f}{doubt}")
    legend_below(ax)
    return figure


def left_out(posterior: Posterior, seed: int = 0) -> LeftOut:
    """Return PIT and k-hat of at most 2,000 training rows, each left out; see `loo_pit`."""
    from arviz_stats.base import array_stats

    if posterior.kind != "markov":
        mend = "Fit with 'nuts', or take plots.calibration with held-out data."
        raise bad_value("the posterior", "made of Markov chains", f"one by {posterior.method_name!r}", mend)
    draws = posterior.num_chains * posterior.num_draws
    if draws < LEAST_DRAWS:
        raise bad_value("the draws", f"{LEAST_DRAWS} or more", draws, "Go on with posterior.resume(100).")
    data, problem = posterior.data, posterior.problem
    rows = np.arange(len(data))
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), MOST_ROWS, replace=False))
    x = posterior.scaling.inputs(data.x[rows], problem.x.dtype)
    y = posterior.scaling.targets(data.y[rows], problem.y.dtype)
    positions = posterior.result.positions.reshape(draws, -1)
    some = rows[:: -(-len(rows) // MOST_FOR_ESS)]
    share = relative_efficiency(posterior.log_likelihood(data.x[some], data.y[some]))
    pit, k = np.empty(len(rows)), np.empty(len(rows))
    with jax.enable_x64(posterior.x64):
        for where, parts in predictive.components(problem, positions, x):
            log_likelihood, below = _at_targets(parts, y[where].astype(problem.y.dtype))
            # ArviZ's array interface takes the log likelihood, and turns its sign around itself.
            log_weights, k[where] = array_stats.psislw(log_likelihood.T, r_eff=share)
            weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
            pit[where] = (weights * below.T).sum(1) / weights.sum(1)
    return LeftOut(np.clip(pit, 0.0, 1.0), k, rows)


def _at_targets(parts: Likelihood, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log density and distribution function at ``y (rows,)`` under each draw, ``(T, rows)`` both, in float64."""
    if parts.whole.is_discrete:
        got, mend = f"{parts.family.__name__}, of whole numbers", "Take plots.posterior_predictive."
        raise bad_value("the observed distribution", "continuous, for its PIT to be uniform", got, mend)
    try:
        found = call(_density_and_share, (), parts, y)
    except NotImplementedError as error:
        got = f"{parts.family.__name__}, which has none in NumPyro"
        mend = "Take plots.posterior_predictive."
        raise bad_value("the observed distribution", "one with a distribution function", got, mend) from error
    return np.asarray(found[0], float), np.asarray(found[1], float)


# --- compiled programs ----------------------------------------------------------------------------------------------


def _density_and_share(parts: Likelihood, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    targets = jnp.broadcast_to(y[None, :], next(iter(parts.parameters.values())).shape)
    return parts.log_prob(targets), parts.whole.cdf(targets)
