"""What is traced once is not traced again: tracing is most of what a fit with a warm compile cache waits for."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bnn_zoo.engine import compiled
from bnn_zoo.engine.checks import join
from bnn_zoo.errors import ZooValueError


@pytest.fixture
def traced():
    """A program that says how often it has been traced, and a list of these times."""
    times = []

    def doubled(factor: float, x: jax.Array) -> dict[str, jax.Array]:
        times.append(factor)
        return {"double": factor * x, "weak": jnp.asarray(2.0) * 1}

    return doubled, times


def test_shapes_are_those_of_what_comes_out(traced):
    doubled, _ = traced
    x = np.ones(3, np.float32)
    expected = jax.eval_shape(lambda x: doubled(2.0, x), x)
    assert compiled.shapes_of(doubled, (2.0,), x) == expected


def test_a_program_asked_for_its_shapes_is_traced_once(traced):
    doubled, times = traced
    x = np.ones(3, np.float32)
    watch = compiled.Stopwatch()
    for _ in range(2):
        compiled.shapes_of(doubled, (2.0,), jax.ShapeDtypeStruct(x.shape, x.dtype), watch=watch)
    assert watch.compile_seconds > 0
    (program,) = compiled.compile_together([(doubled, (2.0,), (x,))])
    compiled.shapes_of(doubled, (2.0,), x)
    assert times == [2.0]
    np.testing.assert_array_equal(program(x)["double"], 2 * x)
    compiled.shapes_of(doubled, (3.0,), x)
    assert times == [2.0, 3.0]


def test_no_more_than_a_few_programs_wait_to_be_compiled(traced):
    doubled, times = traced
    x = np.ones(3, np.float32)
    for factor in range(compiled.CAPACITY_TRACED + 1):
        compiled.shapes_of(doubled, (factor,), x)
    assert len(compiled._traced) == compiled.CAPACITY_TRACED
    assert float(compiled.call(doubled, (0,), x)["double"][0]) == 0.0  # the one that was forgotten is traced again
    assert times.count(0) == 2


def test_programs_share_one_trace_of_the_potential():
    """Also of its gradient, also vectorised, and in each precision its own."""
    times = []

    def model(x, y=None):
        times.append(x.dtype)
        w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    problem = join(model, np.ones((5, 2), np.float32), np.ones(5, np.float32))
    z, before = jnp.ones(2), len(times)
    assert float(jax.jit(problem.potential)(z)) == pytest.approx(-float(problem.log_posterior(z)), rel=1e-6)
    after = len(times)
    gradient = jax.jit(jax.grad(problem.potential))(z)
    many = jax.jit(jax.vmap(jax.value_and_grad(problem.potential)))(jnp.stack([z, z]))
    assert len(times) == after > before
    np.testing.assert_allclose(gradient, -problem.grad_log_posterior(z), rtol=1e-6)
    np.testing.assert_allclose(many[1], jnp.stack([gradient, gradient]), rtol=1e-6)
    with jax.enable_x64(True):
        wide = join(model, np.ones((5, 2)), np.ones(5))
        before = len(times)
        assert jax.grad(wide.potential)(jnp.ones(2)).dtype == np.float64
        assert len(times) == before + 1


def test_a_program_that_refuses_is_asked_again():
    """An error on the way to shapes leaves nothing behind."""
    refuses = [True]

    def program(x: jax.Array) -> jax.Array:
        if refuses[0]:
            raise ZooValueError("not yet")
        return 2 * x

    x = np.ones(3, np.float32)
    with pytest.raises(ZooValueError, match="not yet"):
        compiled.shapes_of(program, (), x)
    refuses[0] = False
    assert compiled.shapes_of(program, (), x).shape == (3,)


def test_what_somebody_else_will_call_is_compiled_too_and_its_errors_are_theirs(traced):
    """A look at the prior that cannot be traced would end a fit that can."""

    def broken(x):
        raise RuntimeError("for its caller to hear")

    doubled, times = traced
    x = np.ones(3, np.float32)
    (program,) = compiled.compile_together(
        [(doubled, (2.0,), (x,))], also=((broken, (), (x,)), (doubled, (3.0,), (x,)))
    )
    np.testing.assert_array_equal(program(x)["double"], 2 * x)
    np.testing.assert_array_equal(compiled.call(doubled, (3.0,), x)["double"], 3 * x)
    assert times == [2.0, 3.0]  # what takes long goes first
    with pytest.raises(RuntimeError, match="for its caller to hear"):
        compiled.call(broken, (), x)


def test_old_objects_are_spared_while_something_is_traced_and_no_longer():
    """Left frozen for good, garbage would never be collected; the user's own, thawed, would be gone over again."""
    before = gc.get_freeze_count()
    with compiled.sparing_old_objects(), compiled.sparing_old_objects():
        assert gc.get_freeze_count() > compiled.MOST_FROZEN
    assert gc.get_freeze_count() <= before
    gc.freeze()
    try:
        theirs = gc.get_freeze_count()
        with compiled.sparing_old_objects():
            pass
        assert gc.get_freeze_count() >= theirs - 100  # those that went meanwhile
    finally:
        gc.unfreeze()
