"""Stochastic-gradient kernels against the exact laws of their own discretised chains, the noise of batches included.

On a linear model the second moments of a chain obey a linear equation (`oracles.LangevinLaw`), so a step of any length
has a known stationary covariance. 20,000 copies start at draws from the posterior and run until they have forgotten
them; every entry of their covariance must be within 5 standard errors (of 60 entries, once in 25,000 runs by chance).

What was broken on purpose, and by how many standard errors the worst entry was then off, in the tests of SGLD (all
rows, batches, cold, control variates) and of SGHMC (all rows, batches, cold):

=================================  =======================  ==================
as it is                           2.3, 1.5, 1.5, 1.1       2.3, 2.4, 2.2
noise without its √2 (SGLD)        105, 85, 66, 79
half the drift (SGLD)              45, 43, 37, 42
noise without its √2 (SGHMC)                                103, 77, 53
half the kick (SGHMC)                                       50, 40, 31
half a drift left out (SGHMC)                               93, 128, 123
no prior (plain estimate)          31, 32, 52               38, 31, 48
no n / b                           2.3 (none), 68, 88, 360  2.3 (none), 67, 88
=================================  =======================  ==================
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from arviz_stats.base import array_stats

import bnn_zoo as zoo
from bnn_zoo.engine.checks import join
from bnn_zoo.methods.stochastic import gradients, stepping
from bnn_zoo.methods.stochastic.stepping import Course

COPIES, ERRORS = 20_000, 5
STEPS = 200  # the slowest chain here forgets at a rate of 0.08 a step: e⁻¹⁶ of its start is left
WEIGHT_SCALE, NOISE = 0.7, 0.5
MODEL = zoo.models.Linear(weight_scale=WEIGHT_SCALE, noise=NOISE)


def make_data() -> tuple[np.ndarray, np.ndarray]:
    """Twelve rows, of correlated inputs."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 2)) @ np.array([[1.0, 0.5], [0.0, 0.7]])
    return x, x @ [0.8, -0.5] + 0.3 + NOISE * rng.normal(size=12)


DATA = make_data()
LINEAR = oracles.LinearPosterior(*DATA, WEIGHT_SCALE, WEIGHT_SCALE, NOISE)
STIFF = float(np.linalg.eigvalsh(LINEAR.precision)[-1])  # largest curvature


@pytest.fixture(scope="module")
def problem():
    """The linear model on its rows, weights before the bias in z as in the oracle."""
    return join(MODEL, *(a.astype(np.float32) for a in DATA))


def run(problem, method, centre: np.ndarray | None = None) -> tuple[np.ndarray, object]:
    """Positions of all copies after `STEPS`, from posterior draws, and their states."""
    kernel = replace(method, num_warmup=0).kernel(problem)
    root = np.linalg.cholesky(LINEAR.cov)
    start = LINEAR.mean + np.random.default_rng(0).normal(size=(COPIES, len(root))) @ root.T

    @jax.jit
    def copies(keys: jax.Array, z: jax.Array):
        def one(key: jax.Array, z: jax.Array):
            begun = z if centre is None else jnp.asarray(centre, z.dtype)
            state = kernel.init(key, 0, begun, (), {})._replace(z=z)
            return jax.lax.fori_loop(0, STEPS, lambda _, state: kernel.sample(state, (), {}), state)

        return jax.vmap(one)(keys, z)

    state = copies(jax.random.split(jax.random.PRNGKey(1), COPIES), jnp.asarray(start, jnp.float32))
    return np.asarray(state.z, np.float64), state


def off(z: np.ndarray, cov: np.ndarray) -> float:
    """Most standard errors by which the mean or an entry of the covariance of ``z`` is off."""
    centred = z - LINEAR.mean
    i, j = np.triu_indices(len(cov))
    series = np.concatenate([centred, centred[:, i] * centred[:, j]], axis=1)
    truth = np.concatenate([np.zeros(len(cov)), cov[i, j]])
    return float(np.max(np.abs(series.mean(0) - truth) / (series.std(0) / np.sqrt(len(z)))))


CENTRE = LINEAR.mean + np.array([0.3, -0.2, 0.1])
OVERDAMPED = {
    "all rows": (zoo.methods.SGLD(step_size=1.2 / STIFF), {}),
    "batches": (zoo.methods.SGLD(step_size=0.3 / STIFF, batch_size=3), {}),
    "cold": (zoo.methods.SGLD(step_size=0.3 / STIFF, batch_size=3, temperature=0.3), {}),
    "control variates": (
        zoo.methods.SGLD(step_size=0.3 / STIFF, batch_size=3, control_variates=True),
        {"centre": CENTRE},
    ),
}


