"""Mixtures over draws against SciPy, component by component, in float64.

The same sums are done by SciPy in another order, so distribution function and log density agree to a few units in the
last place: 1e-12. A quantile y is sought until it moves by 1e-12 (1 + |y|), so it is judged to twice that: by Brent's
root, and by SciPy's distribution function, to 1e-9 plus the density times that distance. The CRPS is judged by the
integral that defines it, at 1e-8; QUADPACK is asked for 1e-11 a piece.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import integrate, optimize, stats
from scipy.special import logsumexp

from bnn_zoo.engine import mixture
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.engine.mixture import evaluate
from bnn_zoo.errors import ZooValueError

RNG = np.random.default_rng(11)
ROWS = 3
LEVELS = np.array([1e-6, 0.025, 0.31, 0.5, 0.9, 1 - 1e-6])


def normals(loc: np.ndarray, scale: np.ndarray) -> Likelihood:
    return Likelihood({"loc": np.asarray(loc, float), "scale": np.asarray(scale, float)}, dist.Normal)


# (T, m) each. The weight of a component is 1 / T: no level lies on a plateau between separated components.
CASES = {
    "overlapping": normals(RNG.normal(size=(200, ROWS)), RNG.uniform(0.5, 1.5, (200, ROWS))),
    "few": normals(RNG.normal(size=(5, ROWS)) * 2, RNG.uniform(0.3, 3.0, (5, ROWS))),
    "separated": normals(np.array([[-50.0, 0, 3], [0, 1, 4], [70, 400, 1e3]]), RNG.uniform(0.5, 1.5, (3, ROWS))),
    "tiny scales": normals(RNG.normal(size=(7, ROWS)), 10.0 ** RNG.uniform(-5, -4, (7, ROWS))),
    "unlike scales": normals(RNG.normal(size=(7, ROWS)), 10.0 ** RNG.uniform(-3, 2, (7, ROWS))),
    "one component": normals(np.array([[1.5, -20.0, 0.0]]), np.array([[0.3, 5.0, 1e-3]])),
    "far from 0": normals(1e4 + RNG.normal(size=(20, ROWS)), RNG.uniform(0.5, 1.5, (20, ROWS))),
}
every_case = pytest.mark.parametrize("components", CASES.values(), ids=CASES.keys())


def parameters(components: Likelihood, row: int) -> tuple[np.ndarray, np.ndarray]:
    return components.parameters["loc"][:, row], components.parameters["scale"][:, row]


def true_cdf(components: Likelihood, row: int, y: float) -> float:
    return float(np.mean(stats.norm.cdf(y, *parameters(components, row))))


def places(components: Likelihood) -> list[np.ndarray]:
    """Targets ``(m,)``: in the middle, close to one component, and outside of all by several scales."""
    loc, scale = components.parameters["loc"], components.parameters["scale"]
    return [loc.mean(0), loc[0] + 0.7 * scale[0], loc.min(0) - 4 * scale.max(0), loc.max(0) + 6 * scale.max(0)]


@every_case
def test_cdf_is_scipys(components):
    """A mean over rows instead of draws, the variance where the scale belongs, or float32."""
    for y in places(components):
        found = evaluate("cdf", components, y)
        assert found.shape == (ROWS,) and found.dtype == np.float64
        truth = [true_cdf(components, row, y[row]) for row in range(ROWS)]
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-12)


@every_case
def test_log_prob_is_scipys(components):
    """The mean of log densities in place of the log of their mean, log T forgotten, or underflow far out."""
    for y in places(components):
        found = evaluate("log_prob", components, y)
        assert found.shape == (ROWS,) and found.dtype == np.float64
        each = stats.norm.logpdf(y, components.parameters["loc"], components.parameters["scale"])
        truth = logsumexp(each, axis=0) - np.log(len(each))
        np.testing.assert_allclose(found, truth, rtol=1e-12, atol=1e-12)


def test_log_prob_does_not_underflow():
    """exp before log: -inf a hundred scales out, where the log density is about -5000."""
    found = evaluate("log_prob", CASES["one component"], np.array([1.5 + 30, -20 - 500, 0.1]))
    np.testing.assert_allclose(found, stats.norm(*parameters_of_one()).logpdf([31.5, -520, 0.1]), rtol=1e-12)
    assert (found < -4900).all()


def parameters_of_one() -> tuple[np.ndarray, np.ndarray]:
    one = CASES["one component"].parameters
    return one["loc"][0], one["scale"][0]


@every_case
def test_quantile_inverts_scipys_cdf(components):
    """A search that stops in a flat stretch or once one row is done, or that mixes up levels and rows."""
    found = evaluate("quantile", components, LEVELS)
    assert found.shape == (len(LEVELS), ROWS) and found.dtype == np.float64
    for row in range(ROWS):
        loc, scale = parameters(components, row)
        reach = 10 * scale.max()
        for q, y in zip(LEVELS, found[:, row], strict=True):
            density = np.mean(stats.norm.pdf(y, loc, scale))
            resolved = 2e-12 * (1 + abs(y))
            assert abs(true_cdf(components, row, y) - q) < 1e-9 + density * resolved
            root = optimize.brentq(
                lambda t, q=q, row=row: true_cdf(components, row, t) - q,
                loc.min() - reach,
                loc.max() + reach,
                xtol=1e-14,
                rtol=4 * np.finfo(float).eps,
            )
            # In the tails the distribution function is known to 1e-16 only, so y to 1e-16 over the density there.
            assert abs(y - root) < resolved + 4e-16 / density


def test_quantiles_of_one_component_are_the_normals():
    """The bracket of a single component has no width: its ends are its quantile."""
    loc, scale = parameters_of_one()
    truth = stats.norm.ppf(LEVELS[:, None], loc, scale)
    # ppf in the upper tail has 1 - q, which is known to 1e-16 / 1e-6: 1e-10.
    np.testing.assert_allclose(evaluate("quantile", CASES["one component"], LEVELS), truth, rtol=1e-9, atol=1e-12)


def test_quantiles_in_a_gap_between_components_have_that_probability():
    """Newton's step on a plateau divides 0 by 0: the answer would be NaN, or outside of the gap."""
    components = normals(np.array([[-1e3], [1e3]]), np.ones((2, 1)))
    found = evaluate("quantile", components, np.array([0.25, 0.5, 0.75]))[:, 0]
    assert np.isfinite(found).all()
    # A level of one quarter is the median of the left component; at 0.5 any point of the gap will do.
    np.testing.assert_allclose(found[[0, 2]], [-1e3, 1e3], rtol=1e-12)
    assert abs(true_cdf(components, 0, found[1]) - 0.5) < 1e-9


