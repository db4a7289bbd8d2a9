"""Arguments and options that several commands share, what they accept, and how they complete."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

import bnn_zoo as zoo
from bnn_zoo.errors import bad_value
from bnn_zoo.registry import Registry

log = logging.getLogger("bnn_zoo")


class Registered(click.ParamType):
    """The name of a model or a method; whether it is one is for `bnn_zoo.fit` to say."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.name = registry, registry.kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the registered names."""
        return [CompletionItem(e.name, help=e.summary) for e in self.registry.entries if e.name.startswith(incomplete)]


class Table(click.ParamType):
    """A file with a table, or the name of a data set."""

    name = "table"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the data sets, and files."""
        found = [CompletionItem(name) for name in zoo.datasets.table()["name"] if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")]


class SetAndFile(click.Tuple):
    """The name of a data set and that of a file, in one option."""

    def __init__(self) -> None:
        super().__init__([str, str])

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the data sets, and files: click does not tell which of the two it is."""
        return Table().shell_complete(ctx, param, incomplete)


class File(click.ParamType):
    """A file, completed as such; whether it can be used is said later, in our own words."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer files."""
        return [CompletionItem(incomplete, type="file")]


class Whole(click.ParamType):
    """A whole number from 0 on."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        if not (value.isascii() and value.isdigit()):
            raise bad_value(_shown(param), "a whole number from 0 on", repr(value), "0 is as good as any.")
        return int(value)


class Fraction(click.ParamType):
    """A share of the rows, from 0 up to but not including 1."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1:
            mend = "0.2 holds out a fifth of the rows; 0 fits them all."
            raise bad_value(_shown(param), "a fraction from 0 up to 1", repr(value), mend)
        return number


class Percentages(click.ParamType):
    """Levels of quantiles in per cent, as in 5,50,95."""

    name = "percentages"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read them."""
        if isinstance(value, tuple):
            return value
        try:
            levels = tuple(float(part) for part in value.split(","))
        except ValueError:
            levels = ()
        mend = "Write 5,50,95 for 5 %, 50 % and 95 %."
        if not levels or not all(0 < level < 100 for level in levels):
            raise bad_value(_shown(param), "percentages between 0 and 100, with commas between", repr(value), mend)
        if all(level < 1 for level in levels):  # 0.05,0.5,0.95 would be quantiles of a thousandth
            raise bad_value(_shown(param), "percentages, not fractions", repr(value), mend)
        if len(set(levels)) < len(levels):
            raise bad_value(_shown(param), "different from one another", repr(value), mend)
        return levels


def _shown(param: click.Parameter | None) -> str:
    return "the value" if param is None else param.opts[-1]


def _quieten(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    if value:
        log.setLevel(logging.WARNING)
    return value


def option(*names: str, **more: Any) -> Callable[[Any], Any]:
    """Declare an option whose default, where it has one, is shown in the help."""
    more.setdefault("show_default", not more.get("is_flag", False))
    return click.option(*names, **more)


saved_argument = click.argument("saved", type=File(), metavar="SAVED")
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object rather than text.")
quiet_option = option(
    "--quiet", is_flag=True, callback=_quieten, help="No progress and no log lines but warnings on standard error."
)
strict_option = option("--strict", is_flag=True, help="Exit with status 3 when a check of the posterior failed.")
drop_missing_option = option(
    "--drop-missing", is_flag=True, help="Leave out rows with missing values, and say how many."
)
held_out_option = option("--held-out", is_flag=True, help="Use only those rows that were not fitted.")
seed_option = option("--seed", type=Whole(), metavar="N", default=0, help="Of the fit, and of the rows held out.")
