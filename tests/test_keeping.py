"""Save and load: what comes back is the same, ArviZ reads it alone, and what is damaged or hostile is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bnn_zoo as zoo
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.keeping import recipe, sealed
from bnn_zoo.models.parts.matched import MatchRecord
from tests.benchmarks import fuzz

SHORT = {"num_warmup": 10, "num_samples": 6, "num_chains": 2, "start": "prior"}
METHODS = {
    "nuts": zoo.methods.NUTS(max_tree_depth=3, **SHORT),
    "hmc": zoo.methods.HMC(**SHORT),
    "mh": zoo.methods.MetropolisHastings(**SHORT | {"thinning": 2}),
    "mclmc": zoo.methods.MCLMC(**SHORT, adjusted=True),
    "sgld": zoo.methods.SGLD(**SHORT, batch_size=5, preconditioner="rmsprop"),
    "sghmc": zoo.methods.SGHMC(**SHORT, batch_size=5, noise_estimate=True, warm_restarts=3),
    "cyclical_sgld": zoo.methods.CyclicalSGLD(num_samples=6, num_chains=2, samples_per_cycle=3, start="prior"),
    "cyclical_sghmc": zoo.methods.CyclicalSGHMC(
        num_samples=6, num_chains=2, samples_per_cycle=3, start="prior", step_size=1e-3
    ),
    "hmcecs": zoo.methods.HMCECS(**SHORT, batch_size=5, max_tree_depth=3),
    "map": zoo.methods.MAP(num_steps=20, num_restarts=2, polish_steps=2),
    "ensemble": zoo.methods.DeepEnsemble(num_members=3, num_steps=20, polish_steps=2, bootstrap=True),
    "anchored_ensemble": zoo.methods.DeepEnsemble(num_members=3, num_steps=20, polish_steps=2, anchored=True),
    "swa": zoo.methods.SWA(warm_steps=20, num_steps=30, decay="cyclical"),
    "swag": zoo.methods.SWAG(warm_steps=20, num_steps=30, rank=3, num_samples=6),
    "multiswag": zoo.methods.MultiSWAG(warm_steps=20, num_steps=30, num_modes=2, rank=3, num_samples=6),
    "laplace": zoo.methods.Laplace(covariance="kron", num_samples=6, num_steps=20, num_restarts=2),
    "mean_field": zoo.methods.VI(guide="mean_field", estimator="local", num_samples=6, num_steps=20),
    "spherical": zoo.methods.VI(guide="spherical", num_samples=6, num_steps=20),
    "layerwise": zoo.methods.VI(guide="layerwise", num_samples=6, num_steps=20),
    "low_rank": zoo.methods.VI(guide="low_rank", rank=2, num_samples=6, num_steps=20),
    "full_rank": zoo.methods.VI(guide="full_rank", num_samples=6, num_steps=20),
    "rank1": zoo.methods.VI(guide="rank1", components=2, num_samples=6, num_steps=20),
    "iaf": zoo.methods.VI(guide="iaf", num_samples=6, num_steps=20),
    "bnaf": zoo.methods.VI(guide="bnaf", num_samples=6, num_steps=20),
    "dvi": zoo.methods.DeterministicVI(full_covariance=False, num_samples=6, num_steps=20, num_restarts=2),
    "mc_dropout": zoo.methods.MCDropout(concrete=True, num_samples=6, num_steps=20),
    "svgd": zoo.methods.SVGD(num_members=3, num_steps=20),
}
MODELS = {
    "linear": zoo.models.Linear(weight_scale=dist.HalfNormal(2.0), noise=0.3),
    "mlp": zoo.models.MLP(hidden=(3, 2), activation="tanh", bias_scale=0.5, noise=dist.LogNormal(-1.0, 0.5)),
    "heteroscedastic_mlp": zoo.models.HeteroscedasticMLP(hidden=(3,)),
    "rank1_mlp": zoo.models.Rank1MLP(hidden=(3,), rank1_scale=0.2),
    "residual_mlp": zoo.models.ResidualMLP(hidden=(3, 3), fan_in=False),
    "ard_mlp": zoo.models.ARDMLP(hidden=(3,)),
    "horseshoe_mlp": zoo.models.HorseshoeMLP(hidden=(3,), slab_df=7.0),
}


def make_data() -> zoo.Dataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 2))
    return zoo.Dataset(x, 3 + x[:, 0], feature_names=("age, or so", 'a "name"'), target_name="Größe", name="a/b")


DATA = make_data()
NEW = np.random.default_rng(1).normal(size=(5, 2))


def fit(model="linear", method="nuts", **settings) -> zoo.Posterior:
    return zoo.fit(MODELS.get(model, model), METHODS.get(method, method), DATA, progress=False, **settings)


def own_line(x, y=None):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.StudentT(4.0, x @ w, 1.0), obs=y)


def assert_same_draws(one: zoo.Posterior, other: zoo.Posterior) -> None:
    assert one.result.positions.dtype == other.result.positions.dtype
    np.testing.assert_array_equal(one.result.positions, other.result.positions)
    assert list(one.stats) == list(other.stats)
    for name, value in one.stats.items():
        assert value.dtype == other.stats[name].dtype
        np.testing.assert_array_equal(value, other.stats[name])


def assert_same(one: zoo.Posterior, other: zoo.Posterior) -> None:
    assert (one.model, one.method, one.kind, one.complete) == (other.model, other.method, other.kind, other.complete)
    assert one.data.feature_names == other.data.feature_names
    assert (one.data.target_name, one.data.name) == (other.data.target_name, other.data.name)
    assert (one.seed, one.standardize, one.timing, one.attributes) == (
        *(other.seed, other.standardize, other.timing),
        other.attributes,
    )
    for name in ("x", "y"):
        np.testing.assert_array_equal(getattr(one.data, name), getattr(other.data, name))
    assert_same_draws(one, other)
    for name, value in one.draws.items():
        np.testing.assert_array_equal(value, other.draws[name])
    first, second = one.predict(NEW), other.predict(NEW)
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.quantile(0.1), second.quantile(0.1))
    assert repr(one.diagnose()) == repr(other.diagnose())
    assert repr(one) == repr(other)


# --- what comes back ------------------------------------------------------------------------------------------------


PRIORS = (
    zoo.priors.ScaleMixture(narrow=0.1),
    zoo.priors.StudentT(df=3.0),
    zoo.priors.Laplace(scale=0.5),
    zoo.priors.LayerScale(hyper=dist.InverseGamma(2.0, 3.0), on="variance"),
    zoo.priors.RegularisedHorseshoe(over="out_of", slab_scale=1.5),
    zoo.priors.MatchedScales(
        weights=(1.5, np.ones((3, 1))),
        biases=(dist.LogNormal(0.0, 0.3), np.full(1, 0.2)),
        record=MatchRecord("kl", "group", "RBF", 2.0, 0.5, 1.5, 0.1, (2.0, 1.0, 0.5), 0),
    ),
)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_every_prior_comes_back_equal(prior):
    """A prior of a class that files do not know, or one taken for the method of the same name."""
    model = zoo.models.MLP(hidden=(3,), prior=prior)
    back = recipe.unpack(json.loads(json.dumps(recipe.pack(model))))
    assert back == model and type(back.prior) is type(prior)
    assert recipe.written(model) is not None
    assert {type(prior).__name__ for prior in PRIORS} | {"MatchRecord"} == set(recipe.PRIORS) - {"priors.Laplace"} | {
        "Laplace"
    }


def test_a_method_and_a_prior_of_one_name_are_told_apart(tmp_path):
    model = zoo.models.MLP(hidden=(3,), prior=zoo.priors.Laplace())
    posterior = fit(model, "map")
    assert_same(posterior, zoo.load(posterior.save(tmp_path / "p.nc")))
    assert type(recipe.unpack(recipe.pack(METHODS["laplace"]))) is zoo.methods.Laplace


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(one, marks=pytest.mark.slow if one in ("ard_mlp", "rank1_mlp", "horseshoe_mlp") else ())
        for one in MODELS
    ],
)
def test_every_model_comes_back_equal(model, tmp_path):
    posterior = fit(model, "map")
    assert_same(posterior, zoo.load(posterior.save(tmp_path / "p.nc")))


# In both precisions one method of each kind of state, the rest in the other on request.
DOUBLE = ("nuts", "sghmc", "map", "laplace", "mean_field")
PRECISIONS = [
    pytest.param(method, precision, marks=pytest.mark.slow if precision == "float64" and method not in DOUBLE else ())
    for method in METHODS
    for precision in ("float32", "float64")
]


@pytest.mark.parametrize(("method", "precision"), PRECISIONS)
def test_every_method_comes_back_equal(method, precision, tmp_path):
    posterior = fit("linear", method, precision=precision)
    back = zoo.load(posterior.save(tmp_path / "p.nc"))
    assert_same(posterior, back)
    if posterior.kind == "markov":
        assert_same_draws(posterior.resume(5, progress=False), back.resume(5, progress=False))


@pytest.mark.parametrize("how", ["threads", "vectorized"])
def test_what_was_resumed_or_loaded_can_be_saved_again(how, tmp_path):
    posterior = fit("linear", "nuts", chain_method=how).resume(4, progress=False)
    once = zoo.load(posterior.save(tmp_path / "once.nc"))
    twice = zoo.load(once.save(tmp_path / "twice.nc"))
    assert_same(posterior, twice)
    assert_same_draws(posterior.resume(4, progress=False), twice.resume(4, progress=False))


def test_registered_entries_are_all_tried_above():
    assert set(MODELS) == set(zoo.models.registry.names)
    assert set(METHODS) == set(zoo.methods.registry.names)


def test_a_model_of_ones_own_is_passed_in_again(tmp_path):
    posterior = zoo.fit(own_line, METHODS["nuts"], (DATA.x, DATA.y), progress=False)
    path = posterior.save(tmp_path / "p.nc")
    with pytest.raises(ZooValueError, match=r"zoo\.load\(path, model=\.\.\.\)"):
        zoo.load(path)
    assert_same(posterior, zoo.load(path, model=own_line))
    with pytest.raises(ZooValueError, match="2 coordinates, for a model of 3"):
        zoo.load(path, model=zoo.models.Linear(noise=1.0))


def test_another_model_than_the_saved_one_is_refused(tmp_path):
    path = fit("linear", "map").save(tmp_path / "p.nc")
    assert zoo.load(path, model=MODELS["linear"]).num_draws == 1
    with pytest.raises(ZooValueError, match="Leave it out"):
        zoo.load(path, model="mlp")


def test_arviz_reads_the_file_alone(tmp_path):
    import arviz

    posterior = fit("mlp", "nuts")
    tree = arviz.from_netcdf(posterior.save(tmp_path / "p.nc"))
    for group, wanted in posterior.idata.children.items():
        for name, value in wanted.data_vars.items():
            np.testing.assert_array_equal(tree[group][name].values, value.values)
    assert tree.attrs["model"] == posterior.attributes["model"]
    assert np.isfinite(arviz.summary(tree, var_names=["noise"], kind="stats")["mean"]).all()


def test_pointwise_groups_may_be_left_out(tmp_path):
    import arviz

    posterior = fit("linear", "map")
    path = posterior.save(tmp_path / "p.nc", pointwise=False)
    assert "log_likelihood" not in arviz.from_netcdf(path).children
    assert_same(posterior, zoo.load(path))


def test_settings_without_a_written_form_are_passed_in_again():
    prior = dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.ExpTransform())
    assert recipe.written(zoo.models.MLP(noise=prior)) is None
    assert recipe.written(zoo.models.MLP(noise=dist.Gamma(2.0, np.float64(3.0)))) is not None
    for value in (own_line, zoo.models.MLP, [1], {"a": 1}, b"x", 2**70, (1,) * 1000):
        assert recipe.written(value) is None
    for value in (None, True, 3, 0.1, float("inf"), "x", (1, (2.0, None)), zoo.methods.MAP(learning_rate=1 / 3)):
        assert recipe.unpack(json.loads(json.dumps(recipe.pack(value)))) == value


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    return fuzz.sample(tmp_path_factory.mktemp("whole"))


def refusal(path) -> str:
    with pytest.raises((ZooTypeError, ZooValueError)) as caught:
        zoo.load(path)
    return str(caught.value)


def test_what_is_not_a_saved_posterior_is_refused(tmp_path):
    assert "which is not there" in refusal(tmp_path / "nothing.nc")
    assert "the folder" in refusal(tmp_path)
    assert "a file name" in refusal(3)
    for content in (b"", b"x", b"a,b\n1,2\n" * 100):
        (tmp_path / "other").write_bytes(content)
        assert "a file of another kind" in refusal(tmp_path / "other")
    fit("linear", "map").idata.to_netcdf(tmp_path / "plain.nc", engine="h5netcdf")
    assert "netCDF of another program" in refusal(tmp_path / "plain.nc")


def test_what_is_damaged_is_refused(whole, tmp_path):
    path = tmp_path / "changed.nc"
    for cut in (len(whole) - 1, len(whole) // 2, 100):
        path.write_bytes(whole[:cut])
        assert "cut short" in refusal(path)
    for position in (0, 5000, len(whole) - 600, len(whole) - 20):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert "checksum" in refusal(path)
    path.write_bytes(whole + b"more")
    assert "cut short" in refusal(path)


def test_a_newer_format_is_named(whole, tmp_path):
    path = tmp_path / "newer.nc"
    tail = list(sealed.TAIL.unpack(whole[-sealed.TAIL.size :]))
    tail[1] = 7
    path.write_bytes(whole[: -sealed.TAIL.size] + sealed.TAIL.pack(*tail))
    assert "of format 7 where this bnn_zoo reads 1" in refusal(path)


HOSTILE = {
    "absurd shape": lambda index: index["arrays"]["positions"].update(shape=[2**40, 2**40, 8]),
    "beyond the end": lambda index: index["arrays"]["positions"].update(offset=10**9),
    "negative": lambda index: index["arrays"]["positions"].update(offset=-8),
    "objects": lambda index: index["arrays"]["positions"].update(dtype="object"),
    "not finite": lambda index: index["arrays"]["positions"].update(offset=0, shape=[2, 4, 17]),
    "a thousand million units": lambda index: index["header"]["model"]["settings"].update(hidden={"tuple": [10**9]}),
    "a thousand layers": lambda index: index["header"]["model"]["settings"].update(hidden={"tuple": [1] * 1000}),
    "another class": lambda index: index["header"]["model"].update({"class": "system"}),
    "a method for a model": lambda index: index["header"].update(model=index["header"]["method"]),
    "no state": lambda index: [index["arrays"].pop("state_1")],
    "another state": lambda index: index["header"]["plan"].update(num_groups=1),
    "another kind": lambda index: index["header"].update(kind="best"),
    "no scale": lambda index: index["header"].update(y_scale=0.0),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_index_is_refused(change, whole, tmp_path):
    """The checksum put right, as only somebody who means harm would."""
    body, index = fuzz.parts(whole)
    changed = json.loads(index)
    HOSTILE[change](changed)
    path = tmp_path / "hostile.nc"
    path.write_bytes(fuzz.sealed(body, json.dumps(changed).encode()))
    clock = time.perf_counter()
    assert "a whole saved posterior" in refusal(path)
    assert time.perf_counter() - clock < 60  # not a matter of speed: a hang


@pytest.fixture(scope="module")
def blocks(tmp_path_factory) -> dict[str, bytes]:
    """Saved Laplace approximations: of two Kronecker blocks, and of a diagonal and a dense one."""
    folder = tmp_path_factory.mktemp("blocks")
    model = zoo.models.MLP(hidden=(3,), activation="tanh", noise=dist.Gamma(4.0, 10.0))
    found = {}
    for name in ("kron", "diag"):
        method = zoo.methods.Laplace(covariance=name, num_samples=6, num_steps=200, num_restarts=2)
        found[name] = fit(model, method).save(folder / name).read_bytes()
    return found


def reshaped(of: str, shape: list[int]):
    return lambda arrays, header, _: arrays[f"info_{of}"].update(shape=shape)


def written(of: str, position: int, value: float):
    """The bytes of one number of an array changed."""

    def change(arrays, header, body) -> None:
        place = arrays[f"info_{of}"]
        number, at = np.array([value], place["dtype"]), place["offset"] + 8 * position
        body[at : at + 8] = number.tobytes()

    return change


BLOCKS = {
    "another name": ("kron", lambda arrays, header, _: header["info"].update(blocks="kronecker lambda dense")),
    "another kind": ("kron", lambda arrays, header, _: header["info"].update(blocks="dense kronecker dense")),
    "more blocks": ("kron", lambda arrays, header, _: header["info"].update(blocks="kronecker " * 1000)),
    "a part left out": ("kron", lambda arrays, header, _: arrays.pop("info_block_1_left")),
    "no whole numbers": ("kron", lambda arrays, header, _: arrays["info_block_0_index"].update(dtype="float64")),
    "whole numbers": ("kron", lambda arrays, header, _: arrays["info_block_0_left"].update(dtype="int64")),
    "half an index": ("kron", reshaped("block_0_index", [3, 1])),
    "a flat index": ("kron", reshaped("block_0_index", [9])),
    "half a factor": ("kron", reshaped("block_0_right", [2, 3])),
    "a short prior": ("kron", reshaped("block_0_prior", [2])),
    "a short mode": ("kron", reshaped("mode", [5])),
    "a coordinate twice": ("kron", written("block_0_index", 0, 4)),
    "a coordinate of another block": ("diag", written("block_1_index", 0, 3)),
    "a coordinate below 0": ("kron", written("block_0_index", 0, -1)),
    "a coordinate beyond": ("diag", written("block_1_index", 0, 2**40)),
    "not a number": ("kron", written("block_0_left", 2, np.nan)),
    "an infinite mode": ("kron", written("mode", 2, np.inf)),
    "a prior of 0": ("kron", written("block_1_prior", 0, 0.0)),
    "a negative eigenvalue": ("kron", written("block_1_eigenvalues", 0, -2.0)),
    "a negative precision": ("diag", written("block_0_precision", 0, -1.0)),
    "a singular factor": ("diag", written("block_1_inverse_factor", 0, 0.0)),
}


@pytest.mark.parametrize("change", BLOCKS)
def test_a_changed_covariance_is_refused_on_loading(change, blocks, tmp_path):
    """The checksum put right. Not at the first prediction, and not by an error of NumPy's, or by a wrong number."""
    name, make = BLOCKS[change]
    body, index = fuzz.parts(blocks[name])
    path, changed, body = tmp_path / "hostile.nc", json.loads(index), bytearray(body)
    path.write_bytes(fuzz.sealed(bytes(body), json.dumps(changed).encode()))
    assert zoo.load(path).predict(NEW).kind == "linearized"
    make(changed["arrays"], changed["header"], body)
    changed["names"] = sorted(changed["arrays"])
    path.write_bytes(fuzz.sealed(bytes(body), json.dumps(changed).encode()))
    assert "a whole saved posterior" in refusal(path)


