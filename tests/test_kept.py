"""Draws in a file, and functions in place of weights: the posterior that weights in memory are, and no more memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import bnn_zoo as zoo
from bnn_zoo.engine import chains, predictive, resources
from bnn_zoo.errors import ZooTypeError, ZooValueError

METHOD = zoo.methods.NUTS(num_warmup=30, num_samples=40, num_chains=2, max_tree_depth=4, start="prior")
MODEL = zoo.models.MLP(hidden=(5,))


def make_data() -> tuple[zoo.Dataset, zoo.Dataset]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = 7 + 30 * (np.sin(2 * x[:, 0]) + 0.2 * rng.normal(size=60))
    return zoo.Dataset(x[:45], y[:45]), zoo.Dataset(x[45:], y[45:])


TRAIN, TEST = make_data()


def fit(method: object = METHOD, **settings: object) -> zoo.Posterior:
    return zoo.fit(MODEL, method, TRAIN, progress=False, **settings)


@pytest.fixture(scope="module")
def whole():
    return fit()


@pytest.fixture(scope="module")
def functions():
    return fit(keep="functions", at=TEST.x)


def assert_close(one: np.ndarray, other: np.ndarray) -> None:
    """To float32, of networks whose rows were computed in other company."""
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5 * float(np.ptp(TRAIN.y)))


# --- functions ------------------------------------------------------------------------------------------------------


def test_functions_predict_and_score_as_the_weights_do(whole, functions):
    assert functions.result.positions.shape[:2] == (2, 40)
    assert_close(functions.function_draws(TEST.x), whole.function_draws(TEST.x))
    assert_close(functions.log_likelihood(TEST.x, TEST.y), whole.log_likelihood(TEST.x, TEST.y))
    one, other = functions.predict(TEST.x), whole.predict(TEST.x)
    for name in ("mean", "epistemic_std", "aleatoric_std"):
        assert_close(getattr(one, name), getattr(other, name))
    assert_close(one.quantile([0.1, 0.9]), other.quantile([0.1, 0.9]))
    np.testing.assert_allclose(functions.evaluate(TEST.x, TEST.y), whole.evaluate(TEST.x, TEST.y), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(functions.draws["noise"], whole.draws["noise"])
    assert functions.draws["f"].shape == (2, 40, len(functions.kept.inputs))


def test_functions_are_judged_as_the_weights_are(whole, functions):
    one, other = (posterior.diagnose(TEST.x) for posterior in (functions, whole))
    assert list(one.table["check"]) == list(other.table["check"])
    np.testing.assert_allclose(one.points["rhat"], other.points["rhat"], rtol=1e-3)
    assert set(functions.idata["posterior"]) == {"noise", "f"}
    assert functions.idata["log_likelihood"].sizes["row"] == len(TRAIN)
    table = zoo.compare({"weights": whole, "functions": functions}, TEST)
    assert table.loc["weights", "rmse"] == pytest.approx(table.loc["functions", "rmse"], rel=1e-4)


def test_moments_of_the_weights_run_along(whole, functions):
    """Of all draws of each chain, after a fit and after it went on: those of the draws themselves."""
    for one, other in ((functions, whole), (functions.resume(7, progress=False), whole.resume(7, progress=False))):
        assert one.num_draws == other.num_draws
        assert set(one.site_moments) == set(other.site_moments) == set(other.draws)
        for name, draws in other.draws.items():
            for found in (one.site_moments[name], other.site_moments[name]):
                np.testing.assert_allclose(found[0], draws.mean(1), rtol=1e-4, atol=1e-4)
                np.testing.assert_allclose(found[1], draws.std(1), rtol=1e-3, atol=1e-4)


def test_functions_go_on_and_come_back_from_a_file(whole, functions, tmp_path):
    functions.save(tmp_path / "kept.nc")
    loaded = zoo.load(tmp_path / "kept.nc")
    for one in (functions, loaded):
        on = one.resume(6, progress=False)
        assert_close(on.function_draws(TEST.x), whole.resume(6, progress=False).function_draws(TEST.x))
    np.testing.assert_array_equal(loaded.predict(TEST.x).mean, functions.predict(TEST.x).mean)
    np.testing.assert_array_equal(loaded.site_moments["w_0"], functions.site_moments["w_0"])
    assert "functions at" in repr(loaded) and f"{whole.problem.size} parameters" in repr(loaded)


def test_a_page_shows_what_there_is(functions, tmp_path):
    text = functions.report(tmp_path / "page.html", TEST).read_text()
    assert "could not be drawn" not in text and "Observed against predicted" in text
    assert "Partial dependence" not in text


@pytest.mark.parametrize(
    "method",
    [
        zoo.methods.SGLD(num_warmup=20, num_samples=8, thinning=2, num_chains=2, batch_size=9, start="prior"),
        zoo.methods.MCLMC(num_warmup=80, num_samples=8, thinning=2, num_chains=2, start="prior"),
    ],
    ids=["sgld", "mclmc"],
)
@pytest.mark.parametrize("chain_method", ["threads", "vectorized"])
def test_every_chain_keeps_functions(method, chain_method):
    one = fit(method, keep="functions", chain_method=chain_method)
    assert_close(one.function_draws(TRAIN.x), fit(method, chain_method=chain_method).function_draws(TRAIN.x))


def test_of_many_rows_some_are_kept():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 2))
    method = replace(METHOD, num_warmup=5, num_samples=5, max_tree_depth=2)
    made = zoo.fit(MODEL, method, (x, x[:, 0]), progress=False, keep="functions")
    assert len(made.data) == 1000 and made.num_rows == 1500
    assert made.diagnose().checks and made.resume(4, progress=False).num_draws == 9
    with pytest.raises(ZooValueError, match=r"x should be of the \d+ inputs whose functions were kept; got row \d+"):
        made.predict(x)


def test_a_likelihood_of_another_family():
    def model(x, y=None):
        import numpyro
        import numpyro.distributions as dist

        w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        numpyro.sample("count", dist.Poisson(jax.numpy.exp(x @ w)), obs=y)

    x = np.random.default_rng(2).normal(size=(30, 2))
    data = x, np.random.default_rng(3).poisson(2.0, 30).astype(float)
    made = zoo.fit(model, METHOD, data, progress=False, keep="functions")
    beside = zoo.fit(model, METHOD, data, progress=False)
    np.testing.assert_allclose(made.log_likelihood(*data), beside.log_likelihood(*data), rtol=1e-4)


def test_what_needs_weights_is_refused(functions):
    with pytest.raises(ZooValueError, match=r"of weights, .* keep='weights'"):
        zoo.kernel_stein_discrepancy(functions)
    with (
        jax.enable_x64(False),
        pytest.raises(ZooValueError, match=r"log posterior should be asked of draws of the weights"),
    ):
        functions.problem.log_posterior(functions.result.positions[0, 0])
    with pytest.raises(ZooValueError, match=r"keep='functions', at=x"):
        functions.predict(TEST.x + 1)
    with pytest.raises(ZooValueError, match=r"at should be given with keep='functions' alone"):
        fit(at=TEST.x)
    with pytest.raises(ZooValueError, match=r"Did you mean 'functions'"):
        fit(keep="function")
    with pytest.raises(ZooTypeError, match=r"a pathlib.Path"):
        fit(keep=3)
    with pytest.raises(ZooValueError, match=r"for a method without chains; got 'functions' with method map"):
        fit("map", keep="functions")
    with pytest.raises(ZooValueError, match=r"2 columns wide"):
        fit(keep="functions", at=TEST.x[:, :1])


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_holds_the_draws_of_a_fit(whole, tmp_path):
    """Bit for bit, when it goes on too; and no file is written over."""
    made = fit(keep=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "draws-000.npy"), whole.result.positions)
    assert isinstance(made.result.positions.base, np.memmap)
    on, beside = made.resume(9, progress=False), whole.resume(9, progress=False)
    np.testing.assert_array_equal(np.load(tmp_path / "draws-001.npy"), beside.result.positions)
    np.testing.assert_array_equal(on.predict(TEST.x).mean, beside.predict(TEST.x).mean)
    fit(keep=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "file").touch()
    with pytest.raises(ZooValueError, match=r"keep should be a folder; got the file"):
        fit(keep=tmp_path / "file")


def test_draws_are_read_in_pieces(whole, tmp_path, monkeypatch):
    """With room for seven draws at a time, all that is read of draws is what it was."""
    made = fit(keep=tmp_path)
    asked = {
        "moments": lambda p: p.predict(TEST.x).std,
        "quantiles": lambda p: p.predict(TEST.x).quantile([0.1, 0.9]),
        "log prob": lambda p: p.predict(TEST.x).log_prob(TEST.y),
        "functions": lambda p: p.function_draws(TEST.x),
        "log likelihood": lambda p: p.log_likelihood(TEST.x, TEST.y),
        "noise": lambda p: p.scalars["noise"],
        "sites": lambda p: p.draws["w_0"],
        "sizes": lambda p: p.site_sizes["w_0"],
        "site moments": lambda p: np.stack(p.site_moments["w_0"]),
    }
    before = {name: ask(whole) for name, ask in asked.items()}
    monkeypatch.setattr(predictive, "MOST_WEIGHTS", 7 * whole.problem.size)
    assert len(predictive.pieces(made._flat)) == 12
    for name, ask in asked.items():
        np.testing.assert_allclose(ask(made), before[name], rtol=2e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("keep", ["functions", "file"])
def test_a_fit_that_is_killed_keeps_what_it_would_have(keep, tmp_path, monkeypatch):
    """Draws, functions and moments of a fit that stops between chunks and goes on from its checkpoint."""
    monkeypatch.setattr("bnn_zoo.engine.groups.SECONDS", 0.0)
    monkeypatch.setattr(chains, "MOST_DRAWS", 5)  # a chunk: eight of them a chain, however fast it is

    def where(name: str) -> object:
        return keep if keep == "functions" else tmp_path / name

    plain, count = fit(keep=where("plain")), 0
    take = chains.Group.take

    def dying(self, *args):
        nonlocal count
        count += 1
        if count == 9:
            raise RuntimeError("killed")
        return take(self, *args)

    monkeypatch.setattr(chains.Group, "take", dying)
    with pytest.raises(RuntimeError, match="killed"):
        fit(keep=where("killed"), checkpoint=tmp_path / "journal")
    again = fit(keep=where("killed"), checkpoint=tmp_path / "journal")
    assert count > 9
    np.testing.assert_array_equal(again.result.positions, plain.result.positions)
    for name in set(plain.result.info) & {"moments_mean", "moments_squares"}:
        np.testing.assert_allclose(again.result.info[name], plain.result.info[name], rtol=1e-4, atol=1e-5)


# --- what there is room for -----------------------------------------------------------------------------------------


def test_chains_are_thinned_where_draws_would_not_fit(monkeypatch, caplog):
    """The same steps, and every fifth draw of them."""
    long = replace(METHOD, num_samples=500)
    every = fit(replace(long, num_samples=100, thinning=5))
    size = 2 * 500 * MODEL_SIZE * 4
    monkeypatch.setattr(resources, "available", lambda: 0)
    monkeypatch.setattr("bnn_zoo.estimating.available", lambda: int((size / 4.5 + WORK) / resources.SHARE))
    with caplog.at_level("WARNING"):
        thinned = fit(long)
    assert "thinning=5 and num_samples=100 take their place" in caplog.text
    np.testing.assert_array_equal(thinned.result.positions, every.result.positions)
    assert thinned.method.thinning == 5
    assert thinned.timing.gradient_evaluations == every.timing.gradient_evaluations


MODEL_SIZE = 5 * 2 + 5 + 5 + 1 + 1
WORK = 4 * 2 * 40 * MODEL_SIZE


@pytest.mark.parametrize(
    ("method", "mend"),
    [
        (METHOD, r"Keep them in a file, keep=pathlib.Path\('folder'\), or keep='functions'"),
        (zoo.methods.SWAG(), r"Ask for num_samples=\d+ or fewer"),
        (zoo.methods.DeepEnsemble(num_members=50), "Ask for fewer draws or members"),
    ],
    ids=["nuts", "swag", "ensemble"],
)
def test_what_does_not_fit_is_refused_before_anything_is_compiled(method, mend, monkeypatch):
    monkeypatch.setattr("bnn_zoo.estimating.available", lambda: 10_000)
    monkeypatch.setattr("bnn_zoo.engine.compiled._lower", lambda *_: pytest.fail("compiled"))
    with pytest.raises(ZooValueError, match=rf"where 10 kB of memory are free; got .* [kM]B\. {mend}"):
        fit(method)


def test_all_draws_at_once_are_refused_where_there_is_no_room(whole, monkeypatch):
    monkeypatch.setattr(resources, "available", lambda: 1000)
    with pytest.raises(ZooValueError, match=r"all draws of all sites should be within the 1 kB of memory"):
        replace(whole).draws  # noqa: B018


@pytest.mark.parametrize("name", [entry.name for entry in zoo.methods.registry.entries])
def test_every_method_can_be_estimated(name):
    found = zoo.estimate(MODEL, name, TRAIN)
    assert found.parameters == MODEL_SIZE and found.rows == 45
    assert found.draw_bytes == 4 * found.chains * found.draws * MODEL_SIZE
    assert found.fits and found.memory_bytes > found.draw_bytes
    assert name in ("mh",) or found.gradients > 0


@pytest.mark.parametrize(
    "method",
    [
        METHOD,
        replace(METHOD, start="ensemble", thinning=2),
        zoo.methods.SGLD(num_warmup=20, num_samples=8, thinning=3, num_chains=2, batch_size=9, control_variates=True),
        zoo.methods.CyclicalSGHMC(num_warmup=20, num_samples=8, samples_per_cycle=4, thinning=3, num_chains=2),
        zoo.methods.MCLMC(num_warmup=80, num_samples=8, thinning=2, num_chains=2),
    ],
    ids=["nuts", "nuts, trained", "sgld", "cyclical", "mclmc"],
)
def test_no_more_gradients_are_taken_than_was_said(method):
    """And of what has no tree, nearly all of them are."""
    said, spent = zoo.estimate(MODEL, method, TRAIN), fit(method).timing.gradient_evaluations
    assert said.at_most and spent <= said.gradients
    assert isinstance(method, zoo.methods.NUTS) or spent > 0.9 * said.gradients


def test_an_estimate_is_read():
    said = zoo.estimate(MODEL, METHOD, TRAIN, keep=Path("nowhere"), seconds=True)
    assert said.on_disk and not Path("nowhere").exists()
    assert said.seconds_a_gradient > 0 and "on one core" in repr(said) and "in a file" in repr(said)
    wide = zoo.models.MLP(hidden=(3000, 3000))
    assert (
        zoo.estimate(wide, METHOD, TRAIN).draw_bytes
        > 2e9
        > zoo.estimate(wide, METHOD, TRAIN, keep="functions").draw_bytes
    )
