"""Chains spread over four devices draw what threads on one of them draw."""

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
np.savez(sys.argv[1], **found)
"""


def test_sharded_chains_draw_what_threads_draw(tmp_path):
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
