"""A gallery of failures, each condemned by ``diagnose()`` in the right words, and a healthy posterior that passes.

Every one but the two doctored ones is a real fit that went wrong in the way its name says.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpyro.distributions as dist
import pytest

import bnn_zoo as zoo
from bnn_zoo.methods import HMC, MAP, NUTS, VI, DeepEnsemble, Laplace, MCDropout, MetropolisHastings
from bnn_zoo.models import MLP, Linear
from bnn_zoo.reports import mixing
from tests.benchmarks import between

NOISE = 0.3


@functools.cache
def wave(rows: int = 120) -> zoo.Dataset:
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 2, (rows, 1))
    return zoo.Dataset(x, 5 + np.sin(2 * x[:, 0]) + NOISE * generator.normal(size=rows), ("hour",), "tide")


def fit(model: object, method: object, data: object = None, **settings: object) -> zoo.Posterior:
    return zoo.fit(model, method, wave() if data is None else data, progress=False, **settings)


@functools.cache
def healthy() -> zoo.Posterior:
    return fit(Linear(noise=dist.HalfNormal(1.0)), NUTS(num_warmup=300, num_samples=500, start="prior"))


def line(posterior: zoo.Posterior, check: str, **settings: object):
    table = posterior.diagnose(**settings).table.set_index("check")
    assert check in table.index, f"no check {check!r} among {list(table.index)}"
    return table.loc[check]


def doctored(change) -> zoo.Posterior:
    """The healthy posterior with positions ``(C, S, p)`` as ``change`` leaves them."""
    result = healthy().result
    positions = result.positions.copy()
    change(positions)
    return dataclasses.replace(healthy(), result=dataclasses.replace(result, positions=positions))


def test_a_healthy_posterior_passes():
    diagnosis = healthy().diagnose()
    assert diagnosis.verdict == "passed", diagnosis
    assert diagnosis.mends == ()


def test_a_chain_that_stands_still():
    def stop(positions):
        positions[2] = positions[2, :1]

    found = line(doctored(stop), "R-hat of f(x)")
    assert found.status == "failed"
    assert "Chain 2 does not move" in found.sentence and "another seed" in found.sentence


def test_a_chain_that_stands_apart():
    def shift(positions):
        positions[1] += 1.0

    found = line(doctored(shift), "R-hat of f(x)")
    assert found.status == "failed"
    assert "Chain 1 stands apart" in found.sentence and "zoo.stack" in found.sentence


def test_chains_in_modes_of_their_own():
    """Several frequencies of one wave fit two clusters of inputs, with others between them that do not."""
    model = MLP(hidden=(1,), activation="sin", fan_in=False, weight_scale=6.0, noise=0.1)
    posterior = fit(model, NUTS(num_warmup=300, num_samples=300, start="prior"), between.data(0))
    found = line(posterior, "R-hat of f(x)")
    assert found.status == "failed"
    assert "Each chain mixes within a mode of its own" in found.sentence
    assert "Drawing longer will not mend this" in found.sentence and "zoo.stack" in found.sentence
    assert "taken alone have" in line(posterior, "bulk ESS of f(x)").sentence


def test_chains_that_do_not_mix():
    posterior = fit(MLP(hidden=(20,)), MetropolisHastings(num_warmup=50, num_samples=200, start="prior"))
    found = line(posterior, "R-hat of f(x)")
    assert found.status == "failed"
    assert "No chain mixes" in found.sentence and "times as long" in found.sentence
    assert "start='ensemble'" in found.sentence and "activation='tanh'" in found.sentence


def test_too_long_a_step_and_where_it_diverges():
    """A funnel: six weights under a scale with a wide prior, and a step fit for its mouth."""
    model = Linear(weight_scale=dist.HalfCauchy(1.0), noise=dist.LogNormal(0.0, 3.0))
    generator = np.random.default_rng(1)
    data = zoo.Dataset(generator.normal(size=(4, 8)), generator.normal(size=4))
    posterior = fit(model, NUTS(num_warmup=100, num_samples=500, target_accept=0.3, start="prior"), data)
    found = line(posterior, "divergences")
    assert found.status == "failed"
    assert "the sampler cannot follow the posterior somewhere: they sit" in found.sentence
    assert "target_accept" in found.sentence


def test_a_bound_that_has_not_settled():
    posterior = fit(MLP(hidden=(10,)), VI(num_steps=100, learning_rate=0.003))
    found = line(posterior, "gradient of the bound")
    assert found.status == "failed" and "training stopped on a slope" in found.sentence
    assert "num_steps" in found.sentence


def test_independent_weights_across_a_gap():
    data = zoo.datasets.load("two_clusters")
    posterior = fit(MLP(hidden=(20,), activation="tanh", noise=0.1), VI(guide="mean_field", num_steps=4000), data)
    found = line(posterior, "epistemic sd against the reference", reference="nuts")
    assert found.status != "passed" and "over-confident" in found.sentence
    assert line(posterior, "Pareto k-hat").status == "doubtful"


def test_laplace_where_there_is_no_maximum():
    posterior = fit(MLP(hidden=(10,), noise=0.3), Laplace(num_steps=5, num_restarts=1, polish_steps=0))
    found = line(posterior, "stationarity")
    assert found.status == "failed" and "training stopped before a maximum" in found.sentence
    assert line(posterior, "negative eigenvalues").status == "doubtful"


def test_an_ensemble_of_two():
    found = line(fit(MLP(hidden=(10,)), DeepEnsemble(num_members=2, num_steps=500)), "precision of the spread")
    assert found.status == "failed" and "over 2 networks" in found.sentence and "more members" in found.sentence


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (MCDropout(rate=0.2, num_steps=300), "the dropout rate that was given, 0.2"),
        (DeepEnsemble(num_members=10, num_steps=300), "where their training began"),
    ],
)
def test_spreads_that_are_no_posterior_s(method, said):
    found = line(fit(MLP(hidden=(10,)), method), "width")
    assert found.status == "doubtful" and said in found.sentence and "'nuts'" in found.sentence


@pytest.mark.parametrize(
    ("noise", "said"), [(NOISE / 5, "the noise is too small"), (5 * NOISE, "the noise is too large")]
)
@pytest.mark.parametrize("method", [HMC(num_warmup=300, num_samples=300), Laplace()], ids=["hmc", "laplace"])
def test_the_wrong_noise(noise, said, method):
    posterior = fit(MLP(hidden=(5,), activation="tanh", noise=noise), method, standardize=False)
    found = line(posterior, "residuals")
    assert found.status == "failed" and said in found.sentence and "dist.HalfNormal" in found.sentence


def test_the_right_noise_passes_however_many_weights_there_are():
    """E[((y − f) / σ)²] is 1 in the posterior of a linear model: 4 of 120 rows, or 60 weights for 80 rows."""
    generator = np.random.default_rng(3)
    for features, rows in ((4, 120), (60, 80)):
        x = generator.normal(size=(rows, features))
        y = x @ generator.normal(size=features) + NOISE * generator.normal(size=rows)
        posterior = fit(Linear(noise=NOISE), Laplace(), (x, y), standardize=False)
        found = line(posterior, "residuals")
        assert found.status == "passed"
        # One standard error of a mean of n squares of Normals is √(2 / n); three of them, for the root half.
        assert found.value == pytest.approx(1, abs=1.5 * np.sqrt(2 / rows))


def test_one_network_that_follows_the_noise_is_doubted_and_no_more():
    generator = np.random.default_rng(4)
    data = zoo.Dataset(generator.normal(size=(40, 3)), generator.normal(size=40))
    # Trained to the end: from so wide a prior a tenth of the steps leave half of the noise unexplained.
    posterior = fit(MLP(hidden=(50,), weight_scale=10.0, noise=1.0), MAP(num_steps=20_000, num_restarts=1), data)
    found = line(posterior, "residuals")
    assert found.status == "doubtful" and "follow the noise" in found.sentence


# --- the arithmetic behind the words ----------------------------------------------------------------------------------


def test_variance_splits_into_within_and_between_chains():
    values = np.random.default_rng(0).normal(size=(3, 400, 4)) + np.arange(3)[:, None, None]
    found = mixing.within_chains(values)
    np.testing.assert_allclose(found["sd_within"] ** 2 + found["sd_between"] ** 2, values.var((0, 1)), rtol=1e-12)
    # Independent draws: each chain alone has as many effective draws as draws, estimated to some 10 %.
    assert (found["rhat_within"] < 1.02).all() and (np.abs(found["ess_within"] / 1200 - 1) < 0.4).all()


def test_points_lie_where_they_are_said_to():
    posterior = healthy()
    diagnosis = posterior.diagnose(np.array([[0.5], [1.5]]))
    where, x, data = diagnosis.points["where"].to_numpy(), diagnosis.x[:, 0], posterior.data.x[:, 0]
    assert list(dict.fromkeys(where)) == ["training", "between", "held-out", "beyond"]
    assert np.isin(x[where == "training"], data).all()
    assert ((x[where == "between"] >= data.min()) & (x[where == "between"] <= data.max())).all()
    assert ((x[where == "beyond"] < data.min()) | (x[where == "beyond"] > data.max())).all()
    np.testing.assert_array_equal(x[where == "held-out"], [0.5, 1.5])


def test_disagreement_is_placed_along_the_feature_that_it_follows():
    """Chains whose slopes differ disagree the more, the larger the input."""

    slots = {slot.name: slot.where for slot in healthy().problem.layout.slots}

    def tilt(positions):
        for chain in range(4):
            positions[chain, :, slots["w_0"]] += 0.03 * chain
            positions[chain, :, slots["b_0"]] += 0.05 * chain

    assert "is highest where hour is large" in line(doctored(tilt), "R-hat of f(x)").sentence
