"""What Markov chain methods share: lengths that are checked, and chains that run, stop and go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from bnn_zoo.engine import chains
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.starts import STARTS
from bnn_zoo.errors import check_choice, check_count

if TYPE_CHECKING:
    from bnn_zoo.engine.chains import MarkovMethod


class MarkovChain:
    """Run and resume for a method that has a NumPyro ``kernel(problem)`` and says what to ``observe(state)``."""

    keeps = True  # draws as they come, in a file or as functions

    @property
    def finds_length(self) -> bool:
        """Whether warm-up finds how many gradients an iteration takes."""
        return False

    @property
    def gradients_an_iteration(self) -> int:
        """Gradients of one iteration: at most, or about where warm-up finds how many."""
        return 1

    def run(self: MarkovMethod, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Warm up and draw."""
        return chains.sample(self, problem, key, context)

    def resume(self: MarkovMethod, problem: Problem, draws: Draws, num_samples: int, context: Context) -> Draws:
        """Go on for ``num_samples`` more draws a chain."""
        return chains.resume(self, problem, draws, num_samples, context)


def check_lengths(method: Any) -> None:
    """Raise unless warm-up, draws, chains, thinning and start can be used."""
    check_count("num_warmup", method.num_warmup, 0, "Warm-up adapts the step size: 500 or more is usual.")
    check_count("num_samples", method.num_samples, 4, "Diagnostics split each chain in two: 4 draws at the very least.")
    check_count("num_chains", method.num_chains, 1, "Four chains let R-hat see whether they agree.")
    check_count("thinning", method.thinning, 1, "1 keeps every draw.")
    check_choice("start", method.start, STARTS)