@pytest.mark.parametrize("name", OVERDAMPED)
def test_law_of_langevin_dynamics(problem, name):
    """The covariance of SGLD is that of its own recursion, which is not the posterior's: more than 20 errors off."""
    method, facts = OVERDAMPED[name]
    law = oracles.LangevinLaw(LINEAR, method.batch_size, method.temperature, **facts)
    z, _ = run(problem, method, facts.get("centre"))
    assert off(z, law.overdamped(method.step_size)) < ERRORS
    assert off(z, method.temperature * LINEAR.cov) > 20 or name == "control variates"


UNDERDAMPED = {
    "all rows": zoo.methods.SGHMC(step_size=1.5 / np.sqrt(STIFF), friction=0.4 * np.sqrt(STIFF)),
    "batches": zoo.methods.SGHMC(step_size=0.2 / np.sqrt(STIFF), friction=0.8 * np.sqrt(STIFF), batch_size=3),
    "cold": zoo.methods.SGHMC(
        step_size=0.2 / np.sqrt(STIFF), friction=0.8 * np.sqrt(STIFF), batch_size=3, temperature=0.3
    ),
}


@pytest.mark.parametrize("name", UNDERDAMPED)
def test_law_of_hamiltonian_dynamics(problem, name):
    """The covariance of SGHMC is that of its own recursion: the posterior's, with all rows a step, at any step size."""
    method = UNDERDAMPED[name]
    law = oracles.LangevinLaw(LINEAR, method.batch_size, method.temperature)
    cov = law.underdamped(method.step_size, method.friction)
    if method.batch_size is None:
        np.testing.assert_allclose(cov, LINEAR.cov, rtol=1e-9)
    z, state = run(problem, method)
    assert off(z, cov) < ERRORS
    if method.batch_size is None:  # and half-kicked momenta have the temperature of the modified energy
        assert np.isfinite(np.asarray(state.kinetic)).all()


def test_noise_estimate_takes_the_heat_of_batches_off(problem):
    """With the noise of batches taken off what is injected, nine tenths of the excess of variance are gone.

    The law is linear in the variance injected, so that its mean over the estimates of all copies is the law at their
    mean, which is known (`exact_noise`).
    """
    method = UNDERDAMPED["batches"]
    law = oracles.LangevinLaw(LINEAR, method.batch_size)
    cov = law.underdamped(method.step_size, method.friction, np.diag(exact_noise(law)))
    hot = law.underdamped(method.step_size, method.friction)
    assert abs(np.trace(cov - LINEAR.cov)) < 0.1 * np.trace(hot - LINEAR.cov)
    z, _ = run(problem, replace(method, noise_estimate=True), LINEAR.mean)
    assert off(z, cov) < ERRORS
    assert off(z, hot) > 20


def exact_noise(law: oracles.LangevinLaw) -> np.ndarray:
    """Mean covariance of gradient estimates at Normal points about the mean, of the variance 1 / `STIFF` each way."""
    p = len(LINEAR.mean)
    return law.noise() + (law.spread_of_matrices() @ np.eye(p).reshape(-1)).reshape(p, p) / STIFF


def test_preconditioned_law(problem):
    """With RMSprop's diagonal fixed after warm-up, SGLD has the law of its preconditioned recursion."""
    method = zoo.methods.SGLD(step_size=0.25 / STIFF, preconditioner="rmsprop", batch_size=3)
    kernel = method.kernel(problem)
    begun = jax.jit(lambda: kernel.init(jax.random.PRNGKey(5), 0, jnp.asarray(CENTRE, jnp.float32), (), {}))()
    scale = np.asarray(begun.scale, np.float64)
    assert np.ptp(scale) > 0.1
    law = oracles.LangevinLaw(LINEAR, 3, scale=scale).overdamped(method.step_size)

    @jax.jit
    def copies(keys: jax.Array):
        def one(key: jax.Array):
            state = begun._replace(key=key)
            return jax.lax.fori_loop(0, STEPS, lambda _, state: kernel.sample(state, (), {}), state).z

        return jax.vmap(one)(keys)

    z = np.asarray(copies(jax.random.split(jax.random.PRNGKey(6), COPIES)), np.float64)
    assert off(z, law) < ERRORS


