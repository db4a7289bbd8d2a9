"""Files in and out: tables of text or Parquet, or data sets of the zoo; saved posteriors; and where results may go."""

from __future__ import annotations

import difflib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import bnn_zoo as zoo
from bnn_zoo import inputs
from bnn_zoo.encoding import Encoding, missing_rows
from bnn_zoo.errors import bad_value
from bnn_zoo.paths import as_path, writable_file

if TYPE_CHECKING:
    import pandas as pd

    from bnn_zoo.datasets import Dataset
    from bnn_zoo.posterior import Posterior

log = logging.getLogger("bnn_zoo")

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Table:
    """A frame as it was read, what it is called, and its target where that is known."""

    frame: pd.DataFrame
    name: str
    target: str | None = None


def read(source: str) -> Table:
    """Read a file (CSV, semicolons, TSV, Parquet), or take a data set of the zoo by name.

    Raises
    ------
    ZooValueError
        If there is no such file or name, or the file is no table.
    """
    names = list(zoo.datasets.table()["name"])
    if source in names:
        data = zoo.datasets.load(source)
        return Table(data.to_frame(), data.name, data.target_name)
    path = as_path(source)
    if path.is_dir():
        raise bad_value("the table", "a file", f"the folder {source!r}", "Name a file in it.")
    if not path.is_file():
        near = difflib.get_close_matches(source, [*names, *_neighbours(path)], n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        mend = f"{hint}Data sets: {', '.join(names)}."
        raise bad_value("the table", "a file, or the name of a data set", repr(source), mend)
    return Table(_read_parquet(path) if _is_parquet(path) else inputs.read_table(path), path.stem)


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as its suffix says: Parquet, tab-separated, or CSV. The file is replaced at once or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if _is_parquet(path):
            frame.to_parquet(scratch, engine="pyarrow", index=False)
        else:
            frame.to_csv(scratch, index=False, sep="\t" if path.suffix.lower() == ".tsv" else ",")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def output(option: str, path: str | None, example: str, taken: Sequence[str | Path | None] = ()) -> Path | None:
    """Return where a result is to go, once it is found that it can, and that it replaces none of the files ``taken``.

    Raises
    ------
    OSError
        If the folder cannot be written in.
    ZooValueError
        If it is a folder, lies in none, or is one of the files that are read or written besides.
    """
    if path is None:
        return None
    target = writable_file(path, example, option)
    if _is_parquet(target):
        _need_pyarrow()
    for other in taken:
        if other is not None and as_path(other).resolve() == target.resolve():
            raise bad_value(option, "a file of its own", repr(path), f"Give another name, such as {example}.")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()  # the only way to know: permissions do not tell all
    except OSError as error:
        raise OSError(f"cannot write in {str(target.parent)!r}, where {option} points: {error.strerror}") from error
    return target


def without_missing(table: Table, columns: Sequence[str], drop: bool) -> pd.DataFrame:
    """Return the rows in which none of ``columns`` is missing, and say how many are left out; all rows unless ``drop``.

    Rows keep their labels, so that what is said of one names its place in the file.
    """
    if not drop:
        return table.frame
    known = [name for name in columns if name in inputs.column_names(table.frame)]
    missing = missing_rows(table.frame, known)
    log.info("dropped %d of %d rows of %s, which have missing values", missing.sum(), len(missing), table.name)
    if missing.all():
        mend = "Leave out the column that is empty, --drop COLUMN."
        raise bad_value("the table", "of one whole row or more", "missing values in every row", mend)
    return table.frame[~missing]


def labelled(posteriors: dict[str, Posterior], source: str, drop_missing: bool, held_out: bool) -> Dataset:
    """Return the rows of a table encoded as every one of ``posteriors`` was, side by side where they differ.

    Says so when some of the rows were fitted, or leaves those out (``held_out``).
    """
    import pandas as pd

    table = read(source)
    encodings = {name: Encoding.of(posterior) for name, posterior in posteriors.items()}
    targets = sorted({encoding.target for encoding in encodings.values()})
    if len(targets) > 1:
        mend = "Compare posteriors of one target at a time."
        raise bad_value("the posteriors", "of the same target", ", ".join(targets), mend)
    used = list(dict.fromkeys([*(column for e in encodings.values() for column in e.columns), *targets]))
    frame = without_missing(table, used, drop_missing)
    sets = {name: encoding.dataset(frame, table.name) for name, encoding in encodings.items()}
    fitted = {name: rows_fitted(posteriors[name], data) for name, data in sets.items()}
    x = pd.concat([data.to_frame()[list(data.feature_names)] for data in sets.values()], axis=1)
    first = next(iter(sets.values()))
    whole = zoo.Dataset(x.loc[:, ~x.columns.duplicated()], first.y, target_name=targets[0], name=table.name)
    seen = np.any(list(fitted.values()), axis=0)
    if not held_out:
        for name, rows in fitted.items():
            if rows.any():
                log.warning(
                    "%d of %d rows of %s were fitted by %s, whose scores they flatter; --held-out leaves them out",
                    *(rows.sum(), len(rows), table.name, name),
                )
        return whole
    log.info("%d of %d rows of %s were not fitted, and are used", (~seen).sum(), len(seen), table.name)
    if seen.all():
        raise bad_value(
            "the table", "with rows that were not fitted", "none", "Give other rows, or fit with --test 0.2."
        )
    return whole.subset(~seen)


def rows_fitted(posterior: Posterior, data: Dataset) -> np.ndarray:
    """Tell for each row of ``data``, which has the same columns, whether the very same row was fitted."""

    def keys(x: np.ndarray, y: np.ndarray) -> list[bytes]:
        return [row.tobytes() for row in np.column_stack([x, y])]

    known = set(keys(posterior.data.x, posterior.data.y))
    return np.array([key in known for key in keys(data.x, data.y)])


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    _need_pyarrow()
    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
        said = str(error).partition("\n")[0]
        raise bad_value("the table", "a Parquet file", f"{str(path)!r} ({said})", "Write it again.") from error
    return frame.reset_index(drop=True)


def _need_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        mend = "pip install 'bnn-zoo[parquet]', or use CSV."
        raise bad_value("pyarrow", "installed, to read and write Parquet", "no such package", mend)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET


def _neighbours(path: Path) -> list[str]:
    """Files beside a file that is not there, written as it was."""
    if not path.parent.is_dir():
        return []
    prefix = "" if str(path.parent) == "." else f"{path.parent}{os.sep}"
    return [f"{prefix}{name}" for name in sorted(os.listdir(path.parent))[:1000]]
