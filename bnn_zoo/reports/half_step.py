"""Does the step matter?  Unadjusted chains go on for a while at half the step, and their spread is compared.

What a step biases falls as its square: at half the step three quarters of the bias are gone, whatever the posterior
looks like. Each chain is compared with itself, as chains may sit in modes of their own, and with pieces of its own run
of the same length, which say how much its spread changes by chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import numpy as np

from bnn_zoo.engine.context import Context
from bnn_zoo.reports.grading import Check, graded

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

NAME = "half the step"
PIECES = (
    8  # of a run; one more is drawn at half the step, for twice the gradients a draw: a quarter of what the run cost
)
FEWEST = 10  # draws a piece
OFF = (0.05, 0.2)  # of an sd, beyond two Monte Carlo errors
MOST_ERROR = 0.1  # two Monte Carlo errors of a share that is small enough to say anything


def judge(posterior: Posterior, x: np.ndarray) -> list[Check]:
    """One check, by the sds of f at ``x (m, d)``; none for methods that cannot halve their step, or cannot go on."""
    go_on = getattr(posterior.method, "at_half_the_step", None)
    if go_on is None or posterior.method.adjusted or posterior.result.state is None:
        return []
    size = posterior.num_draws // PIECES
    if size < FEWEST:
        said = f"{posterior.num_draws} draws are too few to see whether half the step would change their spread."
        return [Check(NAME, np.nan, "doubtful", said, f"Draw {PIECES * FEWEST} or more.")]
    with jax.enable_x64(posterior.x64):
        keep = replace(posterior.kept.keep, folder=None)  # these draws are few
        half = go_on(posterior._going_on, posterior.result, size, Context(keep=keep))
    beside = replace(posterior, result=half)
    share, error = _change(posterior.function_draws(x), beside.function_draws(x), size)
    if np.isnan(share):
        said = f"A chain stood still for {size} draws: its steps are too long, or it is stuck."
        return [Check(NAME, share, "failed", said, "Take adjusted=True, or a smaller energy_variance.")]
    said = f"At half the step the sd of f(x) is {share:.2f} ± {error:.2f} times what it is"
    beyond = max(abs(share - 1) - 2 * error, 0.0)
    if 2 * error > MOST_ERROR and beyond <= OFF[0]:
        return [Check(NAME, share, "doubtful", f"{said}: too few independent draws to tell.", "Draw more.")]
    target = posterior.method.energy_variance
    mend = f"Take energy_variance={target / 10:.0e}, or adjusted=True, which has no bias."
    if posterior.method.step_size is not None:
        mend = f"Take step_size={posterior.method.step_size / 1.5:.2g}, or adjusted=True, which has no bias."
    bad = f"{said}: steps are too long, and draws are biased."
    return [graded(NAME, beyond, OFF, f"{said}: no bias to be seen.", bad, mend, shown=share)]


def _change(functions: np.ndarray, half: np.ndarray, size: int) -> tuple[float, float]:
    """Ratio of sds within pieces, of ``half (C, size, m)`` to ``functions (C, S, m)``, and its standard error."""
    pieces = functions[:, : PIECES * size].reshape(functions.shape[0], PIECES, size, -1)
    before, after = np.var(pieces, axis=2, dtype=np.float64), np.var(half, axis=1, dtype=np.float64)
    moving = np.all(np.ptp(pieces, axis=2) > 0, axis=(0, 1)) & np.all(np.ptp(half, axis=1) > 0, axis=0)
    if not moving.any():
        return np.nan, np.inf
    usual = np.log(before[..., moving]).mean(-1)  # (C, PIECES)
    change = float(np.mean(np.log(after[:, moving]).mean(-1) - usual.mean(1)))
    by_chance = np.mean(np.var(usual, axis=1, ddof=1)) * (1 + 1 / PIECES) / len(usual)
    ratio = float(np.exp(0.5 * change))
    return ratio, float(0.5 * ratio * np.sqrt(by_chance))
