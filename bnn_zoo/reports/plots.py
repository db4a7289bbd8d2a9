"""Plots of a posterior: what it predicts, whether it is calibrated, whether its chains agree, how it was trained.

Every function returns the Matplotlib figure it drew in. Give ``ax`` to draw in axes of your own; without it the figure
is new, fits a column of a paper, and belongs to no window, so that nothing is left open. A plot of several panels says
so, and takes as many axes. Backgrounds and text follow Matplotlib's style; the colours are of Okabe & Ito, told apart
by colour-blind readers, and chosen to stand out (3 : 1) on white as well as on black. Matplotlib is imported when the
first plot is drawn.

Where ArviZ 1.x has the plot (energy, LOO-PIT, intervals, densities) the numbers are ArviZ's, by ``arviz_stats``, and
the drawing is ours: ArviZ's own functions lay out figures of their own, and cannot draw in axes that are given.
"""

from __future__ import annotations

from bnn_zoo.reports.calibration_plots import sbc
from bnn_zoo.reports.chain_plots import energy, ranks, traces
from bnn_zoo.reports.check_plots import loo_pit, posterior_predictive
from bnn_zoo.reports.dependence_plots import partial_dependence
from bnn_zoo.reports.parameter_plots import forest, noise, relevance
from bnn_zoo.reports.predictive_plots import calibration, functions, predictive
from bnn_zoo.reports.prior_plots import prior_and_posterior, prior_functions
from bnn_zoo.reports.score_plots import pit, sparsification
from bnn_zoo.reports.subjects import has_relevance as has_relevance
from bnn_zoo.reports.subjects import matched as matched
from bnn_zoo.reports.subjects import same_rows as same_rows
from bnn_zoo.reports.subjects import scalar_sites as scalar_sites
from bnn_zoo.reports.surface_plots import loss_surface
from bnn_zoo.reports.training_plots import bound, cycles, losses

__all__ = [
    "bound",
    "calibration",
    "cycles",
    "energy",
    "forest",
    "functions",
    "loo_pit",
    "loss_surface",
    "losses",
    "noise",
    "partial_dependence",
    "pit",
    "posterior_predictive",
    "predictive",
    "prior_and_posterior",
    "prior_functions",
    "ranks",
    "relevance",
    "sbc",
    "sparsification",
    "traces",
]
