"""What holds of every method and every model: shapes, repeatability, compilations, interrupts, units, inputs."""

from __future__ import annotations

import _thread
import functools
import logging
import time

import arviz as az
import numpy as np
import pandas as pd
import pytest

import bnn_zoo as zoo
from bnn_zoo.engine import chains, groups
from tests.contract.small import (
    GUIDES,
    METHODS,
    MODELS,
    NUM_ROWS,
    SLOW,
    WIDTH,
    make_data,
    make_method,
    make_model,
)

NUM_NEW = 7
NEW = np.random.default_rng(9).normal(size=(NUM_NEW, 2))
NEW_Y = np.random.default_rng(8).normal(size=NUM_NEW)
SCORES = {"rmse", "mae", "nll", "crps", "coverage_50", "coverage_80", "coverage_90", "coverage_95"}
SCORES |= {"interval_width_90", "interval_score_90", "sharpness", "calibration_error", "ause"}
GROUPS = {"posterior", "sample_stats", "log_likelihood", "posterior_predictive", "observed_data", "constant_data"}

DENSE = {"w_0": (2, WIDTH), "b_0": (WIDTH,), "w_1": (WIDTH, 1), "b_1": (1,), "noise": ()}
SITES = {
    "linear": {"w_0": (2, 1), "b_0": (1,), "noise": ()},
    "mlp": DENSE,
    "heteroscedastic_mlp": {"w_0": (2, WIDTH), "b_0": (WIDTH,), "w_1": (WIDTH, 2), "b_1": (2,)},
    "rank1_mlp": DENSE | {"r_0": (2,), "s_0": (WIDTH,), "r_1": (WIDTH,), "s_1": (1,)},
    "residual_mlp": {
        **{"w_0": (2, WIDTH), "w_1": (WIDTH, WIDTH), "w_2": (WIDTH, WIDTH), "w_3": (WIDTH, 1)},
        **{"b_0": (WIDTH,), "b_1": (WIDTH,), "b_2": (WIDTH,), "b_3": (1,), "noise": ()},
    },
    "ard_mlp": DENSE | {"relevance": (2,)},
    "horseshoe_mlp": {
        **(DENSE | {"relevance": (2,), "unit_1": (WIDTH,), "local_0": (2,), "local_1": (WIDTH,)}),
        **{"global_0": (), "global_1": (), "slab_variance_0": (), "slab_variance_1": ()},
    },
}
STOCHASTIC = ("sgld", "sghmc", "cyclical_sgld", "cyclical_sghmc", "hmcecs")
MARKOV = ("mh", "hmc", "nuts", "mclmc", *STOCHASTIC)
# One of each engine: cycles go on where they stopped in tests/exact/test_stochastic.py and tests/test_checkpoint.py.
ON_REQUEST = (*SLOW, "hmc", "cyclical_sgld")
CHAINED = [pytest.param(name, marks=pytest.mark.slow if name in ON_REQUEST else ()) for name in MARKOV]
OVER_DRAWS = ("monte_carlo", "plug_in")  # kinds of prediction whose moments are those of the draws
KINDS = {name: "markov" for name in MARKOV} | {"map": "members", "laplace": "independent"}
KINDS |= {"ensemble": "members", "anchored_ensemble": "members", "swa": "members"}
KINDS |= {"swag": "independent", "multiswag": "independent"}
KINDS |= {name: "independent" for name, (make, _) in METHODS.items() if make is zoo.methods.VI}
KINDS |= {"dvi": "independent", "mc_dropout": "independent", "svgd": "members"}
SIZES = {"markov": (2, 8), "independent": (1, 9), "members": (1, 1)}
SIZES |= {"ensemble": (1, 3), "anchored_ensemble": (1, 3), "multiswag": (2, 9), "svgd": (1, 3)}


