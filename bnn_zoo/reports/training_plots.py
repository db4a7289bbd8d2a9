"""Plots of how training, or a cyclical chain, went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.errors import bad_value, check_count
from bnn_zoo.probes import probe_points
from bnn_zoo.reports import surfaces
from bnn_zoo.reports.drawing import (
    BLUE,
    GREY,
    MOST_MARKS,
    VERMILLION,
    axes_for,
    cycle_colours,
    describe,
    legend_below,
    panels_for,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.methods.stochastic.stepping import Course
    from bnn_zoo.posterior import Posterior


def losses(posterior: Posterior, ax: Axes | None = None) -> Figure:
    """Show how training went: what it made small, per row and on the model's scale, of every restart or member.

    That is minus the log posterior, or minus a lower bound of the evidence where a distribution is trained rather than
    a network; `bound` shows the latter in full, in nats.

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
    steps = _steps(posterior, len(record))
    final = posterior.result.info.get("restarts_log_posterior")
    figure, ax = axes_for(ax)
    ax.plot(steps, record, color=GREY, linewidth=1, alpha=0.8)
    ax.lines[-1].set_label(f"{record.shape[1]} trained side by side" if record.shape[1] > 1 else "training")
    if final is not None and record.shape[1] > 1:
        ax.plot(steps, record[:, int(np.nanargmax(final))], color=BLUE, linewidth=2, label="the one kept")
    _show_what_follows_the_start(ax, record)
    what = "lower bound" if _trains_a_bound(posterior) else "log posterior"
    describe(ax, "step", f"minus {what} per row", "")
    legend_below(ax)
    return figure


def bound(posterior: Posterior, ax: Axes | None = None) -> Figure:
    """Show how the evidence lower bound rose while a guide was trained, and where it ended.

    In nats, of all training targets in the user's units, so that it bounds ``log p(y)`` of the same data from below:
    the higher the better, whatever the guide. The curve is the bound as training saw it, a mean over the draws of a few
    steps; the line is the bound of the guide that was kept, estimated from its draws, with two standard errors. A bound
    trained at a ``temperature`` other than 1 is tempered: the curve may then end beside the line.

    Parameters
    ----------
    posterior : Posterior
        Of ``VI`` or ``DeterministicVI``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooValueError
        If the method trains no bound, or keeps no record of it.

    References
    ----------
    Blei, Kucukelbir & McAuliffe (2017), Variational inference: a review for statisticians, equation 13.
    """
    info = posterior.result.info
    record = np.asarray(info.get("losses", ()), float)
    if len(record) == 0 or not ("elbo" in info or "guide_parameters" in info):
        mend = "Fit with 'mean_field' or another guide; plots.losses shows how other methods were trained."
        raise bad_value("the posterior", "of a method that trains a guide", repr(posterior.method_name), mend)
    # A log density of standardised targets becomes one of targets in the user's units.
    in_units = posterior.num_rows * posterior.scaling.log_jacobian
    trace = -posterior.num_rows * record + in_units
    figure, ax = axes_for(ax)
    ax.plot(_steps(posterior, len(trace)), trace, color=BLUE, linewidth=1, alpha=0.8, label="while training")
    if "elbo" in info:
        final, error = float(info["elbo"]) + in_units, float(info["elbo_error"])
        said = f"{final:.1f} ± {error:.1f} at the end" if error else f"{final:.1f} at the end"
        ax.axhspan(final - 2 * error, final + 2 * error, color=VERMILLION, alpha=0.25, linewidth=0)
        ax.axhline(final, color=VERMILLION, linewidth=1.4, linestyle="--", label=said)
    _show_what_follows_the_start(ax, trace)
    describe(ax, "step", "evidence lower bound, nats", f"of {posterior.num_rows} targets in the user's units")
    legend_below(ax)
    return figure


