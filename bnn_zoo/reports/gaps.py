"""``zoo.evaluate_gaps``: does uncertainty grow between the data? A fit a feature, the middle of it held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bnn_zoo import datasets
from bnn_zoo.datasets import Dataset, as_dataset
from bnn_zoo.errors import bad_type, bad_value, check_between, check_choice
from bnn_zoo.reports.scores import evaluate

# What a gap is told by at a glance; the table has every score.
SHOWN = ("rmse", "nll", "crps", "coverage_90", "epistemic_std", "auroc_epistemic")


@dataclass(frozen=True, eq=False, repr=False)
class Gaps:
    """Scores inside gaps and beside them.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a gap, by the name of its feature:

        - ``SCORE_gap`` and ``SCORE_near`` for every score of `Posterior.evaluate`, in the gap and on held-out rows from
          either side of it; ``epistemic_std_gap`` and ``epistemic_std_near``, means over rows, in the units of the
          target;
        - ``auroc_epistemic``: how well the epistemic sd tells the rows in the gap from those near; NaN for a point fit;
        - ``rows_train``, ``rows_gap``, ``rows_near``; ``shared``: the share of the gap's rows whose value of the
          feature occurs in training too, 0 in a true gap. A feature of few values has none.
    """

    table: pd.DataFrame

    @property
    def summary(self) -> pd.DataFrame:
        """One row a score: its mean over gaps ``gap`` and ``near``, and the standard errors of these means.

        An error is the sd over gaps over √(number of gaps). Gaps are made of the same rows, so that it tells how much
        features differ, not what other data would give. Of ``auroc_epistemic`` there is one number, under ``gap``.
        """
        rows = {}
        for name in [column.removesuffix("_gap") for column in self.table.columns if column.endswith("_gap")]:
            if name != "rows":
                rows[name] = _over_gaps(self.table[f"{name}_gap"], "gap") | _over_gaps(
                    self.table[f"{name}_near"], "near"
                )
        rows["auroc_epistemic"] = _over_gaps(self.table["auroc_epistemic"], "gap")
        return pd.DataFrame.from_dict(rows, orient="index", columns=["gap", "gap_se", "near", "near_se"])

    def __repr__(self) -> str:
        shown = self.summary.loc[list(SHOWN)].round(4)
        text = f"Gaps in {len(self.table)} features, one fit each; means over gaps:\n{shown.to_string(na_rep='–')}"
        shared = self.table.index[self.table["shared"] > 0.5]
        note = "Hardly gaps, as most of their values were trained on: "
        return text if shared.empty else f"{text}\n{note}{', '.join(map(str, shared))}."


def evaluate_gaps(
    model: Any,
    method: Any,
    data: Any,
    *,
    features: Any = None,
    near_size: float = 0.1,
    seed: int = 0,
    standardize: bool | None = None,
    progress: bool | str = True,
    precision: str | None = None,
) -> Gaps:
    """Fit once a feature without the middle third of the rows by that feature, and score in that gap and beside it.

    In a gap a model should be less sure than beside it, and as right as it claims to be. Intervals that are as narrow
    there as elsewhere, with a coverage that falls, are the failing that this was made to show in mean-field posteriors.

    Parameters
    ----------
    model, method
        As for `bnn_zoo.fit`.
    data : Dataset, pair or str
        As for `bnn_zoo.fit`, in memory. A set that is given by its name and has published gap splits is parted by
        them; any other by rank, of n rows those from n // 3 to 2 n // 3, ties in the order in which rows are listed.
    features : sequence of str or int, optional
        Which features to make gaps in, by name or number; by default all that have more than one value.
    near_size : float
        Share, strictly between 0 and 1, of the rows outside a gap that are held out too, at random. Without them the
        error in a gap could not be told from that on any new row.
    seed : int
        Of every fit, and of which rows are held out.
    standardize, progress, precision
        As for `bnn_zoo.fit`. Scaling is made from the rows that are trained on.

    Returns
    -------
    Gaps
        ``table``, one row a gap, and ``summary``, means over gaps with their standard errors.

    Raises
    ------
    ZooTypeError, ZooValueError
        Before any fit: if there is no such feature, or one has one value only, in which there is no gap; if there are
        too few rows, or ``near_size`` is not a share.

    References
    ----------
    Foong, Li, Hernández-Lobato & Turner (2019), 'In-Between' uncertainty in Bayesian neural networks, arXiv 1906.11537,
    section 4.2. There all rows outside a gap are trained on; here ``near_size`` of them are held out.
    """
    from bnn_zoo.fitting import fit  # stands above the reports

    whole = as_dataset(data)
    columns = _columns(whole, features)
    check_between("near_size", near_size, 0, 1, "0.1 holds out a tenth of the rows outside a gap.")
    if len(whole) < 9:
        raise bad_value("data", "9 rows or more", len(whole), "A gap takes a third of them.")
    rows = {}
    for column in columns:
        rest, gap = _parted(data, whole, column)
        train, near = rest.split(near_size, seed)
        posterior = fit(
            model, method, train, seed=seed, standardize=standardize, progress=progress, precision=precision
        )
        rows[whole.feature_names[column]] = _scored(posterior, train, gap, near, column)
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "feature"
    return Gaps(table)


def _columns(data: Dataset, features: Any) -> list[int]:
    names = data.feature_names
    varied = [i for i in range(data.num_features) if np.ptp(data.x[:, i]) > 0]
    if features is None:
        if not varied:
            raise bad_value("data", "with a feature that varies", "one value in every column", "Pass other columns.")
        return varied
    if isinstance(features, (str, int)) or not hasattr(features, "__iter__"):
        raise bad_type("features", "a list of names or numbers", repr(features), f"Pass [{features!r}].")
    found = [_column(names, feature) for feature in features]
    if not found:
        raise bad_value("features", "one or more", "none", "Leave it out for all.")
    for column in found:
        if column not in varied:
            got = f"{names[column]!r}, which is {data.x[0, column]:.4g} in every row"
            raise bad_value("features", "ones that vary", got, "Leave it out: there is no gap in it.")
    return list(dict.fromkeys(found))


def _column(names: tuple[str, ...], feature: Any) -> int:
    if isinstance(feature, (int, np.integer)) and not isinstance(feature, bool):
        if not 0 <= feature < len(names):
            raise bad_value("features", f"numbers from 0 to {len(names) - 1}, or names", feature, "Count from 0.")
        return int(feature)
    check_choice("features", feature, names)
    return names.index(feature)


def _parted(data: Any, whole: Dataset, column: int) -> tuple[Dataset, Dataset]:
    """Rows on both sides of a gap, and those in it."""
    if isinstance(data, str) and datasets.table().set_index("name")["gap_splits"].get(data, 0):
        return datasets.load(data, gap=column)
    order = np.argsort(whole.x[:, column], kind="stable")
    first, last = len(whole) // 3, 2 * len(whole) // 3
    return whole.subset(np.concatenate([order[:first], order[last:]])), whole.subset(order[first:last])


def _scored(posterior: Any, train: Dataset, gap: Dataset, near: Dataset, column: int) -> dict[str, float]:
    inside, beside = posterior.predict(gap.x), posterior.predict(near.x)
    near_scores = evaluate(beside, near.y, outside=inside)
    auroc = near_scores.pop("auroc_epistemic")
    found: dict[str, float] = {}
    for name, value in evaluate(inside, gap.y).items():
        found |= {f"{name}_gap": value, f"{name}_near": near_scores[name]}
    return found | {
        "epistemic_std_gap": float(inside.epistemic_std.mean()),
        "epistemic_std_near": float(beside.epistemic_std.mean()),
        "auroc_epistemic": auroc,
        "rows_train": len(train),
        "rows_gap": len(gap),
        "rows_near": len(near),
        "shared": float(np.isin(gap.x[:, column], train.x[:, column]).mean()),
    }


def _over_gaps(values: pd.Series, name: str) -> dict[str, float]:
    return {name: float(values.mean()), f"{name}_se": float(values.std(ddof=1) / np.sqrt(len(values)))}
