"""Importing: whoever comes first, and what is not loaded until it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIT = """
import numpy as np
x = np.arange(12.0).reshape(6, 2)
method = zoo.methods.NUTS(num_warmup=5, num_samples=5, num_chains=1, start="prior")
print(zoo.fit("linear", method, (x, x[:, 0]), progress=False).num_draws)
"""


@pytest.mark.parametrize("first", ["import arviz\nimport bnn_zoo as zoo", "import bnn_zoo as zoo\nimport arviz"])
def test_arviz_may_be_imported_first_or_last(first):
    """ArviZ leaves a lazy stand-in for numpyro; without the mend in `engine/__init__.py` the first order fails."""
    out = subprocess.run([sys.executable, "-c", first + FIT], capture_output=True, text=True)
    assert out.stdout.strip() == "5", out.stderr[-2000:]


def test_heavy_libraries_are_not_imported_with_the_package():
    """Pandas, SciPy's statistics, matplotlib, ArviZ and scikit-learn come when something asks for them."""
    heavy = ["pandas", "scipy.stats", "matplotlib", "arviz", "sklearn"]
    code = f"import sys, bnn_zoo; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