# Compiling is all that these cost: each method on one model, each model by NUTS and one other, the rest on request.
SOME = [pytest.param(name, marks=pytest.mark.slow if name in (*GUIDES, *SLOW) else ()) for name in METHODS]
FAST = {(method, "mlp") for method in METHODS if method != "bnaf"}
FAST |= {("nuts", model) for model in MODELS} | {("laplace", "heteroscedastic_mlp")}
PAIRS = [
    pytest.param(method, model, marks=() if (method, model) in FAST else pytest.mark.slow)
    for method in METHODS
    for model in MODELS
    if (method, model) != ("dvi", "rank1_mlp")  # refused: tests/exact/test_dvi.py
]


def size_of(method: str) -> tuple[int, int]:
    return SIZES.get(method) or SIZES[KINDS[method]]


DATA = make_data()


def fit(model, method, data=DATA, seed: int = 0, **settings) -> zoo.Posterior:
    return zoo.fit(model, method, data, seed=seed, progress=False, **settings)


@functools.cache
def fitted(model: str, method: str) -> zoo.Posterior:
    return fit(make_model(model), make_method(method))


def assert_same(one: zoo.Posterior, other: zoo.Posterior) -> None:
    assert one.draws.keys() == other.draws.keys()
    for name in one.draws:
        assert np.array_equal(one.draws[name], other.draws[name]), name
    assert one.stats.keys() == other.stats.keys()
    for name in one.stats:
        assert np.array_equal(one.stats[name], other.stats[name]), name


# --- registries -----------------------------------------------------------------------------------------------------


def test_registries_list_exactly_these():
    assert list(zoo.models.table()["name"]) == [
        *("linear", "mlp", "heteroscedastic_mlp", "rank1_mlp", "residual_mlp", "ard_mlp", "horseshoe_mlp")
    ]
    assert list(zoo.methods.table()["name"]) == [
        *("mh", "hmc", "nuts", "mclmc", "sgld", "sghmc", "cyclical_sgld", "cyclical_sghmc", "hmcecs", "map"),
        *("ensemble", "anchored_ensemble", "swa", "swag", "multiswag", "laplace"),
        *("spherical", "mean_field", "layerwise", "low_rank", "full_rank", "rank1", "iaf", "bnaf"),
        *("dvi", "mc_dropout", "svgd"),
    ]
    # What is registered is tested below.
    assert set(zoo.models.table()["name"]) == set(MODELS) == set(SITES)
    assert set(zoo.methods.table()["name"]) == set(METHODS) == set(KINDS)
    for table, known in ((zoo.models.table(), MODELS), (zoo.methods.table(), METHODS)):
        assert dict(zip(table["name"], table["class"], strict=True)) == {k: v[0].__name__ for k, v in known.items()}


