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

from bnn_zoo.reports import approximations, stochastic
from bnn_zoo.reports.grading import SEVERITY, Check, Status, graded

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

MOST_POINTS = 64

RHAT = (1.01, 1.05)  # Vehtari (2021) ask for 1.01; beyond 1.05 chains plainly disagree
ESS_PER_CHAIN = (100, 25)  # Vehtari (2021): 100 a chain, for the diagnostics themselves to be trusted
EBFMI = (0.3, 0.2)  # Betancourt (2016)
MCSE = (0.1, 0.25)  # Monte Carlo error of the mean of f(x), as a share of its posterior sd


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """The checks of a posterior, worst first, and the f(x) diagnostics behind them.

    Attributes
    ----------
    checks : tuple of Check
        Worst first; each with a sentence on what was found and what to do.
    points : pandas.DataFrame
        One row an input at which f was judged: ``where`` (``"training"``, ``"between"`` or ``"held-out"``), mean and
        sd of f(x) in the units of the target; for chains R-hat, bulk and tail ESS and MCSE; for members and independent
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
    """Judge ``posterior`` by f(x) at training inputs, and at ``held_out`` inputs or points between training inputs.

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
        points, checks = _judge_chains(posterior, functions, points)
    else:
        points, within_and_between = approximations.spreads(functions, points)
        checks = [*approximations.judge(posterior), *within_and_between]
    if reference is not None:
        points, found = against.compared(posterior, reference, x, points)
        checks += found
    if not posterior.complete:
        checks.append(_incomplete(posterior))
    return Diagnosis(tuple(sorted(checks, key=lambda check: SEVERITY[check.status])), points, x, posterior.kind)


def probe_points(training: np.ndarray, held_out: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """At most 64 training inputs, and 64 held-out inputs or midpoints of random pairs of training inputs."""
    generator = np.random.default_rng(0)

    def some(rows: np.ndarray) -> np.ndarray:
        return rows if len(rows) <= MOST_POINTS else rows[generator.choice(len(rows), MOST_POINTS, replace=False)]

    if held_out is None:
        pairs = generator.integers(0, len(training), (2, MOST_POINTS))
        other, name = training[pairs].mean(0), "between"
    else:
        other, name = some(held_out), "held-out"
    known = some(training)
    return np.concatenate([known, other]), ["training"] * len(known) + [name] * len(other)


# --- chains ---------------------------------------------------------------------------------------------------------


def chain_diagnostics(values: np.ndarray) -> dict[str, np.ndarray]:
    """R-hat (rank-normalised, split), bulk and tail ESS, and MCSE of the mean, of ``values (C, S, k)``: ``(k,)`` each.

    By ArviZ's array interface (Vehtari 2021). A quantity that is constant over all draws has converged: R-hat 1, and
    as many effective draws as there are.
    """
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1}
    constant = np.ptp(values, axis=(0, 1)) == 0
    moving = values[:, :, ~constant]
    count = values.shape[0] * values.shape[1]
    out = {name: np.full(values.shape[2], fill) for name, fill in _CONSTANT.items()}
    out["ess_bulk"][:] = out["ess_tail"][:] = count
    if moving.shape[2]:
        found = {
            "rhat": array_stats.rhat(moving, **axes) if values.shape[0] > 1 else np.nan,
            "ess_bulk": array_stats.ess(moving, **axes, method="bulk"),
            "ess_tail": array_stats.ess(moving, **axes, method="tail", prob=(0.05, 0.95)),
            "mcse": array_stats.mcse(moving, **axes),
        }
        for name, value in found.items():
            out[name][~constant] = value
    return out


_CONSTANT = {"rhat": 1.0, "ess_bulk": 0.0, "ess_tail": 0.0, "mcse": 0.0}


def _judge_chains(
    posterior: Posterior, functions: np.ndarray, points: pd.DataFrame
) -> tuple[pd.DataFrame, list[Check]]:
    points = points.assign(**chain_diagnostics(functions))
    checks = _agreement(posterior, points)
    checks += _scalar_sites(posterior)
    checks += _hamiltonian(posterior)
    checks += stochastic.judge(posterior, functions)
    return points, checks


