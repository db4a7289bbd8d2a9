"""The log posterior along a plane through weight space, and at draws: what `loss_surface` and `cycles` draw.

A plane is an origin and two orthonormal directions in the unconstrained coordinates ``z (p,)``. Heights over a grid of
it come from one compiled loop, a few points at a time: no more than these are held, whatever the grid and p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.predictive import AT_ONCE
from bnn_zoo.errors import bad_value

if TYPE_CHECKING:
    from bnn_zoo.posterior import Posterior

MOST_SIZE = 2**22  # numbers in all the weight vectors that are looked at side by side


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through weight space, in float64.

    Attributes
    ----------
    origin : ndarray
        ``(p,)``.
    directions : ndarray
        ``(2, p)``, orthonormal.
    """

    origin: np.ndarray
    directions: np.ndarray

    def coordinates(self, z: np.ndarray) -> np.ndarray:
        """Return the coordinates ``(k, 2)`` of the projections of ``z (k, p)``."""
        return (np.asarray(z, np.float64) - self.origin) @ self.directions.T

    def distances(self, z: np.ndarray) -> np.ndarray:
        """Return how far ``z (k, p)`` are from the plane, ``(k,)``."""
        off = np.asarray(z, np.float64) - self.origin
        inside = off @ self.directions.T
        return np.sqrt(np.maximum((off**2).sum(1) - (inside**2).sum(1), 0.0))


def through(points: np.ndarray) -> Plane:
    """Return the plane through three ``points (3, p)``, the first its origin, the second on its first axis.

    With w₁, w₂, w₃ the points: u = w₂ − w₁, v = (w₃ − w₁) − ⟨w₃ − w₁, u⟩ u / ‖u‖², each divided by its norm, as in
    Garipov (2018).

    Raises
    ------
    ZooValueError
        If they lie on a line.
    """
    first, second, third = np.asarray(points, np.float64)
    across, up = second - first, third - first
    width = np.linalg.norm(across)
    across = across / (width or 1.0)
    up = up - (up @ across) * across
    height = np.linalg.norm(up)
    if not min(width, height) > 1e-6 * np.linalg.norm(third - first) > 0:
        raise bad_value("the three points", "corners of a triangle", "points on a line", "Take others with which=.")
    return Plane(first, np.stack([across, up / height]))


def along_components(origin: np.ndarray, deviations: np.ndarray) -> Plane:
    """Return the plane at ``origin (p,)`` along the first two principal components of ``deviations (k, p)``.

    They are taken as they are, about 0, and the components come from their k × k products, so that p may be large.

    Raises
    ------
    ZooValueError
        If they span no plane.
    """
    off = np.asarray(deviations, np.float64)
    size, vectors = np.linalg.eigh(off @ off.T)
    if len(size) < 2 or not size[-2] > 1e-12 * size[-1] > 0:
        raise bad_value("the draws", "spread in two directions at least", "fewer", "Fit with more draws or weights.")
    directions = (vectors[:, [-1, -2]] / np.sqrt(size[[-1, -2]])).T @ off
    return Plane(np.asarray(origin, np.float64), directions)


def log_posteriors(posterior: Posterior, z: np.ndarray) -> np.ndarray:
    """Return the log posterior ``(k,)`` at ``z (k, p)``, in nats, on the model's scale and up to a constant."""
    with jax.enable_x64(posterior.x64):
        return np.asarray(call(_heights, (), posterior.problem, np.asarray(z, posterior.problem.x.dtype)), float)


def heights(posterior: Posterior, plane: Plane, across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the log posterior ``(h, w)`` over the grid of ``across (w,)`` and ``up (h,)`` in ``plane``."""
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    dtype = posterior.problem.x.dtype
    arrays = (np.asarray(a, dtype) for a in (plane.origin, plane.directions, grid))
    with jax.enable_x64(posterior.x64):
        found = call(_over, (), posterior.problem, *arrays)
    return np.asarray(found, float).reshape(len(up), len(across))


# --- compiled programs ----------------------------------------------------------------------------------------------


def _at_once(problem: Problem) -> int:
    return max(1, min(64, AT_ONCE // problem.num_rows, MOST_SIZE // problem.size))


def _heights(problem: Problem, z: jax.Array) -> jax.Array:
    return lax.map(problem.log_posterior, z, batch_size=_at_once(problem))


def _over(problem: Problem, origin: jax.Array, directions: jax.Array, grid: jax.Array) -> jax.Array:
    def height(place: jax.Array) -> jax.Array:
        # Sums rather than a product of matrices, which an accelerator may round.
        return problem.log_posterior(origin + place[0] * directions[0] + place[1] * directions[1])

    return lax.map(height, jnp.asarray(grid), batch_size=_at_once(problem))
