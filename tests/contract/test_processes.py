"""Two processes on this machine, launched as the README says, make the posterior that one process makes."""

from __future__ import annotations

import json
import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bnn_zoo as zoo
from bnn_zoo.engine.hosts import Hosts

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "notebooks" / "together.py"
LAUNCH = re.search(r"<!-- test: two processes -->\n```sh\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)

# In float64. Members of two processes are trained two by two rather than four at once, whose products are summed in
# another order: rounding, 1e-16, times what 5,000 steps of training and 18 iterations of NUTS make of it: 1e-7 at most
# in 21 of 24 chains, of six seeds, and up to 1e-2 in the others, of which this seed has none. Another key, or a chain
# in another's place, makes 1.
TOLERANCE = 1e-5

# Run by both behind the script of the README: what goes wrong on one of them, and what they disagree about.
AND_THEN = """
    import json
    from pathlib import Path

    said = {}

    def refused(name, **changed):
        asked = {"seed": 1, "method": zoo.methods.NUTS(num_warmup=1, num_samples=4)} | changed
        try:
            zoo.fit("linear", asked.pop("method"), "wave", progress=False, **asked)
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"

    class Failing(type(zoo.methods.MAP())):
        def run(self, problem, key, context):
            if jax.process_index() == 1:
                raise RuntimeError("out of memory, say")
            return super().run(problem, key, context)

    quick = zoo.methods.MAP(num_restarts=1, num_steps=5, polish_steps=0)
    refused("few", method=zoo.methods.NUTS(num_chains=1))
    refused("other seed", seed=jax.process_index())
    refused("failed", method=Failing(num_restarts=2, num_steps=5, polish_steps=0))
    refused("mesh", mesh=jax.sharding.Mesh(jax.devices(), ("chains",)))
    # One by itself, while the other does something else; and after all of that both go on together.
    if jax.process_index() == 0:
        alone = zoo.fit("linear", quick, "wave", progress=False, processes="alone")
    nuts = zoo.methods.NUTS(num_warmup=6, num_samples=6, num_chains=3, max_tree_depth=3, start="prior")
    for name, keep in {"file": Path("draws"), "functions": "functions"}.items():
        kept = zoo.fit("linear", nuts, "wave", progress=False, precision="float64", keep=keep)
        kept.resume(5, progress=False).save(f"{name}-{jax.process_index()}.nc")
    swag = zoo.methods.MultiSWAG(num_modes=3, num_samples=4, num_steps=40, warm_steps=20, rank=3)
    zoo.fit("linear", swag, "wave", progress=False, precision="float64").save(f"swag-{jax.process_index()}.nc")
    with open(f"said-{jax.process_index()}.json", "w") as file:
        json.dump(said, file)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    (folder / "together.py").write_text(SCRIPT.read_text() + AND_THEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = LAUNCH[1].replace("python ", f"{sys.executable} -W error ").replace("12345", str(port))
    assert str(port) in line
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (folder / "said-0.json").exists() and (folder / "said-1.json").exists(), done.stderr
    return folder


@pytest.fixture(scope="module")
def one(ran):
    made = runpy.run_path(str(SCRIPT))["make"]()
    return made | {"resumed": made["nuts"].resume(4, progress=False)}


@pytest.mark.parametrize("name", ["nuts", "ensemble", "resumed"])
def test_two_processes_make_the_posterior_of_one(name, ran, one):
    first, second = (zoo.load(ran / f"{name}-{rank}.nc") for rank in (0, 1))
    alone, shape = one[name], {"nuts": (4, 8), "ensemble": (1, 5), "resumed": (4, 12)}[name]
    assert first.result.positions.shape[:2] == shape
    np.testing.assert_array_equal(first.result.positions, second.result.positions)
    np.testing.assert_allclose(first.result.positions, alone.result.positions, rtol=0, atol=TOLERANCE)
    assert first.timing.gradient_evaluations == second.timing.gradient_evaluations
    assert first.timing.gradient_evaluations == alone.timing.gradient_evaluations
    assert set(first.stats) == set(alone.stats)
    for key, value in alone.stats.items():
        np.testing.assert_allclose(first.stats[key], value, rtol=1e-4, atol=1e-4)


def test_what_two_processes_made_goes_on_in_one(ran, one):
    """The state is all there: bit for bit where the two go on themselves."""
    on = zoo.load(ran / "nuts-0.nc").resume(4, progress=False)
    np.testing.assert_array_equal(on.result.positions, zoo.load(ran / "resumed-1.nc").result.positions)


def test_draws_are_kept_in_one_file_or_as_functions(ran):
    """Both processes write their chains into the same files, one of the fit and one of what it went on to."""
    nuts = zoo.methods.NUTS(num_warmup=6, num_samples=6, num_chains=3, max_tree_depth=3, start="prior")
    alone = zoo.fit("linear", nuts, "wave", progress=False, precision="float64").resume(5, progress=False)
    assert sorted(path.name for path in (ran / "draws").iterdir()) == ["draws-000.npy", "draws-001.npy"]
    in_file = np.load(ran / "draws" / "draws-001.npy")
    np.testing.assert_allclose(in_file, alone.result.positions, rtol=0, atol=TOLERANCE)
    for rank in (0, 1):
        np.testing.assert_array_equal(zoo.load(ran / f"file-{rank}.nc").result.positions, in_file)
        functions, x = zoo.load(ran / f"functions-{rank}.nc"), alone.data.x
        np.testing.assert_allclose(functions.function_draws(x), alone.function_draws(x), rtol=0, atol=TOLERANCE)
        for name, both in functions.site_moments.items():
            np.testing.assert_allclose(both, alone.site_moments[name], rtol=0, atol=TOLERANCE)


def test_modes_are_shared(ran):
    found = [zoo.load(ran / f"swag-{rank}.nc").result.positions for rank in (0, 1)]
    method = zoo.methods.MultiSWAG(num_modes=3, num_samples=4, num_steps=40, warm_steps=20, rank=3)
    alone = zoo.fit("linear", method, "wave", progress=False, precision="float64")
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], alone.result.positions, rtol=0, atol=TOLERANCE)


def test_what_goes_wrong_in_one_is_said_in_both(ran):
    first, second = (json.loads((ran / f"said-{rank}.json").read_text()) for rank in (0, 1))
    for said in (first, second):
        assert re.search(r"num_chains should be at least the 2 processes .* got 1\. .*processes='alone'", said["few"])
        assert re.search(r"^ZooValueError: seed should be the same in all processes", said["other seed"])
        assert re.search(r"^ZooValueError: mesh should be one of this process's devices", said["mesh"])
    assert second["failed"] == "RuntimeError: out of memory, say"
    assert first["failed"].startswith("ProcessError: process 1 should finish its share of the fit; got RuntimeError")


@pytest.mark.parametrize(("num", "size"), [(4, 2), (5, 2), (8, 3), (7, 7)])
def test_every_chain_is_some_process_s(num, size):
    shares = [list(range(num))[Hosts(rank, size).share(num)] for rank in range(size)]
    assert [chain for share in shares for chain in share] == list(range(num))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1 and min(map(len, shares)) >= 1
