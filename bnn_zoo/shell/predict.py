"""``bnn-zoo predict``: what a saved posterior says of new rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import numpy as np

import bnn_zoo as zoo
from bnn_zoo.encoding import Encoding, missing_rows
from bnn_zoo.errors import bad_value
from bnn_zoo.inputs import column_names
from bnn_zoo.shell import tables
from bnn_zoo.shell.options import File, Percentages, Table, json_option, option, quiet_option, saved_argument
from bnn_zoo.shell.printing import print_json, records

if TYPE_CHECKING:
    import pandas as pd

    from bnn_zoo.posterior import Posterior

EPILOG = """\b
Examples:
  bnn-zoo predict houses.nc new.csv --out predictions.csv
  bnn-zoo predict houses.nc new.csv --keep id --quantiles 2.5,50,97.5 --out predictions.parquet
  bnn-zoo predict houses.nc new.csv | head
"""


@click.command(epilog=EPILOG, short_help="predict new rows with a saved posterior")
@saved_argument
@click.argument("new", type=Table(), metavar="NEW")
@option("--out", type=File(), metavar="FILE", help="A CSV, TSV or Parquet file to write, instead of standard output.")
@option(
    "--quantiles",
    type=Percentages(),
    metavar="PERCENT,…",
    default=(5.0, 50.0, 95.0),
    show_default="5,50,95",
    help="Which.",
)
@option("--keep", multiple=True, metavar="COLUMN", help="Copy a column of NEW beside the predictions; repeat it.")
@option("--drop-missing", is_flag=True, help="Leave predictions of rows with missing values empty, and say how many.")
@json_option
@quiet_option
def predict(
    saved: str,
    new: str,
    out: str | None,
    quantiles: tuple[float, ...],
    keep: tuple[str, ...],
    drop_missing: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Predict the rows of NEW, a CSV, TSV or Parquet file, with the posterior in the file SAVED.

    One row of the answer is one row of NEW, in the units of the target: mean, std, epistemic_std (doubt about the
    function), aleatoric_std (noise), and quantiles q5, q50, q95. Columns that were not fitted are not needed, nor read.
    """
    target = tables.output("--out", out, "predictions.csv", [saved, new])
    posterior = zoo.load(saved)
    table = tables.read(new)
    frame = predictions(posterior, table, quantiles, drop_missing)
    names = column_names(table.frame)
    for name in reversed(keep):
        if name not in names:
            raise bad_value("--keep", "a column of the table", repr(name), f"Columns: {', '.join(names[:20])}.")
        if name in frame.columns:
            raise bad_value("--keep", "a column with another name than a prediction's", repr(name), "Rename it first.")
        frame.insert(0, name, table.frame.iloc[:, names.index(name)].to_numpy())
    if target is not None:
        tables.write(frame, target)
    if as_json:
        told = {"rows": len(frame), "columns": list(frame.columns), "out": target}
        print_json(told | ({} if target is not None else {"predictions": records(frame)}))
    elif target is not None:
        click.echo(f"Predictions of {posterior.data.target_name} for {len(frame)} rows: {target}")
    else:
        click.echo(frame.to_csv(index=False), nl=False)


def predictions(
    posterior: Posterior, table: tables.Table, quantiles: tuple[float, ...], drop_missing: bool
) -> pd.DataFrame:
    """One row a row of the table; empty where ``drop_missing`` and a value is missing."""
    import pandas as pd

    encoding = Encoding.of(posterior)
    whole = tables.without_missing(table, list(encoding.columns), drop_missing)
    prediction = posterior.predict(encoding.apply(whole))
    columns = {name: getattr(prediction, name) for name in ("mean", "std", "epistemic_std", "aleatoric_std")}
    values = prediction.quantile(np.array(quantiles) / 100)
    columns |= {f"q{level:g}": row for level, row in zip(quantiles, values, strict=True)}
    frame = pd.DataFrame(columns)
    if len(whole) == len(table.frame):
        return frame
    rows = np.flatnonzero(~missing_rows(table.frame, list(encoding.columns)))
    return frame.set_index(rows).reindex(range(len(table.frame)))
