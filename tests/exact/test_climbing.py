"""L-BFGS with bisection finds minima that are known, to the precision of the numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_zoo.engine.climbing import descend


def rosenbrock(z):
    return jnp.sum(100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2)


def found(objective, z, most=500):
    return jax.jit(lambda z: descend(objective, z, most))(z)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_stiff_quadratic(precision):
    """Condition number 1e4. Rounding of the gradient, ``eps |A z|``, over the least curvature bounds the error.

    SciPy's L-BFGS, which remembers as many steps, takes 765 gradients to 1e-9 in float64.
    """
    with jax.enable_x64(precision == np.float64):
        generator = np.random.default_rng(0)
        turn, _ = np.linalg.qr(generator.normal(size=(20, 20)))
        a = (turn * np.logspace(0, 4, 20)) @ turn.T
        minimum = generator.normal(size=20)
        a, minimum = jnp.asarray(a, precision), jnp.asarray(minimum, precision)
        best, turns = found(lambda z: 0.5 * (z - minimum) @ a @ (z - minimum), jnp.zeros(20, precision), 2000)
    error = np.abs(np.asarray(best) - np.asarray(minimum)).max()
    # The gradient that is small enough, 1e-4 sqrt(eps / eps32), over a least curvature of 1, or rounding's.
    eps = np.finfo(precision).eps
    assert error < max(1e-4 * np.sqrt(eps / np.finfo(np.float32).eps), 20 * 1e4 * eps)
    assert turns < 1000


@pytest.mark.parametrize("size", [2, 10])
def test_a_curved_valley(size):
    """Rosenbrock's, from its usual start, in about as many gradients as SciPy's L-BFGS takes (44 and 88)."""
    with jax.enable_x64(True):
        best, turns = found(rosenbrock, jnp.asarray(np.resize([-1.2, 1.0], size)))
    np.testing.assert_allclose(best, 1.0, atol=1e-6)
    assert turns < 120


def test_members_do_not_wait_for_each_other():
    """Side by side, each takes the steps that it takes alone."""
    with jax.enable_x64(True):
        starts = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))
        together = jax.jit(jax.vmap(lambda z: descend(rosenbrock, z, 200)))(starts)
        alone = [found(rosenbrock, z, 200) for z in starts]
    assert len(set(np.asarray(together[1]))) > 1
    for member, (best, turns) in enumerate(alone):
        assert turns == together[1][member]
        np.testing.assert_allclose(best, together[0][member], rtol=1e-9)


def test_values_that_are_not_finite_are_stepped_back_from():
    """log(z) + 1/z is not a number below 0, where a first long step leads; its minimum is at 1."""
    with jax.enable_x64(True):
        best, _ = found(lambda z: jnp.sum(jnp.log(z) + 1 / z), jnp.asarray([0.05, 3.0]))
    np.testing.assert_allclose(best, 1.0, atol=1e-5)


def test_it_starts_where_it_is_told_and_never_ends_worse():
    z = jnp.asarray([1.0, 1.0])
    best, turns = found(rosenbrock, z)
    assert np.array_equal(best, z) and turns == 1
    best, turns = found(lambda z: jnp.sum(jnp.abs(z)), jnp.asarray([0.3, -0.2]), 50)  # a kink
    assert jnp.sum(jnp.abs(best)) <= 0.5
