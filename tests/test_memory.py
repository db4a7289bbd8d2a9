"""Prediction in bounded memory: f of 4,000 draws at 20,000 rows alone would fill 305 MiB in float32."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_MB = 200
CODE = "import json; from tests.benchmarks.prediction import one; print(json.dumps(one('zoo', 1000, 20_000)))"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_prediction_at_many_rows_stays_within_memory():
    """In a process of its own, so that the peak is of this prediction; about 50 MB when written."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 < found["MB"] < MOST_MB, found