def test_nested_lists_without_end_are_refused(whole, tmp_path):
    path = tmp_path / "nested.nc"
    path.write_bytes(fuzz.sealed(fuzz.parts(whole)[0], b"[" * 200_000))
    assert "index cannot be used" in refusal(path)


def test_two_hundred_fuzzed_files():
    """Ten thousand by `python -m tests.benchmarks.fuzz`; here with another seed."""
    found, _ = fuzz.fuzz(200, seed=7)
    assert set(found) == {"refused", "whole"}, found
    assert found["refused"] > 100


# --- writing --------------------------------------------------------------------------------------------------------


def test_where_nothing_can_be_written_is_said_at_once(tmp_path):
    posterior = fit("linear", "map")
    with pytest.raises(ZooValueError, match=r"posterior\.nc"):
        posterior.save(tmp_path)
    with pytest.raises(ZooValueError, match="mkdir"):
        posterior.save(tmp_path / "no" / "p.nc")
    with pytest.raises(ZooTypeError, match="a file name"):
        posterior.save(3)


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.nc"
    posterior = fit("linear", "map")
    old = posterior.save(path).read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(sealed, "_places", fail)
    with pytest.raises(OSError, match="no space"):
        posterior.save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["p.nc"]


KILLED = """
import sys
import bnn_zoo as zoo
posterior = zoo.load(sys.argv[1])
print("ready", flush=True)
while True:
    posterior.save(sys.argv[1], pointwise=False)
"""


def test_a_kill_while_writing_leaves_a_whole_file(tmp_path):
    path = fit("linear", "map").save(tmp_path / "p.nc")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"ready"
    time.sleep(2.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert zoo.load(path).num_draws == 1
