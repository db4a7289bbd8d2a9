"""Leave-one-out columns of `bnn_zoo.compare`: how each posterior predicts its training rows from one another."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from bnn_zoo.engine import simplex
from bnn_zoo.posterior import ROWS, Posterior
from bnn_zoo.reports.loo import PARETO_K, kfold, loo, no_loo, standard_error

log = logging.getLogger("bnn_zoo")

COLUMNS = ("elpd_loo", "elpd_loo_se", "elpd_difference", "elpd_difference_se", "p_loo", "k_high", "loo_weight")
CHOICES = ("auto", "kfold", False)
FOLDS = 10
MOST_NUMBERS = 20_000_000  # draws × rows: some ten seconds


def columns(posteriors: dict[str, Any], how: str | bool) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the columns of each posterior, and sentences on those that are NaN or not to be relied on.

    ``how``: ``"auto"``, PSIS-LOO where it means something; ``"kfold"``, and 10 fits where it does not, or fails.
    """
    rows: dict[str, dict[str, Any]] = {name: dict.fromkeys(COLUMNS, np.nan) | {"loo_by": ""} for name in posteriors}
    targets = [posterior.data.y for posterior in posteriors.values()]
    if any(not np.array_equal(y, targets[0]) for y in targets):
        note = "elpd_loo is left out: the posteriors were not fitted to the same rows, so it cannot be compared."
        log.warning("compare: %s", note)
        return rows, [note]
    notes: list[str] = []
    scores: dict[str, np.ndarray] = {}
    for name, posterior in posteriors.items():
        found, pointwise, said = _one(name, posterior, how == "kfold")
        rows[name] |= found
        notes += said
        if pointwise is not None:
            scores[name] = pointwise
    if scores:
        _against_the_best(rows, scores)
    return rows, notes


def _one(name: str, posterior: Any, refit: bool) -> tuple[dict[str, Any], np.ndarray | None, list[str]]:
    """Columns of one posterior, its pointwise scores if there are any, and what is to be said."""
    reason = no_loo(posterior)
    numbers = posterior.num_chains * posterior.num_draws * len(posterior.data)
    if reason is None and numbers > MOST_NUMBERS:
        reason = f"{numbers:,} log likelihoods, more than compare weighs unasked; zoo.loo(posterior) does"
    found: dict[str, Any] = {}
    pointwise, notes = None, []
    if reason is None:
        result = loo(posterior)
        pointwise, k = result.elpd_i.values, result.pareto_k.values
        high = int((~(k <= PARETO_K)).sum())
        found = {"elpd_loo": result.elpd, "elpd_loo_se": result.se, "p_loo": result.p, "k_high": high, "loo_by": "psis"}
        if high:
            reason = f"a Pareto k above {PARETO_K} at {high} of {len(k)} rows, for which elpd_loo is not known"
    if reason is not None and refit:
        refused = _cannot_refit(posterior)
        if refused is None:
            pointwise, refitted = _refitted(name, posterior)
            return found | refitted, pointwise, [f"{name!r}: elpd_loo is by {FOLDS} folds, for {reason}."]
        reason = f"{reason}; no folds, for {refused}"
    if reason is not None:
        notes.append(f"{name!r} has {reason}." + ("" if refit else " loo='kfold' fits again."))
    return found, pointwise, notes


def _cannot_refit(posterior: Any) -> str | None:
    if not isinstance(posterior, Posterior) or not hasattr(posterior.method, "run"):
        return "it is not of one fit"
    if ROWS in posterior.attributes:
        return "its rows stayed on disk"
    return "it has fewer rows than folds" if len(posterior.data) < FOLDS else None


def _refitted(name: str, posterior: Posterior) -> tuple[np.ndarray, dict[str, Any]]:
    log.info("compare: fitting %r %d times, for K-fold cross-validation", name, FOLDS)
    result = kfold(
        posterior.model,
        posterior.method,
        posterior.data,
        k=FOLDS,
        seed=posterior.seed,
        standardize=posterior.standardize,
        precision="float64" if posterior.x64 else "float32",
    )
    fitted = posterior.predict(posterior.data.x).log_prob(posterior.data.y)
    return result.elpd_i.values, {
        "elpd_loo": result.elpd,
        "elpd_loo_se": result.se,
        "p_loo": float(fitted.sum()) - result.elpd,
        "loo_by": "kfold",
    }


def _against_the_best(rows: dict[str, dict[str, Any]], scores: dict[str, np.ndarray]) -> None:
    """Paired differences from the best, and the stacking weights of those that have scores."""
    best = max(scores, key=lambda name: scores[name].sum())
    for name, pointwise in scores.items():
        gap = pointwise - scores[best]
        rows[name] |= {"elpd_difference": float(gap.sum()), "elpd_difference_se": standard_error(gap)}
    matrix = np.stack(list(scores.values()), axis=1)
    if len(scores) > 1 and np.isfinite(matrix).all():
        for name, weight in zip(scores, simplex.most_likely(matrix)[0], strict=True):
            rows[name]["loo_weight"] = float(weight)
