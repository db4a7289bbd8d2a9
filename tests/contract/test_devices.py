"""Chains, members, modes and cycles spread over eight devices, and rows over two, give what one device gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import bnn_zoo as zoo
from bnn_zoo.engine import places
from bnn_zoo.engine.context import Context
from bnn_zoo.errors import ZooTypeError, ZooValueError

ROOT = Path(__file__).resolve().parents[2]

# In float64, and short, as chains are chaotic: eight devices run the same program, one chain each, and its sums are
# taken in another order only where rows are shared. What differs then is rounding, 1e-16, times what a few hundred
# gradients make of it; another key or batch makes differences of the order of a thousandth and more.
TOLERANCE = 1e-6
CHAINS = ("nuts", "sgld", "mclmc", "cyclical")
MEMBERS = ("ensemble", "seven", "swag")
PROGRAM = """
import json, sys
import jax
import numpy as np
import bnn_zoo as zoo
from bnn_zoo.engine import chains

assert jax.local_device_count() == 8, jax.local_devices()
rng = np.random.default_rng(0)
x = rng.normal(size=(20, 2))
y = x @ [1.0, -2.0] + 0.3 * rng.normal(size=20)
model, methods, found, said = zoo.models.MLP(hidden=(3,), noise=0.5), zoo.methods, {}, {}
short = {"num_warmup": 6, "num_samples": 4, "num_chains": 8, "start": "prior"}
batches = short | {"thinning": 2, "batch_size": 5, "step_size": 1e-4}
trained = {"num_steps": 20, "batch_size": 6}
fits = {
    "nuts": methods.NUTS(**short, max_tree_depth=4),
    "sgld": methods.SGLD(**batches),
    "mclmc": methods.MCLMC(**(short | {"num_warmup": 0}), thinning=3, step_size=0.02, length=1.0),
    "cyclical": methods.CyclicalSGHMC(**batches, friction=1.0, samples_per_cycle=2),
    "ensemble": methods.DeepEnsemble(num_members=8, polish_steps=5, hold_out=0.2, **trained),
    # Seven members are shared evenly by seven of the devices only.
    "seven": methods.DeepEnsemble(num_members=7, polish_steps=0, **trained),
    "swag": methods.MultiSWAG(num_modes=8, num_samples=3, warm_steps=10, rank=3, **trained),
}

def fit(name, method, **how):
    posterior = zoo.fit(model, method, (x, y), seed=1, progress=False, precision="float64", **how)
    found[name], said[name] = posterior.result.positions, posterior.attributes["places"]
    return posterior

for name, method in fits.items():
    fit(name, method)
    fit(name + " one", method, chain_method="threads" if hasattr(method, "num_chains") else "vectorized")

# Rows shared by two devices each: for the gradients of chains, and for training.
devices = np.asarray(jax.devices())
mesh = jax.make_mesh((4, 2), ("chains", "data"))
shared = fit("nuts shared", fits["nuts"], mesh=mesh)
full = methods.DeepEnsemble(num_members=8, num_steps=20, polish_steps=0)
fit("full shared", full, mesh=mesh)
fit("full shared one", full, chain_method="vectorized")
fit("sgld four", fits["sgld"], mesh=jax.sharding.Mesh(devices[4:], ("chains",)))

# It goes on where it ran, and compiles nothing; and so it does on one device once it has been written down.
from bnn_zoo.engine import compiled
before = set(compiled._programs)
found["resumed"] = shared.resume(2, progress=False).result.positions
said["compiled again"] = len(set(compiled._programs) - before)
found["resumed one"] = zoo.fit(
    model, methods.NUTS(**(short | {"num_samples": 6}), max_tree_depth=4), (x, y), seed=1, progress=False,
    precision="float64", chain_method="threads").result.positions

# What is compiled for rows that are shared: each device has half of them, and their sums are put together.
with jax.enable_x64(True):
    place, method = shared.result.state.place, fits["nuts"]
    problem = place.holding(shared.problem)
    said["each"] = str(problem.x.sharding.shard_shape(problem.x.shape))
    plan = chains.make_plan(8, place)
    request = chains.requests(method, problem, plan, place)[0]
    said["program"] = compiled.compiled(request[0], request[1], *request[2]).as_text()
np.savez(sys.argv[1], **found)
open(sys.argv[2], "w").write(json.dumps(said))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    files = [str(folder / name) for name in ("draws.npz", "said.json")]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        # Compiled quickly: it is run for a moment.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-W", "error", "-c", PROGRAM, *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(files[0])), json.loads(Path(files[1]).read_text())