def test_quantiles_rise_with_their_level():
    """Levels answered in another order, or a search that ends at different distances from the root."""
    for name in ("few", "separated", "tiny scales"):
        components = CASES[name]
        assert (np.diff(evaluate("quantile", components, LEVELS), axis=0) > 0).all()


# --- CRPS -------------------------------------------------------------------------------------------------------------

# Widths and distances of order 1, so that 1e-8 is the same for value, integral and their difference.
SCORED = {name: CASES[name] for name in ("overlapping", "few", "one component")} | {
    "separated": normals(np.array([[-50.0, 0, 3], [0, 1, 4], [70, 40, 100]]), RNG.uniform(0.5, 1.5, (3, ROWS))),
    "narrow": normals(RNG.normal(size=(4, ROWS)), 10.0 ** RNG.uniform(-3, -2, (4, ROWS))),
}
every_score = pytest.mark.parametrize("components", SCORED.values(), ids=SCORED.keys())


def true_crps(components: Likelihood, row: int, y: float) -> float:
    """∫ (F(t) - 1[y ≤ t])² dt, cut at y and at every component, beyond 10 scales of which nothing is left."""
    loc, scale = parameters(components, row)
    if len(loc) > 20:
        cuts = np.linspace((loc - 10 * scale).min(), (loc + 10 * scale).max(), 20)
    else:
        cuts = (loc[:, None] + scale[:, None] * np.array([-10, -3, 0, 3, 10])).ravel()
    cuts = np.unique(np.append(cuts, y))
    pieces = [
        integrate.quad(
            lambda t, above=float(low >= y): (true_cdf(components, row, t) - above) ** 2, low, high, epsabs=1e-11
        )[0]
        for low, high in pairwise(cuts)
    ]
    return float(sum(pieces))


@every_score
def test_crps_is_the_integral_that_defines_it(components):
    """The half before E|Y - Y'| forgotten, pairs i ≠ j alone (a factor T / (T - 1)), or a spread not squared."""
    for y in places(components):
        found = evaluate("crps", components, y)
        assert found.shape == (ROWS,) and found.dtype == np.float64
        truth = np.array([true_crps(components, row, y[row]) for row in range(ROWS)])
        np.testing.assert_allclose(found, truth, rtol=1e-8, atol=1e-8)


