"""Plots of parameters: scalar sites, and the scales that say how much a feature matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.errors import bad_value, check_between, check_choice
from bnn_zoo.inputs import as_inputs
from bnn_zoo.reports.drawing import BLUE, SIZE, axes_for, chain_look, describe, legend_below, shortened, text_colour
from bnn_zoo.reports.subjects import GRID, has_relevance, scalar_sites

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bnn_zoo.posterior import Posterior

FEW_DRAWS = 20  # so few make no quantiles
SHOWN_ROWS = 8


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
    values = np.asarray(posterior.scalars[site], float)
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


def forest(
    posterior: Posterior,
    x: Any = None,
    *,
    names: Sequence[str] | None = None,
    sites: str | Sequence[str] | None = None,
    prob: float = 0.9,
    ax: Axes | None = None,
) -> Figure:
    """Show intervals side by side, chain by chain: of f(x) at a few inputs, or of scalar sites such as the noise.

    Dots are medians, thick lines hold half of the draws, thin ones ``prob`` of them. Chains that agree have intervals
    that cover one another. Where a chain has fewer than 20 draws, as an ensemble has, each draw is a dot.

    Parameters
    ----------
    posterior : Posterior
        Of any kind.
    x : array-like, optional
        Inputs ``(k, d)``. By default the training rows at eight evenly spaced ranks of the mean of f(x), largest on
        top, so that they reach over all that is predicted.
    names : sequence of str, optional
        What to call these inputs, k of them; by default their numbers in ``x``, or in the training data.
    sites : str or sequence of str, optional
        Scalar sites to show in place of f(x), each on its own scale: the noise in the units of the target, others on
        the model's.
    prob : float
        Probability of the thin lines, strictly between 0 and 1.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Raises
    ------
    ZooTypeError, ZooValueError
        If ``x`` does not fit, there are not as many names, a site is unknown, or ``x`` and ``sites`` are both given.
    """
    check_between("prob", prob, 0, 1, "0.9 is usual.")
    if sites is not None:
        values, labels = _values_of_sites(posterior, sites, x, names)
        said = "value, in each site's own units"
    else:
        values, labels = _values_of_f(posterior, x, names)
        said = f"f(x), {shortened(posterior.data.target_name)}"
    chains, _, count = values.shape
    figure, ax = axes_for(ax, height=max(SIZE[1], 0.9 + 0.11 * count * (chains + 1)))
    place = np.arange(count)[::-1]  # the first on top
    word = {"markov": "chain", "independent": "mode", "members": "member"}[posterior.kind]
    for chain, draws in enumerate(values):
        at = place + 0.7 * (0.5 - (chain + 0.5) / chains)
        look = {"color": chain_look(chain)["color"]}
        label = f"{word} {chain}" if chains > 1 else f"50 % and {100 * prob:g} % of draws"
        if len(draws) < FEW_DRAWS:
            ax.plot(draws.T, at, "o", markersize=4, alpha=0.8, **look)
            ax.lines[-1].set_label(f"{word} {chain}" if chains > 1 else "members" if word == "member" else "draws")
            continue
        levels = [0.5 - prob / 2, 0.25, 0.5, 0.75, 0.5 + prob / 2]
        low, lower, middle, upper, high = np.quantile(draws, levels, axis=0)
        ax.hlines(at, low, high, linewidth=1, linestyle=chain_look(chain)["linestyle"], **look)
        ax.hlines(at, lower, upper, linewidth=3.5, label=label, **look)
        ax.plot(middle, at, "o", color=text_colour(), markersize=3)
    ax.set_yticks(place, [shortened(label) for label in labels], parse_math=False)
    ax.set_ylim(-0.6, count - 0.4)
    describe(ax, said, "", "")
    legend_below(ax, columns=min(4, chains))
    return figure


def _values_of_sites(
    posterior: Posterior, sites: str | Sequence[str], x: Any, names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    """Draws ``(C, S, k)`` of scalar sites, and their names with units."""
    if x is not None or names is not None:
        mend = "Give either inputs, for f(x), or sites."
        raise bad_value("x and names", "left out where sites are given", "both", mend)
    wanted, known = [sites] if isinstance(sites, str) else list(sites), scalar_sites(posterior)
    if not known or not wanted:
        mend = "Give noise= or weight_scale= a prior, or leave sites out for f(x)."
        raise bad_value("sites", "scalar sites of the model", f"{wanted}, of {known}", mend)
    for site in wanted:
        check_choice("sites", site, known)
    in_units = getattr(posterior.model, "sites_in_target_units", ())
    unit = shortened(posterior.data.target_name, 20)
    labels = [f"{site}, {unit}" if site in in_units else site for site in wanted]
    return np.stack([np.asarray(posterior.scalars[site], float) for site in wanted], axis=-1), labels


def _values_of_f(posterior: Posterior, x: Any, names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    """Draws ``(C, S, k)`` of f at inputs, and names of these."""
    data = posterior.data
    if x is None:
        order = np.argsort(-posterior.predict(data.x).mean)
        rows = order[np.unique(np.linspace(0, len(order) - 1, SHOWN_ROWS).round().astype(int))]
        inputs, numbers = data.x[rows], rows
    else:
        inputs = as_inputs(x, data.feature_names)
        numbers = np.arange(len(inputs))
    labels = [f"row {i}" for i in numbers] if names is None else [str(name) for name in names]
    if len(labels) != len(inputs):
        raise bad_value("names", f"as many as inputs, {len(inputs)}", len(labels), "Give one name an input.")
    return posterior.function_draws(inputs), labels


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
