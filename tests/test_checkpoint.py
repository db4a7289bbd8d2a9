"""A fit that is killed, interrupted or turns non-finite loses nothing, and ends in the draws it would have had."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import bnn_zoo as zoo
from bnn_zoo.engine import chains, groups, journal, training
from bnn_zoo.errors import ZooTypeError, ZooValueError
from tests.benchmarks import killed

LENGTHS = {"num_warmup": 30, "num_samples": 12, "num_chains": 2}
METHODS = {
    "nuts": zoo.methods.NUTS(max_tree_depth=4, start="prior", **LENGTHS),
    "nuts, trained": zoo.methods.NUTS(max_tree_depth=4, **LENGTHS),
    "hmc": zoo.methods.HMC(start="prior", **LENGTHS),
    "mh": zoo.methods.MetropolisHastings(start="prior", thinning=2, **LENGTHS),
    "mclmc": zoo.methods.MCLMC(start="prior", thinning=2, **LENGTHS | {"num_warmup": 60}),
    "mclmc, adjusted": zoo.methods.MCLMC(start="prior", adjusted=True, **LENGTHS),
    "sgld": zoo.methods.SGLD(batch_size=7, control_variates=True, thinning=2, **LENGTHS),
    # The step that is found is at the edge of what batches of 7 bear: rounding decides whether a chain stays finite.
    "sghmc": zoo.methods.CyclicalSGHMC(
        batch_size=7, num_samples=LENGTHS["num_samples"], num_chains=2, samples_per_cycle=6, step_size=1e-3
    ),
    "map": zoo.methods.MAP(num_steps=300, num_restarts=2, batch_size=7, polish_steps=3),
    "bootstrap": zoo.methods.DeepEnsemble(num_steps=300, num_members=2, batch_size=7, polish_steps=3, bootstrap=True),
    "anchored": zoo.methods.DeepEnsemble(num_steps=300, num_members=2, batch_size=7, polish_steps=3, anchored=True),
    "multiswag": zoo.methods.MultiSWAG(warm_steps=300, num_steps=300, num_modes=2, rank=3, num_samples=6),
    "vi": zoo.methods.VI(guide="rank1", components=2, num_steps=300, num_restarts=2, batch_size=7, num_samples=6),
    "dvi": zoo.methods.DeterministicVI(num_steps=300, num_restarts=2, batch_size=7, polish_steps=3, num_samples=6),
    "dropout": zoo.methods.MCDropout(num_steps=300, batch_size=7, concrete=True, num_samples=6),
    "svgd": zoo.methods.SVGD(num_members=3, num_steps=300, batch_size=7),
}


def make_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    return x, x[:, 0] + 0.3 * rng.normal(size=20)


DATA = make_data()


def fit(method, data=DATA, **settings) -> zoo.Posterior:
    return zoo.fit("linear", METHODS.get(method, method), data, progress=False, **settings)


def assert_same(one: zoo.Posterior, other: zoo.Posterior) -> None:
    np.testing.assert_array_equal(one.result.positions, other.result.positions)
    for name, value in one.stats.items():
        np.testing.assert_array_equal(value, other.stats[name])
    assert one.timing.gradient_evaluations == other.timing.gradient_evaluations


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and nothing is written after it."""


def kill_at(monkeypatch, entry: int) -> None:
    """Have the process die just after its ``entry``-th entry; small chunks, each of which is written down."""
    monkeypatch.setattr(groups, "CHUNK_SECONDS", 1e-9)
    monkeypatch.setattr(training, "CHUNK_SECONDS", 1e-9)
    for module in (groups, training):
        monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.setattr(chains, "available_cores", lambda: 1)
    put, count = journal.Journal.put, []

    def dying(self, name, arrays):
        if len(count) >= entry:
            raise Killed
        put(self, name, arrays)
        count.append(name)

    monkeypatch.setattr(journal.Journal, "put", dying)


@pytest.mark.parametrize("entry", [0, 1, 2, 9, 25])
@pytest.mark.parametrize("method", METHODS)
def test_a_fit_that_died_goes_on_to_the_same_draws(method, entry, tmp_path, monkeypatch):
    whole = fit(method)
    kill_at(monkeypatch, entry)
    with pytest.raises(Killed):
        fit(method, checkpoint=tmp_path / "here")
    monkeypatch.undo()
    assert len(list((tmp_path / "here").glob("*.npz"))) <= max(entry, 1)
    assert_same(whole, fit(method, checkpoint=tmp_path / "here"))


@pytest.mark.parametrize("how", ["vectorized", "sharded"])
def test_however_chains_run(how, tmp_path, monkeypatch):
    whole = fit("nuts", chain_method=how)
    kill_at(monkeypatch, 6)
    with pytest.raises(Killed):
        fit("nuts", chain_method=how, checkpoint=tmp_path)
    monkeypatch.undo()
    assert_same(whole, fit("nuts", chain_method=how, checkpoint=tmp_path))


