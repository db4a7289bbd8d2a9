"""The commands in one group, and the exit statuses that a script can rely on."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

import bnn_zoo as zoo
from bnn_zoo.errors import ZooError, bad_value, unknown_name
from bnn_zoo.shell.compare import compare
from bnn_zoo.shell.demo import demo
from bnn_zoo.shell.fit import fit
from bnn_zoo.shell.judge import diagnose, report
from bnn_zoo.shell.listing import datasets, methods, models
from bnn_zoo.shell.predict import predict

log = logging.getLogger("bnn_zoo")

INTERRUPTED = 130

EPILOG = """\b
A first look:
  bnn-zoo demo

\b
From a table to a saved posterior, predictions and a page:
  bnn-zoo datasets --export diabetes diabetes.csv
  bnn-zoo fit diabetes.csv --target progression --save diabetes.nc --report diabetes.html
  bnn-zoo predict diabetes.nc diabetes.csv --out predictions.csv

\b
Exit status:
  0    done
  1    the file system refused, or something went wrong that is not yours
  2    arguments or data cannot be used; one line on standard error says which, and the mend
  3    with --strict: a check of the posterior failed
  130  interrupted; what was drawn until then is kept where --save or --report asks for it

\b
Completion of commands, options, models, methods and data sets:
  eval "$(_BNN_ZOO_COMPLETE=bash_source bnn-zoo)"      in .bashrc
  eval "$(_BNN_ZOO_COMPLETE=zsh_source bnn-zoo)"       in .zshrc
  _BNN_ZOO_COMPLETE=fish_source bnn-zoo | source       in config.fish
"""


class Shell(click.Group):
    """A group that says what was wrong in the package's one grammar, in one line, whoever found it."""

    def main(self, args: Any = None, *_: Any, standalone_mode: bool = True, **__: Any) -> Any:
        """Run one command; exit with its status, or return it where ``standalone_mode`` is False."""

        def run() -> Any:
            # One name for both entry points, from which completion makes that of its environment variable.
            return super(Shell, self).main(args, "bnn-zoo", standalone_mode=False)

        with logging_to_stderr():
            status = status_of(run)
        if standalone_mode:
            sys.exit(status)
        return status

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which one comes to need them."""
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find a subcommand; refuse an unknown name with the nearest known one."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            raise unknown_name("the command", name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)


@click.group(
    cls=Shell,
    name="bnn-zoo",
    help=zoo.__doc__,
    epilog=EPILOG,
    no_args_is_help=False,
    context_settings={"max_content_width": 120, "help_option_names": ["-h", "--help"]},
)
@click.version_option(zoo.__version__, prog_name="bnn_zoo", message="%(prog)s %(version)s")
def shell() -> None:
    """All the commands; each has its own file."""


for command in (fit, predict, compare, diagnose, report, models, methods, datasets, demo):
    shell.add_command(command)


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status, as listed in ``bnn-zoo --help``."""
    return shell.main(argv, standalone_mode=False)


def status_of(run: Callable[[], Any]) -> int:
    """Run, and turn what is raised on purpose into one line on standard error and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ± gets a question mark, not a traceback
    try:
        result = run()
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
    except ZooError as error:
        return _refused(error, 2)
    except click.UsageError as error:
        return _refused(_translated(error), 2)
    except OSError as error:
        if error.errno == errno.EPIPE:  # `bnn-zoo methods | head -1`: nobody listens any more
            _hush()
            return 1
        return _refused(error, 1)
    except (click.Abort, KeyboardInterrupt):
        return _refused("interrupted", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _refused(error: object, status: int) -> int:
    # Not click.echo: a standard error that is closed must not hide the status.
    print(f"bnn-zoo: {error}".replace("\n", " "), file=sys.stderr)
    return status


def _translated(error: click.UsageError) -> ZooError:
    """Say in our own words what click has to complain of."""
    path = error.ctx.command_path if error.ctx is not None else "bnn-zoo"
    helps = f"`{path} --help` shows examples."
    if isinstance(error, click.NoSuchOption):
        near = f"Did you mean {' or '.join(sorted(error.possibilities))}? " if error.possibilities else ""
        return bad_value("the option", f"one of {path}", error.option_name, f"{near}`{path} --help` lists them.")
    if isinstance(error, click.MissingParameter):
        name = "an argument" if error.param is None else error.param.opts[-1]
        shown = name if name.startswith("-") else name.upper()
        return bad_value(shown, "given", "nothing", helps)
    if isinstance(error, click.BadOptionUsage):
        return bad_value(
            error.option_name, "followed by its value", "nothing", "`bnn-zoo COMMAND --help` shows examples."
        )
    if error.ctx is not None and error.ctx.command is shell and "command" in error.message:
        return bad_value("the command", "given", "nothing", "`bnn-zoo --help` lists them.")
    said = error.format_message().rstrip(".").removeprefix("Got ")
    return bad_value("the arguments", f"those of {path}", said, helps)


def _hush() -> None:
    """Send what is still buffered nowhere: Python flushes at exit, and would complain."""
    with suppress(OSError, ValueError):  # a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Show this package's log lines as they are, on today's standard error, for the length of a command."""
    handler, level = logging.StreamHandler(sys.stderr), log.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
