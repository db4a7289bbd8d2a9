"""The shell: ``python -m bnn_zoo``. Results go to standard output; progress, log lines and errors to standard error.

A subcommand is one function below, and one line in ``COMMANDS``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import bnn_zoo as zoo
from bnn_zoo.errors import ZooError, bad_value

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("bnn_zoo")


@dataclass(frozen=True)
class Command:
    """A subcommand: its name, one line of help, what it does, and how it declares its arguments."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], None]
    declare: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: done. 1: the file system refused. 2: the arguments cannot be used; one line on standard error says which and
    how to mend it. 130: interrupted.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    try:
        options = _parser().parse_args(argv)
        options.run(options)
    except SystemExit as stop:  # from argparse: --help, --version, or arguments that it has complained of already
        return int(stop.code or 0)
    except ZooError as error:
        print(f"bnn_zoo: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"bnn_zoo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bnn_zoo: interrupted", file=sys.stderr)
        return 130
    return 0


# --- commands ---------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> None:
    """Fit a small network to the diabetes data, and show all that a posterior is asked."""
    from bnn_zoo.reports.page import gallery

    folder = _folder(options.out)
    train, test = zoo.datasets.load("diabetes").split(test_size=0.2, seed=0)
    model, method = zoo.models.MLP(), zoo.methods.NUTS(num_warmup=500, num_samples=500)
    print(
        f"Demo: one hidden layer of {model.hidden[0]} units learns to predict the {train.target_name} of diabetes\n"
        f"over a year from {train.num_features} measurements on {len(train)} patients. NUTS draws from its posterior,\n"
        f"which is then judged on {len(test)} other patients. This takes about a minute on two cores.\n",
        flush=True,
    )
    posterior = zoo.fit(model, method, train, seed=options.seed)
    print(f"{posterior}\n")
    _print_scores(posterior, test)
    print(f"\n{posterior.diagnose()}\n")
    print(f"Report: {posterior.report(folder / 'diabetes.html', test)}", flush=True)
    for picture in gallery(posterior, test):
        path = folder / f"{picture.name}.png"
        try:
            picture.draw().savefig(path, dpi=150)
        except Exception:  # as in the report, one plot must not cost the others
            log.warning("the plot %r failed", picture.title, exc_info=True)
        else:
            print(f"Plot:   {path}", flush=True)


def _declare_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo_output", metavar="FOLDER", help="where to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the fit (default: %(default)s)")


COMMANDS = (
    Command("demo", "fit a network to the diabetes data, write a report and plots", _demo, _declare_demo),
    Command("models", "list the models", lambda _: _print_table(zoo.models.table())),
    Command("methods", "list the inference methods", lambda _: _print_table(zoo.methods.table())),
    Command("datasets", "list the data sets that come with the zoo", lambda _: _print_table(zoo.datasets.table())),
)


# --- arguments and printing -------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnn_zoo", description=zoo.__doc__)
    parser.add_argument("--version", action="version", version=f"bnn_zoo {zoo.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(command.name, help=command.help, description=command.help)
        command.declare(added)
        added.set_defaults(run=command.run)
    return parser


def _folder(path: str) -> Path:
    """Make the folder, before any work whose result it is to hold."""
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise bad_value("--out", "a folder", f"the file {path!r}", "Give another name.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _print_scores(posterior: zoo.Posterior, test: zoo.Dataset) -> None:
    from bnn_zoo.reports.page import with_error

    scores = posterior.evaluate(test.x, test.y)
    print(f"Scores on {len(test)} held-out rows, ± standard error, in the units of {test.target_name}:")
    for name, value in scores.items():
        shown, error = with_error(value, scores.attrs["standard_error"][name])
        print(f"  {name:<18} {shown:>8}" + (f" ± {error}" if error != "–" else ""))


def _print_table(frame: pd.DataFrame) -> None:
    """Print a frame of text, every column aligned on the left and as wide as it needs."""
    rows = [[str(cell) for cell in row] for row in [frame.columns, *frame.itertuples(index=False)]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
