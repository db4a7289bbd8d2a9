"""Checks that every Markov chain method makes of its lengths."""

from __future__ import annotations

from typing import Any

from bnn_zoo.engine.starts import STARTS
from bnn_zoo.errors import check_choice, check_count


def check_lengths(method: Any) -> None:
    """Raise unless warm-up, draws, chains, thinning and start can be used."""
    check_count("num_warmup", method.num_warmup, 0, "Warm-up adapts the step size: 500 or more is usual.")
    check_count("num_samples", method.num_samples, 4, "Diagnostics split each chain in two: 4 draws at the very least.")
    check_count("num_chains", method.num_chains, 1, "Four chains let R-hat see whether they agree.")
    check_count("thinning", method.thinning, 1, "1 keeps every draw.")
    check_choice("start", method.start, STARTS)