@pytest.mark.parametrize("method", ["nuts, trained", "map"])
def test_a_fit_that_is_done_is_given_at_once(method, tmp_path, monkeypatch):
    first = fit(method, checkpoint=tmp_path)

    def fail(*_):
        raise AssertionError("a chunk was computed anew")

    monkeypatch.setattr(groups.Group, "take", fail)
    monkeypatch.setattr(training, "_last", fail)
    again = fit(method, checkpoint=tmp_path)
    assert_same(first, again)
    monkeypatch.undo()
    if first.kind == "markov":
        assert_same(first.resume(5, progress=False), again.resume(5, progress=False))


def test_a_damaged_entry_is_made_anew(tmp_path, caplog):
    whole = fit("nuts", checkpoint=tmp_path)
    entries = sorted(tmp_path.glob("threads-000-*.npz"))
    data = entries[-1].read_bytes()
    entries[-1].write_bytes(data[: len(data) // 2])
    assert_same(whole, fit("nuts", checkpoint=tmp_path))
    assert "is damaged" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("method", killed.METHODS)
def test_a_killed_process_goes_on_to_the_same_draws(method):
    """With SIGKILL, at three random moments; twenty by `python -m tests.benchmarks.killed`."""
    assert all(agrees for _, _, agrees in killed.rounds(method, kills=3, seed=1))


def test_three_kills_of_a_process():
    """As above, once, so that every run of the tests has it."""
    found = killed.rounds("mh", kills=3, seed=5)
    assert all(agrees for _, _, agrees in found), found


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"data": (DATA[0], DATA[1] + 1)}, "sha256 of the data"),
        ({"method": replace(METHODS["nuts"], num_samples=13)}, "method"),
        ({"chain_method": "vectorized"}, "chain_method"),
        ({"precision": "float64"}, "precision"),
    ],
)
def test_the_folder_of_another_fit_is_refused(change, name, tmp_path, compilations):
    """Before anything is compiled."""
    first = {"method": "nuts", "seed": 0}
    fit(**first, checkpoint=tmp_path)
    compilations.reset()
    with pytest.raises(ZooValueError, match=f"whose {name} is .* Give another folder"):
        fit(**first | change, checkpoint=tmp_path)
    assert compilations.count == 0


def test_what_is_no_folder_of_a_fit_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ZooValueError, match="a folder"):
        fit("map", checkpoint=tmp_path / "file")
    with pytest.raises(ZooValueError, match="which holds other files"):
        fit("map", checkpoint=tmp_path)
    with pytest.raises(ZooTypeError, match="a file name"):
        fit("map", checkpoint=3)
    fit("map", checkpoint=tmp_path / "a" / "b")  # made, parents too
    own = tmp_path / "a" / "b" / journal.OWN_FILE
    assert json.loads(own.read_text())["method"] == repr(METHODS["map"])
    own.write_text("{")
    with pytest.raises(ZooValueError, match="damaged"):
        fit("map", checkpoint=tmp_path / "a" / "b")


# --- not finite -----------------------------------------------------------------------------------------------------


def broken_at(monkeypatch, draw: int) -> None:
    """Have draw ``draw`` of the second chain not be finite."""
    run = type(METHODS["nuts"]).run

    def broken(self, *arguments):
        result = run(self, *arguments)
        positions = result.positions.copy()
        positions[1, draw:, 2] = np.nan
        return replace(result, positions=positions)

    monkeypatch.setattr(type(METHODS["nuts"]), "run", broken, raising=False)


def test_draws_before_a_non_finite_one_are_kept(monkeypatch, caplog):
    whole = fit("nuts")
    broken_at(monkeypatch, 7)
    posterior = fit("nuts")
    said = "non-finite values at site 'b_0' from draw 7 of chain 1"
    assert said in caplog.text and said in repr(posterior)
    assert not posterior.complete
    np.testing.assert_array_equal(posterior.result.positions, whole.result.positions[:, :7])
    assert posterior.stats["lp"].shape == (2, 7)
    diagnosis = posterior.diagnose()
    assert not diagnosis.ok
    assert any(said in check.finding and check.status == "failed" for check in diagnosis.checks)


def test_no_finite_draw_at_all_is_an_error(monkeypatch):
    broken_at(monkeypatch, 0)
    with pytest.raises(ZooValueError, match=r"site 'b_0' from draw 0 of chain 1\. Try a smaller step size"):
        fit(replace(METHODS["nuts"], start="map"))
    with pytest.raises(ZooValueError, match=r"Try start='ensemble', a smaller step size"):
        fit(replace(METHODS["nuts"], start="prior"))
