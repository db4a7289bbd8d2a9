"""Checks that every method which trains networks makes of how they are trained."""

from __future__ import annotations

from typing import Any

from bnn_zoo.engine.density import Problem
from bnn_zoo.errors import bad_value, check_count, check_positive


def check_training(method: Any) -> None:
    """Raise unless steps, learning rate, batch and polish can be used."""
    check_count("num_steps", method.num_steps)
    check_positive("learning_rate", method.learning_rate, "0.01 is usual on standardised data.")
    check_count("polish_steps", method.polish_steps, 0)
    if method.batch_size is not None:
        check_count("batch_size", method.batch_size)


def check_batch(method: Any, problem: Problem) -> None:
    """Raise if a batch would be larger than the data."""
    if method.batch_size is not None and method.batch_size > problem.num_rows:
        raise bad_value("batch_size", f"at most the {problem.num_rows} rows", method.batch_size, "None takes all.")