def test_bias_falls_with_the_step(problem):
    """The excess of variance of SGLD falls linearly with the step: a slope of 1 in logarithms, as its law has.

    Measured at two steps a factor of 4 apart in the stiffest direction; the error of the slope comes from those of the
    two excesses.
    """
    direction = np.linalg.eigh(LINEAR.precision)[1][:, -1]
    steps, excess, error = (1.6 / STIFF, 0.4 / STIFF), [], []
    for h in steps:
        z, _ = run(problem, zoo.methods.SGLD(step_size=h))
        squares = ((z - LINEAR.mean) @ direction) ** 2 * STIFF
        excess.append(squares.mean() - 1)
        error.append(squares.std() / np.sqrt(COPIES))
    slope = np.log(excess[0] / excess[1]) / np.log(4)
    exact = [oracles.LangevinLaw(LINEAR, None).overdamped(h) for h in steps]
    known = [direction @ cov @ direction * STIFF - 1 for cov in exact]
    expected = np.log(known[0] / known[1]) / np.log(4)
    tolerance = ERRORS * np.hypot(error[0] / excess[0], error[1] / excess[1]) / np.log(4)
    assert abs(slope - expected) < tolerance < 0.5
    tiny = oracles.LangevinLaw(LINEAR, 3)
    gaps = [np.abs(tiny.overdamped(h / STIFF) - LINEAR.cov).max() for h in (1e-3, 1e-4)]
    assert np.log10(gaps[0] / gaps[1]) == pytest.approx(1, abs=0.02)


def test_without_temperature_it_is_gradient_descent(problem):
    """At temperature 0 SGLD is SGD with learning rate h / 2 on the batches that it draws, to the last bit but one."""
    h, steps = 0.3 / STIFF, 50
    kernel = zoo.methods.SGLD(step_size=h, batch_size=3, temperature=0.0).kernel(problem)
    state = kernel.init(jax.random.PRNGKey(0), 0, jnp.asarray(CENTRE, jnp.float32), (), {})
    sample = jax.jit(lambda state: kernel.sample(state, (), {}))
    z = np.asarray(state.z, np.float64)
    x, y = oracles.with_ones(DATA[0]), DATA[1]
    for _ in range(steps):
        key_batch = jax.random.split(state.key, 3)[1]
        rows = np.asarray(jax.random.randint(key_batch, (3,), 0, len(y)))
        slope = z / WEIGHT_SCALE**2 + len(y) / 3 * x[rows].T @ (x[rows] @ z - y[rows]) / NOISE**2
        z = z - h / 2 * slope
        state = sample(state)
    np.testing.assert_allclose(np.asarray(state.z), z, rtol=1e-4)


def test_temperature_that_chains_report(problem):
    """Configurational temperatures are 1 + h/4 E|ĝ|²/p for SGLD (from E|z'|² = E|z|²), and 1 for BAOAB on all rows."""
    h = 1.2 / STIFF
    _, state = run(problem, zoo.methods.SGLD(step_size=h), LINEAR.mean)
    law = oracles.LangevinLaw(LINEAR, None).overdamped(h)
    expected = np.trace(LINEAR.precision @ law) / 3
    found = np.asarray(state.temperature, np.float64)
    assert abs(found.mean() - expected) < ERRORS * found.std() / np.sqrt(COPIES)
    assert expected > 1.1
    _, state = run(problem, UNDERDAMPED["all rows"], LINEAR.mean)
    found = np.asarray(state.temperature, np.float64)
    assert abs(found.mean() - 1) < ERRORS * found.std() / np.sqrt(COPIES)


# --- steps that are found, and courses ------------------------------------------------------------------------------


def test_curvature_and_noise_are_found(problem):
    """Power iteration finds the largest eigenvalue; variances of the noise, at points about the mean, are exact ones.

    A standard deviation of the narrowest direction away, they are larger than at the mean by E[(Â − Λ) δ δᵀ (Â − Λ)].
    """
    z = jnp.asarray(LINEAR.mean, jnp.float32)
    centre = gradients.centre_at(problem, z, False)
    keys = jax.random.split(jax.random.PRNGKey(0), 200)
    look = jax.jit(jax.vmap(lambda key: gradients.look_around(problem, 3, z, centre, jnp.ones(3), key)))
    found = look(keys)
    np.testing.assert_allclose(np.asarray(found.curvature), STIFF, rtol=0.02)
    exact = exact_noise(oracles.LangevinLaw(LINEAR, 3))
    traces = np.asarray(found.variances).sum(1)
    assert abs(traces.mean() - np.trace(exact)) < ERRORS * traces.std() / np.sqrt(len(traces))
    # The largest eigenvalue of an estimated covariance is too large on average, never by more than the trace.
    assert np.linalg.eigvalsh(exact)[-1] < np.mean(np.asarray(found.noise)) < np.trace(exact)