@pytest.mark.parametrize("name", [*CHAINS, *MEMBERS])
def test_eight_devices_give_what_one_gives(ran, name):
    found, said = ran
    many, one = found[name], found[f"{name} one"]
    assert many.dtype == np.float64
    assert many.shape[:2] == {"ensemble": (1, 8), "seven": (1, 7), "swag": (8, 3)}.get(name, (8, 4))
    assert len(np.unique(many.reshape(-1, many.shape[2]), axis=0)) >= 7  # they differ, and chains move
    np.testing.assert_allclose(many, one, rtol=0, atol=TOLERANCE)
    what, devices = "chains" if name in CHAINS else "members", 7 if name == "seven" else 8
    assert said[name].startswith(f"{devices} {what} over {devices} of 8 devices")
    assert "device" not in said[f"{name} one"].split(":")[0]


def test_rows_shared_by_devices_give_what_one_gives(ran):
    found, said = ran
    np.testing.assert_allclose(found["nuts shared"], found["nuts one"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found["full shared"], found["full shared one"], rtol=0, atol=TOLERANCE)
    assert said["nuts shared"] == "8 chains over 4 × 2 of 8 devices, 10 rows each"
    np.testing.assert_allclose(found["sgld four"], found["sgld one"], rtol=0, atol=TOLERANCE)


def test_no_device_has_the_rows_of_another(ran):
    """On the compiled program: halves come in, none is gathered, and sums over devices are there."""
    _, said = ran
    assert said["each"] == "(10, 2)"
    assert "f64[10,2]" in said["program"] and "f64[20,2]" not in said["program"]
    assert "all-reduce" in said["program"] and "all-gather" not in said["program"]


def test_a_run_goes_on_where_it_was(ran):
    found, said = ran
    assert said["compiled again"] == 0
    np.testing.assert_allclose(found["resumed"], found["resumed one"], rtol=0, atol=TOLERANCE)


# --- without devices ------------------------------------------------------------------------------------------------

POINTS = np.arange(12.0)[:, None], np.arange(12.0)


@pytest.mark.parametrize(
    ("mesh", "way", "said"),
    [
        ("all", "auto", "mesh should be a jax.sharding.Mesh or None"),
        (Mesh(jax.devices()[:1], ("x",)), "auto", r"axes 'chains' and, if wanted, 'data'; got axes \('x',\)"),
        (Mesh(jax.devices()[:1], ("data",)), "auto", r"got axes \('data',\)"),
        (Mesh(jax.devices()[:1], ("chains",)), "threads", "chain_method should be 'auto' or 'sharded' with a mesh"),
    ],
    ids=["no mesh", "other axis", "rows alone", "threads"],
)
def test_a_mesh_that_cannot_be_used_is_refused_at_the_door(mesh, way, said):
    with pytest.raises((ZooTypeError, ZooValueError), match=said):
        zoo.fit("linear", "nuts", POINTS, mesh=mesh, chain_method=way)


class Device:
    """As much of a device as choosing takes."""

    platform = "cpu"


def grid(num, rows, count, shape=None, takes_all=True):
    """Shape of the devices that are used, of ``count``, or of a mesh of that shape."""
    here = np.array([Device() for _ in range(count)], dtype=object)
    mesh = None if shape is None else object()
    here = here if shape is None else here.reshape(shape)
    return places._grid(num, rows, here, mesh, takes_all).shape


@pytest.mark.parametrize(
    ("num", "rows", "count", "takes_all", "shape"),
    [
        (8, 100, 8, True, (8, 1)),
        (4, 100, 8, True, (4, 1)),  # too few rows to share
        (4, 2**16, 8, True, (4, 2)),
        (4, 2**16, 8, False, (4, 1)),  # batches
        (1, 2**16, 8, True, (1, 8)),
        (7, 100, 8, True, (7, 1)),
        (5, 100, 4, True, (1, 1)),
        (1, 3 * 2**16 + 3, 4, True, (1, 3)),  # four do not divide the rows
    ],
)
def test_devices_are_shared_by_chains_first_and_by_many_rows_then(num, rows, count, takes_all, shape):
    assert grid(num, rows, count, takes_all=takes_all) == shape


def test_rows_that_cannot_be_shared_are_refused():
    assert grid(6, 100, 8, (4, 2)) == (3, 2)
    with pytest.raises(ZooValueError, match=r"divides the rows; got 4 for 99 rows.*\(1, 3\)"):
        grid(2, 99, 8, (2, 4))
    with pytest.raises(ZooValueError, match="some rows at a time"):
        grid(2, 100, 8, (2, 4), takes_all=False)


def test_where_it_ran_is_told_once(caplog):
    context = Context(chain_method="vectorized")
    with caplog.at_level("INFO", logger="bnn_zoo"):
        problem = zoo.fit("linear", zoo.methods.MAP(num_restarts=2, num_steps=5, polish_steps=0), POINTS).problem
        caplog.clear()
        for _ in range(2):
            assert places.choose("chains", 4, problem, context, True, by_threads=True).how == "vectorized"
    assert [record.message for record in caplog.records] == ["4 chains by one vectorised program: as asked"]
