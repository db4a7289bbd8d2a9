"""Tables with text in them: which columns are features, which of them are categories, and how these become numbers.

A category becomes one indicator a level, ``colour=red``, ``colour=blue``. Levels are those of the table that was
fitted, and travel with the saved posterior, so that new rows are encoded alike or refused: a number misread as a
category, or a level that was never seen, would give a wrong answer. It runs past 300 lines for the sake of messages.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.datasets import Dataset
from bnn_zoo.errors import ZooValueError, bad_type, bad_value
from bnn_zoo.inputs import column_names, repeated

if TYPE_CHECKING:
    import pandas as pd

MOST_LEVELS = 50
MOST_TEXT = 30_000  # characters of JSON: netCDF attributes hold 64 kB


@dataclass(frozen=True)
class Encoding:
    """How the columns of a table become the inputs of a model.

    Attributes
    ----------
    target : str
        The column to predict.
    columns : dict of str to (tuple of str or None)
        Features in order: the levels of a category, or ``None`` for numbers.
    """

    target: str
    columns: Mapping[str, tuple[str, ...] | None]

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, target: str, *, categorical: Iterable[str] = (), drop: Iterable[str] = ()
    ) -> Encoding:
        """Take every column but ``target`` and those in ``drop`` as a feature; text columns are categories.

        Parameters
        ----------
        frame : pandas.DataFrame
            The table, without missing values in the columns that are used; see `missing_rows`.
        target : str
            The column to predict: numbers.
        categorical : iterable of str
            Columns that are categories although they hold numbers, or more than 50 levels.
        drop : iterable of str
            Columns to leave out.

        Raises
        ------
        ZooTypeError, ZooValueError
            No such column; a target that is not numbers; no features; text that looks like numbers gone wrong, or like
            names of rows; missing values.
        """
        frame = _named(frame)
        features = feature_columns(frame, target, drop)
        categorical = list(categorical)
        for name in categorical:
            if name not in features:
                raise _no_column("categorical", name, features)
        refuse_missing(frame, [*features, target])
        _check_numbers(frame, target, "as it is the target")
        columns = {name: _levels(frame, name, name in categorical) for name in features}
        found = cls(target, columns)
        if twice := repeated([*found.feature_names, target]):
            mend = "Rename one of the columns."
            raise bad_value("the table", "one whose inputs have different names", f"{twice[0]!r} twice", mend)
        if len(text := found.to_json()) > MOST_TEXT:
            mend = "Leave out the column with the longest texts (--drop in the shell), or shorten them."
            raise bad_value("text columns", f"{MOST_TEXT} characters of levels at most", len(text), mend)
        return found

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the inputs: columns of numbers by their own name, indicators as ``column=level``."""
        return tuple(name for column, levels in self.columns.items() for name in _indicators(column, levels))

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the inputs for the rows of ``frame``: numbers in every column, named by `feature_names`.

        Columns that were not fitted are left out.

        Raises
        ------
        ZooTypeError, ZooValueError
            A column that is not there, a missing value, text among numbers, or a level that was not fitted; row, column
            and value named.
        """
        import pandas as pd

        frame = _named(frame)
        for name in self.columns:
            if name not in frame.columns:
                raise _no_column("the table", name, list(frame.columns), "a table with the columns that were fitted")
        refuse_missing(frame, list(self.columns))
        parts: dict[str, Any] = {}
        for name, levels in self.columns.items():
            if levels is None:
                _check_numbers(frame, name, "as in the table that was fitted")
                parts[name] = frame[name].to_numpy(dtype=np.float64)
                continue
            texts = _texts(frame[name])
            _check_levels(name, texts, levels, frame.index)
            parts |= {f"{name}={level}": np.array([text == level for text in texts], float) for level in levels}
        return pd.DataFrame(parts, index=frame.index)

    def dataset(self, frame: pd.DataFrame, name: str = "data") -> Dataset:
        """Return inputs and target of ``frame``, which has to hold the target's column too."""
        frame = _named(frame)
        if self.target not in frame.columns:
            raise _no_column("target", self.target, list(frame.columns))
        x = self.apply(frame)
        refuse_missing(frame, [self.target])
        _check_numbers(frame, self.target, "as it is the target")
        return Dataset(x, frame[self.target].to_numpy(np.float64), target_name=self.target, name=name)

    def to_json(self) -> str:
        """Return this as JSON."""
        return json.dumps({"target": self.target, "columns": dict(self.columns)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Encoding:
        """Read what `to_json` wrote.

        Raises
        ------
        ZooValueError
            If it is anything else.
        """
        try:
            found = json.loads(text)
            target, columns = found["target"], dict(found["columns"])
            levels = [level for kept in columns.values() for level in kept or ()]
            if not all(isinstance(part, str) for part in (target, *columns, *levels)):
                raise TypeError("levels that are not text")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            mend = "Fit and save again."
            raise bad_value("the encoding", "as Encoding.to_json writes it", f"{text!r:.60}", mend) from error
        return cls(target, {name: None if kept is None else tuple(kept) for name, kept in columns.items()})

    @classmethod
    def of(cls, posterior: Any) -> Encoding:
        """Return the encoding that a posterior was saved with, or else its own columns, as numbers."""
        text = posterior.attributes.get("encoding")
        if text is None:
            return cls(posterior.data.target_name, dict.fromkeys(posterior.data.feature_names))
        found = cls.from_json(text)
        if found.feature_names != posterior.data.feature_names:
            mend = "Fit and save again."
            raise bad_value("the encoding", "of the columns that were fitted", f"{text!r:.60}", mend)
        return found


def feature_columns(frame: pd.DataFrame, target: str, drop: Iterable[str] = ()) -> list[str]:
    """List the columns of ``frame`` other than ``target`` and those to leave out, once all are found to be there."""
    names, drop = list(_named(frame).columns), list(drop)
    if target not in names:
        raise _no_column("target", target, names)
    for name in drop:
        if name not in names:
            raise _no_column("drop", name, names)
        if name == target:
            raise bad_value("drop", "columns other than the target", repr(name), "Leave it out of drop.")
    features = [name for name in names if name != target and name not in drop]
    if not features:
        raise bad_value("the table", "wider than the target", f"no column beside {target!r}", "Keep a feature.")
    return features


def missing_rows(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Tell for each row whether one of ``columns`` is missing: empty, NA, NaN or null."""
    return _named(frame)[list(columns)].isna().to_numpy().any(axis=1)


def refuse_missing(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise ZooValueError if one of ``columns`` is missing somewhere, naming rows and column.

    A table without rows is refused as well.
    """
    if len(frame) == 0:
        raise bad_value("the table", "of one row or more", "no row", "Check that the file is whole.")
    where = np.argwhere(frame[list(columns)].isna().to_numpy())
    if len(where) == 0:
        return
    row, column = where[0]
    entries = "1 missing entry" if len(where) == 1 else f"{len(where)} missing entries"
    rows = len(set(where[:, 0].tolist()))
    among = "" if len(where) == 1 else f" in {rows} row{'s' * (rows > 1)}, the first"
    got = f"{entries}{among} in column {columns[column]!r}, {_row(frame.index, row)}"
    mend = "Fill them, or leave those rows out (--drop-missing in the shell)."
    if frame[columns[column]].isna().all():
        mend = "That column is empty: leave it out (--drop in the shell)."
    raise bad_value("the table", "without missing values", got, mend)


# --- columns ----------------------------------------------------------------------------------------------------------


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """Name columns by text, give columns of objects the type that all entries have, and take blank text as missing."""
    from pandas.api.types import is_object_dtype, is_string_dtype

    names = column_names(frame)
    if twice := repeated(names):
        rule = "one with a name of its own for every column"
        raise bad_value("the table", rule, f"{twice[0]!r} twice", "Rename or drop the repeated columns.")
    found = frame.infer_objects()
    found.columns = list(names)
    for name in names:
        if is_object_dtype(found[name].dtype) or is_string_dtype(found[name].dtype):
            found[name] = found[name].where(found[name].map(lambda value: str(value).strip() != ""))
    return found


def _indicators(column: str, levels: tuple[str, ...] | None) -> list[str]:
    return [column] if levels is None else [f"{column}={level}" for level in levels]


def _levels(frame: pd.DataFrame, name: str, asked: bool) -> tuple[str, ...] | None:
    """Levels of a category, or None for a column of numbers."""
    column = frame[name]
    if _is_numeric(column) and not asked:
        _check_numbers(frame, name, "or text throughout")
        return None
    texts = _texts(column)
    levels = list(dict.fromkeys(texts))
    if not asked:
        _check_category(name, texts, levels, column.index)
    if all(_plain(level) for level in levels):
        return tuple(sorted(levels, key=lambda level: (float(level), level)))
    return tuple(sorted(levels))


def _check_category(name: str, texts: list[str], levels: list[str], index: pd.Index) -> None:
    """Raise for text that is more likely a slip, or a name for each row, than a category."""
    column = f"column {name!r}"
    numbers = [_reads_as_number(text) for text in texts]
    if sum(numbers) >= len(texts) / 2:
        row = next((i for i, text in enumerate(texts) if not _plain(text)), 0)
        mend = f"Write decimals with a point, and nothing else; or call it a category, --categorical {name}."
        got = f"{texts[row]!r} in {_row(index, row)}, among numbers"
        raise bad_type(column, "numbers or text throughout", got, mend)
    every = len(levels) == len(texts) > 2
    if len(levels) > MOST_LEVELS or every:
        got = f"{len(levels)}" + (", another in every row" if every else "")
        mend = f"Leave it out, --drop {name}, or insist, --categorical {name}."
        raise bad_value(column, f"a category of at most {MOST_LEVELS} levels that occur again", got, mend)


def _check_levels(name: str, texts: list[str], levels: tuple[str, ...], index: pd.Index) -> None:
    known = set(levels)
    row = next((i for i, text in enumerate(texts) if text not in known), None)
    if row is None:
        return
    near = difflib.get_close_matches(texts[row], levels, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(levels[:20]) + (", …" if len(levels) > 20 else "")
    got = f"{texts[row]!r} in {_row(index, row)}"
    raise bad_value(f"column {name!r}", "one of the levels that were fitted", got, f"{hint}Known: {shown}.")


def _check_numbers(frame: pd.DataFrame, name: str, why: str) -> None:
    """Raise unless a column holds finite numbers, naming the first entry that is none."""
    column = frame[name]
    if not _is_numeric(column):
        texts = _texts(column)
        row = next((i for i, text in enumerate(texts) if not _plain(text)), 0)
        got = f"{texts[row]!r} in {_row(frame.index, row)}"
        raise bad_type(f"column {name!r}", f"numbers, {why}", got, "Mend that entry; decimals take a point.")
    wrong = np.flatnonzero(~np.isfinite(column.to_numpy(dtype=np.float64)))
    if len(wrong):
        got = f"{column.iloc[wrong[0]]} in {_row(frame.index, wrong[0])}"
        raise bad_value(f"column {name!r}", "finite", got, "Mend that entry, or leave its row out.")


def _is_numeric(column: pd.Series) -> bool:
    from pandas.api.types import is_complex_dtype, is_numeric_dtype

    return is_numeric_dtype(column.dtype) and not is_complex_dtype(column.dtype)


def _texts(column: pd.Series) -> list[str]:
    """Entries as text, whole numbers without a decimal point: 3 and 3.0 are one level."""
    found = []
    for row, value in enumerate(column.tolist()):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, (str, bool, int, float)):
            got = f"{type(value).__name__} in {_row(column.index, row)}"
            mend = "Turn it into numbers or text, or leave it out (--drop in the shell)."
            raise bad_type(f"column {column.name!r}", "numbers or text", got, mend)
        found.append(str(value).strip())
    return found


def _row(index: pd.Index, position: int) -> str:
    """Name a row by its place in the file, which its label still tells after others were dropped."""
    kept = index.is_monotonic_increasing and index.dtype.kind in "iu"
    return f"row {int(index[position]) if kept else int(position)} (counted from 0)"


def _plain(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _reads_as_number(text: str) -> bool:
    """Whether a reader would take it for a number: 3,5 and 12 % and $4 as well as 3.5; a date is none."""
    return _plain(text) or re.fullmatch(r"[-+]?\s*[$€£]?\s*\d[\d.,'\s]*\s*[%$€£]?", text) is not None


def _no_column(argument: str, name: str, columns: Sequence[str], rule: str = "a column of the table") -> ZooValueError:
    """Return the error for a column that is not there, with the nearest that is."""
    lowered = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    hint = f"Did you mean {lowered[near[0]]!r}? " if near else ""
    shown = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
    got = repr(name) if rule.startswith("a column") else f"one without {name!r}"
    return bad_value(argument, rule, got, f"{hint}Columns: {shown}.")
