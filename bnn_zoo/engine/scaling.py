"""Between the user's units and the scale on which a model is fitted."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

log = logging.getLogger("bnn_zoo")


@dataclass(frozen=True, eq=False)
class Scaling:
    """Centres and scales of inputs ``(d,)`` and of the target; zeros and ones where data are left alone."""

    x_centre: np.ndarray
    x_scale: np.ndarray
    y_centre: float = 0.0
    y_scale: float = 1.0

    @classmethod
    def none(cls, num_features: int) -> Scaling:
        """Leave data alone."""
        return cls(np.zeros(num_features), np.ones(num_features))

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray, names: tuple[str, ...]) -> Scaling:
        """Centre on the mean and scale by the standard deviation; a constant column is scaled by 1, with a warning."""
        x_centre, x_scale = x.mean(0), x.std(0)
        # A column of one value, 0.1 say, has a tiny non-zero sd from rounding.
        constant = x_scale <= 1e-12 * np.maximum(np.abs(x_centre), np.finfo(float).tiny)
        if constant.any():
            log.warning(
                "constant column(s) %s carry no information; scaled by 1", [names[j] for j in constant.nonzero()[0]]
            )
        y_centre, y_scale = float(y.mean()), float(y.std())
        if y_scale <= 1e-12 * max(abs(y_centre), np.finfo(float).tiny):
            log.warning("the target is constant; scaled by 1")
            y_scale = 1.0
        return cls(x_centre, np.where(constant, 1.0, x_scale), y_centre, y_scale)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """User's inputs ``(m, d)`` to the model's."""
        return (x - self.x_centre) / self.x_scale

    def targets(self, y: np.ndarray) -> np.ndarray:
        """User's targets to the model's."""
        return (y - self.y_centre) / self.y_scale

    def from_model(self, f: np.ndarray) -> np.ndarray:
        """Model's location to the user's units, in float64."""
        return np.asarray(f, np.float64) * self.y_scale + self.y_centre

    @property
    def log_jacobian(self) -> float:
        """Add to a log density per row on the model's scale to have it in the user's units."""
        return -float(np.log(self.y_scale))
