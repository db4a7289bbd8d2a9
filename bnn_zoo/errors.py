"""What is refused, and the one grammar in which it is said.

Every refusal reads: *argument* should be *rule*; got *value*. *Mend.*
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Base of everything this package raises on purpose."""


class ZooValueError(ZooError, ValueError):
    """An argument of the right type has a value that cannot be used."""


class ZooTypeError(ZooError, TypeError):
    """An argument is of a type that cannot be used."""


class ProcessError(ZooError, RuntimeError):
    """Of several processes that share a fit, another one failed or is gone."""


def bad_value(argument: str, rule: str, got: object, mend: str) -> ZooValueError:
    """Return (not raise) the error for an unusable value."""
    return ZooValueError(_sentence(argument, rule, got, mend))


def bad_type(argument: str, rule: str, got: object, mend: str) -> ZooTypeError:
    """Return (not raise) the error for an unusable type."""
    return ZooTypeError(_sentence(argument, rule, got, mend))


def unknown_name(argument: str, name: str, known: Iterable[str]) -> ZooValueError:
    """Return (not raise) the error for a name that no registry holds, with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return bad_value(argument, "a registered name", repr(name), f"{hint}Known: {', '.join(known)}.")


def check_positive(argument: str, value: object, mend: str = "") -> None:
    """Raise unless ``value`` is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad_type(argument, "a number", repr(value), mend or "Give a number above 0.")
    if not 0 < value < float("inf"):
        raise bad_value(argument, "positive and finite", repr(value), mend or "Give a number above 0.")


def check_count(argument: str, value: object, least: int = 1, mend: str = "") -> None:
    """Raise unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_type(argument, "a whole number", repr(value), mend or f"Give an integer of at least {least}.")
    if value < least:
        raise bad_value(argument, f"at least {least}", repr(value), mend or f"Give an integer of at least {least}.")


def check_between(argument: str, value: object, low: float, high: float, mend: str = "") -> None:
    """Raise unless ``low < value < high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad_type(argument, "a number", repr(value), mend or f"Give a number between {low} and {high}.")
    if not low < value < high:
        raise bad_value(argument, f"between {low} and {high}", repr(value), mend or "Give a number inside that range.")


def check_choice(argument: str, value: object, choices: Iterable[str | bool | None]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Choose {choices[0]!r} if unsure."
        raise bad_value(argument, "one of " + ", ".join(map(repr, choices)), repr(value), hint)


def _sentence(argument: str, rule: str, got: object, mend: str) -> str:
    return f"{argument} should be {rule}; got {got}. {mend}".rstrip()