@pytest.mark.parametrize("make", [zoo.methods.SGLD, zoo.methods.SGHMC], ids=["sgld", "sghmc"])
@pytest.mark.parametrize("batch_size", [None, 3], ids=["all rows", "batches"])
def test_found_steps_keep_their_promise(problem, make, batch_size):
    """At the step found, no variance is more than about a tenth too large.

    The variance of the noise is estimated from 32 differences, that is to √(2/32) = 25 %: four errors make 0.1 more.
    """
    method = make(batch_size=batch_size)
    kernel = method.kernel(problem)
    keys = jax.random.split(jax.random.PRNGKey(2), 20)
    begin = jax.vmap(lambda key: kernel.init(key, 0, jnp.asarray(LINEAR.mean, jnp.float32), (), {}))
    state = jax.jit(begin)(keys)
    law = oracles.LangevinLaw(LINEAR, batch_size)
    for h, friction in zip(np.asarray(state.step_size, float), np.asarray(state.friction, float), strict=True):
        cov = law.overdamped(h) if make is zoo.methods.SGLD else law.underdamped(h, friction)
        ratio = np.linalg.eigvals(np.linalg.solve(LINEAR.cov, cov)).real
        assert 0.98 < ratio.min() <= ratio.max() < 1.2


def test_courses():
    """A decay, a warm restart and a cycle with exploration, at the steps where they are known."""
    decay = Course(decay=0.5, decay_steps=100)
    np.testing.assert_allclose(decay.factor(300, 0), 0.5)
    restart = Course(cycle_steps=100)
    assert (restart.explored, restart.sampled) == (0, 100)
    np.testing.assert_allclose([restart.factor(0, s) for s in (0, 50, 100)], [1, 0.55, stepping.LOWEST], rtol=1e-6)
    cycle = Course(cycle_steps=100, explored=80)
    assert (cycle.explored, cycle.sampled) == (80, 20)
    np.testing.assert_allclose([cycle.factor(0, s) for s in (0, 50, 100)], [1, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("make", [zoo.methods.CyclicalSGLD, zoo.methods.CyclicalSGHMC], ids=["sgld", "sghmc"])
def test_cycles_are_numbered_and_explored(make):
    """Draws belong to their cycles evenly, steps of exploration count as gradients, and fit then resume is one fit."""
    method = make(
        num_warmup=0, num_samples=12, samples_per_cycle=4, num_chains=2, thinning=5, start="prior", step_size=0.01
    )
    posterior = zoo.fit(MODEL, method, DATA, standardize=False, progress=False)
    np.testing.assert_array_equal(posterior.stats["cycle"], np.repeat(np.arange(3), 4)[None].repeat(2, axis=0))
    # 60 steps of sampling a chain are a fifth of all.
    assert posterior.timing.gradient_evaluations == 2 * 5 * 60
    steps = posterior.stats["step_size"]
    assert (np.diff(steps.reshape(2, 3, 4), axis=2) < 0).all()
    longer = zoo.fit(MODEL, replace(method, num_samples=16), DATA, standardize=False, progress=False)
    np.testing.assert_array_equal(longer.draws["w_0"], posterior.resume(4, progress=False).draws["w_0"])


def test_exploration_with_noise_keeps_the_width():
    """After descents without noise draws are too narrow; with noise in them the variance is the posterior's.

    Within 5 Monte Carlo errors and the tenth that steps are found for, of the sum of the variances of all weights.
    """
    lengths = {"num_samples": 2000, "samples_per_cycle": 10, "thinning": 1, "start": "prior"}
    found = {}
    for heat in (0.0, 1.0):
        method = zoo.methods.CyclicalSGLD(**lengths, exploration_temperature=heat)
        posterior = zoo.fit(MODEL, method, DATA, standardize=False, progress=False)
        squares = ((posterior.result.positions - LINEAR.mean) ** 2).sum(2) / np.trace(LINEAR.cov)
        found[heat] = squares.mean(), float(array_stats.mcse(squares, chain_axis=0, draw_axis=1))
    assert found[0.0][0] < 0.6
    assert abs(found[1.0][0] - 1) < 0.1 + ERRORS * found[1.0][1] < 0.4


@pytest.mark.parametrize("make", [zoo.methods.CyclicalSGLD, zoo.methods.CyclicalSGHMC], ids=["sgld", "sghmc"])
def test_an_exploration_beyond_stability_ends_near(make):
    """Steps of four times the length that is stable, at first: unbounded, these chains leave the numbers.

    Draws are the last tenth of a cycle, at steps of a twentieth of that: too narrow, as they are after a descent, and
    within the 5 standard deviations of the posterior that four hundred draws of three weights keep to.
    """
    stable = 4 / STIFF if make is zoo.methods.CyclicalSGLD else 2 / np.sqrt(STIFF)
    lengths = {"num_warmup": 0, "num_samples": 400, "samples_per_cycle": 20, "exploration": 0.9, "thinning": 2}
    method = make(**lengths, num_chains=1, start="prior", step_size=4 * stable)
    posterior = zoo.fit(MODEL, method, DATA, standardize=False, progress=False)
    off = posterior.result.positions - LINEAR.mean
    assert np.einsum("cdi,ij,cdj->cd", off, LINEAR.precision, off).max() < 5**2


def test_control_variates_count_both_gradients():
    """Two gradients of a batch a step."""
    method = zoo.methods.SGLD(num_warmup=0, num_samples=4, num_chains=1, thinning=3, start="prior", batch_size=3)
    counts = [
        zoo.fit(MODEL, replace(method, control_variates=which), DATA, standardize=False, progress=False)
        for which in (False, True)
    ]
    assert [fit.timing.gradient_evaluations for fit in counts] == [12, 24]


def test_warm_restarts_and_decay_move_the_step():
    """Warm restarts set the step back as often as asked; a decay never does."""
    base = {"num_warmup": 10, "num_samples": 40, "num_chains": 1, "thinning": 5, "start": "prior", "step_size": 0.01}
    fit = lambda **more: zoo.fit(  # noqa: E731
        MODEL, zoo.methods.SGLD(**base, **more), DATA, standardize=False, progress=False
    ).stats["step_size"][0]
    restarted = fit(warm_restarts=50)
    assert (np.diff(restarted) > 0).sum() == 3
    assert restarted.max() == pytest.approx(0.01, rel=0.02)
    assert (np.diff(fit(decay=0.55)) < 0).all()


def test_predictive_against_the_closed_form():
    """``fit`` with SGHMC on all rows: mean and sd of f(x) within 4 Monte Carlo errors of the exact ones."""
    method = zoo.methods.SGHMC(
        num_warmup=1000, num_samples=2000, thinning=10, start="prior", step_size=0.05, friction=2
    )
    posterior = zoo.fit(MODEL, method, DATA, standardize=False, progress=False)
    new = np.array([[0.3, -1.0], [-2.0, 0.5], [3.0, 3.0]])
    functions = posterior.function_draws(new)
    mean, cov = LINEAR.function(new)
    mcse = array_stats.mcse(functions, chain_axis=0, draw_axis=1, method="mean")
    assert (np.abs(functions.mean((0, 1)) - mean) < 4 * mcse).all()
    squares = (functions - mean) ** 2
    mcse = array_stats.mcse(squares, chain_axis=0, draw_axis=1, method="mean")
    assert (np.abs(squares.mean((0, 1)) - np.diag(cov)) < 4 * mcse).all()
    assert "temperature" in posterior.stats


def test_divergence_keeps_what_was_drawn():
    """A step size that lets the chain blow up after a while: draws before it are kept, and the verdict says why."""
    settings = {"num_warmup": 0, "num_samples": 100, "num_chains": 2, "thinning": 1, "start": "prior"}
    method = zoo.methods.SGLD(**settings, step_size=12 / STIFF)
    posterior = zoo.fit(MODEL, method, DATA, standardize=False, progress=False)
    assert not posterior.complete
    assert 0 < posterior.num_draws < 100
    assert np.isfinite(posterior.draws["w_0"]).all()
    assert "smaller step size" in " ".join(posterior.diagnose().mends)
