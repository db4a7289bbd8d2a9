"""Ensembles: anchored members are exact draws on a linear model, and every other member a maximum of what it saw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import oracles
import pytest
from test_linear_posterior import BIAS_SCALE, DATA, MODEL, NEW, NOISE, ORACLE, WEIGHT_SCALE, assert_normal

import bnn_zoo as zoo
from bnn_zoo import methods
from bnn_zoo.engine import training
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.tasks import Task
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.methods.ensembles import trained as trained_part

SHORT = {"num_steps": 100, "polish_steps": 100}
NET = zoo.models.MLP(hidden=(6,), noise=0.3)


def fit(model=MODEL, seed: int = 0, precision: str | None = None, **settings) -> zoo.Posterior:
    method = zoo.methods.DeepEnsemble(**SHORT | settings)
    return zoo.fit(model, method, DATA, seed=seed, standardize=False, progress=False, precision=precision)


def ridge(rows: np.ndarray, precision: np.ndarray, noise: float) -> np.ndarray:
    """Maximum over (w, b) where row i counts as often as it is in ``rows``."""
    phi = oracles.with_ones(DATA[0])[rows]
    return np.linalg.solve(phi.T @ phi / noise**2 + precision, phi.T @ DATA[1][rows] / noise**2)


# --- anchored ---------------------------------------------------------------------------------------------------------


def test_anchored_members_have_the_closed_form_law():
    """2,000 members: mean and every entry of the covariance of f at four points, within 4 standard errors.

    Seeds 0 to 19: 20 of 20 pass. Fails if the noise of the targets is left out, or anchors stay at the prior's mean.
    """
    posterior = fit(num_members=2000, anchored=True)
    assert (posterior.kind, posterior.num_chains, posterior.num_draws) == ("members", 1, 2000)
    assert_normal(posterior.function_draws(NEW), *ORACLE.function(NEW))


def test_priors_may_be_correlated_and_off_centre():
    """Any Normal prior, read off its log density: here one with a mean and correlations, against 3,000 members."""
    mean, root = np.array([0.5, -1.0, 0.3, 2.0]), np.random.default_rng(2).normal(size=(4, 4)) / 2
    cov = root @ root.T + 0.1 * np.eye(4)

    def own(x, y=None):
        theta = numpyro.sample("theta", dist.MultivariateNormal(jnp.asarray(mean, x.dtype), jnp.asarray(cov, x.dtype)))
        numpyro.sample("y", dist.Normal(x @ theta[:3] + theta[3], NOISE), obs=y)

    posterior = fit(own, num_members=3000, anchored=True, precision="float64")
    phi, new = oracles.with_ones(DATA[0]), oracles.with_ones(NEW)
    inner = np.linalg.inv(phi.T @ phi / NOISE**2 + np.linalg.inv(cov))
    centre = inner @ (phi.T @ DATA[1] / NOISE**2 + np.linalg.solve(cov, mean))
    assert_normal(posterior.function_draws(NEW), new @ centre, new @ inner @ new.T)


def test_scales_stay_at_the_maximum_and_weights_are_exact_given_them():
    """With a prior on the noise, every member takes the noise of the joint maximum; given it, f has its law."""
    model = zoo.models.Linear(weight_scale=WEIGHT_SCALE, bias_scale=BIAS_SCALE, noise=dist.HalfNormal(1.0))
    posterior = fit(model, num_members=1000, anchored=True, num_steps=1000)
    best = zoo.fit(model, "map", DATA, standardize=False, progress=False).draws["noise"].item()
    np.testing.assert_allclose(posterior.draws["noise"], best, rtol=1e-3)
    given = oracles.LinearPosterior(*DATA, WEIGHT_SCALE, BIAS_SCALE, best)
    assert_normal(posterior.function_draws(NEW), *given.function(NEW))


def only_positive(x, y=None):
    w = numpyro.sample("w", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(w * x[:, 0], 1.0), obs=y)


def heavy_tailed(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.StudentT(4.0, w * x[:, 0], 1.0), obs=y)


def normal_log_scale(x, y=None):
    s = numpyro.sample("s", dist.Normal(0.0, 1.0))
    w = numpyro.sample("w", dist.Normal(0.0, jnp.exp(s)))
    numpyro.sample("y", dist.Normal(w * x[:, 0], 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (only_positive, r"the prior .* should be Normal at some site; got no Normal site\. DeepEnsemble\(\)"),
        (heavy_tailed, r"the likelihood .* should be Normal; got StudentT\. DeepEnsemble\(\)"),
        (normal_log_scale, r"the prior .* should be jointly Normal in s, w.*sets the scale of another"),
    ],
)
def test_what_cannot_be_anchored_is_refused(model, message):
    with pytest.raises(ZooValueError, match=message):
        fit(model, anchored=True)
    assert fit(model, num_members=2).num_draws == 2


# --- members ----------------------------------------------------------------------------------------------------------


def test_members_of_a_linear_model_all_reach_its_maximum():
    """A convex problem has one; float64, to a millionth."""
    z = fit(num_members=4, precision="float64").result.positions[0]
    np.testing.assert_allclose(z, np.broadcast_to(ORACLE.mean, z.shape), atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"anchored": True}, {"bootstrap": True}, {"adversarial": 0.01}])
def test_members_of_a_network_are_different_functions(settings):
    f = fit(NET, **settings).function_draws(NEW)[0]
    assert np.ptp(f, axis=0).max() > 0.01
    assert len(np.unique(f[:, 0])) == 5


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_bootstrapped_member_maximises_over_its_own_rows(batch_size):
    """Against ridge regression with repeated rows; in batches, a constant rate stays within noise of it, so polished.

    Fails if members share rows, or rows are weighted without the prior keeping its weight.
    """
    problem = fit(num_members=1, precision="float64").problem
    rows = np.random.default_rng(0).integers(0, 14, (3, 14))
    with jax.enable_x64(True):
        schedule = training.Schedule(num_steps=50, batch_size=batch_size, polish_steps=100)
        task = Task(rows=jnp.asarray(rows))
        trained = training.train(
            problem, np.zeros((3, 4)), np.zeros(2, np.uint32), schedule, Context(), "bootstrap", task
        )
    for z, own in zip(trained.positions, rows, strict=True):
        np.testing.assert_allclose(z, ridge(own, np.diag(ORACLE.prior_sd**-2.0), NOISE), atol=1e-6)
    assert trained.gradient_norm.max() < 1e-5


def test_a_bootstrap_is_drawn_for_each_member():
    z = fit(num_members=3, bootstrap=True).result.positions[0]
    assert np.abs(z[:, None] - z[None]).max(2)[np.triu_indices(3, 1)].min() > 1e-2


def test_adversarial_inputs_lie_against_the_network():
    """By hand: log p(y | x) of a linear model has slope (y − f) w / σ² in x, whose sign each input moves against."""
    x, y = DATA
    problem = fit(num_members=1, precision="float64").problem
    z, share = np.array([0.3, -0.8, 0.5, 1.0]), 0.05
    with jax.enable_x64(True):
        found = float(Task(adversarial=share).objective(problem, jnp.asarray(z)))
    residual = y - x @ z[:3] - z[3]
    moved = x - share * np.ptp(x, axis=0) * np.sign(residual[:, None] * z[:3])

    def log_likelihood(x: np.ndarray) -> float:
        return float(np.sum(-0.5 * ((y - x @ z[:3] - z[3]) / NOISE) ** 2 - np.log(NOISE) - 0.5 * np.log(2 * np.pi)))

    prior = float(np.sum(-0.5 * (z / ORACLE.prior_sd) ** 2 - np.log(ORACLE.prior_sd) - 0.5 * np.log(2 * np.pi)))
    assert log_likelihood(moved) < log_likelihood(x)
    assert found == pytest.approx(prior + 0.5 * log_likelihood(x) + 0.5 * log_likelihood(moved), rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_members": 0}, ZooValueError, "num_members should be at least 1"),
        ({"anchored": 1}, ZooTypeError, "anchored should be True or False"),
        ({"adversarial": 1.5}, ZooValueError, "0.01 is the paper's"),
        ({"anchored": True, "bootstrap": True}, ZooValueError, "without bootstrap and adversarial"),
        ({"batch_size": 15}, ZooValueError, "at most the 14 rows; got 15"),
    ],
)
def test_impossible_settings_are_refused(settings, error, message, compilations):
    with pytest.raises(error, match=message):
        fit(**settings)
    assert compilations.count == 0


def test_each_of_two_names_stands_for_its_settings():
    plain, anchored = (methods.registry.look_up(name) for name in ("ensemble", "anchored_ensemble"))
    assert (plain.anchored, anchored.anchored) == (False, True)
    assert [methods.registry.name_of(m) for m in (plain, anchored)] == ["ensemble", "anchored_ensemble"]
    assert methods.registry.name_of(zoo.methods.DeepEnsemble(num_members=9, anchored=True)) == "anchored_ensemble"


def test_no_rhat_is_given_for_members():
    diagnosis = fit(NET).diagnose()
    np.testing.assert_allclose(diagnosis.points.sd_error, diagnosis.points.sd / np.sqrt(2 * 4))
    assert "rhat" not in diagnosis.points
    assert not diagnosis.table["check"].str.contains("R-hat").any()


# --- early stopping ---------------------------------------------------------------------------------------------------


def by_hand(problem, z: np.ndarray, held, num_steps: int, patience: int) -> tuple[np.ndarray, int, bool]:
    """Adam with a cosine decay in a plain loop, and a look at the held-out rows every ten steps."""
    import optax

    (x, y), count = held, problem.num_rows
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, num_steps))
    state, best, best_loss, best_step, stale = optimizer.init(z), z, np.inf, 0, 0
    slope = jax.jit(jax.grad(lambda z: -problem.log_posterior(z) / count))
    for step in range(1, num_steps + 1):
        update, state = optimizer.update(slope(z), state)
        z = optax.apply_updates(z, update)
        if step % 10 == 0:
            loss = float(np.sum(0.5 * ((y - np.asarray(x) @ z[:3] - z[3]) / NOISE) ** 2))
            best, best_loss, best_step, stale = (
                (z, loss, step, 0) if loss < best_loss else (best, best_loss, best_step, stale + 1)
            )
        if stale == patience:
            return np.asarray(best), best_step, True
    return np.asarray(best), best_step, False


def test_members_stop_where_a_plain_loop_stops():
    """Each at its own step, whatever the others do, with the prior weighed against the rows that are trained on."""
    problem = fit(num_members=1, precision="float64").problem
    starts = np.array([[0.0, 0.0, 0.0, 0.0], [3.0, -2.0, 1.0, 5.0], [-1.0, 1.0, 4.0, 0.0]])
    with jax.enable_x64(True):
        part, held = trained_part.hold_out(problem, 0.3, jnp.zeros(2, jnp.uint32))
        assert (part.num_rows, len(held[1])) == (10, 4)
        both = np.concatenate([np.column_stack([part.x, part.y]), np.column_stack(held)])
        everything = np.column_stack([problem.x, problem.y])
        np.testing.assert_array_equal(both[np.lexsort(both.T)], everything[np.lexsort(everything.T)])
        schedule = training.Schedule(num_steps=150, learning_rate=0.05, patience=4)
        found = training.train(part, starts, np.zeros(2, np.uint32), schedule, Context(), "stop", held=held)
        wanted = [by_hand(part, z, held, 150, 4) for z in starts]
    assert len({step for _, step, _ in wanted}) == 3 and {stopped for *_, stopped in wanted} == {True, False}
    np.testing.assert_allclose(found.positions, np.stack([z for z, *_ in wanted]), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.held_out.step, [step for _, step, _ in wanted])
    np.testing.assert_array_equal(np.asarray(found.held_out.stale) >= 4, [stopped for *_, stopped in wanted])
    needed = [step + 40 if stopped else 150 for _, step, stopped in wanted]
    assert found.gradients == sum(needed)


def test_early_stopping_is_reported_and_refused_where_it_cannot_be():
    posterior = fit(NET, hold_out=0.3, patience=2, num_steps=1000, learning_rate=0.05, num_members=3)
    check = posterior.diagnose().table.set_index("check").loc["early stopping"]
    assert check.status == "passed" and "on 4 held-out rows" in check.sentence
    assert "stationarity" not in posterior.diagnose().table.check.values
    going = (
        fit(NET, hold_out=0.3, num_steps=30, num_members=3).diagnose().table.set_index("check").loc["early stopping"]
    )
    assert going.status == "doubtful" and "Raise num_steps" in going.sentence
    info = zoo.fit(NET, zoo.methods.MAP(hold_out=0.3, num_steps=400), DATA, progress=False).result.info
    assert info["held_out_loss"].shape == (8,) and "gradient_norm" not in info
    for settings, message in (
        ({"hold_out": 0.01}, "0 of 14 rows"),
        ({"hold_out": 1.0}, "from 0 to below 1"),
        ({"hold_out": 0.2, "patience": 0}, "patience should be at least 1"),
        ({"hold_out": 0.2, "anchored": True}, "no draw from the posterior"),
    ):
        with pytest.raises(ZooValueError, match=message):
            fit(**settings)
