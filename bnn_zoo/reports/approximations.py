"""Checks of what is no Markov chain: modes, Gaussians, guides, ensembles, particles, each where it means something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bnn_zoo.reports.grading import Check, graded

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

PARETO_K = 0.7  # Vehtari (2024)
# Noise alone gives 1, give or take 1 / √(2 k) over k directions; at 4 one estimate of 64 is half slope, half noise.
SIGNAL = (1.3, 4.0)
RISE = 1.0  # nats by which a bound may still rise and be taken to have settled
SPREAD = (0.25, 0.6)  # relative error of an sd of f(x) over independent networks: 9 give 0.25, 3 give 0.5, 2 give 0.71

# A student and its teacher, in distribution and beyond the data. KL of the predictives in nats: what the student loses
# in expected log score where the teacher is right; 0.05 is what a comparison of methods would notice.
LOSS = {"inside": (0.01, 0.05), "outside": (0.05, 0.25)}
CORRELATION = (0.9, 0.7)  # of epistemic sds
SAME_FACTOR = 1.1  # typical ratio of epistemic sds below which it does not matter that they hardly vary together
TRUST = "Compare with 'laplace' or 'nuts' before trusting the width."
PLACES = {"inside": "in distribution", "outside": "beyond the data"}


def judge(posterior: Posterior) -> list[Check]:
    """Return the checks that the facts of a run allow."""
    info = posterior.result.info
    if "inside_divergence" in info:
        return [_teacher(info), *(_distance(info, place) for place in PLACES), *(_doubt(info, at) for at in PLACES)]
    checks = [_spread(posterior)]
    if "deviations" in info:
        checks.append(_width_of_sgd(info))
    if "rates" in info and not posterior.method.concrete:
        checks.append(_width_of_masks(info))
    if getattr(posterior.method, "anchored", True) is False and posterior.num_draws > 1:
        checks.append(_width_of_starts())
    if "log_q" in posterior.stats:
        checks.append(_importance(posterior))
    if "elbo" in info:
        checks.append(_bound(posterior))
    if "gradient_sd" in info:
        checks.append(_slope(info))
    if "gradient_norm" in info:
        norm, scale = float(info["gradient_norm"]), float(np.sqrt(posterior.problem.size))
        said = f"The gradient of the log posterior has norm {norm:.3g} over {posterior.problem.size} parameters"
        checks.append(
            graded(
                "stationarity",
                norm / scale,
                (0.1, 10.0),
                f"{said}: a stationary point.",
                f"{said}: training stopped before a maximum.",
                "Raise num_steps or polish_steps; with a prior on the noise and more weights than rows there may be no "
                "maximum.",
                shown=norm,
            )
        )
    if "evidence_change" in info:
        checks.append(_evidence(info))
    if "best_step" in info:
        checks.append(_early_stopping(info))
    if "stein_residual" in info:
        checks.append(_particles(float(info["stein_residual"])))
    look = getattr(posterior.method, "negative_eigenvalues", None)
    if look is not None and (count := look(posterior.problem, posterior.result)) is not None:
        said = f"Of {posterior.problem.size} eigenvalues of the Hessian of minus the log posterior, {count} are below 0"
        checks.append(
            graded(
                "negative eigenvalues",
                count,
                (0, 0),
                f"{said}: the mode is a maximum.",
                f"{said}: the mode is no maximum, and the approximation cannot know its width along these.",
                "Raise num_steps or polish_steps, or try precision='float64'.",
                never_fails=True,
            )
        )
    return checks


def _width_of_sgd(info: dict) -> Check:
    """What SWAG's spread is: true of every fit, and said because nothing else in the table would."""
    rate = float(np.mean(info["learning_rate"]))
    said = (
        f"The spread within a mode is that of {int(info['iterates'])} iterates of SGD at learning rate {rate:.3g}, "
        "which has to do with the posterior's width but is not it."
    )
    return Check("width", rate, "doubtful", said, TRUST)


def _width_of_masks(info: dict) -> Check:
    """What the spread of dropout at a given rate is: the rate's, however many rows there are."""
    rate = float(np.max(info["rates"]))
    said = f"The spread is that of the dropout rate that was given, {rate:.2g}, and hardly falls as rows are added."
    return Check("width", rate, "doubtful", said, TRUST)


