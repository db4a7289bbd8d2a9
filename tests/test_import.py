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
    """They come when something asks for them: the package adds a few per cent to what importing NumPyro takes."""
    heavy = ["pandas", "scipy.stats", "scipy.optimize", "matplotlib", "arviz", "sklearn", "optax", "blackjax", "pooch"]
    heavy += ["bnn_zoo.fitting", "bnn_zoo.methods.mcmc.nuts"]
    code = f"import sys, bnn_zoo; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_name_that_is_promised_is_there():
    """All of `__all__`, of the package, its methods, models and priors, in a process that has loaded nothing else."""
    code = (
        "import bnn_zoo as zoo\n"
        "for room in (zoo, zoo.methods, zoo.models, zoo.priors):\n"
        "    missing = [name for name in room.__all__ if not hasattr(room, name)]\n"
        "    assert not missing and set(room.__all__) <= set(dir(room)), (room, missing)\n"
        "names = {entry.class_name for entry in zoo.methods.registry.entries}\n"
        "assert names <= set(zoo.methods.__all__)\n"
        "try:\n"
        "    zoo.methods.NUT\n"
        "except AttributeError as error:\n"
        "    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "no attribute 'NUT'" in out.stdout, out.stderr[-2000:]