# --- every method × every model -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "model"), PAIRS)
def test_every_method_fits_every_model(method, model):
    posterior = fitted(model, method)
    size = size_of(method)
    assert (posterior.num_chains, posterior.num_draws) == size
    assert (posterior.kind, posterior.complete) == (KINDS[method], True)
    assert {name: value.shape for name, value in posterior.draws.items()} == {
        name: size + shape for name, shape in SITES[model].items()
    }
    for name, value in posterior.draws.items():
        assert isinstance(value, np.ndarray)
        assert np.isfinite(value).all(), name
        assert name not in ("noise", "relevance") or (value > 0).all()
    if posterior.kind == "markov":
        assert not np.array_equal(*posterior.result.positions)  # that they move as well needs more warm-up: tests/exact

    functions = posterior.function_draws(NEW)
    assert functions.shape == (*size, NUM_NEW)
    prediction = posterior.predict(NEW)
    for name in ("mean", "std", "epistemic_std", "aleatoric_std"):
        value = getattr(prediction, name)
        assert isinstance(value, np.ndarray)
        assert value.shape == (NUM_NEW,)
        assert np.isfinite(value).all()
    drawn = prediction if prediction.kind in OVER_DRAWS else posterior.predict(NEW, kind="monte_carlo")
    np.testing.assert_allclose(drawn.mean, functions.mean((0, 1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(drawn.epistemic_std, functions.std((0, 1)), rtol=1e-3, atol=1e-4)
    assert prediction.aleatoric_std.min() > 0
    log_likelihood = posterior.log_likelihood(NEW, NEW_Y)
    assert log_likelihood.shape == (*size, NUM_NEW)
    if model != "heteroscedastic_mlp":
        noise = posterior.draws["noise"][..., None]
        normal = -0.5 * ((NEW_Y - functions) / noise) ** 2 - np.log(noise) - 0.5 * np.log(2 * np.pi)
        np.testing.assert_allclose(log_likelihood, normal, rtol=1e-3, atol=1e-3)
    scores = posterior.evaluate(NEW, NEW_Y)
    assert set(scores.index) >= SCORES
    assert np.isfinite(scores).all()
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((NEW_Y - prediction.mean) ** 2)))


@pytest.mark.parametrize("method", ["mh", "hmc", "nuts", "mclmc", "sghmc"])
def test_adaptation_stops_with_warm_up(method):
    """Fails if the random walk adapts for ever: its law would change, too slowly for a test of that law to see."""
    step_size = fitted("mlp", method).stats["step_size"]
    assert (np.ptp(step_size, axis=1) == 0).all()
    assert step_size[0, 0] != step_size[1, 0]


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_repeats_the_draws(method):
    """On the model that compiles fastest: the fits of a seed and of another share its programs."""
    first = fitted("linear", method)
    assert_same(first, fit(make_model("linear"), make_method(method)))
    other = fit(make_model("linear"), make_method(method), seed=1)
    assert not np.array_equal(first.result.positions, other.result.positions)


@pytest.mark.parametrize("method", METHODS)
def test_a_second_fit_compiles_nothing(method, compilations):
    """Other data of the same shape, another seed, and an equal model built anew; first and second prediction too.

    Fails if a method so much as adds up an array whose length the data decide, outside of any program. The first fit is
    that of the test above, so that this one has nothing of its own to compile.
    """

    def look(posterior: zoo.Posterior) -> None:
        posterior.predict(NEW)
        assert posterior.draws

    look(fitted("linear", method))
    compilations.reset()
    second = fit(make_model("linear"), make_method(method), make_data(1), seed=1)
    look(second)
    assert compilations.count == 0
    assert second.timing.compile_seconds == 0


@pytest.mark.parametrize("method", CHAINED)
def test_more_draws_compile_nothing(method, compilations):
    """The number of draws and the thinning are arguments of the compiled chain (a cycle's length is not)."""
    model = make_model("linear", weight_scale=0.78)
    fit(model, make_method(method))
    compilations.reset()
    longer = fit(model, make_method(method, num_samples=11, thinning=2 if method.startswith("cyclical") else 3))
    assert longer.num_draws == 11
    assert compilations.count == 0


# --- how a fit runs does not matter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("thinning", [1, 3])
@pytest.mark.parametrize("method", CHAINED)
def test_fit_then_resume_is_one_long_fit(method, thinning):
    short = fit(make_model("linear"), make_method(method, num_samples=5, thinning=thinning))
    long = fit(make_model("linear"), make_method(method, num_samples=9, thinning=thinning))
    resumed = short.resume(4, progress=False)
    assert (short.num_draws, resumed.num_draws) == (5, 9)  # the one that was resumed is left as it was
    assert not np.array_equal(resumed.result.positions[:, 4:5], resumed.result.positions[:, 8:])
    assert_same(resumed, long)
    assert resumed.timing.gradient_evaluations == long.timing.gradient_evaluations


def test_a_point_fit_refuses_to_resume():
    with pytest.raises(zoo.errors.ZooValueError, match="Fit again"):
        fitted("linear", "map").resume(4)


@pytest.mark.parametrize("method", [*CHAINED, "ensemble"])
def test_draws_do_not_depend_on_cores(method, monkeypatch):
    monkeypatch.setattr(chains, "available_cores", lambda: 3)
    many = fit(make_model("mlp"), make_method(method))
    monkeypatch.setattr(chains, "available_cores", lambda: 1)
    one = fit(make_model("mlp"), make_method(method))
    if method in MARKOV:
        assert (many.result.info["workers"], one.result.info["workers"]) == (2, 1)
    assert_same(many, one)


@pytest.mark.parametrize("method", CHAINED)
def test_draws_do_not_depend_on_chunks(method, monkeypatch):
    settings = METHODS[method][1]
    steps = 2 * (settings["num_warmup"] + settings["num_samples"] * settings.get("thinning", 1))
    seen = []

    class Counted(chains.Progress):
        def advance(self, steps: int, **notes: str) -> None:
            seen.append(steps)
            super().advance(steps, **notes)

    monkeypatch.setattr(chains, "Progress", Counted)
    monkeypatch.setattr(groups, "CHUNK_SECONDS", 1e9)
    few = fit(make_model("mlp"), make_method(method))
    num_few = len(seen)
    assert sum(seen) == steps
    seen.clear()
    monkeypatch.setattr(groups, "CHUNK_SECONDS", 1e-9)
    many = fit(make_model("mlp"), make_method(method))
    assert sum(seen) == steps
    assert len(seen) > 2 * num_few
    assert_same(few, many)


@pytest.mark.parametrize("method", CHAINED)
def test_vectorized_chains_draw_what_threads_draw(method):
    """Few draws in float64, so that rounding has no room to grow."""
    short = make_method(method, num_warmup=0, num_samples=4)
    fits = {
        how: fit(make_model("linear"), short, precision="float64", chain_method=how)
        for how in ("threads", "vectorized")
    }
    for how, posterior in fits.items():
        assert posterior.result.info["chain_method"] == how
        assert posterior.result.positions.dtype == np.float64
    one, other = (posterior.result.positions for posterior in fits.values())
    assert not np.array_equal(one[0], one[1])
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


# --- interrupts -----------------------------------------------------------------------------------------------------


def interrupt_in(monkeypatch, phase: str, call: int) -> None:
    """Have Ctrl-C pressed at the ``call``-th chunk of ``phase``, chunks being as small as they can be."""
    seen = []

    class Pressed(chains.Progress):
        def advance(self, steps: int, **notes: str) -> None:
            super().advance(steps, **notes)
            if notes.get("phase") == phase:
                seen.append(steps)
                if len(seen) == call:
                    _thread.interrupt_main()
                    time.sleep(0.5)  # until the main thread has seen it

    monkeypatch.setattr(chains, "Progress", Pressed)
    monkeypatch.setattr(groups, "CHUNK_SECONDS", 1e-9)
    monkeypatch.setattr(chains, "available_cores", lambda: 1)  # so that nobody draws on in the meantime


@pytest.mark.parametrize("method", CHAINED)
def test_an_interrupt_keeps_the_draws_made_until_then(method, monkeypatch, caplog):
    interrupt_in(monkeypatch, "sampling", 20)
    try:
        posterior = fit(make_model("linear"), make_method(method, num_samples=40))
    except KeyboardInterrupt:
        pytest.fail("the interrupt got out, and the draws are lost")
    assert not posterior.complete
    assert "interrupted" in repr(posterior)
    assert "interrupted" in caplog.text
    assert 4 <= posterior.num_draws < 40
    assert all(value.shape[:2] == (2, posterior.num_draws) for value in posterior.draws.values())
    assert all(value.shape == (2, posterior.num_draws) for value in posterior.stats.values())
    assert np.isfinite(posterior.result.positions).all()
    assert len(posterior.diagnose().table) > 0
    with pytest.raises(zoo.errors.ZooValueError, match="interrupted"):
        posterior.resume(4)
    monkeypatch.undo()
    whole = fit(make_model("linear"), make_method(method, num_samples=40))
    assert whole.complete
    assert np.array_equal(whole.result.positions[:, : posterior.num_draws], posterior.result.positions)


def test_a_second_interrupt_keeps_the_draws_too(monkeypatch):
    """The first waits for the chunk under way; the second no longer does."""
    interrupt_in(monkeypatch, "sampling", 20)
    waited = []

    def impatient(threads):
        waited.append(threads)
        if len(waited) == 2:
            raise KeyboardInterrupt
        wait_for(threads)

    wait_for = chains._wait_for
    monkeypatch.setattr(chains, "_wait_for", impatient)
    posterior = fit(make_model("linear"), make_method("nuts", num_samples=40))
    assert len(waited) == 2
    assert not posterior.complete
    assert 4 <= posterior.num_draws < 40
    assert posterior.stats["lp"].shape == posterior.result.positions.shape[:2]


@pytest.mark.parametrize("method", CHAINED)
def test_an_interrupt_in_warm_up_is_raised(method, monkeypatch):
    interrupt_in(monkeypatch, "warm-up", 3)
    with pytest.raises(KeyboardInterrupt, match="warm-up"):
        fit(make_model("linear"), make_method(method))


# --- units ----------------------------------------------------------------------------------------------------------


OF_EACH_KIND = ("mh", "hmc", "nuts", "mclmc", "sghmc", "map", "anchored_ensemble", "swag", "laplace")
OF_EACH_KIND += ("mean_field", "dvi")


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in OF_EACH_KIND else pytest.mark.slow) for name in METHODS]
)
def test_units_do_not_matter(method):
    """In float64, as other units round otherwise, and chains make much of it."""
    changes = {"num_warmup": 0, "num_samples": 4} if method in MARKOV else {}
    model, small = make_model("linear"), make_method(method, **changes)
    x, y = DATA
    plain = fit(model, small, (x, y), precision="float64")
    scaled = fit(model, small, (10 * x - 3, 1000 * y + 1e5), precision="float64")
    one, other = plain.predict(NEW), scaled.predict(10 * NEW - 3)
    assert one.std.min() > 0
    np.testing.assert_array_less(np.abs(other.mean - (1000 * one.mean + 1e5)), 1e-3 * 1000 * one.std)
    np.testing.assert_array_less(np.abs(other.std - 1000 * one.std), 1e-3 * 1000 * one.std)
    np.testing.assert_allclose(scaled.draws["noise"], 1000 * plain.draws["noise"], rtol=1e-3)
    np.testing.assert_allclose(scaled.draws["w_0"], plain.draws["w_0"], rtol=1e-3, atol=1e-6)
    error = scaled.function_draws(10 * NEW - 3) - (1000 * plain.function_draws(NEW) + 1e5)
    np.testing.assert_array_less(np.abs(error).max((0, 1)), 1e-3 * 1000 * one.std)
    scores = scaled.evaluate(10 * NEW - 3, 1000 * NEW_Y + 1e5), plain.evaluate(NEW, NEW_Y)
    lengths, shares = ["rmse", "crps", "interval_width_90"], ["coverage_50", "coverage_90", "coverage_95"]
    np.testing.assert_allclose(scores[0][lengths], 1000 * scores[1][lengths], rtol=1e-3)
    assert list(scores[0][shares]) == list(scores[1][shares])
    assert scores[0]["nll"] == pytest.approx(scores[1]["nll"] + np.log(1000), abs=1e-3)
    likelihoods = scaled.log_likelihood(10 * NEW - 3, 1000 * NEW_Y + 1e5), plain.log_likelihood(NEW, NEW_Y)
    np.testing.assert_allclose(likelihoods[0], likelihoods[1] - np.log(1000), rtol=1e-3, atol=1e-3)


