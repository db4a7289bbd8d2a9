"""What chains without an accept step can be asked: are they as warm as they should be, and do their cycles agree?

At temperature T every target obeys E[(z − c) · ∇U(z)] = p T (the virial theorem, c any point): a step that is too long,
and noise of batches, show as more; a chain that is still spreading from where it began as less. Momenta should have
E[m²] = T likewise. Both are averages over draws, with a Monte Carlo error, and cost nothing beside the chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnn_zoo.reports.grading import Check, Status, graded
from bnn_zoo.reports.mixing import rhat_of

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

HEAT = (0.1, 0.3)  # off by this share: the first is what steps that are found aim at
CYCLES = (1.05, 1.5)  # R-hat of f(x) between cycles: a cycle is short, so it is asked less than a chain
MOST_ERROR = 0.1

_NAMES = {"temperature": "configurational temperature", "kinetic_temperature": "kinetic temperature"}


def judge(posterior: Posterior, functions: np.ndarray) -> list[Check]:
    """Checks of temperature and of cycles, where a method has such; ``functions (C, S, k)`` are its draws of f(x)."""
    # A method without a temperature of its own is judged elsewhere: `bnn_zoo.reports.microcanonical`.
    own = hasattr(posterior.method, "temperature")
    checks = [_temperature(posterior, name) for name in _NAMES if own and name in posterior.stats]
    if "cycle" in posterior.stats:
        checks += _cycles(posterior.stats["cycle"], functions)
    return checks


def departure(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of finite ``values (C, S)``, its Monte Carlo error, and how far beyond two errors it is from 1."""
    from arviz_stats.base import array_stats

    mean = float(values.mean())
    error = float(array_stats.mcse(values, chain_axis=0, draw_axis=1)) if np.ptp(values) else 0.0
    return mean, error, max(abs(mean - 1) - 2 * error, 0.0)


def _temperature(posterior: Posterior, statistic: str) -> Check:
    name, values = _NAMES[statistic], np.asarray(posterior.stats[statistic], np.float64)
    if not posterior.method.temperature:
        said = "At temperature 0 the chain descends: its draws are no posterior."
        return Check(name, 0.0, "failed", said, "Take temperature=1 to sample.")
    if not np.isfinite(values).all():
        said = f"The {name} is not finite: the chain blew up."
        return Check(name, np.inf, "failed", said, "Take a smaller step size; None finds one.")
    mean, error, beyond = departure(values)
    said = f"the {name} is {mean:.2f} ± {error:.2f} of what it should be"
    if error > MOST_ERROR and beyond <= HEAT[0]:
        return Check(name, mean, "doubtful", f"{said}: too few draws to tell.", "Draw more, or raise batch_size.")
    if mean > 1:
        cause = "steps are too long, or batches too noisy, and draws too wide"
        quieter = ", or take control_variates=True." if hasattr(posterior.method, "control_variates") else "."
        mend = f"Halve step_size or raise batch_size{quieter}"
    else:
        cause = "chains have not spread from where they began"
        mend = "Raise num_warmup and thinning."
        if hasattr(posterior.method, "samples_per_cycle"):
            mend = "Raise thinning, or take exploration_temperature=1: a cycle starts narrow after a descent."
    return graded(name, beyond, HEAT, f"{said}.", f"{said}: {cause}.", mend, shown=mean)


def _cycles(cycle: np.ndarray, functions: np.ndarray) -> list[Check]:
    """Whether cycles of one chain find the same functions."""
    counts = np.unique(cycle[0], return_counts=True)[1]
    whole = counts == counts.max()
    draws = int(counts.max())
    if whole.sum() < 2 or draws < 4:
        return []
    kept = np.isin(cycle[0], np.flatnonzero(whole))
    parts = functions[:, kept].reshape(-1, draws, functions.shape[2])
    moving = parts[:, :, np.ptp(parts, axis=(0, 1)) > 0]
    rhat = float(np.max(rhat_of(moving))) if moving.size else 1.0
    between = parts.mean(1).var(0)
    share = float(np.median(between / np.maximum(parts.var((0, 1)), np.finfo(float).tiny)))
    status: Status = "passed" if rhat < CYCLES[0] else "doubtful"
    said = f"between cycles lie {100 * share:.0f} % of the variance of f(x), with an R-hat of {rhat:.2f} at most"
    if status == "passed":
        return [Check("cycles", rhat, status, f"{said}: every cycle finds the same functions.")]
    many = "other modes in other cycles" if rhat > CYCLES[1] else "functions that differ a little"
    mend = "Weights of modes are as often as descent finds them: compare with nuts on a part of the rows."
    return [Check("cycles", rhat, status, f"{said}: the chain finds {many}.", mend)]
