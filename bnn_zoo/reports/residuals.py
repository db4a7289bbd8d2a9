"""Are the residuals of the training rows as large as the noise of the model says?

A posterior predictive check of one number (Gelman, Meng & Stern 1996, section 2): the mean over rows and draws of
((y − f(x)) / σ)². Of a linear model in its own posterior it is 1 on average over data sets, however many weights there
are: the residuals are smaller than the noise by just what the draws of f(x) add. A noise that was given and is wrong,
or a network too stiff for the data, shows at once; so does an approximation that lost the fit on its way from its mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnn_zoo.reports.grading import Check, Status

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior
    from bnn_zoo.prediction import Prediction

MOST_ROWS = 256
FACTORS = (1.1, 1.5)  # residuals over noise, either way
LARGE = 4.0  # standard errors below which a factor is chance


def judge(posterior: Posterior) -> list[Check]:
    """The check, of a posterior whose observations are Normal."""
    data = posterior.data
    some = np.arange(len(data))
    if len(data) > MOST_ROWS:
        some = np.sort(np.random.default_rng(0).choice(len(data), MOST_ROWS, replace=False))
    prediction = posterior.predict(data.x[some])
    if not prediction.is_normal:
        return []
    each = _squares(prediction, data.y[some])
    factor = float(np.sqrt(each.mean()))
    # Of a Normal the variance of a square is 2; real residuals have heavier tails.
    error = float(np.sqrt(max(2.0, each.var()) / len(each)))
    off = abs(factor**2 - 1)
    said = f"residuals of the training rows are {factor:.2f} times the noise of the model (1 is right)"
    large = max(factor, 1 / max(factor, 1e-12))
    if off <= LARGE * error or large <= FACTORS[0]:
        return [Check("residuals", factor, "passed", f"{said[0].upper()}{said[1:]}.")]
    status: Status = "doubtful" if large <= FACTORS[1] else "failed"
    if factor > 1:
        said = f"{said}: the noise is too small, or f misses what the data show, and intervals are too narrow."
        mend = "Give the noise a prior, noise=dist.HalfNormal(1.0), or take a wider network."
    elif posterior.kind == "members":
        # One network, or each of an ensemble, follows some of the noise: its residuals are smaller than it.
        status = "doubtful"
        said = f"{said}: the noise is too large, or the networks follow the noise of their rows."
        mend = "Give the noise a prior, noise=dist.HalfNormal(1.0), or stop earlier (hold_out=0.1)."
    else:
        said = f"{said}: the noise is too large, and intervals are too wide."
        mend = "Give the noise a prior, noise=dist.HalfNormal(1.0)."
    return [Check("residuals", factor, status, f"{said[0].upper()}{said[1:]}", mend)]


def _squares(prediction: Prediction, y: np.ndarray) -> np.ndarray:
    """((y − f) / σ)² of each row ``(n,)``, its mean over draws."""
    if prediction.kind != "monte_carlo":
        squared = (y - prediction.mean) ** 2 + prediction.epistemic_std**2
        return squared / prediction.aleatoric_std**2
    source, out = prediction._source, np.empty(len(y))
    targets = source.scaling.targets(y)
    for where, parts in source.blocks():
        rows = slice(0, where.stop - where.start)
        loc, scale = (np.asarray(parts.parameters[name], np.float64)[:, rows] for name in ("loc", "scale"))
        out[where] = np.mean(((targets[None, where] - loc) / scale) ** 2, axis=0)
    return out
