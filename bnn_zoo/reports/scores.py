"""Scores of a prediction on observations, in the units of the target, each with its standard error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bnn_zoo.inputs import as_targets
from bnn_zoo.prediction import Prediction

COVERAGES = (0.5, 0.9, 0.95)
CALIBRATION_LEVELS = np.linspace(0.05, 0.95, 19)


def evaluate(prediction: Prediction, y: Any) -> pd.Series:
    """Return the scores of ``prediction`` on ``y (n,)``.

    Returns
    -------
    pandas.Series
        - ``rmse``: root mean squared error of the predictive mean.
        - ``nll``: mean negative log predictive density, per unit of the target.
        - ``crps``: mean continuous ranked probability score (Gneiting & Raftery 2007); NaN where the likelihood is not
          Normal, as there is no closed form.
        - ``coverage_50``, ``coverage_90``, ``coverage_95``: share of observations inside the central interval.
        - ``interval_width_90``: mean width of the central 90 % interval.
        - ``calibration_error``: mean over 19 levels of |share of observations inside the central interval − level|
          (Kuleshov 2018, absolute rather than squared). 0 is perfect; expect about 0.3 / √n from chance alone.

        ``series.attrs["standard_error"]`` holds the standard error of each over the test points (a Series of the same
        index; none for ``calibration_error``).
    """
    y = as_targets(y, len(prediction))
    squared = (y - prediction.mean) ** 2
    nll = -prediction.log_prob(y)
    crps = prediction.crps(y) if prediction.is_normal else np.full(len(y), np.nan)
    # Inside the central interval of probability c means |2 F(y) - 1| <= c, for every c at once.
    reach = np.abs(2 * prediction.cdf(y) - 1)
    width = np.diff(prediction.interval(0.9), axis=1)[:, 0]
    inside = {f"coverage_{round(100 * c)}": reach <= c for c in COVERAGES}
    shares = (reach[:, None] <= CALIBRATION_LEVELS).mean(0)
    rmse = float(np.sqrt(squared.mean()))
    scores = {"rmse": rmse, "nll": nll.mean(), "crps": crps.mean()}
    scores |= {name: hits.mean() for name, hits in inside.items()}
    scores |= {"interval_width_90": width.mean(), "calibration_error": np.abs(shares - CALIBRATION_LEVELS).mean()}
    # The error of a root is that of its square over twice the root.
    errors = {"rmse": _standard_error(squared) / (2 * rmse) if rmse else 0.0}
    errors |= {"nll": _standard_error(nll), "crps": _standard_error(crps)}
    errors |= {name: _standard_error(hits) for name, hits in inside.items()}
    errors |= {"interval_width_90": _standard_error(width), "calibration_error": np.nan}
    series = pd.Series(scores, name="score", dtype=float)
    series.attrs["standard_error"] = pd.Series(errors, name="standard error", dtype=float)
    return series


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
