"""Plots of training and of cyclical chains: held against the evidence and what a chain wrote down itself."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import multivariate_normal

import bnn_zoo as zoo
from bnn_zoo import plots
from bnn_zoo.errors import ZooValueError
from bnn_zoo.reports import drawing
from tests import plotted
from tests.plotted import toy

one = pytest.fixture(plotted.one, scope="module", name="one")
three = pytest.fixture(plotted.three, scope="module", name="three")
guide = pytest.fixture(plotted.guide, scope="module", name="guide")

SIGMA = 0.3
CYCLES = {"num_warmup": 50, "num_chains": 2, "batch_size": 10, "step_size": 1e-3}


@pytest.fixture(scope="module")
def cyclical() -> zoo.Posterior:
    method = zoo.methods.CyclicalSGLD(num_samples=40, samples_per_cycle=10, thinning=3, **CYCLES)
    return zoo.fit(zoo.models.Linear(), method, toy(("rain", "soil")), progress=False)


def test_bound_ends_at_the_evidence_of_targets_in_the_users_units(guide, one):
    """A full-rank guide of a linear model loses nothing. Fails without the Jacobian, which is 182 nats here."""
    (ax,) = plots.bound(guide).axes
    x, scaling = guide.scaling.inputs(guide.data.x), guide.scaling
    columns = np.column_stack([x, np.ones(len(x))])
    covariance = SIGMA**2 * np.eye(len(x)) + columns @ columns.T
    y = guide.data.y
    evidence = multivariate_normal(np.full(len(y), scaling.y_centre), scaling.y_scale**2 * covariance).logpdf(y)
    end = next(line for line in ax.lines if "at the end" in line.get_label()).get_ydata()[0]
    # What is left of the divergence after 3,000 steps, well below a nat, and the bound's own error over 400 draws.
    assert evidence - 1 < end < evidence + 5 * guide.result.info["elbo_error"] + 0.01
    trace = ax.lines[0].get_ydata()
    assert trace[-1] == pytest.approx(end, abs=2)
    assert ax.lines[0].get_xdata()[-1] == 3000
    with pytest.raises(ZooValueError, match=r"plots\.losses"):
        plots.bound(one)


def test_cycles_show_step_sizes_and_potentials_where_draws_were_taken(cyclical):
    """The course of the step size, drawn from the settings, passes through what the chain wrote down at each draw."""
    above, middle, below = plots.cycles(cyclical, chain=1).axes
    every = above.lines[0]
    at = np.concatenate([line.get_xdata() for line in middle.lines])
    assert (np.diff(at) > 0).all()
    np.testing.assert_array_equal(every.get_xdata()[at], at)
    # The chain takes its cosine in float32, whose rounding near the end of a cycle is that of 1.
    size = every.get_ydata()
    np.testing.assert_allclose(size[at], cyclical.stats["step_size"][1], rtol=1e-5, atol=1e-6 * size.max())
    potential = np.concatenate([line.get_ydata() for line in middle.lines])
    expected = jax.jit(jax.vmap(cyclical.problem.potential))(cyclical.result.positions[1])
    np.testing.assert_allclose(potential, expected, rtol=1e-5)
    assert len(middle.lines) == len(below.lines) == 4
    assert above.get_title().startswith("chain 1: 4 cycles of 150 steps")


def test_distances_between_functions_are_kept_by_the_third_panel(cyclical):
    """f of a linear model of two features has three directions; of the distances between draws few are lost."""
    below = plots.cycles(cyclical).axes[2]
    points = np.concatenate([line.get_xydata() for line in below.lines])
    x = cyclical.diagnose().x
    f = cyclical.function_draws(x)[0]
    true = np.sqrt(((f[:, None] - f[None]) ** 2).mean(2))
    shown = np.sqrt(((points[:, None] - points[None]) ** 2).sum(2))
    assert (shown <= true + 1e-6).all()
    assert (shown**2).sum() > 2 / 3 * (true**2).sum()


def test_colours_of_cycles_stand_out_on_white_and_on_black():
    """Contrast by WCAG 2.1, of relative luminances, at least 3 : 1."""
    colours = drawing.cycle_colours(30)[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    assert ((luminance + 0.05) / 0.05).min() >= 3
    assert (1.05 / (luminance + 0.05)).min() >= 3


@pytest.mark.slow
def test_cycles_of_warm_restarts_are_cycles_too(three):
    method = zoo.methods.SGLD(num_samples=40, thinning=5, warm_restarts=50, **CYCLES)
    posterior = zoo.fit(zoo.models.Linear(), method, three.data, progress=False)
    above, middle, _ = plots.cycles(posterior).axes
    at = np.concatenate([line.get_xdata() for line in middle.lines])
    np.testing.assert_allclose(above.lines[0].get_ydata()[at], posterior.stats["step_size"][0], rtol=1e-4)


def test_cycles_are_refused_where_there_are_none(cyclical, one):
    with pytest.raises(ZooValueError, match="cyclical_sgld"):
        plots.cycles(one)
    with pytest.raises(ZooValueError, match="from 0 to 1"):
        plots.cycles(cyclical, chain=2)
    with pytest.raises(ZooValueError, match=r"plt\.subplots\(3\)"):
        plots.cycles(cyclical, Figure().subplots(1, 2))
    axes = (figure := Figure()).subplots(3)
    assert plots.cycles(cyclical, axes) is figure
    assert all(ax.has_data() for ax in axes)