def cycles(posterior: Posterior, ax: Any = None, *, chain: int = 0) -> Figure:
    """Show a chain with a cyclical step size: the step sizes, the potential of its draws, the functions it found.

    Three panels, so ``ax`` takes three axes. Above, the step size over iterations, thin while a cycle explores and
    thick where it is sampled. In the middle, minus the log posterior of every draw. Below, every draw's function in two
    coordinates: f at training inputs and between them, as ``posterior.diagnose()`` looks at it, projected on the two
    directions in which f varies most over draws. A unit there is a root mean square difference of f of one unit of the
    target. Colours are cycles: where they lie apart, cycles found different functions; where all cover one another,
    the cycles add nothing that one of them does not have.

    Parameters
    ----------
    posterior : Posterior
        Of ``CyclicalSGLD`` or ``CyclicalSGHMC``, or of a stochastic-gradient sampler with ``warm_restarts``.
    ax : sequence of three matplotlib.axes.Axes, optional
        Where to draw.
    chain : int
        Which chain, counted from 0.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the draws come in no cycles, there is no such chain, or the axes are not three.

    References
    ----------
    Zhang et al. (2020), Cyclical stochastic gradient MCMC for Bayesian deep learning, equation 1 and figure 1.
    """
    if "cycle" not in posterior.stats:
        got = f"one by {posterior.method_name!r}"
        raise bad_value("the posterior", "made in cycles", got, "Fit with 'cyclical_sgld' or 'cyclical_sghmc'.")
    check_count("chain", chain, 0)
    if chain >= posterior.num_chains:
        raise bad_value("chain", f"from 0 to {posterior.num_chains - 1}", chain, "Count from 0.")
    course, at = _iterations(posterior)
    number = np.asarray(posterior.stats["cycle"][chain], int)
    count = int(number.max()) + 1
    figure, (above, middle, below) = panels_for(ax, 3, 1, height=6.0)
    every = np.arange(count * course.cycle_steps)
    largest = float(posterior.stats["step_size"][chain, 0]) / float(course.factor(0, at[0] % course.cycle_steps))
    size = largest * np.asarray(course.factor(0, every % course.cycle_steps))
    potential = -surfaces.log_posteriors(posterior, posterior.result.positions[chain])
    plane = _functions_on_a_plane(posterior, chain)
    above.plot(every, size, color=GREY, linewidth=1)
    for cycle, colour in enumerate(cycle_colours(count)):
        span = slice(cycle * course.cycle_steps + course.explored, (cycle + 1) * course.cycle_steps)
        above.plot(every[span], size[span], color=colour, linewidth=2.5)
        mine = number == cycle
        middle.plot(at[mine], potential[mine], ".", color=colour, markersize=3, rasterized=len(at) > MOST_MARKS)
        below.plot(*plane[mine].T, ".", color=colour, markersize=4, alpha=0.8, rasterized=len(at) > MOST_MARKS)
    middle.set_xlim(above.get_xlim())
    above.tick_params(labelbottom=False)
    middle.locator_params(axis="x", nbins=5)
    describe(above, "", "step size", f"chain {chain}: {count} cycles of {course.cycle_steps} steps, a colour each")
    describe(middle, "iteration", "−log posterior, nats")
    unit = shortened(posterior.data.target_name, 20)
    describe(below, f"functions: first direction, {unit}", f"second, {unit}")
    return figure


def _iterations(posterior: Posterior) -> tuple[Course, np.ndarray]:
    """How the step size goes, and the iterations ``(S,)``, explorations included, at which draws were taken."""
    settled = getattr(posterior.method, "settled", None)  # warm restarts count in steps already
    course = (posterior.method if settled is None else settled()).rule.course
    taken = np.arange(1, posterior.num_draws + 1) * posterior.method.thinning - 1
    cycle, within = np.divmod(taken, course.sampled)
    return course, cycle * course.cycle_steps + course.explored + within


def _functions_on_a_plane(posterior: Posterior, chain: int) -> np.ndarray:
    """Functions of a chain's draws, ``(S, 2)``: their two principal components, as root mean squares over inputs."""
    x, _ = probe_points(posterior.data.x, None)
    functions = posterior.function_draws(x)[chain]
    off = functions - functions.mean(0, keepdims=True)
    _, _, directions = np.linalg.svd(off, full_matrices=False)
    found = off @ directions[:2].T / np.sqrt(off.shape[1])
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _steps(posterior: Posterior, points: int) -> np.ndarray:
    """Steps at which a record of training has its points: each is the last step of an equal share of all steps."""
    return np.arange(1, points + 1) * getattr(posterior.method, "num_steps", points) / points


def _trains_a_bound(posterior: Posterior) -> bool:
    """Whether a guide, or masks, were trained: their losses hold an entropy, beside the log posterior."""
    return not posterior.result.info.keys().isdisjoint(("elbo", "guide_parameters", "rates"))


def _show_what_follows_the_start(ax: Axes, record: np.ndarray) -> None:
    """The first steps, from a draw of the prior, may be of any size, and would flatten all that follows."""
    later = record[len(record) // 20 :]
    later = later[np.isfinite(later)]
    if later.size and np.ptp(later):
        ax.set_ylim(later.min() - 0.05 * np.ptp(later), later.max() + 0.05 * np.ptp(later))
