"""Scores of a prediction on observations, in the units of the target, each with its standard error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bnn_zoo.inputs import as_targets
from bnn_zoo.prediction import Prediction
from bnn_zoo.reports.sparsification import area_under_error

COVERAGES = (0.5, 0.8, 0.9, 0.95)
CALIBRATION_LEVELS = np.linspace(0.05, 0.95, 19)
BOOTSTRAPS = 2000
INTERVAL = 0.9  # of the width and the score
NORMAL_975 = 1.959963984540054

NO_CRPS = "the likelihood is not Normal, and there is no closed form"
NO_EPISTEMIC = "there is no epistemic sd to rank by: one network, which has no doubt about f(x) anywhere"


def evaluate(prediction: Prediction, y: Any, *, outside: Prediction | None = None) -> pd.Series:
    """Return the scores of ``prediction`` on ``y (n,)``.

    Parameters
    ----------
    prediction : Prediction
        At n inputs.
    y : array-like
        ``(n,)`` observations there.
    outside : Prediction, optional
        By the same posterior at m inputs that are known to be unlike those it was fitted to; adds ``auroc_epistemic``.

    Returns
    -------
    pandas.Series
        - ``rmse``: root mean squared error of the predictive mean.
        - ``mae``: mean absolute error of the predictive median.
        - ``nll``: mean negative log predictive density, per unit of the target.
        - ``crps``: mean continuous ranked probability score (Gneiting & Raftery 2007, eq. 20); NaN where the likelihood
          is not Normal, as there is no closed form.
        - ``coverage_50``, ``coverage_80``, ``coverage_90``, ``coverage_95``: share of observations inside the central
          interval.
        - ``interval_width_90``: mean width of the central 90 % interval [l, u].
        - ``interval_score_90``: mean of u − l + (2/α) max(l − y, 0) + (2/α) max(y − u, 0) with α = 0.1: the width, and
          twenty times how far an observation lies outside (Gneiting & Raftery 2007, eq. 43). Less is better.
        - ``sharpness``: mean predictive sd, in the units of the target. Less is better, at the right coverage; it says
          nothing of the observations.
        - ``calibration_error``: mean over 19 levels of |share of observations inside the central interval − level|
          (Kuleshov 2018, absolute rather than squared). 0 is perfect; expect about 0.3 / √n from chance alone.
        - ``ause``: area under the sparsification error of the predictive sd (Ilg 2018), see
          `bnn_zoo.reports.sparsification.area_under_error`. 0 where the largest sd goes with the largest error, and so
          on down; an sd that says nothing has 0.59 where errors are Normal, and so has a perfect prediction if the
          noise is the same everywhere. Above that the order is worse than none.
        - ``auroc_epistemic``, with ``outside``: the probability that the epistemic sd at an outside input is above that
          at one of the n, ties counting half. 1 tells them apart without fail, 0.5 not at all. NaN where there is no
          epistemic sd, as for a point fit.

        ``attrs["standard_error"]`` holds the standard error of each over the test points (a Series of the same index):
        that of a mean where the score is one; for ``rmse`` by the delta method, for ``ause`` by the infinitesimal
        jackknife, for ``auroc_epistemic`` by DeLong (1988), and for ``calibration_error`` by 2,000 bootstrap samples of
        the rows, the same ones every time; where the prediction is calibrated that one is an eighth too large, as the
        bootstrap adds its chance to that of the data. The posterior is taken as given.
        ``attrs["interval"]`` is a frame, one row a coverage, with the ends ``low`` and ``high`` of a 95 % interval for
        it (Wilson 1927), which means something at 0 % and 100 % too.
        ``attrs["missing"]`` says of each score that is NaN why.

    Raises
    ------
    ZooTypeError, ZooValueError
        If ``y`` is not n finite numbers.
    """
    y = as_targets(y, len(prediction))
    squared = (y - prediction.mean) ** 2
    tail = (1 - INTERVAL) / 2
    low, median, high = prediction.quantile([tail, 0.5, 1 - tail])
    # Inside the central interval of probability c means |2 F(y) - 1| <= c, for every c at once.
    reach = np.abs(2 * prediction.cdf(y) - 1)
    outlying = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    means = {"mae": np.abs(y - median), "nll": -prediction.log_prob(y)}
    means["crps"] = prediction.crps(y) if prediction.is_normal else np.full(len(y), np.nan)
    means |= {f"coverage_{round(100 * c)}": reach <= c for c in COVERAGES}
    means |= {"interval_width_90": high - low, "interval_score_90": high - low + outlying / tail}
    means["sharpness"] = prediction.std
    found = {"rmse": _root(squared)} | {name: _mean(values) for name, values in means.items()}
    found |= {"calibration_error": calibration_error(reach), "ause": area_under_error(squared, prediction.std)}
    missing = {} if prediction.is_normal else {"crps": NO_CRPS}
    if outside is not None:
        inner, outer = prediction.epistemic_std, outside.epistemic_std
        known = inner.any() or outer.any()
        found["auroc_epistemic"] = auroc(inner, outer) if known else (np.nan, np.nan)
        missing |= {} if known else {"auroc_epistemic": NO_EPISTEMIC}
    return _series(found, missing, len(y))


def calibration_error(reach: np.ndarray) -> tuple[float, float]:
    """Return the mean distance of coverages from their levels, and its bootstrap standard error.

    Parameters
    ----------
    reach : ndarray
        ``(n,)``: the probability of the smallest central interval that holds each observation, |2 F(y) − 1|.
    """
    count, bins = len(reach), len(CALIBRATION_LEVELS) + 1
    counts = np.bincount(np.searchsorted(CALIBRATION_LEVELS, reach), minlength=bins)

    def distance(counts: np.ndarray) -> np.ndarray:
        shares = np.cumsum(counts, axis=-1)[..., :-1] / count
        return np.abs(shares - CALIBRATION_LEVELS).mean(axis=-1)

    # Rows drawn with replacement are a multinomial draw of these few counts, however many rows there are.
    again = np.random.default_rng(0).multinomial(count, counts / count, size=BOOTSTRAPS)
    return float(distance(counts)), float(distance(again).std(ddof=1)) if count > 1 else np.nan


def auroc(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float]:
    """Return P(a value of ``outside`` is above one of ``inside``), ties counting half, and its standard error.

    The error is that of DeLong, DeLong & Clarke-Pearson (1988): with V_j the share of inside values below outside
    value j, and W_i the share of outside values above inside value i, sqrt(var(V) / m + var(W) / n). It asks for no
    distribution, where Hanley & McNeil (1982) take the values to be exponential. From ranks, in the time of a sort
    (Sun & Xu 2014).

    Parameters
    ----------
    inside, outside : ndarray
        ``(n,)`` and ``(m,)``.
    """
    from scipy.stats import rankdata

    n, m = len(inside), len(outside)
    ranks = rankdata(np.concatenate([inside, outside]))
    above = (ranks[n:] - rankdata(outside)) / n
    below = 1 - (ranks[:n] - rankdata(inside)) / m
    error = np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n) if min(n, m) > 1 else np.nan
    return float(above.mean()), float(error)


def wilson(share: Any, count: int) -> tuple[Any, Any]:
    """Return the ends of the 95 % interval for a probability of which ``share`` was seen in ``count`` trials.

    Wilson (1927): the probabilities p for which the share is within 1.96 sqrt(p (1 − p) / n) of p.
    """
    z2 = NORMAL_975**2 / count
    middle = (share + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * share * (1 - share) + z2**2 / 4) / (1 + z2)
    return middle - half, middle + half


def _series(found: dict[str, tuple[float, float]], missing: dict[str, str], count: int) -> pd.Series:
    series = pd.Series({name: value for name, (value, _) in found.items()}, name="score", dtype=float)
    errors = {name: error for name, (_, error) in found.items()}
    series.attrs["standard_error"] = pd.Series(errors, name="standard error", dtype=float)
    names = [f"coverage_{round(100 * c)}" for c in COVERAGES]
    low, high = wilson(series[names].to_numpy(), count)
    series.attrs["interval"] = pd.DataFrame({"low": low, "high": high}, index=names)
    series.attrs["missing"] = missing
    return series


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error; of an infinite mean there is none."""
    mean = float(values.mean())
    known = len(values) > 1 and np.isfinite(mean)
    return mean, float(np.std(values, ddof=1) / np.sqrt(len(values))) if known else np.nan


def _root(squared: np.ndarray) -> tuple[float, float]:
    """Root of a mean; its error is that of the square over twice the root."""
    mean, error = _mean(squared)
    root = float(np.sqrt(mean))
    return root, error / (2 * root) if root else 0.0
