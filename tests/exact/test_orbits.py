"""Orbits of relu networks: one function, other prior densities, and where the prior's density is greatest.

All is in float64, where moving a unit and rounding change values by parts in 1e15; 1e-10 leaves room for sums.
"""

from __future__ import annotations

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import bnn_zoo as zoo
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.priors import LayerScale, RegularisedHorseshoe, StudentT, balance

EXACT = 1e-10
RNG = np.random.default_rng(3)
X = RNG.normal(size=(25, 3)) * [1.0, 4.0, 0.3] + 1.0
Y = 5.0 + 20.0 * np.sin(X[:, 0]) + 3.0 * X[:, 2] + RNG.normal(size=25)
TRAINED = zoo.methods.DeepEnsemble(num_members=3, num_steps=150, polish_steps=0)
HIDDEN = (4, 5)


def fit(model=None, method=TRAINED, **settings) -> zoo.Posterior:
    model = zoo.models.MLP(hidden=HIDDEN, weight_scale=1.3, bias_scale=0.6) if model is None else model
    return zoo.fit(model, method, (X, Y), progress=False, precision="float64", **settings)


@pytest.fixture(scope="module")
def trained() -> zoo.Posterior:
    return fit()


def functions(posterior: zoo.Posterior, draws: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """f(x) ``(C, S, n)`` of an MLP with these weights, in NumPy and in the user's units."""
    scaling = posterior.scaling
    h = np.broadcast_to((x - scaling.x_centre) / scaling.x_scale, (*draws["b_0"].shape[:2], *x.shape))
    depth = len(posterior.model.hidden)
    for i in range(depth + 1):
        h = h @ draws[f"w_{i}"] + draws[f"b_{i}"][:, :, None]
        h = np.maximum(h, 0) if i < depth else h
    return h[..., 0] * scaling.y_scale + scaling.y_centre


def log_priors(posterior: zoo.Posterior, draws: dict[str, np.ndarray]) -> np.ndarray:
    """Log prior ``(S,)`` of one chain's draws of a model without auxiliary sites."""
    found = []
    with jax.enable_x64(True):
        for s in range(posterior.num_draws):
            sites = {name: value[0, s] for name, value in draws.items()}
            sites["noise"] = sites["noise"] / posterior.scaling.y_scale
            z = posterior.problem.unconstrain({name: jnp.asarray(value) for name, value in sites.items()})
            found.append(float(posterior.problem.log_prior(z)))
    return np.array(found)


def sides(draws: dict[str, np.ndarray], layer: int, scale: float = 1.3, bias: float = 0.6) -> tuple[np.ndarray, ...]:
    """A and B of each draw and unit, ``(C, S, width)``: squares over prior variances of what goes in and out."""
    into, out = draws[f"w_{layer}"], draws[f"w_{layer + 1}"]
    a = (into**2).sum(-2) * into.shape[-2] / scale**2 + draws[f"b_{layer}"] ** 2 / bias**2
    return a, (out**2).sum(-1) * out.shape[-2] / scale**2


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", ["number", "unit", "draw", "best"])
def test_the_function_stays_and_the_prior_changes_as_said(trained, layer, kind):
    """A bias left behind, rows for columns, the wrong layer out; a density off by a term."""
    width = HIDDEN[layer]
    factors = {
        "number": 1.7,
        "unit": np.geomspace(0.2, 4.0, width),
        "draw": np.random.default_rng(1).uniform(0.3, 3.0, (1, 3, width)),
        "best": None,
    }[kind]
    moved = balance(trained, layer=layer, factors=factors)
    assert moved.keys() == trained.draws.keys()
    assert {name: value.shape for name, value in moved.items()} == {k: v.shape for k, v in trained.draws.items()}
    np.testing.assert_array_equal(moved["noise"], trained.draws["noise"])
    new = np.random.default_rng(2).normal(size=(50, 3)) * 3
    before, after = functions(trained, trained.draws, new), functions(trained, moved, new)
    np.testing.assert_allclose(before, trained.function_draws(new), rtol=1e-9)
    np.testing.assert_allclose(after, before, rtol=EXACT, atol=EXACT * np.abs(before).max())
    assert np.abs(moved[f"w_{layer}"] / trained.draws[f"w_{layer}"] - 1).max() > 0.05
    a, b = sides(trained.draws, layer)
    c = (b / a) ** 0.25 if factors is None else np.broadcast_to(factors, a.shape)
    change = (0.5 * (1 - c**2) * a + 0.5 * (1 - c**-2) * b).sum(-1)[0]
    np.testing.assert_allclose(log_priors(trained, moved) - log_priors(trained, trained.draws), change, rtol=1e-8)


def test_the_balanced_point_has_the_greatest_density(trained):
    """A root too few or too many, or B / A upside down: a step to either side, of one unit alone, would gain."""
    moved = balance(trained, layer=1)
    a, b = sides(moved, 1)
    np.testing.assert_allclose(a, b, rtol=EXACT)
    best, at = log_priors(trained, moved), (sides(trained.draws, 1)[1] / sides(trained.draws, 1)[0]) ** 0.25
    assert (best > log_priors(trained, trained.draws)).all()
    for unit in range(HIDDEN[1]):
        for step in (0.9, 1.1):
            factors = at.copy()
            factors[..., unit] *= step
            assert (log_priors(trained, balance(trained, layer=1, factors=factors)) < best).all()


@pytest.mark.parametrize(
    "prior",
    [LayerScale(), RegularisedHorseshoe(), RegularisedHorseshoe(over="out_of")],
    ids=["layer", "into", "out of"],
)
def test_weights_are_balanced_in_units_of_scales_that_are_drawn(prior):
    """Coordinates taken for weights where these are drawn non-centred, or scales that move along."""
    posterior = fit(zoo.models.MLP(hidden=(4,), prior=prior))
    moved, draws = balance(posterior), posterior.draws
    new = np.random.default_rng(2).normal(size=(20, 3))
    np.testing.assert_allclose(functions(posterior, moved, new), posterior.function_draws(new), rtol=1e-8, atol=1e-8)
    still = set(draws) - {"w_0", "b_0", "w_1"}
    assert all(np.array_equal(moved[name], draws[name]) for name in still)

    def scale(i: int, of: str) -> np.ndarray:
        if isinstance(prior, LayerScale) or f"scale_{i}" in draws:
            return draws[f"scale_{i}"][..., None, None]
        if prior.over == "into":
            return draws[f"unit_{i}"][..., None, :]
        return draws["relevance" if i == 0 else f"unit_{i}"][..., :, None] if of == "w" else np.ones((1, 1, 1, 1))

    a = (
        3 * ((moved["w_0"] / scale(0, "w")) ** 2).sum(-2)
        + ((moved["b_0"][..., None, :] / scale(0, "b")) ** 2)[..., 0, :]
    )
    b = 4 * ((moved["w_1"] / scale(1, "w")) ** 2).sum(-1)
    np.testing.assert_allclose(a, b, rtol=1e-8)


def test_draws_scatter_about_the_balance_by_the_orbits_volume():
    """E[A − B] = k + 1 − m in any posterior, whatever the data (here 3 + 1 − 1), within 5 Monte Carlo standard errors.

    Of chains that had not converged, or of a method that is not exact, it would be off.
    """
    from bnn_zoo.reports.mixing import chain_diagnostics

    model = zoo.models.MLP(hidden=(3,), weight_scale=1.3, bias_scale=0.6, noise=0.5)
    posterior = fit(model, zoo.methods.NUTS(num_warmup=500, num_samples=1000, num_chains=2))
    a, b = sides(posterior.draws, 0)
    excess = (a - b).sum(-1, keepdims=True)  # over all units, which may change places
    error = excess.std() / np.sqrt(chain_diagnostics(excess)["ess_bulk"][0])
    assert abs(excess.mean() - 3 * (3 + 1 - 1)) < 5 * error < 4


def test_what_has_no_orbit_is_refused(trained):
    cases = [
        (lambda: balance("mlp"), ZooTypeError, "Fit the model first."),
        (lambda: balance(trained, layer=2), ZooValueError, "one of the 2 hidden layers, from 0; got 2."),
        (lambda: balance(trained, layer=True), ZooTypeError, "0 is the first hidden layer."),
        (
            lambda: balance(trained, factors=[1.0, 2.0]),
            ZooValueError,
            "got shape (2,). Give one number, or one a unit.",
        ),
        (lambda: balance(trained, factors=-1.0), ZooValueError, "A unit's sign cannot be turned."),
        (lambda: balance(trained, factors="a"), ZooTypeError, "Give one number, or one a unit."),
    ]
    quick = zoo.methods.MAP(num_steps=5, num_restarts=1, polish_steps=0)
    for model, mend in {
        zoo.models.MLP(hidden=(3,), activation="tanh"): "fit with activation='relu'.",
        zoo.models.ResidualMLP(hidden=(3, 3)): "Its stream is not rescaled by a block: take an MLP.",
        zoo.models.Rank1MLP(hidden=(3,)): "declares an architecture of dense layers",
        zoo.models.Linear(): "one of the 0 hidden layers",
        zoo.models.MLP(hidden=(3,), prior=StudentT()): "Give factors, and compare the densities",
    }.items():
        posterior = fit(model, quick)
        cases.append((lambda p=posterior: balance(p), ZooValueError, mend))
    for call, error, mend in cases:
        with pytest.raises(error, match=re.escape(mend)):
            call()


def test_a_prior_that_is_not_normal_may_be_moved_by_given_factors():
    posterior = fit(zoo.models.MLP(hidden=(4,), prior=StudentT()))
    new = np.random.default_rng(2).normal(size=(20, 3))
    moved = balance(posterior, factors=2.0)
    np.testing.assert_allclose(functions(posterior, moved, new), posterior.function_draws(new), rtol=1e-8)
    np.testing.assert_allclose(moved["w_0"], 2 * posterior.draws["w_0"], rtol=EXACT)


def test_a_unit_with_a_side_of_nothing_stays():
    """0 / 0, or a factor of infinity."""
    posterior = fit(zoo.models.MLP(hidden=(2,), noise=dist.HalfNormal(1.0)))
    nothing_in = np.where(np.arange(posterior.problem.size) < 8, 0.0, posterior.result.positions)
    posterior = replace(posterior, result=replace(posterior.result, positions=nothing_in))
    moved = balance(posterior)
    assert all(np.isfinite(value).all() for value in moved.values())
    np.testing.assert_array_equal(moved["w_1"], posterior.draws["w_1"])
