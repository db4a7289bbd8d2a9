"""What plots ask of data and posteriors: matching columns, rows that are the same, a grid, a spread of draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.datasets import Dataset, as_dataset
from bnn_zoo.errors import bad_value, check_choice
from bnn_zoo.inputs import as_inputs, default_names

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior
    from bnn_zoo.prediction import Prediction

GRID = 200
MARGIN = 0.25


def matched(posterior: Posterior, data: Any) -> Dataset:
    """Give ``data`` with the columns, and their names, that ``posterior`` was fitted to; its own data for None.

    Columns of a named set are put in order; data without names are taken by position.

    Raises
    ------
    ZooTypeError, ZooValueError
        If they are not data, or lack a column.
    """
    fitted = posterior.data
    if data is None or data is fitted:
        return fitted
    given = as_dataset(data)
    unnamed = given.feature_names == default_names(given.num_features)
    x = given.x if unnamed else given.to_frame()[list(given.feature_names)]
    return Dataset(as_inputs(x, fitted.feature_names), given.y, fitted.feature_names, fitted.target_name, given.name)


def named(posterior: Posterior, data: Any) -> tuple[Dataset, str]:
    """Give the data as `matched` does, and what to call them: training rows are named as such."""
    found = matched(posterior, data)
    rows = "training observations" if same_rows(found, posterior.data) else "observations"
    return found, f"{len(found)} {rows} of {found.name}"


def inside(prediction: Prediction, y: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the share of observations ``y (n,)`` inside the central interval of each of ``levels (k,)``."""
    # Inside the central interval of probability c means |2 F(y) - 1| <= c, for every c at once.
    reach = np.sort(np.abs(2 * prediction.cdf(y) - 1))
    return np.searchsorted(reach, levels, side="right") / len(y)


def same_rows(one: Dataset, other: Dataset) -> bool:
    """Whether two sets hold the same rows in the same order."""
    return np.array_equal(one.x, other.x) and np.array_equal(one.y, other.y)


def scalar_sites(posterior: Posterior) -> list[str]:
    """Name the sites of one number a draw, such as the noise."""
    return list(posterior.scalars)


def has_relevance(posterior: Posterior) -> bool:
    """Whether the model has learnt a scale for each feature."""
    if "relevance" not in posterior.problem.reported:  # without making the weights of all draws
        return False
    found = posterior.draws.get("relevance")
    return found is not None and found.shape[2:] == (posterior.data.num_features,)


def spread(draws: np.ndarray, num: int) -> np.ndarray:
    """``num`` of all draws ``(C, S, m)``, evenly spread over chains and time: ``(num, m)``."""
    flat = draws.reshape(-1, draws.shape[-1])
    return flat[np.unique(np.linspace(0, len(flat) - 1, min(num, len(flat))).round().astype(int))]


def grid_over(values: np.ndarray) -> np.ndarray:
    """Points ``(GRID, 1)`` over the range of ``values`` and a quarter of it to either side."""
    margin = MARGIN * np.ptp(values) or 1.0
    return np.linspace(values.min() - margin, values.max() + margin, GRID)[:, None]


def column_of(data: Dataset, feature: str | int | np.integer | None) -> int:
    """Return the number of a feature given by name or number; the first for None."""
    names = data.feature_names
    if feature is None:
        return 0
    if isinstance(feature, (int, np.integer)) and not isinstance(feature, bool):
        if not 0 <= feature < len(names):
            raise bad_value("feature", f"a number from 0 to {len(names) - 1}, or a name", feature, "Count from 0.")
        return int(feature)
    check_choice("feature", feature, names)
    return names.index(feature)


def inputs_along(posterior: Posterior, values: np.ndarray, feature: int) -> np.ndarray:
    """Inputs ``(len(values), d)`` with one feature at ``values``, the others at their medians in the training data."""
    inputs = np.tile(np.median(posterior.data.x, axis=0), (len(values), 1))
    inputs[:, feature] = values
    return inputs
