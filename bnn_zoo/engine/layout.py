"""Sites to one vector and back, with the slice that each site takes.

Every method works on one flat vector of unconstrained coordinates, whatever sites the model has: samplers,
optimisers and Gaussian approximations then need no tree handling, and a structure by layer is a slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Slot:
    """The place of one latent site in the vector."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    @property
    def where(self) -> slice:
        """Slice of the vector."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Layout:
    """All latent sites of a model, in the order in which it draws them."""

    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, shapes: dict[str, tuple[int, ...]]) -> Layout:
        """Lay out sites one behind the other."""
        slots, start = [], 0
        for name, shape in shapes.items():
            slots.append(Slot(name, tuple(shape), start))
            start += slots[-1].size
        return cls(tuple(slots))

    @property
    def size(self) -> int:
        """Length ``p`` of the vector."""
        return sum(slot.size for slot in self.slots)

    def unflatten(self, z: jax.Array) -> dict[str, jax.Array]:
        """Vector ``(p,)`` to one unconstrained array a site."""
        return {slot.name: z[slot.where].reshape(slot.shape) for slot in self.slots}

    def flatten(self, sites: dict[str, jax.Array]) -> jax.Array:
        """One unconstrained array a site to a vector ``(p,)``."""
        return jnp.concatenate([jnp.reshape(sites[slot.name], (slot.size,)) for slot in self.slots])
