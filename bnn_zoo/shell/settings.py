"""``--set model.hidden=50,50``: settings of a model, a method and a fit as text. Nothing in them is executed."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from bnn_zoo import methods, models
from bnn_zoo.errors import ZooError, ZooValueError, bad_value, unknown_name

FIT = ("chain_method", "precision", "standardize")
EXAMPLE = "For example --set method.num_samples=1000."


def settle(model: str, method: str, given: Sequence[str]) -> tuple[Any, Any, dict[str, Any]]:
    """Return the model and the method with the settings that were given, and the keywords of `bnn_zoo.fit`.

    Raises
    ------
    ZooTypeError, ZooValueError
        If a name or a key is unknown (the nearest is offered), a key is given twice, or a value cannot be used.
    """
    parts: dict[str, Any] = {"model": models.registry.look_up(model), "method": methods.registry.look_up(method)}
    fit: dict[str, Any] = {}
    seen: set[str] = set()
    for text in given:
        path, equals, value = text.partition("=")
        head, *keys = path.strip().split(".")
        if not equals or head not in ("model", "method", "fit") or not keys:
            raise _not_a_setting(text, path, parts)
        if path in seen:
            raise bad_value("--set", f"given once for {path}", "it twice", "Keep one of them.")
        seen.add(path)
        if head == "fit":
            if keys[0] not in FIT or len(keys) > 1:
                raise _unknown_key(path, "fit", FIT)
            fit[keys[0]] = parse(value)
        else:
            parts[head] = _replaced(parts[head], head, keys, parse(value))
    return parts["model"], parts["method"], fit


def parse(text: str) -> Any:
    """Return the value that ``text`` stands for: a Python literal (lists become tuples), a prior, or else the text.

    A prior is the name of a NumPyro distribution with numbers, as in ``HalfNormal(0.5)`` or ``Gamma(2, rate=1)``.

    Raises
    ------
    ZooValueError
        If it looks like a prior and is none.
    """
    text = text.strip()
    try:
        return _tuples(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        node = ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return _prior(node, text) if isinstance(node, ast.Call) else text


def _prior(node: ast.Call, text: str) -> Any:
    from numpyro import distributions
    from numpyro.distributions import Distribution

    found = {name: getattr(distributions, name) for name in distributions.__all__ if name != "Distribution"}
    known = [name for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Distribution)]
    function = node.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "HalfNormal(0.5) is one."
        raise bad_value("--set", "the name of a NumPyro distribution", repr(text), hint)
    try:
        args = [float(_number(arg)) for arg in node.args]
        keywords = {str(keyword.arg): float(_number(keyword.value)) for keyword in node.keywords}
        family = getattr(distributions, name)
        family(*args, **keywords, validate_args=True)  # for what it says of a negative scale
        return family(*args, **keywords)
    except Exception as error:  # whatever a distribution says of its arguments
        mend = (
            f"Give numbers, as in HalfNormal(0.5); {name} says: {str(error).splitlines()[0] if str(error) else error!r}"
        )
        raise bad_value("--set", "a prior with numbers that it can take", repr(text), mend) from error


def _number(node: ast.expr) -> int | float:
    value = ast.literal_eval(node)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{ast.unparse(node)} is no number")
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _replaced(thing: Any, path: str, keys: list[str], value: Any) -> Any:
    """Return ``thing`` with the setting ``keys[0]`` replaced, or one inside it."""
    known = [field.name for field in dataclasses.fields(thing)] if dataclasses.is_dataclass(thing) else []
    key, *rest = keys
    path = f"{path}.{key}"
    if key not in known:
        raise _unknown_key(path, type(thing).__name__, known)
    old = getattr(thing, key)
    if rest:
        value = _replaced(old, path, rest, value)
    elif isinstance(old, tuple) and isinstance(value, int) and not isinstance(value, bool):
        value = (value,)  # one hidden layer
    try:
        return dataclasses.replace(thing, **{key: value})
    except ZooError:
        raise
    except (TypeError, ValueError) as error:
        raise bad_value(f"--set {path}", f"a setting of {type(thing).__name__}", repr(value), str(error)) from error


def _unknown_key(path: str, owner: str, known: Sequence[str]) -> ZooValueError:
    head, _, key = path.rpartition(".")
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    hint = f"Did you mean {f'{head}.{near[0]}'!r}? " if near else ""
    listed = ", ".join(known) if known else "none"
    return bad_value("--set", f"a setting of {owner}", repr(path), f"{hint}Settings: {listed}.")


def _not_a_setting(text: str, path: str, parts: dict[str, Any]) -> ZooError:
    """Return the error for what has no head or no value, with the head that it may have lacked."""
    head, dot, _ = path.partition(".")
    if "=" in text and not dot:
        heads = [name for name, thing in parts.items() if head in {field.name for field in dataclasses.fields(thing)}]
        if heads := heads + ["fit"] * (head in FIT):
            mend = f"Write --set {heads[0]}.{text}."
            return bad_value("--set", "model.KEY=VALUE, method.KEY=VALUE or fit.KEY=VALUE", repr(text), mend)
    elif "=" in text:
        return unknown_name("--set", head, ("model", "method", "fit"))
    return bad_value("--set", "model.KEY=VALUE, method.KEY=VALUE or fit.KEY=VALUE", repr(text), EXAMPLE)
