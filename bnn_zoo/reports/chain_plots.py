"""Plots of chains: whether they agree, and whether they move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnn_zoo.errors import bad_value
from bnn_zoo.reports.drawing import (
    BLUE,
    GREY,
    SMOOTH,
    VERMILLION,
    axes_for,
    chain_look,
    describe,
    legend_below,
    shortened,
)
from bnn_zoo.reports.mixing import chain_diagnostics
from bnn_zoo.reports.trajectories import EBFMI, ebfmi

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

LEAST_DRAWS = 10  # of which a density can be drawn


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
    values, title = worst_point(posterior)
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

    values, title = worst_point(posterior)
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


def energy(posterior: Posterior, ax: Axes | None = None) -> Figure:
    """Show the energies of a Hamiltonian sampler, and how far one draw's is from the next, as densities.

    A fresh momentum is all that changes the energy from draw to draw. Where these changes are much narrower than the
    energies are spread, the chain wanders through energies slowly and hardly visits the tails. E-BFMI is the ratio of
    the two variances, about 1 where all is well and below 0.3 where it is not. Energies are in nats, each less its
    chain's mean; all chains count together, and E-BFMI is that of the worst.

    Parameters
    ----------
    posterior : Posterior
        Made by ``"nuts"`` or ``"hmc"``.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooValueError
        If the draws have no energy, or are fewer than ten a chain.

    References
    ----------
    Betancourt (2016), Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo.
    """
    from arviz_stats.base import array_stats

    if "energy" not in posterior.stats:
        mend = "Fit with 'nuts' or 'hmc'; plots.traces shows how other chains move."
        raise bad_value("the posterior", "made by a Hamiltonian sampler", f"one by {posterior.method_name!r}", mend)
    values = np.asarray(posterior.stats["energy"], float)
    if values.shape[1] < LEAST_DRAWS:
        mend = "Go on with posterior.resume(100)."
        raise bad_value("the chains", f"of {LEAST_DRAWS} draws or more", values.shape[1], mend)
    worst = float(np.min(ebfmi(values)))
    figure, ax = axes_for(ax)
    shown = (
        (values - values.mean(1, keepdims=True), BLUE, "-", "energy, less its chain's mean"),
        (np.diff(values, axis=1), VERMILLION, "--", "change from draw to draw"),
    )
    for numbers, colour, style, label in shown:
        grid, density, _ = array_stats.kde(numbers.ravel(), **SMOOTH)
        ax.fill_between(grid, density, color=colour, alpha=0.2, linewidth=0)
        ax.plot(grid, density, color=colour, linestyle=style, linewidth=1.6, label=label)
    ax.set_ylim(bottom=0)
    of = f", the lowest of {len(values)} chains" if len(values) > 1 else ""
    describe(ax, "energy, nats", "density", f"E-BFMI {worst:.2f}{of} (below {EBFMI[0]:g} is too low)")
    legend_below(ax, columns=1)
    return figure


def worst_point(posterior: Posterior) -> tuple[np.ndarray, str]:
    """Values of f ``(C, S)`` at the worst of the inputs that the diagnosis judges, and a title that says which."""
    if posterior.kind != "markov":
        mend = "Fit with 'nuts' for chains; see plots.losses for how training went, plots.predictive for the result."
        raise bad_value("the posterior", "made of Markov chains", f"one by {posterior.method_name!r}", mend)
    diagnosis = posterior.diagnose()
    points = diagnosis.inner
    x = diagnosis.x[points.index]
    if posterior.num_chains > 1:
        row = int(points["rhat"].to_numpy().argmax())
        found = f"R-hat {points['rhat'].iloc[row]:.3f}"
    else:
        row = int(points["ess_bulk"].to_numpy().argmin())
        found = f"ESS {points['ess_bulk'].iloc[row]:.0f}, one chain: no R-hat"
    place = {"training": "a training input", "between": "between training inputs"}[points["where"].iloc[row]]
    return posterior.function_draws(x[row][None, :])[:, :, 0], f"{found}, the worst of {len(x)} inputs ({place})"
