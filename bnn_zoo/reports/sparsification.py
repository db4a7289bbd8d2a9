"""Sparsification: does the error fall as the rows that a prediction is least sure of are taken away?"""

from __future__ import annotations

import numpy as np


def curve(squared: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return the root mean square of the ``k`` rows whose ``by`` is least, for every k from 1 to n.

    Rows of equal ``by`` come in no order: each counts with the mean square of all of them, so that the curve does not
    depend on how rows happen to be listed.

    Parameters
    ----------
    squared : ndarray
        ``(n,)`` squared errors.
    by : ndarray
        ``(n,)``, what the order is by: a predictive sd, or the squared errors themselves for the oracle.

    Returns
    -------
    ndarray
        ``(n,)``; the last entry is the error of all rows.
    """
    _, group, count = np.unique(by, return_inverse=True, return_counts=True)
    shared = np.bincount(group, squared) / count
    return np.sqrt(np.cumsum(np.repeat(shared, count)) / np.arange(1, len(squared) + 1))


def area_under_error(squared: np.ndarray, by: np.ndarray) -> tuple[float, float]:
    """Return the area under the sparsification error (AUSE), and its standard error over rows.

    Taken from the most uncertain row down, with S_k the RMSE of the k rows that are left, O_k that of the k rows of
    the smallest errors (the oracle), and R = S_n = O_n::

        AUSE = (1/n) Σ_k (S_k − O_k) / R

    0 means that the order of ``by`` is that of the errors. The standard error is the infinitesimal jackknife (Efron
    1982, section 6.3), sqrt(Σ_i D_i²) / n with D_i the derivative of AUSE by the weight of row i: in closed form, in
    the time of a sort.

    Parameters
    ----------
    squared : ndarray
        ``(n,)`` squared errors of the predictive mean.
    by : ndarray
        ``(n,)`` uncertainties.

    Returns
    -------
    value, error : float
        Without unit. 0 where there is no error at all; the standard error of one row is NaN.

    References
    ----------
    Ilg et al. (2018), Uncertainty estimates and multi-hypotheses networks for optical flow, ECCV, section 5.1. There
    the curves are of the mean endpoint error; here of the RMSE, over R likewise, so that both begin at 1.
    """
    whole = float(np.sqrt(squared.mean()))
    if whole == 0:
        return 0.0, 0.0 if len(squared) > 1 else np.nan
    (by_sd, tilt), (oracle, oracle_tilt) = (_area(squared, order) for order in (by, squared))
    value = (by_sd - oracle) / whole
    # A ratio moves with its denominator too: R = sqrt(mean of the squares), whose derivative is (e² − R²) / (2 R).
    each = (tilt - oracle_tilt) / whole - value * (squared - whole**2) / (2 * whole**2)
    count = len(squared)
    return value, float(np.sqrt(np.sum(each**2) / (count * (count - 1)))) if count > 1 else np.nan


def _area(squared: np.ndarray, by: np.ndarray) -> tuple[float, np.ndarray]:
    """Area under the curve of ``by``, and its derivative ``(n,)`` by the weight of each row, which sum to 0.

    With weights w in place of 1/n, S_k² = Σ_{j≤k} w_j e_j² / Σ_{j≤k} w_j and the area is Σ_k w_k S_k. A row of rank r
    takes part in S_k from k = r on: the derivative is S_r + Σ_{k≥r} (e² − S_k²) / (2 k S_k), less the area. Tied rows
    take the mean over the ranks that they share.
    """
    left = curve(squared, by)
    ranks = np.arange(1, len(squared) + 1)
    # Where nothing but rows without error is left the root has no derivative, and the curve does not move.
    slope = np.divide(1, 2 * ranks * left, out=np.zeros_like(left), where=left > 0)
    from_rank = [np.cumsum(term[::-1])[::-1] for term in (slope, slope * left**2)]
    _, group, count = np.unique(by, return_inverse=True, return_counts=True)
    begin = np.cumsum(count) - count
    level, steep = (np.add.reduceat(term, begin) / count for term in (left - from_rank[1], from_rank[0]))
    area = float(left.mean())
    return area, level[group] + squared * steep[group] - area