def test_crps_of_one_component_is_gneitings():
    """For one Normal a closed form is known (Gneiting & Raftery 2007, equation 21)."""
    loc, scale = parameters_of_one()
    y = loc + np.array([0.4, -2.0, 7.0]) * scale
    r = (y - loc) / scale
    truth = scale * (r * (2 * stats.norm.cdf(r) - 1) + 2 * stats.norm.pdf(r) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(evaluate("crps", CASES["one component"], y), truth, rtol=1e-9)


def test_both_ways_to_the_crps_are_taken():
    """A choice that always falls on one side: the other would be wrong unseen, or thousands of draws would be slow."""
    assert mixture._nodes(SCORED["overlapping"]) > 0
    assert mixture._nodes(SCORED["narrow"]) == 0
    wide = normals(RNG.normal(size=(2000, 1)), np.full((2000, 1), 0.3))
    assert 0 < mixture._nodes(wide) <= mixture.MOST_PAIR_NODES


@pytest.mark.parametrize("draws", [200, 700])
def test_the_two_ways_to_the_crps_agree(draws):
    """Too few nodes, too short a reach, or a node counted twice: the rule promises 1e-10 of the reach."""
    rng = np.random.default_rng(draws)
    components = normals(rng.normal(size=(draws, ROWS)), rng.uniform(0.4, 1.5, (draws, ROWS)))
    nodes = mixture._nodes(components)
    assert nodes > 0
    score = jax.jit(mixture.crps, static_argnums=0)
    for y in places(components):
        with jax.enable_x64(True):
            pairs, rule, coarse = (score(n, components, y) for n in (0, nodes, nodes // 8))
        np.testing.assert_allclose(rule, pairs, rtol=0, atol=1e-9)
        # Power: with an eighth of the nodes the rule is visibly off.
        assert np.max(np.abs(np.asarray(coarse) - np.asarray(pairs))) > 1e-7


def test_crps_of_other_families_is_refused():
    """Normal closed forms applied to parameters that merely have the same names."""
    components = students(np.full((2, 1), 5.0), np.array([[0.0], [1.0]]), np.ones((2, 1)))
    with pytest.raises(ZooValueError, match=r"got StudentT\. Use log_prob instead"):
        evaluate("crps", components, np.zeros(1))


# --- other families ---------------------------------------------------------------------------------------------------


def students(df: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> Likelihood:
    return Likelihood({"df": df, "loc": loc, "scale": scale}, dist.StudentT)


STUDENTS = {
    "light tails": students(RNG.uniform(4, 30, (6, ROWS)), RNG.normal(size=(6, ROWS)), RNG.uniform(0.5, 2, (6, ROWS))),
    "no variance": students(np.full((6, ROWS), 1.7), RNG.normal(size=(6, ROWS)), RNG.uniform(0.5, 2, (6, ROWS))),
    "no mean": students(np.full((6, ROWS), 0.8), RNG.normal(size=(6, ROWS)), RNG.uniform(0.5, 2, (6, ROWS))),
}


@pytest.mark.parametrize("components", STUDENTS.values(), ids=STUDENTS.keys())
def test_student_t_is_scipys(components):
    """A Normal assumed; a bracket made of a mean or a variance that a heavy tail does not have."""
    three = tuple(components.parameters[name] for name in ("df", "loc", "scale"))
    y = np.array([0.3, -2.0, 9.0])
    truth = stats.t.cdf(y, *three).mean(0)
    # Both go through the incomplete beta function, JAX's to about 1e-13.
    np.testing.assert_allclose(evaluate("cdf", components, y), truth, rtol=0, atol=1e-11)
    density = logsumexp(stats.t.logpdf(y, *three), axis=0) - np.log(6)
    np.testing.assert_allclose(evaluate("log_prob", components, y), density, rtol=1e-12)
    levels = np.array([0.01, 0.31, 0.5, 0.975])
    found = evaluate("quantile", components, levels)
    assert found.shape == (len(levels), ROWS)
    reached = np.array([stats.t.cdf(row, *three).mean(0) for row in found])
    np.testing.assert_allclose(reached, np.broadcast_to(levels[:, None], reached.shape), rtol=0, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1e12])
def test_quantiles_do_not_depend_on_the_unit(unit):
    """A search that ends at a fixed distance, 1e-12 say: a hundredth of a scale of 1e-10, and all of one of 1e-30."""
    for components in (CASES["few"], STUDENTS["light tails"], STUDENTS["no mean"]):
        scaled = {k: v if k == "df" else v * unit for k, v in components.parameters.items()}
        plain = evaluate("quantile", components, LEVELS)
        found = evaluate("quantile", Likelihood(scaled, components.family), LEVELS) / unit
        # In the tails the distribution function is known to 1e-16 only: 1e-16 over its slope, q / scale at most.
        np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-10)


def test_quantiles_of_one_sided_components():
    """A bracket or a step that leaves the support, where there is no density to divide by."""
    rate = np.array([[0.5], [3.0], [20.0]])
    found = evaluate("quantile", Likelihood({"rate": rate}, dist.Exponential), LEVELS)[:, 0]
    reached = stats.expon.cdf(found, scale=1 / rate).mean(0)
    np.testing.assert_allclose(reached, LEVELS, rtol=0, atol=1e-12)
