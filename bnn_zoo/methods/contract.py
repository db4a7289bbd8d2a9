"""What a method is: a frozen dataclass of settings with one ``run``.

``run`` is pure: problem and key in, draws out. It never asks which model it has.
"""

from __future__ import annotations

from typing import Protocol

import jax

from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws


class Method(Protocol):
    """Settings of an inference method, and how to run it."""

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Return draws from the (approximate) posterior of ``problem``."""
        ...


class Resumable(Method, Protocol):
    """A method that can go on where it stopped."""

    def resume(self, problem: Problem, draws: Draws, num_samples: int, context: Context) -> Draws:
        """Return ``draws`` followed by ``num_samples`` more a chain."""
        ...
