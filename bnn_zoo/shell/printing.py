"""What goes to standard output: text for people, JSON for programs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

    from bnn_zoo.datasets import Dataset
    from bnn_zoo.posterior import Posterior
    from bnn_zoo.reports.convergence import Diagnosis


def print_json(value: Any) -> None:
    """Print one JSON document; what is not a finite number is null."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame as dictionaries."""
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in frame.itertuples(index=False)]


def print_table(frame: pd.DataFrame) -> None:
    """Print a frame of text, every column aligned on the left and as wide as it needs."""
    rows = [[str(cell) for cell in row] for row in [frame.columns, *frame.itertuples(index=False)]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_scores(scores: pd.Series, data: Dataset, held_out: bool = True) -> None:
    """Print scores, one a line, with their standard errors."""
    which = "held-out" if held_out else "training"
    click.echo(f"Scores on {len(data)} {which} rows, ± standard error, in the units of {data.target_name}:")
    for name, value in scores.items():
        click.echo(f"  {name:<18} {with_error(value, scores.attrs['standard_error'][name], 8)}")


def with_error(value: float, error: float, width: int = 0) -> str:
    """Show a number and its standard error, where it has one that is more than rounding."""
    from bnn_zoo.reports.words import with_error as pair

    error = error if error > 1e-9 * abs(value) else float("nan")
    shown, uncertain = pair(value, error)
    return f"{shown:>{width}}" + (f" ± {uncertain}" if uncertain != "–" else "")


def scores_as_json(scores: pd.Series) -> dict[str, Any]:
    """Scores with their standard errors by name."""
    errors = scores.attrs["standard_error"]
    return {name: {"value": value, "standard_error": errors[name]} for name, value in scores.items()}


def diagnosis_as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Verdict, whether that will do, every check, and what to do."""
    checks = [
        {"name": c.name, "value": c.value, "status": c.status, "finding": c.finding, "mend": c.mend}
        for c in diagnosis.checks
    ]
    return {"verdict": diagnosis.verdict, "ok": diagnosis.ok, "checks": checks, "mends": list(diagnosis.mends)}


def posterior_as_json(posterior: Posterior) -> dict[str, Any]:
    """What was fitted, how, to what, and what it cost."""
    timing = posterior.timing
    return {
        "model": posterior.attributes["model"],
        "method": posterior.attributes["method"],
        "data": posterior.data.name,
        "target": posterior.data.target_name,
        "rows": len(posterior.data),
        "seed": posterior.seed,
        "chains": posterior.num_chains,
        "draws": posterior.num_draws,
        "complete": posterior.complete,
        "compile_seconds": timing.compile_seconds,
        "run_seconds": timing.run_seconds,
        "gradients": timing.gradient_evaluations,
    }
