"""The surface of the log posterior over a plane: heights, planes and projections against closed forms."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

import bnn_zoo as zoo
from bnn_zoo import plots
from bnn_zoo.engine.draws import Draws
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.reports import surface_plots, surfaces
from tests.plotted import toy

SIGMA = 0.3
NETWORK = zoo.models.MLP(hidden=(6,), activation="tanh", noise=SIGMA)


@pytest.fixture(scope="module")
def modes() -> zoo.Posterior:
    """Four modes of a network; all other posteriors of it are made of these, which compiles nothing more."""
    method = zoo.methods.MultiSWAG(num_modes=4, num_samples=30, rank=5, num_steps=200, warm_steps=100)
    return zoo.fit(NETWORK, method, toy(("rain",)), progress=False)


@pytest.fixture(scope="module")
def swag(modes) -> zoo.Posterior:
    info = {name: modes.result.info[name][:1] for name in ("mean", "variance", "deviations")}
    return replace(modes, result=Draws(modes.result.positions[:1], "independent", info=info))


@pytest.fixture(scope="module")
def ensemble(modes) -> zoo.Posterior:
    return replace(modes, result=Draws(modes.result.info["mean"][None], "members"))


@pytest.fixture(scope="module")
def chains(modes) -> zoo.Posterior:
    return replace(modes, result=Draws(modes.result.positions[:3], "markov"))


@pytest.fixture(scope="module")
def linear() -> zoo.Posterior:
    """Four points of the weight space of a model whose log posterior is a quadratic."""
    method, data = zoo.methods.MAP(num_restarts=1, num_steps=3, polish_steps=0), toy(("rain", "sun", "soil"))
    fitted = zoo.fit(zoo.models.Linear(noise=SIGMA), method, data, standardize=False, progress=False)
    z = np.random.default_rng(1).normal(size=(1, 4, 4)).astype(np.float32)
    return replace(fitted, result=Draws(z, "members"))


def test_the_surface_of_a_linear_model_is_its_quadratic(linear):
    """½ ‖y − A z‖² / σ² + ½ ‖z‖², but for a constant; A in the order in which sites lie in z."""
    plane = surfaces.through(linear.result.positions[0, :3])
    across, up = np.linspace(-3, 5, 4), np.linspace(-2, 2, 3)
    found = -surfaces.heights(linear, plane, across, up)
    data, layout = linear.data, linear.problem.layout
    columns = np.zeros((len(data), linear.problem.size))
    for slot in layout.slots:
        columns[:, slot.where] = data.x if slot.name == "w_0" else 1.0
    z = plane.origin + across[None, :, None] * plane.directions[0] + up[:, None, None] * plane.directions[1]
    exact = ((data.y - z @ columns.T) ** 2).sum(2) / (2 * SIGMA**2) + (z**2).sum(2) / 2
    # float32: relative rounding of a sum of 40 squares.
    np.testing.assert_allclose(found - found[0, 0], exact - exact[0, 0], atol=1e-5 * exact.max())


def test_the_surface_at_the_points_that_span_it_is_their_log_posterior(ensemble):
    points = ensemble.result.positions[0, [3, 0, 2]]
    plane = surfaces.through(points)
    places = plane.coordinates(points)
    np.testing.assert_allclose(plane.directions @ plane.directions.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(plane.distances(points), 0, atol=1e-5)
    np.testing.assert_allclose(places[0], 0, atol=1e-12)
    assert places[1, 1] == pytest.approx(0, abs=1e-9)
    exact = jax.jit(jax.vmap(ensemble.problem.log_posterior))(points)
    found = [surfaces.heights(ensemble, plane, place[:1], place[1:])[0, 0] for place in places]
    # The weights are put together again in float32, and a sum of 40 terms of the likelihood rounds.
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    np.testing.assert_allclose(surfaces.log_posteriors(ensemble, points), exact, rtol=1e-5)


def test_components_are_those_of_the_covariance():
    """In three dimensions with sds 3, 2 and 0.1 the first two directions are those of the axes, whatever p is."""
    z = np.random.default_rng(0).normal(size=(300, 3)) * [2.0, 0.1, 3.0] + 5.0
    off = z - z.mean(0, keepdims=True)
    plane = surfaces.along_components(z.mean(0), off)
    values, vectors = np.linalg.eigh(np.cov(z.T))
    overlap = np.abs(np.sum(plane.directions * vectors[:, [2, 1]].T, axis=1))
    np.testing.assert_allclose(overlap, 1, rtol=1e-9)
    np.testing.assert_allclose(plane.coordinates(z).var(0, ddof=1), values[[2, 1]])
    np.testing.assert_allclose(plane.distances(z) ** 2, (off @ vectors[:, 0]) ** 2, atol=1e-9)


def test_swag_is_shown_along_its_iterates_and_multiswag_through_its_means(swag, modes):
    _, _, iterates = np.linalg.svd(swag.result.info["deviations"][0].astype(float), full_matrices=False)
    plane = surface_plots._along(swag)
    np.testing.assert_allclose(np.abs(np.sum(plane.directions * iterates[:2], axis=1)), 1, rtol=1e-6)
    np.testing.assert_allclose(plane.origin, swag.result.info["mean"][0])
    figure = plots.loss_surface(modes, which=(3, 1, 0), num=5)
    stars = figure.axes[0].collections[-1].get_offsets()
    means = modes.result.info["mean"][[3, 1, 0]].astype(float)
    assert np.linalg.norm(stars[1] - stars[2]) == pytest.approx(np.linalg.norm(means[1] - means[2]), rel=1e-5)
    assert {"mode 0", "mode 1", "mode 3", "other modes", "their means"} == {
        text.get_text() for text in figure.axes[0].get_legend().get_texts()
    }


@pytest.mark.parametrize("fitted", ["ensemble", "swag", "modes", "chains"])
def test_the_surface_is_drawn_in_given_axes_with_every_draw_on_it(fitted, request):
    posterior = request.getfixturevalue(fitted)
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plots.loss_surface(posterior, right, num=9) is figure
    assert not left.has_data()
    assert right.get_title().startswith("draws lie ")
    low, high = right.get_xlim()
    kinds = [c for c in right.collections if type(c).__name__ == "PathCollection"]
    for points in kinds:
        places = points.get_offsets()
        assert (low <= places[:, 0]).all()
        assert (places[:, 0] <= high).all()
    assert sum(len(points.get_offsets()) for points in kinds) >= posterior.num_chains * posterior.num_draws
    (scale,) = [ax for ax in figure.axes if ax.get_ylabel() == "nats above the lowest point"]
    assert scale.get_yticklabels()[0].get_text() == "0"


def test_contours_are_quantiles_above_the_lowest_point(chains):
    figure = plots.loss_surface(chains, plane="components", num=21)
    filled = figure.axes[0].collections[0]
    assert filled.levels[0] == 0
    plane = surface_plots._along(chains)
    across, up = (np.linspace(*limits(), 21) for limits in (figure.axes[0].get_xlim, figure.axes[0].get_ylim))
    heights = -surfaces.heights(chains, plane, across, up)
    expected = np.quantile(heights - heights.min(), surface_plots.QUANTILES)
    np.testing.assert_allclose(filled.levels, expected, rtol=1e-3)


def test_a_second_surface_of_the_same_shapes_compiles_nothing(chains, compilations):
    plots.loss_surface(chains, num=7)
    compilations.reset()
    plots.loss_surface(chains, which=(2, 1, 0), num=7)
    assert compilations.count == 0


def test_a_plane_needs_three_points(linear, swag, ensemble):
    with pytest.raises(ZooValueError, match="plane='components'"):
        plots.loss_surface(swag, plane="modes")
    with pytest.raises(ZooValueError, match=r"numbers from 0 to 3"):
        plots.loss_surface(ensemble, which=(0, 1, 4))
    with pytest.raises(ZooValueError, match="three different numbers"):
        plots.loss_surface(ensemble, which=(0, 1, 1))
    with pytest.raises(ZooTypeError, match="three whole numbers"):
        plots.loss_surface(ensemble, which="all")
    with pytest.raises(ZooValueError, match="points on a line"):
        surfaces.through(np.array([[0.0, 0, 0], [1, 1, 1], [3, 3, 3]]))
    one = replace(linear, result=Draws(linear.result.positions[:, :1], "members"))
    with pytest.raises(ZooValueError, match="Fit an ensemble"):
        plots.loss_surface(one)
    with pytest.raises(ZooValueError, match="plane"):
        plots.loss_surface(ensemble, plane="flat")
