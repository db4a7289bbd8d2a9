"""Ranks of true values among draws: are they uniform, and how often do central intervals hold the truth?"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from scipy import stats

NUM_RANKS = 64
NUM_BINS = 16
LEVELS = (0.5, 0.8, 0.9, 0.95)
FUNCTIONS = "f(x*"  # what the names of function values begin with


def ranks_among(num_draws: int) -> int:
    """How many ranks a true value can have: 64 among 63 of many draws, fewer of members, in whole bins where it may.

    Ranks of L draws are whole numbers from 0 to L. From 16 on their number is a multiple of the 16 bins.
    """
    possible = min(num_draws + 1, NUM_RANKS)
    return possible // NUM_BINS * NUM_BINS if possible >= NUM_BINS else possible


def inside(ranks: np.ndarray, num_ranks: int, level: float) -> np.ndarray:
    """Share, 0 to 1, in which each rank counts as inside the central interval of ``level``.

    Its ends cut off ``num_ranks (1 - level) / 2`` ranks on either side; a rank that is cut in two counts in part, so
    that uniform ranks are inside with probability ``level`` exactly, however few the draws. Not a number where an end
    lies beyond all draws.
    """
    cut = num_ranks * (1 - level) / 2
    if cut < 1:
        return np.full(ranks.shape, np.nan)
    from_the_end = np.minimum(ranks, num_ranks - 1 - ranks)
    return np.clip(from_the_end + 1 - cut, 0.0, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """Ranks of the true values among draws, whether they are uniform, and how often intervals hold the truth.

    Attributes
    ----------
    ranks : pandas.DataFrame
        One row a simulated data set, one column a quantity; whole numbers from 0 to ``num_ranks - 1``.
    num_ranks : int
        64, or fewer for an ensemble: one more than the draws among which a true value is ranked.
    kind : str
        Of whose predictions the ranks of f(x*) are: ``"monte_carlo"`` of the draws of the weights, ``"linearized"`` or
        ``"moments"`` of the Normal that `bnn_zoo.Posterior.predict` gives of that kind.
    """

    ranks: pd.DataFrame
    num_ranks: int = NUM_RANKS
    kind: str = "monte_carlo"

    @property
    def table(self) -> pd.DataFrame:
        """One row a quantity: χ² of (mostly 16) equal bins, its p-value, mean rank as a share (1/2 is right), a word.

        A mean rank away from 1/2 is a bias; ``"too narrow"`` and ``"too wide"`` say that true values fall outside, or
        inside, the middle of the draws too often.
        """
        rows = []
        bins = min(NUM_BINS, self.num_ranks)
        for name in self.ranks.columns:
            ranks = self.ranks[name].to_numpy()
            counts = np.bincount(ranks * bins // self.num_ranks, minlength=bins)
            chi2, p = stats.chisquare(counts)
            unit = (ranks + 0.5) / self.num_ranks
            even = np.abs((np.arange(self.num_ranks) + 0.5) / self.num_ranks - 0.5).mean()
            spread = float(np.mean(np.abs(unit - 0.5)))
            word = "uniform" if p > 0.01 else "too narrow" if spread > even else "too wide or biased"
            rows.append((name, chi2, p, unit.mean(), word))
        return pd.DataFrame(rows, columns=["quantity", "chi2", "p_value", "mean_rank", "ranks"]).set_index("quantity")

    @property
    def coverage(self) -> pd.DataFrame:
        """How often central intervals hold the truth: one row a quantity, first f(x*) at all points together.

        ``coverage_50``, ``coverage_80``, ``coverage_90`` and ``coverage_95`` are shares of the data sets (0.9 is right
        for ``coverage_90``; less is over-confidence) and ``error_50`` and so on their standard errors: binomial for one
        quantity, and of the means of data sets for all points together, as points of one data set are correlated. A
        level whose interval would have to reach beyond all draws, as 95 % of five members, is not a number.
        """
        count, rows = len(self.ranks), {}
        functions = [name for name in self.ranks.columns if name.startswith(FUNCTIONS)]
        for name in (f"{FUNCTIONS}), all", *self.ranks.columns):
            row: dict[str, float] = {}
            for level in LEVELS:
                columns = functions if name not in self.ranks.columns else [name]
                held = inside(self.ranks[columns].to_numpy(), self.num_ranks, level).mean(axis=1)
                # Half a success and half a failure more: an error of 0 where all were held would be none.
                share = (held.sum() + 0.5) / (count + 1)
                binomial = np.sqrt(share * (1 - share) / count)
                error = held.std(ddof=1) / np.sqrt(count) if len(columns) > 1 else binomial
                row |= {f"coverage_{100 * level:.0f}": held.mean(), f"error_{100 * level:.0f}": error}
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")

    @property
    def ok(self) -> bool:
        """Whether every quantity's p-value is above 0.01 divided by the number of quantities (Bonferroni)."""
        return bool((self.table["p_value"] > 0.01 / len(self.ranks.columns)).all())

    @property
    def summary(self) -> str:
        """The verdict in one sentence, with the coverage of 90 % intervals of f(x*)."""
        first = self.coverage.iloc[0]
        level = 90 if np.isfinite(first["coverage_90"]) else 50
        share, error = first[f"coverage_{level}"], first[f"error_{level}"]
        word = "calibrated" if self.ok else "NOT CALIBRATED"
        held = f"central {level} % intervals of f(x*) hold the truth in {100 * share:.1f} % ± {100 * error:.1f} %"
        return f"Calibration over {len(self.ranks)} simulated data sets: {word}; {held}"

    def __repr__(self) -> str:
        # One column a level: the share and its standard error side by side.
        return f"{self.summary}\n{self.table.round(4).to_string()}\n{self._shown().to_string()}"

    def _repr_html_(self) -> str:
        colour = "#1a7f37" if self.ok else "#b42318"
        tables = self.table.join(self._shown(), how="outer", sort=False)
        tables = tables.reindex(self.coverage.index).round(4)
        return f'<b style="color:{colour}">{escape(self.summary)}</b>{tables.to_html(na_rep="")}'

    def _shown(self) -> pd.DataFrame:
        found, shown = self.coverage, {}
        for level in (f"{100 * one:.0f}" for one in LEVELS):
            pairs = zip(found[f"coverage_{level}"], found[f"error_{level}"], strict=True)
            shown[f"in {level} %"] = [
                f"{share:.3f} ± {error:.3f}" if np.isfinite(share) else "–" for share, error in pairs
            ]
        return pd.DataFrame(shown, index=found.index)
