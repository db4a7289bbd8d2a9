"""What it takes to repeat a fit: a few lines of Python, settings, timings and versions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bnn_zoo import datasets, uci
from bnn_zoo.datasets import Dataset
from bnn_zoo.posterior import STREAM, Posterior
from bnn_zoo.reports import plots
from bnn_zoo.reports.stacked import StackedPosterior


def repeat(posterior: Posterior) -> str:
    """Return a few lines of Python that repeat the fit, as far as it can be told how the data came to be."""
    if isinstance(posterior, StackedPosterior):
        return _repeat_stack(posterior)
    model = _code(posterior.model)
    precision = "float64" if posterior.x64 else "float32"
    stream = posterior.attributes.get(STREAM)
    lines = ["import bnn_zoo as zoo", "", _data_code(posterior.data) if stream is None else _stream_code(stream)]
    if not dataclasses.is_dataclass(posterior.model):
        lines.append(f"model = ...  # your own NumPyro model, {posterior.model_name!r}")
        model = "model"
    lines += [
        "posterior = zoo.fit(",
        f"    {model},",
        f"    {_code(posterior.method)},",
        "    data,",
        f"    seed={posterior.seed}, standardize={posterior.standardize}, precision={precision!r},",
        ")",
    ]
    more = posterior.num_draws - getattr(posterior.method, "num_samples", posterior.num_draws)
    if posterior.kind == "markov" and more > 0:
        lines.append(f"posterior = posterior.resume({more})")
    if any("dist." in line for line in lines[-7:]):
        lines.insert(0, "import numpyro.distributions as dist")
    return "\n".join(lines)


def _repeat_stack(stack: StackedPosterior) -> str:
    """The fits of all parts, one after another, and the call that stacked them."""
    left_out = "PSIS-LOO" in stack.method.weighed_on
    rows = "" if left_out else f", rows)  # {stack.method.weighed_on}"
    if stack.origin is not None:
        return f"{repeat(stack.origin)}\nposterior = zoo.stack(posterior{rows or ')'}"
    lines = ["parts = {}"]
    for name, part in stack.parts.items():
        if isinstance(part, Posterior):
            lines += ["", repeat(part), f"parts[{name!r}] = posterior"]
        else:
            lines += ["", f"parts[{name!r}] = zoo.infinite_width({_code(part.model)}, data, seed={part.seed})"]
    return "\n".join([*lines, "", f"posterior = zoo.stack(parts{rows or ')'}"])


def _code(value: Any) -> str:
    """Python that makes ``value``: settings that are the default are left out."""
    from numpyro.distributions import Distribution

    kind = type(value)
    if isinstance(value, Distribution):
        names = [name for name in value.arg_constraints if name in value.__dict__]
        return f"dist.{kind.__name__}({', '.join(f'{name}={_code(getattr(value, name))}' for name in names)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = kind.__module__.split(".")
        place = f"zoo.{parts[1]}." if parts[0] == "bnn_zoo" and parts[1] in ("models", "methods", "priors") else ""
        given = {field.name: _code(getattr(value, field.name)) for field in dataclasses.fields(value)}
        shown = ", ".join(
            f"{f.name}={given[f.name]}" for f in dataclasses.fields(value) if given[f.name] != _default(f)
        )
        return f"{place}{kind.__name__}({shown})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_code, value))}{',' * (len(value) == 1)})"
    if hasattr(value, "dtype") and np.ndim(value) == 0:
        return str(np.asarray(value)[()])  # the shortest text that gives the same number in its own precision
    return repr(value)


def _default(field: dataclasses.Field) -> str | None:
    if field.default is not dataclasses.MISSING:
        return _code(field.default)
    return _code(field.default_factory()) if field.default_factory is not dataclasses.MISSING else None


def _data_code(data: Dataset) -> str:
    """The line that makes ``data``: a set of the zoo, the training part of one, or one's own with a fingerprint."""
    # A set that would have to be downloaded is somebody's own data of the same name, more likely than not.
    if datasets.at_hand(data.name):
        whole, name = datasets.load(data.name), repr(data.name)
        if plots.same_rows(whole, data):
            return f"data = zoo.datasets.load({name})"
        for split in range(datasets.num_splits(data.name)):
            if plots.same_rows(whole.subset(uci.standard_split(len(whole), split)[0]), data):
                return f"data, test = zoo.datasets.load({name}, split={split})"
        left = len(whole) - len(data)
        for seed in range(10 if left > 0 else 0):
            if plots.same_rows(whole.split(left, seed)[0], data):
                return f"data, test = zoo.datasets.load({name}).split(test_size={left}, seed={seed})"
    names = f", feature_names={data.feature_names!r}" if data.num_features <= 12 else ", feature_names=..."
    return (
        f"# x {data.x.shape} and y {data.y.shape} are your own; SHA-256 of their float64 bytes: {data.sha256[:16]} …\n"
        f"data = zoo.Dataset(x, y{names}, target_name={data.target_name!r}, name={data.name!r})"
    )


def _stream_code(stream: str) -> str:
    return f"# x and y are your own, {stream}\ndata = zoo.Stream(x, y)  # with the blocks and windows of that line"


def facts(posterior: Posterior) -> list[tuple[str, str]]:
    """Settings, timings and versions, each with its name."""
    data, timing = posterior.data, posterior.timing
    unit = {"markov": "chain", "independent": "component", "members": "group"}[posterior.kind]
    count = f"{posterior.num_chains} {unit}{'s' * (posterior.num_chains != 1)}"
    facts = [
        ("Model", repr(posterior.model)),
        ("Method", repr(posterior.method)),
        ("Data", posterior.attributes.get(STREAM) or f"{data!r}; fingerprint {data.sha256[:16]}"),
        ("Seed", str(posterior.seed)),
        ("Standardised inside", "yes" if posterior.standardize else "no"),
        ("Draws", f"{count} × {posterior.num_draws}, {posterior.problem.size} parameters"),
        ("Compiling", f"{timing.compile_seconds:.1f} s"),
        ("Running", f"{timing.run_seconds:.1f} s"),
        ("Gradient evaluations", f"{timing.gradient_evaluations:,}"),
    ]
    shown = {"model", "method", "data", "seed", "standardize", "encoding"}
    known = {key: value for key, value in posterior.attributes.items() if key not in shown}
    return facts + [(key.removeprefix("version_"), value) for key, value in known.items()]


def name_of(value: Any, registered: str) -> str:
    """Return what a page calls a model or method: its class, or the name that it is registered under."""
    return type(value).__name__ if dataclasses.is_dataclass(value) else registered