def _agreement(posterior: Posterior, points: pd.DataFrame) -> list[Check]:
    chains, checks, mend = posterior.num_chains, [], _longer(posterior)
    if chains == 1:
        said = "One chain cannot disagree with itself."
        checks.append(Check("R-hat of f(x)", np.nan, "doubtful", said, "Use num_chains=4 or more."))
    else:
        worst = points.loc[points.rhat.idxmax()]
        median = f"(median {points.rhat.median():.3f})"
        checks.append(
            graded(
                "R-hat of f(x)",
                worst.rhat,
                RHAT,
                f"R-hat of f(x) is at most {worst.rhat:.3f} {median}: chains agree on the functions.",
                f"R-hat of f(x) reaches {worst.rhat:.3f} {median}, {_PLACES[worst['where']]}: "
                f"chains {_how_far(worst.rhat)}.",
                mend,
            )
        )
    for name, words in (("ess_bulk", "bulk"), ("ess_tail", "tail")):
        least = float(points[name].min())
        limits = tuple(-limit * chains for limit in ESS_PER_CHAIN)
        count = chains * posterior.num_draws
        checks.append(
            graded(
                f"{words} ESS of f(x)",
                -least,
                limits,
                f"{words} ESS of f(x) is at least {least:.0f} of {count} draws.",
                f"{words} ESS of f(x) falls to {least:.0f} of {count} draws; {ESS_PER_CHAIN[0]} a chain are wanted.",
                mend,
                shown=least,
            )
        )
    share = float((points.mcse / points.sd.where(points.sd > 0, np.inf)).max())
    error = "the Monte Carlo error of the mean of f(x)"
    good = f"{error} is at most {100 * share:.1f} % of its posterior sd."
    bad = f"{error} reaches {100 * share:.1f} % of its posterior sd."
    checks.append(graded("MCSE of f(x)", share, MCSE, good, bad, mend))
    return checks


_PLACES = {
    "training": "at a training input",
    "between": "at a point between training inputs",
    "held-out": "at a held-out input",
}


def _how_far(rhat: float) -> str:
    return "have not quite come to agree" if rhat <= RHAT[1] else "disagree"


def _scalar_sites(posterior: Posterior) -> list[Check]:
    """Scalar sites (noise, shared scales) are identified, so their R-hat means something too."""
    scalars = {name: value for name, value in posterior.draws.items() if value.ndim == 2}
    if not scalars or posterior.num_chains == 1:
        return []
    found = chain_diagnostics(np.stack(list(scalars.values()), axis=2).astype(float))
    worst = int(np.argmax(found["rhat"]))
    name, rhat = list(scalars)[worst], float(found["rhat"][worst])
    said = f"R-hat of the site {name!r} is {rhat:.3f}, bulk ESS {found['ess_bulk'][worst]:.0f}"
    bad = f"{said}: chains {_how_far(rhat)}."
    return [graded("R-hat of scalar sites", rhat, RHAT, f"{said}.", bad, _longer(posterior))]


def _hamiltonian(posterior: Posterior) -> list[Check]:
    stats, method, checks = posterior.stats, posterior.method, []
    if "diverging" in stats:
        count = int(stats["diverging"].sum())
        share = count / stats["diverging"].size
        checks.append(
            graded(
                "divergences",
                share,
                (0.0, 0.01),
                "No divergent transitions.",
                f"{count} divergent transitions ({100 * share:.1f} %): the sampler cannot follow the posterior "
                "somewhere.",
                "Raise target_accept to 0.95, or give scales a prior away from 0.",
                shown=count,
            )
        )
    if "energy" in stats:
        value = float(np.min(ebfmi(stats["energy"])))
        said = f"E-BFMI is at least {value:.2f}"
        checks.append(
            graded(
                "E-BFMI",
                -value,
                tuple(-limit for limit in EBFMI),
                f"{said}: momenta reach all energies.",
                f"{said}, below {EBFMI[0]}: energies are explored slowly, as with heavy tails or a funnel.",
                "Tighten the priors of scales, or warm up longer.",
                shown=value,
            )
        )
    depth = getattr(method, "max_tree_depth", None)
    if depth is not None and "n_steps" in stats:
        # With thinning a kept draw counts the steps of all that were thinned out.
        full = 2**depth - 1
        share = float((stats["n_steps"] >= full * posterior.method.thinning).mean())
        checks.append(
            graded(
                "tree depth",
                share,
                (0.05, 0.5),
                f"{100 * share:.0f} % of trajectories reach the longest length, {full} steps.",
                f"{100 * share:.0f} % of trajectories are cut off at {full} steps, so the chain moves more slowly than "
                "it could.",
                f"Raise max_tree_depth to {depth + 1} or warm up longer.",
                never_fails=True,
            )
        )
    if "acceptance_rate" in stats:
        checks.append(_acceptance(float(stats["acceptance_rate"].mean()), method))
    return checks


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
    spread = np.var(energy, axis=1)
    return np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.where(spread > 0, spread, np.nan)


def _incomplete(posterior: Posterior) -> Check:
    if reason := posterior.result.info.get("stopped"):
        said = f"The fit ended early, at {reason}; these are the draws before."
        mend = "Try a smaller step size, a tighter prior, or precision='float64'."
        return Check("complete", 0.0, "failed", said, mend)
    said = "The fit was interrupted; these are the draws made until then."
    return Check("complete", 0.0, "doubtful", said, "Fit again: the same seed repeats these draws.")


def _longer(posterior: Posterior) -> str:
    method = posterior.method
    seconds = posterior.timing.run_seconds
    if hasattr(method, "batch_size"):
        mend = f"Double thinning (now {method.thinning}): a step moves little. About {seconds:.0f} s more"
        return f"{mend}; nuts, where rows are few, moves further."
    return (
        f"Double num_warmup (now {method.num_warmup}) and num_samples (now {posterior.num_draws}), about "
        f"{2 * seconds:.0f} s more, or give the noise and weight scales tighter priors."
    )
