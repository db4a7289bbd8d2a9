"""Chains and members spread over four devices give what one of them gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = "num_warmup=10, num_samples=5, num_chains=4, start='prior', max_tree_depth=4"
PROGRAM = f"""
import sys
import jax
import numpy as np
import bnn_zoo as zoo

assert jax.local_device_count() == 4, jax.local_devices()
rng = np.random.default_rng(0)
x = rng.normal(size=(20, 2))
y = x @ [1.0, -2.0] + 0.3 * rng.normal(size=20)
model, method, found = zoo.models.MLP(hidden=(3,)), zoo.methods.NUTS({SETTINGS}), {{}}
for asked in ("auto", "threads"):
    fit = zoo.fit(model, method, (x, y), seed=1, progress=False, chain_method=asked, precision="float64")
    found[asked + " ran"] = fit.result.info["chain_method"]
    found[asked] = fit.result.positions
# Seven members cannot be shared evenly by four devices, six can by three, four by four.
for members in (7, 6, 4):
    method = zoo.methods.DeepEnsemble(num_members=members, num_steps=40, polish_steps=5, batch_size=6, hold_out=0.2)
    for asked in ("auto", "vectorized"):
        fit = zoo.fit(model, method, (x, y), seed=1, progress=False, chain_method=asked, precision="float64")
        found[f"{{members}} {{asked}}"] = fit.result.positions
        found[f"{{members}} {{asked}} best"] = fit.result.info["best_step"]
swag = zoo.methods.MultiSWAG(num_modes=4, num_samples=3, num_steps=60, warm_steps=20, rank=3)
for asked in ("auto", "vectorized"):
    fit = zoo.fit(model, swag, (x, y), seed=1, progress=False, chain_method=asked, precision="float64")
    found["swag " + asked] = fit.result.positions
np.savez(sys.argv[1], **found)
"""


def test_sharded_chains_and_members_are_those_of_one_device(tmp_path):
    file = tmp_path / "draws.npz"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(file)
    assert (found["auto ran"], found["threads ran"]) == ("sharded", "threads")
    assert found["auto"].dtype == np.float64
    assert found["auto"].shape[:2] == (4, 5)
    assert len(np.unique(found["auto"].reshape(20, -1), axis=0)) > 10  # chains differ, and move
    np.testing.assert_allclose(found["auto"], found["threads"], rtol=0, atol=1e-6)
    for name in ("7", "6", "4", "swag"):
        np.testing.assert_allclose(found[f"{name} auto"], found[f"{name} vectorized"], rtol=0, atol=1e-6)
    for members in (7, 6, 4):
        assert found[f"{members} auto"].shape[1] == members
        np.testing.assert_array_equal(found[f"{members} auto best"], found[f"{members} vectorized best"])
