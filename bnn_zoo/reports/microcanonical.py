"""What unadjusted microcanonical chains can be asked: do they keep their energy, and are they as warm as they should?

There is no accept step, so a step that is too long shows in the draws alone. Two measures come free with the chain:
E[ΔE²] / p, ΔE the error of the energy in one step, which the step size was found for on the chain's way in and may miss
elsewhere; and the temperature E[−(z − c) · ∇log π] / p, which is 1 for the posterior itself (the virial theorem).

On a Gaussian of p → ∞ independent coordinates of sd 1 a step ε = h √p gives variances r² in place of 1, and with them
this temperature. In a stationary chain the direction is on average at right angles to the gradient when a step begins,
and, as a step is a palindrome, in its middle. Between them lie a kick of b, half a drift, and half a kick of 1 − 2b
(b = 0.1932; a kick turns the cosine c between direction and gradient to tanh(artanh c + h b r)):

    artanh((r tanh(h b r) − h / 2) / s) + h (1/2 − b) s = 0,    s² = r² − h r tanh(h b r) + h² / 4.

So 1 − r² is 0.013 at h = 1, 0.035 at 1.5 and 0.082 at 2, where E[ΔE²] / p is about 1e-4, 2e-3 and 6e-3; beyond, chains
blow up. The limits below follow: variances about 4 % off at the first, and at the second no more to be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnn_zoo.reports.grading import Check, graded
from bnn_zoo.reports.stochastic import HEAT, MOST_ERROR, departure
from bnn_zoo.reports.trajectories import where_they_sit

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

ERROR = (2e-3, 2e-2)
REJECTED = (1e-3, 1e-2)  # of steps: not finite, or with errors that are never seen at this step size elsewhere


def judge(posterior: Posterior) -> list[Check]:
    """Checks of the bias of chains that report the error of their energy; none for other methods."""
    if "energy_variance" not in posterior.stats:
        return []
    return [_energy(posterior), _rejected(posterior), _temperature(posterior)]


def _energy(posterior: Posterior) -> Check:
    values = np.asarray(posterior.stats["energy_variance"], np.float64)
    each = np.where(np.isfinite(values).all(1), values.mean(1), np.inf)
    worst = int(np.argmax(each))
    said = f"The energy error of a step, E[ΔE²] / p, is {each.max():.1e} at most (chain {worst})"
    target = posterior.method.energy_variance
    return graded(
        "energy error",
        float(each.max()),
        ERROR,
        f"{said}: steps are short enough to be all but unbiased on a Gaussian.",
        f"{said}, above {ERROR[0]:.0e}: steps are too long, and draws are biased.",
        f"Take {_shorter(posterior, target)}, or adjusted=True, which has no bias.",
    )


def _rejected(posterior: Posterior) -> Check:
    # A kept draw tells whether any of the steps thinned out before it was rejected.
    diverging = np.asarray(posterior.stats["diverging"], bool)
    share = 1 - (1 - float(diverging.mean())) ** (1 / posterior.method.thinning)
    said = f"{100 * share:.2g} % of steps were rejected, not finite or far off their energy"
    return graded(
        "rejected steps",
        share,
        REJECTED,
        f"{said}.",
        f"{said}{where_they_sit(posterior, diverging)}: the chain cannot follow the posterior there.",
        f"Take adjusted=True or {_shorter(posterior, posterior.method.energy_variance)}, or give scales a prior away "
        "from 0.",
    )


def _temperature(posterior: Posterior) -> Check:
    name, values = "configurational temperature", np.asarray(posterior.stats["temperature"], np.float64)
    if not np.isfinite(values).all():
        said = "The configurational temperature is not finite: the chain blew up."
        return Check(name, np.inf, "failed", said, "Take adjusted=True, or a smaller energy_variance.")
    mean, error, beyond = departure(values)
    said = f"the {name} is {mean:.2f} ± {error:.2f} of what it should be"
    if error > MOST_ERROR and beyond <= HEAT[0]:
        return Check(name, mean, "doubtful", f"{said[0].upper()}{said[1:]}: too few draws to tell.", "Draw more.")
    bad = f"{said}: steps are too long, or the chain is still on its way from where it began."
    mend = f"Compare with adjusted=True; take {_shorter(posterior, posterior.method.energy_variance)}, or a longer "
    return graded(name, beyond, HEAT, f"{said}.", bad, f"{mend}num_warmup.", shown=mean)


def _shorter(posterior: Posterior, target: float) -> str:
    """The setting that shortens a step by about a third (ΔE² grows as ε⁶), whichever it was that set it."""
    step = posterior.method.step_size
    return f"energy_variance={target / 10:.0e}" if step is None else f"step_size={step / 1.5:.2g}"
