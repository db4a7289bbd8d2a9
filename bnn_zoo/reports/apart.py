"""What each chain is worth by itself: scores hide chains that disagree, as their mixture predicts better than any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    from bnn_zoo.datasets import Dataset
    from bnn_zoo.posterior import Posterior

MOST_NUMBERS = 2**22
MOST_ROWS = 2000


def nll_of_chains(posterior: Posterior, data: Dataset) -> np.ndarray:
    """Mean negative log predictive density ``(C,)`` on ``data`` of each chain alone, in nats, per unit of the target.

    Over 2,000 of the rows, drawn with a fixed seed, where there are more.
    """
    rows = np.arange(len(data))
    if len(data) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(len(data), MOST_ROWS, replace=False))
    size = max(1, MOST_NUMBERS // (posterior.num_chains * posterior.num_draws))
    total = np.zeros(posterior.num_chains)
    for begin in range(0, len(rows), size):
        some = rows[begin : begin + size]
        each = logsumexp(posterior.log_likelihood(data.x[some], data.y[some]), axis=1)
        total -= (each - np.log(posterior.num_draws)).sum(1)
    return total / len(rows)


def in_words(posterior: Posterior, data: Dataset, nll: float) -> str:
    """Say how far the scores of single chains lie apart, and what that says of the score of all; for Markov chains."""
    alone = nll_of_chains(posterior, data)
    said = (
        f"Taken alone, its {len(alone)} chains score from {alone.min():.3g} to {alone.max():.3g} nats a row (NLL); all "
        f"together {nll:.3g}."
    )
    known = posterior.diagnose().inner
    worst = known.loc[known["rhat"].idxmax()]
    if not worst["rhat"] > 1.05:
        return said
    return (
        f"{said} The chains disagree about the function (R-hat up to {worst['rhat']:.2f}), so these scores are worth "
        "what this run is worth: a good score on rows like these, for a predictor that another seed would change. At "
        f"the input where they differ most, their means are {worst['sd_between']:.3g} {posterior.data.target_name} "
        "apart (sd)."
    )
