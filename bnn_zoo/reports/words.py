"""What scores and failed checks mean to a reader, in sentences: the prose of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bnn_zoo.datasets import Dataset
from bnn_zoo.posterior import Posterior
from bnn_zoo.prediction import Prediction

if TYPE_CHECKING:
    from bnn_zoo.reports.convergence import Diagnosis
    from bnn_zoo.reports.grading import Check

VERDICTS = {
    "passed": "Nothing was found that speaks against using these draws.",
    "doubtful": "The draws can be used with care; mend what is named here before an important decision.",
    "failed": "Do not rely on these draws yet; the scores and plots below describe them all the same.",
}

# What each score is called, its unit ({target}: that of the target), and how to read it.
SCORES = {
    "rmse": ("Root mean squared error", "{target}", "Typical error of the predictive mean. Less is better."),
    "mae": ("Mean absolute error", "{target}", "Typical error of the predictive median. Less is better."),
    "nll": ("Negative log predictive density", "nats a row", "Surprise at the observations. Less is better."),
    "crps": ("Continuous ranked probability score", "{target}", "Error of the whole distribution. Less is better."),
    "coverage_50": ("Inside the central 50 % interval", "share", "0.50 is right."),
    "coverage_80": ("Inside the central 80 % interval", "share", "0.80 is right."),
    "coverage_90": ("Inside the central 90 % interval", "share", "0.90 is right."),
    "coverage_95": ("Inside the central 95 % interval", "share", "0.95 is right."),
    "interval_width_90": ("Mean width of the 90 % interval", "{target}", "Less is better, at the right coverage."),
    "interval_score_90": (
        "Interval score at 90 %",
        "{target}",
        "That width, and twenty times how far observations lie outside. Less is better.",
    ),
    "sharpness": ("Sharpness: mean predictive sd", "{target}", "Less is better, at the right coverage."),
    "calibration_error": ("Calibration error", "share", "0 is perfect; {chance:.3f} or so comes from chance alone."),
    "ause": (
        "Area under the sparsification error",
        "ratio",
        "0: the largest sds go with the largest errors; an sd that says nothing has 0.6 or so.",
    ),
}

# What a check that did not pass means for the numbers on the page. Other checks speak for themselves.
CONSEQUENCES = {
    "R-hat of f(x)": "Chains found different functions: another seed may give other means and intervals.",
    "R-hat of scalar sites": "The noise or a shared scale has not settled: the width of intervals may change.",
    "bulk ESS of f(x)": "There are few effective draws: predictive means are less precise than they look.",
    "tail ESS of f(x)": "There are few effective draws in the tails: the ends of intervals are imprecise.",
    "MCSE of f(x)": "The Monte Carlo error is not small: digits of the predictive mean may change with the seed.",
    "divergences": "Part of the posterior was not reached: uncertainty may be understated.",
    "E-BFMI": "Energies were explored slowly: heavy tails of the posterior may be missing.",
    "tree depth": "Trajectories were cut off: this costs time rather than correctness.",
    "trajectory length": "Trajectories were cut off: this costs time rather than correctness.",
    "acceptance": "The step size had not settled: effective draws cost more than they need to.",
    "spread": "Intervals hold noise alone: away from the data they are too narrow, and nothing here warns of it.",
    "precision of the spread": "With so few networks the width of intervals is itself uncertain.",
    "stationarity": "Training stopped short of a maximum: more steps would give another network.",
    "R-hat beyond the data": "Beyond the data another seed may give other means and intervals.",
    "residuals": "The width of intervals is off by about that factor, where the noise prevails.",
    "Pareto k-hat": "The shape of the posterior is not that of the approximation: widths of intervals may be off.",
    "ELBO": "Training had not ended: more steps would give other means and intervals.",
    "gradient of the bound": "Training had not ended: more steps would give other means and intervals.",
    "negative eigenvalues": "The approximation stands on a slope or a saddle: its widths along these are made up.",
    "width": "What makes these intervals wide is not the posterior: hold them against a sampler's.",
    "complete": "The fit was interrupted: what is shown comes from the draws made until then.",
}


def in_words(
    posterior: Posterior, data: Dataset, prediction: Prediction, scores: pd.Series, held_out: bool
) -> list[str]:
    """Say in sentences what the scores mean: error, width and honesty of intervals, and where the doubt comes from."""
    target, errors = data.target_name, scores.attrs["standard_error"]
    naive = float(np.sqrt(np.mean((data.y - posterior.data.y.mean()) ** 2)))
    error = " ± ".join(with_error(scores["rmse"], errors["rmse"]))
    # Under perfect calibration: the error estimated from the hits themselves would be 0 where all of them hit.
    nominal = np.sqrt(0.9 * 0.1 / len(data))
    off = (scores["coverage_90"] - 0.9) / nominal
    judgement = "in line with chance" if abs(off) <= 2 else "they are too narrow" if off < 0 else "they are too wide"
    doubt = float(np.mean(prediction.epistemic_std**2) / np.mean(prediction.std**2))
    sentences = [
        f"Predictions of {target} are typically off by {error} (root mean squared error); always predicting the mean "
        f"of the training data would be off by {shown(naive)}.",
        f"The 90 % intervals are {shown(scores['interval_width_90'])} wide on average and hold "
        f"{100 * scores['coverage_90']:.1f}\N{NO-BREAK SPACE}% of the observations, where "
        f"90\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{100 * nominal:.1f}\N{NO-BREAK SPACE}% "
        f"is expected: {judgement}.",
    ]
    if doubt > 0:
        sentences.append(
            f"Doubt about the function (epistemic) makes up {100 * doubt:.0f} % of the predictive variance, and more "
            "data would shrink it; the rest is noise, which would stay."
        )
    else:
        sentences.append("None of the predictive variance is doubt about the function: this is one network.")
    if not held_out:
        sentences.append(
            "All of this was measured on the rows that were fitted, and flatters the model. Give the report held-out "
            "rows, report(path, test), to know how it does on new ones."
        )
    return sentences


def with_error(value: float, error: float) -> tuple[str, str]:
    """Show a number and its standard error to the same decimals: two significant digits of the error, or its units."""
    if not np.isfinite(error) or error <= 1e-9 * abs(value):  # all but rounding
        return shown(value), shown(0.0 if error >= 0 else error)
    decimals = max(0, 1 - int(np.floor(np.log10(error))))
    if not np.isfinite(value) or decimals > 12 or abs(value) >= 1e12:
        return shown(value), shown(error)
    return f"{value:.{decimals}f}", f"{error:.{decimals}f}"


def shown(value: float) -> str:
    """Four digits of a number, or a dash."""
    return f"{value:.4g}" if np.isfinite(value) else "–"


def score_rows(scores: pd.Series, data: Dataset) -> list[tuple[str, ...]]:
    """Key, label, value, standard error, unit and reading of each score."""
    rows: list[tuple[str, ...]] = []
    chance = 0.3 / np.sqrt(len(data))
    for key, value in scores.items():
        label, unit, reading = SCORES.get(str(key), (str(key), "", ""))
        shown = with_error(value, scores.attrs["standard_error"][key])
        # Not str.format for the unit: braces in a target's name are its own.
        unit = data.target_name if unit == "{target}" else unit
        rows.append((str(key), label, *shown, unit, reading.format(chance=chance)))
    return rows


def caveats_of(diagnosis: Diagnosis, held_out: bool, rows: int) -> list[str]:
    """What a reader must not conclude: of each check that did not pass, and of the rows that were scored."""

    def consequence(check: Check) -> str:
        return f"{check.name} ({check.status}): {CONSEQUENCES.get(check.name, check.finding)}"

    found = [consequence(check) for check in diagnosis.checks if check.status != "passed"]
    if not held_out:
        found.append("Scores are on the training data: expect worse on new rows.")
    if rows < 50:
        found.append(f"Scores rest on {rows} rows: differences within two standard errors mean little.")
    return found
