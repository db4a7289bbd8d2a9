"""When are two models, or two methods, the same?  By their settings, not by their address.

Compiled programs are cached per model and method. Two ``MLP(hidden=(50,))`` must share one compilation, also when
a field is a NumPyro distribution, which Python compares by identity. ``fingerprint`` turns any setting into a
hashable value that is equal for equal settings; ``settings`` is the dataclass decorator that uses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any, dataclass_transform

import jax
import numpy as np
from numpyro.distributions import Distribution


def fingerprint(value: Any) -> Hashable:
    """Return a hashable stand-in for ``value``: equal settings give equal fingerprints."""
    if isinstance(value, Distribution):
        leaves, structure = jax.tree_util.tree_flatten(value)
        return type(value), tuple(fingerprint(leaf) for leaf in leaves), str(structure)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return type(value), tuple((name, fingerprint(getattr(value, name))) for name in names)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(value)
        return array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, (tuple, list)):
        return type(value), tuple(fingerprint(item) for item in value)
    if isinstance(value, dict):
        return dict, tuple((key, fingerprint(value[key])) for key in sorted(value))
    if isinstance(value, (bool, int, float, str)) or value is None:
        return type(value), value
    return value if isinstance(value, Hashable) else id(value)


def describe(value: Any) -> str:
    """Return the readable form of a setting: ``HalfNormal(scale=1.0)`` rather than an address."""
    if isinstance(value, Distribution):
        names = [name for name in value.arg_constraints if name in value.__dict__]
        inner = ", ".join(f"{name}={describe(getattr(value, name))}" for name in names)
        return f"{type(value).__name__}({inner})"
    if isinstance(value, (np.generic, jax.Array, np.ndarray)):
        array = np.asarray(value)
        return f"{array.item():.6g}" if array.ndim == 0 else np.array2string(array, threshold=6)
    return repr(value)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type) -> type:
    """Make ``cls`` a frozen, keyword-only dataclass, compared and shown by the values of its fields."""

    def equal(self: Any, other: object) -> bool:
        return type(self) is type(other) and fingerprint(self) == fingerprint(other)

    def digest(self: Any) -> int:
        return hash(fingerprint(self))

    def show(self: Any) -> str:
        inner = ", ".join(f"{f.name}={describe(getattr(self, f.name))}" for f in dataclasses.fields(self))
        return f"{type(self).__name__}({inner})"

    made: type = dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
    for name, function in {"__eq__": equal, "__hash__": digest, "__repr__": show}.items():
        setattr(made, name, function)
    return made