def _width_of_starts() -> Check:
    """What the spread of plain members is: that of optima, each of which would stay if all the rest were known."""
    said = "Members differ by where their training began: their spread is no posterior's, and as a rule too narrow."
    return Check("width", np.nan, "doubtful", said, f"{TRUST} anchored=True has a posterior's for linear models.")


def _importance(posterior: Posterior) -> Check:
    """Pareto k-hat: whether the approximation covers the posterior that it has found, all of its weights together."""
    from bnn_zoo.engine import weights

    ratios = posterior.log_ratios
    k = weights.pareto_k(ratios)
    if np.isnan(k):
        said = f"{len(ratios)} draws are too few for Pareto k-hat, or their weights are not finite."
        return Check("Pareto k-hat", k, "doubtful", said, "Take num_samples=1000 or more.")
    said = f"Pareto k-hat of {len(ratios)} draws is {k:.2f}"
    return graded(
        "Pareto k-hat",
        k,
        (PARETO_K, PARETO_K),
        f"{said}: the approximation holds the posterior about it, in its weights too.",
        f"{said}, above {PARETO_K}: as a distribution of weights the approximation misses parts of the posterior. Its "
        "functions may be nearer than its weights, but nothing here shows it.",
        "Compare predictions with those of 'nuts', or of a richer guide.",
        never_fails=True,
    )


