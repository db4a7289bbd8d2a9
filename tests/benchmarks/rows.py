"""One line of the table of benchmarks: what it took us and another, round by round, and what was asked for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

HEAD = ("what", "against", "", "ours", "theirs", "ratio", "asked")


@dataclass(frozen=True)
class Row:
    """A comparison, whose sides took turns in one run.

    Attributes
    ----------
    item : str
        What was done: ``"deep ensemble of ten"``.
    against : str
        The other side: ``"PyTorch loop"``, ``"bare gradient"``.
    state : str
        ``"warm"``, ``"cold"`` (compilation included), ``"warm cache"``, or empty.
    unit : str
        Of both: ``"s"``, ``"µs"``, ``"MB"``.
    ours, theirs : list of float
        One number a round; ``theirs`` is empty where ours stands by itself.
    faster : bool
        The ratio says how many times as much the other side takes; otherwise what share of the other's we take.
    asked : float or None
        The least (of ``faster``) or the most (otherwise) that the ratio, or a number that stands by itself, should be.
    """

    item: str
    against: str
    state: str
    unit: str
    ours: list[float]
    theirs: list[float] = field(default_factory=list)
    faster: bool = True
    asked: float | None = None

    @property
    def ratios(self) -> np.ndarray:
        """One a round; empty where there is no other side."""
        ours, theirs = np.asarray(self.ours, float), np.asarray(self.theirs, float)
        if not theirs.size:
            return theirs
        return theirs / ours if self.faster else ours / theirs

    @property
    def met(self) -> bool | None:
        """Whether the median ratio is what was asked for."""
        if self.asked is None:
            return None
        middle = float(np.median(self.ratios if self.theirs else self.ours))
        return middle >= self.asked if self.faster else middle <= self.asked

    @property
    def cells(self) -> tuple[str, ...]:
        """As the table has it, medians with least and most in brackets."""
        unit = "×" if self.theirs else self.unit
        asked = "" if self.asked is None else f"{'≥' if self.faster else '≤'} {self.asked:g} {unit}".rstrip()
        asked += {None: "", True: ", met", False: ", **missed**"}[self.met]
        ratio = f"{_spread(self.ratios)} ×" if self.theirs else ""
        theirs = f"{_figure(np.median(self.theirs))} {self.unit}".rstrip() if self.theirs else ""
        ours = f"{_figure(np.median(self.ours))} {self.unit}".rstrip()
        return self.item, self.against, self.state, ours, theirs, ratio, asked


def _figure(value: float) -> str:
    """Three figures, without exponents."""
    return f"{float(f'{value:.3g}'):,.12g}"


def _spread(values: np.ndarray) -> str:
    middle, least, most = (_figure(float(f(values))) for f in (np.median, np.min, np.max))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def markdown(rows: Iterable[Row]) -> str:
    """The table, as a README holds it."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join([*lines, *("| " + " | ".join(row.cells) + " |" for row in rows)])


def show(rows: Iterable[Row]) -> str:
    """The table, for a terminal."""
    cells = [HEAD, *(row.cells for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows down, for the process that puts all of them together."""
    path.write_text(json.dumps([asdict(row) for row in rows]))


def command(
    doc: str | None, measure: Callable[[int, bool], list[Row]], rounds: int, given: argparse.Namespace | None = None
) -> None:
    """Run a benchmark from the shell: ``--rounds``, ``--short``, and ``--rows FILE`` for what runs all of them.

    What is asked for is asked of the whole work, so that rows of a small share of it come without.
    """
    given = given or parser(doc, rounds).parse_args()
    rows = measure(given.rounds, given.short)
    if given.short:
        rows = [replace(row, asked=None) for row in rows]
    print(show(rows))
    if given.rows:
        write(given.rows, rows)


def parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="in each of which every side has its turn")
    made.add_argument("--short", action="store_true", help="a small share of the work, to see that it runs")
    made.add_argument("--rows", type=Path, help="a file for the rows of the table")
    return made