# --- ArviZ ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SOME)
def test_idata_has_the_groups_of_arviz(method):
    posterior = fitted("mlp", method)
    tree, size = posterior.idata, size_of(method)
    assert set(tree.children) == GROUPS
    for group in ("posterior", "sample_stats", "log_likelihood", "posterior_predictive"):
        for name, variable in tree[group].data_vars.items():
            assert variable.dims[:2] == ("chain", "draw"), (group, name)
            assert variable.shape[:2] == size, (group, name)
    assert set(tree["posterior"].data_vars) == set(DENSE)
    for name, value in posterior.draws.items():
        assert np.array_equal(tree["posterior"][name].values, value)
    assert np.array_equal(tree["log_likelihood"]["y"].values, posterior.log_likelihood(*DATA))
    assert tree["posterior_predictive"]["y"].shape == (*size, NUM_ROWS)
    assert np.array_equal(tree["observed_data"]["y"].values, DATA[1])
    assert np.array_equal(tree["constant_data"]["x"].values, DATA[0])
    assert tree.attrs["seed"] == "0"
    assert {"model", "method", "version_jax", "compile_seconds", "run_seconds"} <= set(tree.attrs)


def test_arviz_computes_loo():
    posterior = fit(make_model("linear"), make_method("nuts", num_warmup=100, num_samples=200))
    summary = az.summary(posterior.idata, kind="diagnostics")
    assert set(summary.index) == {"w_0[x0, 0]", "w_0[x1, 0]", "b_0[0]", "noise"}
    assert np.isfinite(summary.astype(float)).all(axis=None)
    found = az.loo(posterior.idata)
    assert found.n_data_points == NUM_ROWS
    # Leaving a row out costs a little against the in-sample density, and no more than a few parameters' worth.
    within = np.log(np.exp(posterior.log_likelihood(*DATA)).mean((0, 1))).sum()
    assert within - 10 < found.elpd < within


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "method", "error", "message"),
    [
        (zoo.models.MLP, "nuts", TypeError, r"model should be an object.*got MLP.*Call it: MLP\(\)"),
        ("mlp", zoo.methods.NUTS, TypeError, r"method should be an object.*got NUTS.*Call it: NUTS\(\)"),
        ("mpl", "nuts", ValueError, "model should be .*got 'mpl'. Did you mean 'mlp'"),
        ("mlp", "nutz", ValueError, "method should be .*got 'nutz'. Did you mean 'nuts'"),
        ("mlp", 3, TypeError, "method should be .*got 3"),
        (3, "nuts", TypeError, "model should be .*got 3"),
    ],
)
def test_what_is_no_model_or_method_is_refused(model, method, error, message, compilations):
    with pytest.raises(error, match=message) as caught:
        fit(model, method)
    assert isinstance(caught.value, zoo.errors.ZooError)
    assert compilations.count == 0