def _bound(posterior: Posterior) -> Check:
    """Whether the bound still rose: the last eighth of training against the eighth before, with its own noise."""
    info, rows = posterior.result.info, float(posterior.problem.total_rows)
    trace = -rows * np.asarray(info["losses"], float)
    part = max(2, len(trace) // 8)
    last, before = trace[-part:], trace[-2 * part : -part]
    rise = float(last.mean() - before.mean())
    error = float(np.hypot(last.std(ddof=1), before.std(ddof=1)) / np.sqrt(part))
    said = f"The bound is {info['elbo']:.2f} ± {info['elbo_error']:.2f}"
    moved = f"over the last eighth of training it rose by {rise:.2f} ± {error:.2f}"
    return graded(
        "ELBO",
        rise - 3 * error,
        (RISE, 100 * RISE),
        f"{said}; {moved}.",
        f"{said}; {moved}: not settled.",
        "Raise num_steps, or num_particles where noise prevails.",
        shown=float(info["elbo"]),
    )


def _slope(info: dict) -> Check:
    """Whether the gradient of the bound is 0 but for noise: a decaying learning rate stops a trace before that."""
    count, mean, sd = int(info["gradient_count"]), float(info["gradient_mean"]), float(info["gradient_sd"])
    noise = sd / np.sqrt(count)
    ratio = mean / noise if noise > 0 else np.inf
    said = f"The mean of {count} estimates of the bound's gradient has {ratio:.2f} times the norm that noise gives it"
    return graded(
        "gradient of the bound",
        ratio,
        SIGNAL,
        f"{said}, one of them a signal-to-noise ratio of {mean / sd:.2f}: no slope is left that could be told.",
        f"{said}, one of them a signal-to-noise ratio of {mean / sd:.2f}: training stopped on a slope.",
        "Raise num_steps or learning_rate.",
    )


def _evidence(info: dict) -> Check:
    change, rounds = float(info["evidence_change"]), len(info["evidence_trace"]) - 1
    said = f"The last of {rounds} turns moved a log scale by {change:.2g}"
    good = f"{said}: scales are at a maximum of the evidence for these weights."
    bad = f"{said}: scales have not settled."
    mend = "Raise evidence_rounds; a scale that falls without end belongs to weights that the data do not need."
    return graded("evidence", change, (1e-3, 1e-3), good, bad, mend, never_fails=True)


def _particles(residual: float) -> Check:
    said = f"What pulls the particles and what pushes them apart differ by {100 * residual:.3g} % of their size"
    good, bad = f"{said}: they are at rest.", f"{said}: they still move, and the answer depends on when they stop."
    mend = "Raise num_steps or learning_rate; a smooth activation comes to rest sooner than relu."
    return graded("particles at rest", residual, (0.1, 0.1), good, bad, mend, never_fails=True)


def _early_stopping(info: dict) -> Check:
    steps, going = np.asarray(info["best_step"]), int(np.sum(~np.asarray(info["stopped_early"])))
    of = f"of {len(steps)} networks" if len(steps) > 1 else "of the network"
    said = f"The best step {of} on {info['held_out_rows']} held-out rows came after {steps.min()} to {steps.max()}"
    return graded(
        "early stopping",
        going,
        (0, 0),
        f"{said}, and all stopped.",
        f"{said}; {going} had not stopped when the steps ran out.",
        "Raise num_steps.",
        shown=float(np.median(steps)),
        never_fails=True,
    )


def _spread(posterior: Posterior) -> Check:
    """How well the sd of f(x) is known from ``count`` independent draws: to 1 / √(2 (count - 1)) of itself."""
    count = posterior.num_chains * posterior.num_draws
    if count == 1:
        said = "One network has no doubt about its weights: intervals hold noise alone, too narrow away from data."
        return Check("spread", 0.0, "doubtful", said, "Use it as a baseline, or fit with 'nuts'.")
    error = 1 / np.sqrt(2 * (count - 1))
    said = f"The sd of f(x) over {count} networks is known to about {100 * error:.0f} % of itself."
    return graded("precision of the spread", error, SPREAD, said, said, "Take more members or draws.")


def _teacher(info: dict) -> Check:
    """One network stands for a posterior: it is no better than what it was taught."""
    said = (
        f"One network stands for {info['teacher_draws']} draws of {info['teacher']}, and its doubt is what it was "
        f"taught. Diagnosis of the teacher: {info['teacher_verdict']}"
    )
    if info["teacher_verdict"] == "passed":
        return Check("teacher", 1.0, "passed", f"{said}.")
    return Check("teacher", 0.0, info["teacher_verdict"], f"{said}. {info['teacher_summary']}", "Mend the teacher.")


def _distance(info: dict, place: str) -> Check:
    loss, rmse = info[f"{place}_divergence"], info[f"{place}_rmse"]
    said = (
        f"{PLACES[place]} the predictive is {loss:.2g} nats from the teacher's, and its mean off by {rmse:.2g} "
        "predictive sds (root mean square)"
    )
    mend = "Raise num_steps or hidden, or give the student a learning_rate of its own."
    return graded(f"distance from the teacher {PLACES[place]}", loss, LOSS[place], f"{said}.", f"{said}.", mend)


def _doubt(info: dict, place: str) -> Check:
    found, factor = info[f"{place}_correlation"], info[f"{place}_factor"]
    said = (
        f"{PLACES[place]} its epistemic sd correlates {found:.3f} with the teacher's, and is typically off by a factor "
        f"of {factor:.2f}"
    )
    lack = 0.0 if factor <= SAME_FACTOR else 1 - found
    limits = tuple(1 - limit for limit in CORRELATION)
    mend = "Raise num_steps, num_inputs or hidden."
    name = f"epistemic sd {PLACES[place]}"
    return graded(name, lack, limits, f"{said}.", f"{said}.", mend, shown=found)


def spreads(functions: np.ndarray, points: pd.DataFrame) -> tuple[pd.DataFrame, list[Check]]:
    """Columns and a check of how far f(x) spreads: of members with its standard error, of modes within and between.

    The variance over a mixture of modes of equal weight is the mean variance within plus the variance of their means.
    """
    modes, draws = functions.shape[:2]
    if modes > 1:
        within = np.sqrt(functions.var(1).mean(0))
        between = functions.mean(1).std(0)
        points = points.assign(sd_within=within, sd_between=between)
        inner = (points["where"] != "beyond").to_numpy()  # beyond the data all variances are large, and no measure
        total = float(np.mean((within**2 + between**2)[inner]))
        share = float(np.mean(between[inner] ** 2)) / total if total > 0 else 0.0
        said = (
            f"Between modes lies {100 * share:.0f} % of the variance of f(x), within them the rest, over {modes} modes."
        )
        return points, [Check("spread between modes", share, "passed", said)]
    if draws > 1:
        return points.assign(sd_error=points["sd"] / np.sqrt(2 * (draws - 1))), []
    return points, []
