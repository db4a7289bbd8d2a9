"""Inputs at which f is looked at: on the data, between them and beyond them."""

from __future__ import annotations

import numpy as np

MOST_POINTS = 64
MOST_BEYOND = 32
REACH = 1.5  # of half the range of the feature that leaves the data first


def probe_points(training: np.ndarray, held_out: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """Inputs at which f is judged, and what they are.

    At most 64 training inputs; 64 midpoints of random pairs of them; 64 held-out inputs, where there are such; and 32
    points beyond the data: training inputs moved away from the middle of the data until the first of their features is
    half as far again as the data reach.
    """
    generator = np.random.default_rng(0)

    def some(rows: np.ndarray) -> np.ndarray:
        return rows if len(rows) <= MOST_POINTS else rows[generator.choice(len(rows), MOST_POINTS, replace=False)]

    pairs = generator.integers(0, len(training), (2, MOST_POINTS))
    known = {"training": some(training), "between": training[pairs].mean(0)}
    beyond = {"beyond": _beyond(training, generator)}  # before held-out inputs, that these may not move it
    found = known | ({} if held_out is None else {"held-out": some(held_out)}) | beyond
    where = [name for name, rows in found.items() for _ in rows]
    return np.concatenate(list(found.values())), where


def _beyond(training: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    low, high = training.min(0), training.max(0)
    middle, half = (low + high) / 2, (high - low) / 2
    moving = half > 0
    from_middle = training[generator.integers(0, len(training), MOST_BEYOND)] - middle
    reached = np.max(np.abs(from_middle[:, moving]) / half[moving], axis=1, initial=0.0)
    away = reached > 0
    return middle + from_middle[away] * (REACH / reached[away])[:, None]
