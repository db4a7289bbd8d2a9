"""A verdict on draws, judged by the functions they stand for.

Weights of a network are not identified: units can be permuted, and signs of pairs flipped, without changing f. So
convergence is judged on f(x), at training inputs and at inputs between them, and on scalar sites such as the noise. A
diagnostic appears only where it means something: R-hat for chains, never for members of an ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bnn_zoo.probes import probe_points
from bnn_zoo.reports import approximations, half_step, microcanonical, mixing, residuals, stochastic, trajectories
from bnn_zoo.reports.grading import SEVERITY, Check, Status

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """The checks of a posterior, worst first, and the f(x) diagnostics behind them.

    Attributes
    ----------
    checks : tuple of Check
        Worst first; each with a sentence on what was found and what to do.
    points : pandas.DataFrame
        One row an input at which f was judged: ``where`` (``"training"``, ``"between"``, ``"held-out"`` or
        ``"beyond"`` the data), mean and sd of f(x) in the units of the target; for chains R-hat, bulk and tail ESS and
        MCSE over all chains, and of each chain alone ``rhat_within`` (median over chains), ``ess_within`` (their sum),
        ``sd_within`` and ``sd_between``, whose squares add up to the square of ``sd``; for members and independent
        draws the standard error ``sd_error`` of the sd; for modes of a mixture ``sd_within`` and ``sd_between``; with a
        reference ``reference_mean`` and ``reference_sd`` of f(x), as the reference predicts it.
    x : numpy.ndarray
        Those inputs ``(k, d)``, in the units of the data.
    kind : str
        Kind of the draws.
    """

    checks: tuple[Check, ...]
    points: pd.DataFrame
    x: np.ndarray
    kind: str

    @property
    def ok(self) -> bool:
        """True when no check failed. A doubtful one does not fail, but shows in the verdict."""
        return all(check.status != "failed" for check in self.checks)

    @property
    def verdict(self) -> Status:
        """The worst status of all checks."""
        return min((check.status for check in self.checks), key=SEVERITY.__getitem__)

    @property
    def table(self) -> pd.DataFrame:
        """One row a check: check, value, status, what it says and what to do."""
        rows = [(c.name, c.value, c.status, c.sentence) for c in self.checks]
        return pd.DataFrame(rows, columns=["check", "value", "status", "sentence"])

    @property
    def inner(self) -> pd.DataFrame:
        """Rows of `points` but those beyond the data, by which the verdict on f(x) goes; numbered as ``x`` is."""
        return self.points[self.points["where"] != "beyond"]

    @property
    def mends(self) -> tuple[str, ...]:
        """What to do, each thing once, the most pressing first."""
        return tuple(dict.fromkeys(check.mend for check in self.checks if check.mend))

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        counts = {status: sum(c.status == status for c in self.checks) for status in SEVERITY}
        if self.verdict == "passed":
            return f"All {counts['passed']} checks passed."
        worst = self.checks[0]
        tally = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return f"{tally[0].upper()}{tally[1:]}. Worst: {worst.sentence}"

    def __repr__(self) -> str:
        marks = {"passed": "ok      ", "doubtful": "doubtful", "failed": "FAILED  "}
        lines = [f"Diagnosis: {self.verdict.upper()}"]
        lines += [f"  {marks[c.status]}  {c.name}: {c.finding}" for c in self.checks]
        lines += ["What to do:"] * bool(self.mends) + [f"  - {mend}" for mend in self.mends]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colours = {"passed": "#1a7f37", "doubtful": "#9a6700", "failed": "#b42318"}
        rows = "".join(
            f'<tr><td style="color:{colours[c.status]};text-align:left"><b>{c.status}</b></td>'
            f'<td style="text-align:left">{c.name}</td><td style="text-align:left">{escape(c.finding)}</td></tr>'
            for c in self.checks
        )
        todo = "".join(f"<li>{escape(mend)}</li>" for mend in self.mends)
        todo = f"What to do:<ul>{todo}</ul>" if todo else ""
        return f'<b style="color:{colours[self.verdict]}">Diagnosis: {self.verdict}</b><table>{rows}</table>{todo}'


def diagnose(posterior: Posterior, held_out: np.ndarray | None = None, reference: Any = None) -> Diagnosis:
    """Judge ``posterior`` by f(x) at training inputs, between and beyond them, and at ``held_out`` inputs.

    ``reference``, a posterior, a method or ``"nuts"``, is what its predictions are held against; see
    `bnn_zoo.reports.against`.
    """
    if reference is not None:
        from bnn_zoo.reports import against  # which takes R-hat from here

        reference = against.reference_for(posterior, reference)
    x, where = probe_points(posterior.data.x, held_out)
    functions = posterior.function_draws(x)
    # A student is one network that knows the spread of those it stands for.
    sd = posterior.predict(x).epistemic_std if posterior.tells_epistemic else functions.std((0, 1))
    points = pd.DataFrame({"where": where, "mean": functions.mean((0, 1)), "sd": sd})
    if posterior.kind == "markov":
        points, checks = mixing.judge(posterior, functions, points, x)
        checks += trajectories.judge(posterior)
        checks += stochastic.judge(posterior, functions[:, :, points["where"] != "beyond"])
        checks += microcanonical.judge(posterior)
        checks += half_step.judge(posterior, x[points["where"] != "beyond"])
    else:
        points, within_and_between = approximations.spreads(functions, points)
        checks = [*approximations.judge(posterior), *within_and_between]
    checks += residuals.judge(posterior)
    if reference is not None:
        points, found = against.compared(posterior, reference, x, points)
        checks += found
    if not posterior.complete:
        checks.append(_incomplete(posterior))
    return Diagnosis(tuple(sorted(checks, key=lambda check: SEVERITY[check.status])), points, x, posterior.kind)


def _incomplete(posterior: Posterior) -> Check:
    if reason := posterior.result.info.get("stopped"):
        said = f"The fit ended early, at {reason}; these are the draws before."
        mend = "Try a smaller step size, a tighter prior, or precision='float64'."
        return Check("complete", 0.0, "failed", said, mend)
    said = "The fit was interrupted; these are the draws made until then."
    return Check("complete", 0.0, "doubtful", said, "Fit again: the same seed repeats these draws.")
