"""The verdict on a stack: what was stacked, what that gained, and the verdict on each part that counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bnn_zoo.probes import probe_points
from bnn_zoo.reports.convergence import Diagnosis
from bnn_zoo.reports.grading import SEVERITY, Check, graded
from bnn_zoo.reports.loo import PARETO_K
from bnn_zoo.reports.stacked import StackedPosterior, units

COUNTS = 0.01  # weight from which a part is judged
EVEN = 0.75  # share of parts in effect from which weights hardly differ from equal ones
UNRELIABLE = (0.0, 0.05)  # share of rows whose log score by PSIS-LOO cannot be relied on


def diagnose(stack: StackedPosterior, held_out: np.ndarray | None, reference: Any) -> Diagnosis:
    """Say what was stacked and what that gained, and carry the verdict on each part of a weight that counts."""
    x, where = probe_points(stack.data.x, held_out)
    said = stack.predict(x)
    points = pd.DataFrame({"where": where, "mean": said.mean, "sd": said.epistemic_std})
    checks = [_gain(stack), *_reliance(stack), *_verdicts(stack)]
    if reference is not None:
        from bnn_zoo.reports import against  # which stands beside

        points, found = against.compared(stack, against.reference_for(stack, reference), x, points)
        checks += found
    return Diagnosis(tuple(sorted(checks, key=lambda check: SEVERITY[check.status])), points, x, stack.kind)


def _gain(stack: StackedPosterior) -> Check:
    scores, weights = stack.log_scores, stack.weights
    top = scores.max(1, keepdims=True)
    mine = top[:, 0] + np.log(np.exp(scores - top) @ weights.to_numpy())
    even = top[:, 0] + np.log(np.exp(scores - top).mean(1))
    best = int(np.argmax(scores.mean(0)))
    most = weights.sort_values(ascending=False, kind="stable").head(8)
    listed = ", ".join(f"{name} {weight:.3f}" for name, weight in most.items())
    rest = f" and {len(weights) - len(most)} more" if len(weights) > len(most) else ""
    gained = [f"{_paired(mine - scores[:, best])} over {weights.index[best]}, the best of them"]
    gained += [f"{_paired(mine - even)} over equal weights"]
    size = 1 / float((weights**2).sum())
    # In-sample, chance alone gains (K − 1) / 2n; where no more was gained than that is worth, weights are noise.
    gain = mine - even
    unsure = gain.mean() < 2 * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else True
    finding = (
        f"Weights on {stack.method.weighed_on}: {listed}{rest}; in effect {size:.1f} of {len(weights)} parts. Nats a "
        f"row gained there, where weights were chosen: {'; '.join(gained)}."
    )
    if unsure and size < EVEN * len(weights):
        finding += " That is not told from chance."
        return Check("stacking", size, "doubtful", finding, "Weigh on more rows, or weigh all alike.")
    return Check("stacking", size, "passed", finding)


def _paired(gain: np.ndarray) -> str:
    if np.abs(gain).max() < 1e-9:  # one part has all the weight
        return "0"
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
    return f"{gain.mean():.3g} ± {error:.2g}"


def _reliance(stack: StackedPosterior) -> list[Check]:
    count, rows = int(stack.result.info["unreliable_rows"]), len(stack.log_scores)
    if "PSIS-LOO" not in stack.method.weighed_on:
        return []
    said = f"For {count} of {rows} rows a Pareto k of PSIS-LOO is above {PARETO_K}"
    good, bad = f"{said}: log scores can be relied on.", f"{said}: weights rest on log scores that are not known."
    mend = "Stack on held-out rows: zoo.stack(posteriors, data)."
    return [graded("Pareto k of LOO", count / rows, UNRELIABLE, good, bad, mend, shown=count, never_fails=True)]


def _verdicts(stack: StackedPosterior) -> list[Check]:
    """One check a part that counts; one for all members of an ensemble, of which none can be judged alone."""
    if stack.origin is not None and stack.origin.kind != "markov":
        return [_verdict(f"the {units(stack.origin)}", stack.origin.diagnose().checks)]
    found = []
    for name, part in stack.parts.items():
        if stack.weights[name] < COUNTS:
            continue
        checks = part.diagnose().checks
        if stack.origin is not None:
            # Chains of a stack need not agree, only move within their own modes: that there is one is no fault.
            checks = tuple(c for c in checks if not (np.isnan(c.value) and c.name.startswith("R-hat")))
        found.append(_verdict(name, checks))
    return found


def _verdict(name: str, checks: tuple[Check, ...]) -> Check:
    worst = min(checks, key=lambda check: SEVERITY[check.status])
    value = float(sum(check.status != "passed" for check in checks))
    if worst.status == "passed":
        return Check(f"part {name}", value, "passed", f"{name}: all {len(checks)} checks passed.")
    said = f"{name}: {int(value)} of {len(checks)} checks did not pass. Worst: {worst.finding}"
    return Check(f"part {name}", value, worst.status, f"{said[0].upper()}{said[1:]}", worst.mend)
