"""``bnn-zoo fit``: from a table to a posterior, its scores on rows held out, and the verdict on its draws."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bnn_zoo as zoo
from bnn_zoo.errors import bad_value
from bnn_zoo.shell import tables
from bnn_zoo.shell.options import (
    File,
    Fraction,
    Registered,
    Table,
    Whole,
    drop_missing_option,
    json_option,
    option,
    quiet_option,
    seed_option,
    strict_option,
)
from bnn_zoo.shell.printing import diagnosis_as_json, posterior_as_json, print_json, print_scores, scores_as_json
from bnn_zoo.shell.settings import settle

if TYPE_CHECKING:
    from bnn_zoo.datasets import Dataset
    from bnn_zoo.encoding import Encoding
    from bnn_zoo.posterior import Posterior

log = logging.getLogger("bnn_zoo")

EPILOG = """\b
Examples:
  bnn-zoo fit diabetes --method map
  bnn-zoo fit yacht --split 3
  bnn-zoo fit houses.csv --target price --drop id --save houses.nc --report houses.html
  bnn-zoo fit houses.csv --target price --model mlp --set model.hidden=50,50 --set 'model.noise=HalfNormal(0.5)' \\
      --method nuts --set method.num_samples=1000 --set fit.precision=float64
  bnn-zoo fit houses.csv --target price --method nuts --dry-run
  bnn-zoo fit houses.parquet --target price --test 0 --strict --json --quiet > fit.json

\b
Keys of --set and what they mean:
  bnn-zoo models mlp
  bnn-zoo methods nuts
  fit.standardize (True or False), fit.precision (float32 or float64), fit.chain_method
