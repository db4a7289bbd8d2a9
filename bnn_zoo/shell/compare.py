"""``bnn-zoo compare``: saved posteriors side by side on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import bnn_zoo as zoo
from bnn_zoo.errors import bad_value, unknown_name
from bnn_zoo.shell import tables
from bnn_zoo.shell.options import (
    File,
    Table,
    drop_missing_option,
    held_out_option,
    json_option,
    option,
    quiet_option,
    strict_option,
)
from bnn_zoo.shell.printing import print_json, print_table, records, with_error

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("rmse", "nll", "nll_difference", "crps", "coverage_90", "interval_width_90")

EPILOG = """\b
Examples:
  bnn-zoo compare nuts.nc map.nc --data test.csv
  bnn-zoo compare nuts.nc map.nc --data diabetes --held-out --reference nuts --out table.csv
"""


@click.command(epilog=EPILOG, short_help="compare saved posteriors on a table")
@click.argument("saved", nargs=-1, required=True, type=File(), metavar="SAVED...")
@option(
    "--data", required=True, type=Table(), metavar="TABLE", help="Rows to score on: a file, or a data set of the zoo."
)
@option("--reference", metavar="NAME", help="Also tell how far the others are from this one (its file, less .nc).")
@option("--out", type=File(), metavar="FILE", help="Write all columns to a CSV, TSV or Parquet file.")
@held_out_option
@drop_missing_option
@strict_option
@json_option
@quiet_option
def compare(
    saved: tuple[str, ...],
    data: str,
    reference: str | None,
    out: str | None,
    held_out: bool,
    drop_missing: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare the posteriors in the files SAVED on the rows of a table: one row a posterior.

    Scores with standard errors; the difference in nll from the best, with the standard error of paired differences;
    elpd_loo, the leave-one-out score of the rows that were fitted, where all were fitted to the same and it means
    something, and k_high, of how many rows it cannot be relied on; seconds, gradients, draws, and the verdict on the
    draws.
    """
    target = tables.output("--out", out, "table.csv", [*saved, data])
    names = _names(saved)
    if reference is not None and reference in saved:
        reference = names[saved.index(reference)]
    if reference is not None and reference not in names:
        raise unknown_name("--reference", reference, names)
    posteriors = {name: zoo.load(path) for name, path in zip(names, saved, strict=True)}
    rows = tables.labelled(posteriors, data, drop_missing, held_out)
    frame = zoo.compare(posteriors, rows, reference=reference)
    if target is not None:
        tables.write(frame.reset_index(), target)
    if as_json:
        told = {"data": rows.name, "rows": len(rows), "held_out": held_out, "reference": reference, "out": target}
        print_json(told | {"posteriors": records(frame.reset_index())})
    else:
        click.echo(
            f"Scores on {len(rows)} rows of {rows.name}, ± standard error, in the units of {rows.target_name}:\n"
        )
        print_table(_scores(frame))
        if reference is not None:
            click.echo(f"\nPredictions against those of {reference}, means over rows:\n")
            print_table(_distances(frame))
        if target is not None:
            click.echo(f"\nTable: {target}")
    return 3 if strict and (frame["verdict"] == "failed").any() else 0


def _names(saved: tuple[str, ...]) -> list[str]:
    """File names without suffix, or whole paths where those would not tell them apart."""
    if len({Path(path).resolve() for path in saved}) < len(saved):
        raise bad_value("SAVED", "different files", ", ".join(saved), "Name each of them once.")
    stems = [Path(path).stem for path in saved]
    return stems if len(set(stems)) == len(stems) else list(saved)


def _scores(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, list[str]] = {"posterior": list(frame.index)}
    for name in SCORES:
        pairs = zip(frame[name], frame[f"{name}_se"], strict=True)
        columns[name] = [with_error(value, error) for value, error in pairs]
    if frame["elpd_loo"].notna().any():
        pairs = zip(frame["elpd_loo"], frame["elpd_loo_se"], strict=True)
        columns["elpd_loo"] = [with_error(value, error) for value, error in pairs]
        columns["k_high"] = [with_error(value, float("nan")) for value in frame["k_high"]]
    columns["seconds"] = [f"{s:.1f}" for s in frame["compile_seconds"] + frame["run_seconds"]]
    columns["gradients"] = [f"{count:,}" for count in frame["gradients"]]
    columns |= {name: [str(value) for value in frame[name]] for name in ("draws", "verdict")}
    return pd.DataFrame(columns)


def _distances(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    from bnn_zoo.reports.comparison import DISTANCES

    shown = {name: [with_error(value, float("nan")) for value in frame[name]] for name in DISTANCES}
    return pd.DataFrame({"posterior": list(frame.index), **shown})
