"""Running moments of what an optimiser passes through: mean, variance, and the last deviations from the mean."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Iterates(NamedTuple):
    """Moments of ``taken`` iterates of every member.

    The sum of squares is kept about the running mean (Welford 1962): a mean of squares less the square of a mean, as in
    Maddox (2019, algorithm 1), is the same number, but lost to rounding where weights are far from 0.
    """

    taken: jax.Array
    mean: jax.Array  # (M, p)
    squares: jax.Array  # (M, p), about the mean
    deviations: jax.Array  # (M, K, p), each from the mean as it was then; the oldest is written over

    @classmethod
    def none(cls, z: jax.Array, rank: int) -> Iterates:
        """Return the moments of no iterate, for members like ``z (M, p)``."""
        zero = jnp.zeros_like(z)
        return cls(jnp.zeros((), jnp.int32), zero, zero, jnp.zeros((z.shape[0], rank, z.shape[1]), z.dtype))

    @classmethod
    def shapes(cls, members: int, rank: int, size: int, dtype: Any) -> Iterates:
        """Return what moments look like, for programs that are compiled before there are any."""
        z = jax.ShapeDtypeStruct((members, size), dtype)
        return jax.eval_shape(partial(cls.none, rank=rank), z)

    def add(self, z: jax.Array, wanted: jax.Array) -> Iterates:
        """Return the moments with ``z (M, p)`` in them, where ``wanted``."""
        taken = self.taken + wanted
        off = z - self.mean
        mean = self.mean + jnp.where(wanted, off / jnp.maximum(taken, 1).astype(z.dtype), 0.0)
        squares = self.squares + jnp.where(wanted, off * (z - mean), 0.0)
        rank = self.deviations.shape[1]
        deviations = self.deviations
        if rank:
            # A slot beyond the end is not written, which costs nothing; a branch would copy the whole array.
            slot = jnp.where(wanted, self.taken % rank, rank)
            deviations = deviations.at[:, slot].set(z - mean, mode="drop")
        return Iterates(taken, mean, squares, deviations)

    @property
    def variance(self) -> jax.Array:
        """Mean square deviation ``(M, p)`` from the mean."""
        return self.squares / jnp.maximum(self.taken, 1).astype(self.squares.dtype)
