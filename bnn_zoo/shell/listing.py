"""``bnn-zoo models``, ``methods`` and ``datasets``: what there is, and the settings that ``fit --set`` takes."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bnn_zoo as zoo
from bnn_zoo.engine.identity import describe
from bnn_zoo.registry import Registry
from bnn_zoo.shell import tables
from bnn_zoo.shell.options import Registered, SetAndFile, json_option, option
from bnn_zoo.shell.printing import print_json, print_table, records

if TYPE_CHECKING:
    import pandas as pd

DATASETS = """\b
Examples:
  bnn-zoo datasets
  bnn-zoo datasets --export diabetes diabetes.csv
"""


def _listing(registry: Registry) -> click.Command:
    """Make the command that lists a registry, or shows one of its entries."""

    def run(name: str | None, as_json: bool) -> None:
        if name is not None:
            return _show(registry, name, as_json)
        return _print(registry.table(), as_json)

    kind = registry.kind
    example = {"model": "mlp", "method": "nuts"}[kind]
    run.__doc__ = f"List the {kind}s, or show what one is, and its settings with their defaults."
    command = click.command(
        f"{kind}s",
        epilog=f"\b\nExamples:\n  bnn-zoo {kind}s\n  bnn-zoo {kind}s {example}",
        short_help=f"list the {kind}s",
    )
    return command(
        click.argument("name", required=False, type=Registered(registry), metavar="[NAME]")(json_option(run))
    )


models = _listing(zoo.models.registry)
methods = _listing(zoo.methods.registry)


@click.command(epilog=DATASETS, short_help="list the data sets that come with the zoo")
@option("--export", nargs=2, type=SetAndFile(), metavar="NAME FILE", help="Write one as CSV, TSV or Parquet.")
@json_option
def datasets(export: tuple[str, str] | None, as_json: bool) -> None:
    """List the data sets that come with the zoo, or write one to a file."""
    if export is None:
        return _print(zoo.datasets.table(), as_json)
    name, file = export
    target = tables.output("--export", file, f"{name}.csv")
    data = zoo.datasets.load(name)
    assert isinstance(target, Path)
    tables.write(data.to_frame(), target)
    told = {"name": name, "rows": len(data), "target": data.target_name, "out": target}
    if as_json:
        return print_json(told)
    return click.echo(f"{len(data)} rows of {name}: {target}; the target is {data.target_name}")


def _print(frame: pd.DataFrame, as_json: bool) -> None:
    if as_json:
        print_json(records(frame))
    else:
        print_table(frame)


def _show(registry: Registry, name: str, as_json: bool) -> None:
    """Print what an entry is, and the keys of ``--set`` with their defaults."""
    found = registry.look_up(name)
    settings = {field.name: describe(getattr(found, field.name)) for field in dataclasses.fields(found)}
    said = inspect.getdoc(type(found)) or ""
    if as_json:
        told: dict[str, Any] = {"name": name, "class": type(found).__name__, "about": said, "settings": settings}
        return print_json(told)
    click.echo(f"{name}: {said}\n\nSettings and their defaults, for fit --set:")
    width = max(map(len, settings), default=0)
    for key, value in settings.items():
        click.echo(f"  {registry.kind}.{key:<{width}} = {value}")
    return None
