"""Checks of Hamiltonian trajectories: divergences and where they sit, energies, lengths, acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnn_zoo.reports.grading import Check, Status, graded

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

EBFMI = (0.3, 0.2)  # Betancourt (2016)
FEWEST = 5  # divergent draws from which on it is asked where they sit
STANDS_OUT = 3.0  # standard errors of their mean from that of all draws


def judge(posterior: Posterior) -> list[Check]:
    """Checks of what the statistics of a run hold."""
    stats, checks = posterior.stats, []
    if "diverging" in stats and "energy_variance" not in stats:  # which `bnn_zoo.reports.microcanonical` judges
        checks.append(_divergences(posterior))
    if "energy" in stats:
        checks.append(_energy(stats["energy"]))
    if "n_steps" in stats and (depth := getattr(posterior.method, "max_tree_depth", None)) is not None:
        mend = f"Raise max_tree_depth to {depth + 1} or warm up longer."
        checks.append(_cut_off(posterior, "tree depth", 2**depth - 1, mend))
    if "n_steps" in stats and (most := getattr(posterior.method, "max_steps", None)) is not None:
        mend = f"Warm up longer, so that the step size is right, or raise max_steps to {2 * most}."
        checks.append(_cut_off(posterior, "trajectory length", most, mend))
    if "acceptance_rate" in stats:
        checks.append(_acceptance(float(stats["acceptance_rate"].mean()), posterior.method))
    return checks


def _divergences(posterior: Posterior) -> Check:
    diverging = np.asarray(posterior.stats["diverging"], bool)
    count = int(diverging.sum())
    share = count / diverging.size
    bad = (
        f"{count} divergent transition{'s' * (count != 1)} ({100 * share:.1f} %): the sampler cannot follow the "
        f"posterior somewhere{where_they_sit(posterior, diverging)}."
    )
    mend = "Raise target_accept to 0.95, or give scales a prior away from 0."
    if not hasattr(posterior.method, "target_accept"):
        mend = "Take a smaller step_size, or give scales a prior away from 0."
    return graded("divergences", share, (0.0, 0.01), "No divergent transitions.", bad, mend, shown=count)


def where_they_sit(posterior: Posterior, diverging: np.ndarray) -> str:
    """Say in which chain and at which size of a site the draws ``diverging (C, S)`` are found, where that stands out.

    A transition that diverged is known by the draw that it left behind. Of each site the size of all its entries
    together is looked at, root mean square and on the scale of logarithms, on which the neck of a funnel is far away.
    """
    count, found = int(diverging.sum()), []
    chains = np.flatnonzero(diverging.any(1))
    if len(diverging) > 1 and len(chains) == 1 and count >= FEWEST:
        found.append(f"all in chain {chains[0]}")
    best, said = STANDS_OUT, ""
    for name, sizes in (posterior.site_sizes if count >= FEWEST else {}).items():
        if not (sizes > 0).all() or np.ptp(sizes) == 0:
            continue
        logs, one = np.log(sizes), name in posterior.scalars
        shift = (logs[diverging].mean() - logs.mean()) / logs.std()
        if abs(shift) * np.sqrt(count) > best:
            best, what = abs(shift) * np.sqrt(count), f"{name!r} is" if one else f"the entries of {name!r} are"
            among, typical = np.median(sizes[diverging]), np.median(sizes)
            size = "small" if shift < 0 else "large"
            said = f"where {what} {size} ({among:.3g} among them, {typical:.3g} among all draws)"
    found += [said] * bool(said)
    return f": they sit {' and '.join(found)}" if found else ""


def _energy(energy: np.ndarray) -> Check:
    value = float(np.min(ebfmi(energy)))
    said = f"E-BFMI is at least {value:.2f}"
    return graded(
        "E-BFMI",
        -value,
        tuple(-limit for limit in EBFMI),
        f"{said}: momenta reach all energies.",
        f"{said}, below {EBFMI[0]}: energies are explored slowly, as with heavy tails or a funnel.",
        "Tighten the priors of scales, or warm up longer.",
        shown=value,
    )


def _cut_off(posterior: Posterior, name: str, full: int, mend: str) -> Check:
    # With thinning a kept draw counts the steps of all that were thinned out.
    share = float((posterior.stats["n_steps"] >= full * posterior.method.thinning).mean())
    return graded(
        name,
        share,
        (0.05, 0.5),
        f"{100 * share:.0f} % of trajectories reach the longest length, {full} steps.",
        f"{100 * share:.0f} % of trajectories are cut off at {full} steps, so the chain moves more slowly than "
        "it could.",
        mend,
        never_fails=True,
    )


def _acceptance(rate: float, method: object) -> Check:
    target = getattr(method, "target_accept", 0.8)
    # Half the target, or a rejection rate half of what was asked, is a step size that was not adapted.
    status: Status = "passed" if target / 2 <= rate <= 1 - (1 - target) / 4 else "doubtful"
    if rate < 0.01:
        status = "failed"
    said = f"Mean acceptance is {rate:.2f}, for a target of {target:.2f}"
    if status == "passed":
        return Check("acceptance", rate, status, f"{said}.")
    return Check("acceptance", rate, status, f"{said}: the step size has not settled.", "Warm up longer.")


def ebfmi(energy: np.ndarray) -> np.ndarray:
    """Energy Bayesian fraction of missing information of each chain (Betancourt 2016), from ``(C, S)`` energies."""
    from arviz_stats.base import array_stats

    with np.errstate(invalid="ignore"):  # NaN where a chain's energy never changes
        return array_stats.bfmi(np.asarray(energy, float))
