"""Seeds, as users give them, to keys, as JAX takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnn_zoo.errors import bad_type, bad_value


def seed_key(seed: Any) -> np.ndarray:
    """Return the raw key of a seed, equal to ``jax.random.PRNGKey(seed)`` but made without compiling anything.

    Raises
    ------
    ZooTypeError, ZooValueError
        Unless ``seed`` is a whole number from 0 to 2⁶⁴ − 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise bad_type("seed", "a whole number", repr(seed), "seed=0 repeats.")
    if not 0 <= seed < 2**64:
        raise bad_value("seed", "at least 0 and below 2**64", repr(seed), "seed=0 repeats.")
    return np.array([int(seed) >> 32, int(seed) & 0xFFFFFFFF], np.uint32)


def spawned(key: Any, num: int) -> np.ndarray:
    """Return ``num`` keys ``(num, 2)`` made of one, each the same however many there are, without compiling anything.

    NumPy's `SeedSequence` mixes them, which keeps what it makes from version to version.
    """
    return np.random.SeedSequence(np.asarray(key).tolist()).generate_state(2 * num, np.uint32).reshape(num, 2)
