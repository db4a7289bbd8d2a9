"""``bnn-zoo diagnose`` and ``bnn-zoo report``: the verdict on a saved posterior, in words or as a page."""

from __future__ import annotations

import click

import bnn_zoo as zoo
from bnn_zoo.encoding import Encoding
from bnn_zoo.shell import tables
from bnn_zoo.shell.options import (
    File,
    Table,
    drop_missing_option,
    held_out_option,
    json_option,
    option,
    quiet_option,
    saved_argument,
    strict_option,
)
from bnn_zoo.shell.printing import diagnosis_as_json, posterior_as_json, print_json

DIAGNOSE = """\b
Examples:
  bnn-zoo diagnose houses.nc
  bnn-zoo diagnose houses.nc --reference nuts
  bnn-zoo diagnose houses.nc --strict --quiet > /dev/null && echo "safe to use"
"""

REPORT = """\b
Examples:
  bnn-zoo report houses.nc --out page.html
  bnn-zoo report houses.nc --out page.html --data houses.csv --held-out
"""


@click.command(epilog=DIAGNOSE, short_help="judge the draws of a saved posterior")
@saved_argument
@option("--data", type=Table(), metavar="TABLE", help="Judge at these rows too; else at points between those fitted.")
@option(
    "--reference",
    type=File(),
    metavar="nuts|SAVED",
    help="Compare with a short run of NUTS, made now, or with another saved posterior.",
)
@drop_missing_option
@strict_option
@json_option
@quiet_option
def diagnose(
    saved: str, data: str | None, reference: str | None, drop_missing: bool, strict: bool, as_json: bool, quiet: bool
) -> int:
    """Judge the draws of the posterior in the file SAVED, by the functions that they stand for.

    Each check passed, is doubtful or failed, and what to do about it is said below.
    """
    posterior = zoo.load(saved)
    x = None
    if data is not None:
        encoding, table = Encoding.of(posterior), tables.read(data)
        x = encoding.apply(tables.without_missing(table, list(encoding.columns), drop_missing))
    held = None
    if reference is not None:
        from bnn_zoo.reports.against import reference_for  # late, for a shell that starts soon

        held = reference_for(posterior, "nuts" if reference == "nuts" else zoo.load(reference), progress=not quiet)
    diagnosis = posterior.diagnose(x, reference=held)
    if as_json:
        print_json(posterior_as_json(posterior) | diagnosis_as_json(diagnosis))
    else:
        click.echo(f"{posterior}\n\n{diagnosis}")
    return 3 if strict and not diagnosis.ok else 0


@click.command(epilog=REPORT, short_help="write a page about a saved posterior")
@saved_argument
@option("--out", required=True, type=File(), metavar="FILE", help="The HTML file to write.")
@option("--data", type=Table(), metavar="TABLE", help="Rows to score on; else those that were fitted, which flatters.")
@held_out_option
@drop_missing_option
@json_option
@quiet_option
def report(
    saved: str, out: str, data: str | None, held_out: bool, drop_missing: bool, as_json: bool, quiet: bool
) -> None:
    """Write one self-contained HTML page about the posterior in the file SAVED."""
    target = tables.output("--out", out, "page.html", [saved, data])
    posterior = zoo.load(saved)
    test = None if data is None else tables.labelled({saved: posterior}, data, drop_missing, held_out)
    page = posterior.report(target, test)
    if as_json:
        print_json(posterior_as_json(posterior) | {"report": page})
    else:
        click.echo(f"Report: {page}")