@pytest.mark.parametrize(
    "data",
    [
        (DATA[0].tolist(), DATA[1].tolist()),
        (pd.DataFrame(DATA[0], columns=["a", "b"]), pd.Series(DATA[1], name="c")),
        zoo.Dataset(*DATA, feature_names=("a", "b")),
        (DATA[0], DATA[1][:, None]),
    ],
    ids=["lists", "pandas", "Dataset", "column"],
)
def test_data_may_come_in_any_form(data):
    posterior = fit(make_model("linear"), make_method("mh"), data)
    assert_same(posterior, fitted("linear", "mh"))
    if not isinstance(data, zoo.Dataset) and isinstance(data[0], pd.DataFrame):
        assert posterior.data.feature_names == ("a", "b")
        frame = pd.DataFrame(NEW, columns=["a", "b"])[["b", "a"]]
        assert np.array_equal(posterior.predict(frame).mean, posterior.predict(NEW).mean)


def test_data_may_be_a_name():
    named = fit(make_model("linear"), make_method("mh"), "cubic")
    assert named.data.name == "cubic"
    assert_same(named, fit(make_model("linear"), make_method("mh"), zoo.datasets.load("cubic")))


def test_names_stand_for_models():
    assert_same(fit("linear", make_method("mh")), fitted("linear", "mh"))


def test_without_data_the_default_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="bnn_zoo"):
        posterior = fit(make_model("linear"), make_method("mh"), None)
    assert posterior.data.name == "diabetes"
    assert posterior.data.x.shape == (442, 10)
    told = [r for r in caplog.records if r.name == "bnn_zoo" and r.levelno == logging.INFO]
    assert any("diabetes" in record.getMessage() for record in told)
