"""Simulation-based calibration: exact methods pass, a wrong prior fails."""

from __future__ import annotations

import numpy as np
import pytest

import bnn_zoo as zoo
from tests.benchmarks.sbc import cases, inputs


def calibrate(case: dict, simulations: int, seed: int = 0):
    return zoo.sbc(x=inputs(), num_simulations=simulations, seed=seed, progress=False, **case)


@pytest.mark.parametrize("name", ["Linear", "MLP"])
def test_nuts_is_calibrated(name):
    """χ² of 16 bins, p > 0.01 for f(x*), the noise and the log likelihood.

    All seven pass on 9 of 10 seeds for `Linear` and 10 of 10 for `MLP`, where right samplers would on 93 %.
    """
    found = calibrate(cases()[name], 256)
    assert (found.table["p_value"] > 0.01).all(), found
    assert list(found.ranks.columns[-2:]) == ["noise", "log likelihood"]
    assert found.ok


def test_a_wrong_prior_is_found_out():
    """The truth has a prior scale of 3, the fit believes 1: true functions fall outside the draws.

    Found out on 10 of 10 seeds.
    """
    wrong = next(case for case in cases().values() if "truth" in case)
    found = calibrate(wrong, 256)
    assert not found.ok, found
    assert found.table["p_value"].min() < 1e-4
    assert "NOT CALIBRATED" in repr(found)


def test_methods_that_are_no_kernel_run_one_by_one():
    """A sampler with trained starts is run through its own `run`; ranks come in the same form."""
    method = zoo.methods.NUTS(num_warmup=100, num_samples=64, num_chains=1, start="map")
    found = zoo.sbc(zoo.models.Linear(noise=0.5), method, inputs(), num_simulations=80, progress=False)
    assert found.ranks.shape == (80, 6)
    assert found.ranks.to_numpy().min() >= 0 and found.ranks.to_numpy().max() <= 63
    assert found.ok, found


def test_too_few_draws_or_simulations_are_refused():
    with pytest.raises(ValueError, match="Draw more"):
        zoo.sbc("linear", zoo.methods.NUTS(num_samples=10, num_chains=1, start="prior"), inputs(), progress=False)
    with pytest.raises(ValueError, match="80 in all"):
        zoo.sbc("linear", "nuts", inputs(), num_simulations=10)


def test_ranks_count_draws_below_the_truth():
    """All draws below the truth give rank 63, all above give 0, on a hand-made case."""
    from bnn_zoo.reports.calibration import _rank

    draws = np.arange(200.0)[:, None] * np.array([[1.0, 1.0, 1.0]])
    assert _rank(np.array([-1.0, 1e9, 100.5]), draws).tolist() == [0, 63, 32]