"""


@click.command(epilog=EPILOG, short_help="fit a model to a table")
@click.argument("data", type=Table(), metavar="DATA")
@option("--target", metavar="COLUMN", help="The column to predict; a data set of the zoo has its own.")
@option(
    "--model", type=Registered(zoo.models.registry), metavar="NAME", default="mlp", help="`bnn-zoo models` lists them."
)
@option(
    "--method",
    type=Registered(zoo.methods.registry),
    metavar="NAME",
    default="nuts",
    help="`bnn-zoo methods` lists them.",
)
@option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="model.KEY=…, method.KEY=… or fit.KEY=…; repeat it."
)
@option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out, one of row names say; repeat it.")
@option("--categorical", multiple=True, metavar="COLUMN", help="Numbers in it are names of categories; repeat it.")
@drop_missing_option
@option(
    "--test", type=Fraction(), metavar="FRACTION", default=0.2, help="Share of the rows to hold out for the scores."
)
@option("--split", type=Whole(), metavar="K", help="Hold out the K-th standard split of a data set instead, from 0 on.")
@seed_option
@option("--save", type=File(), metavar="FILE", help="Write the posterior, for predict, compare, diagnose and report.")
@option("--report", type=File(), metavar="FILE", help="Write one self-contained HTML page.")
@option(
    "--checkpoint", type=File(), metavar="FOLDER", help="Write down how far it has come; killed, it goes on from there."
)
@click.option("--dry-run", is_flag=True, help="Tell what it would take in memory and gradients, and do not fit.")
@strict_option
@json_option
@quiet_option
def fit(data: str, model: str, method: str, settings: tuple[str, ...], **options: Any) -> int:
    """Fit a model to DATA: a CSV, TSV or Parquet file, or a data set of the zoo by name.

    Columns of text are encoded as categories, with levels that are kept in the saved posterior. A fifth of the rows is
    held out, on which the scores are measured; --test 0 fits them all.
    """
    built, by, keywords = settle(model, method, settings)
    checkpoint = options["checkpoint"]
    save = tables.output("--save", options["save"], "posterior.nc", [data])
    report = tables.output("--report", options["report"], "report.html", [data, save])
    table = tables.read(data)
    if options["split"] is not None and table.target is None:
        mend = "Use --test FRACTION for a file."
        raise bad_value("--split", "given for a data set of the zoo alone", f"one for {data!r}", mend)
    encoding, whole = _encoded(table, options)
    train, test, how = _parted(data, whole, encoding, options)
    if options["dry_run"]:
        kept = {name: value for name, value in keywords.items() if name != "chain_method"}
        said = zoo.estimate(built, by, train, seconds=True, **kept)
        if options["as_json"]:
            print_json(dataclasses.asdict(said) | {"memory_bytes": said.memory_bytes, "fits": said.fits})
        else:
            click.echo(said)
        return 0
    posterior = zoo.fit(
        built, by, train, seed=options["seed"], progress=not options["quiet"], checkpoint=checkpoint, **keywords
    )
    more = {"encoding": encoding.to_json()} if any(encoding.columns.values()) else {}
    if test is not None:
        more["held_out"] = f"{len(test)} of {len(whole)} rows, by {how}"
    posterior = dataclasses.replace(posterior, attributes={**posterior.attributes, **more})
    if save is not None:  # first of all: whatever fails below, the draws are safe
        posterior.save(save)
    return _tell(posterior, test, save, report, options)


def _encoded(table: tables.Table, options: dict[str, Any]) -> tuple[Encoding, Dataset]:
    """Choose the columns, drop what is to be dropped, and turn text into numbers."""
    from bnn_zoo.encoding import Encoding, feature_columns

    target = options["target"] or table.target
    if target is None:
        columns = ", ".join(map(str, table.frame.columns[:20]))
        raise bad_value("--target", "given for a file", "nothing", f"Name the column to predict, one of: {columns}.")
    features = feature_columns(table.frame, target, options["drop"])
    frame = tables.without_missing(table, [*features, target], options["drop_missing"])
    encoding = Encoding.fit(frame, target, categorical=options["categorical"], drop=options["drop"])
    for name, levels in encoding.columns.items():
        if levels is not None:
            log.info("column %r is a category of %d levels: %s", name, len(levels), ", ".join(levels[:10]))
    return encoding, encoding.dataset(frame, table.name)


def _parted(
    source: str, whole: Dataset, encoding: Encoding, options: dict[str, Any]
) -> tuple[Dataset, Dataset | None, str]:
    """Hold rows out; return what is left to fit, what is held out, and the options that did it."""
    number, share, seed = options["split"], options["test"], options["seed"]
    if number is not None:
        train, test = (
            encoding.dataset(part.to_frame(), whole.name) for part in zoo.datasets.load(source, split=number)
        )
        return train, test, f"--split {number}"
    if not share:
        return whole, None, ""
    train, test = whole.split(share, seed)
    return train, test, f"--test {share:g} --seed {seed}"


def _tell(
    posterior: Posterior, test: Dataset | None, save: Path | None, report: Path | None, options: dict[str, Any]
) -> int:
    """Score, judge, report and print; return the exit status."""
    scored = posterior.data if test is None else test
    scores = posterior.evaluate(scored.x, scored.y)
    diagnosis = posterior.diagnose()
    if report is not None:
        posterior.report(report, test)
    if options["as_json"]:
        print_json(
            posterior_as_json(posterior)
            | {"scored_on": {"rows": len(scored), "held_out": test is not None}, "scores": scores_as_json(scores)}
            | diagnosis_as_json(diagnosis)
            | {"saved": save, "report": report}
        )
    else:
        click.echo(f"{posterior}\n")
        print_scores(scores, scored, held_out=test is not None)
        click.echo(f"\n{diagnosis}")
        if save is not None or report is not None:
            click.echo()
        if report is not None:
            click.echo(f"Report: {report}")
        if save is not None:
            click.echo(f"Saved:  {save}")
    if not posterior.complete and "stopped" not in posterior.result.info:
        return 130
    return 3 if options["strict"] and not diagnosis.ok else 0
