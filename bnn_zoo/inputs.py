"""Data at the door: what a caller may pass as ``x``, ``y`` or a text table, and what is refused.

Anything array-like goes in (NumPy, JAX, lists, pandas), float64 comes out. What would give a wrong answer is refused,
even where NumPy would let it run: text that reads as numbers, masked or missing entries, columns in another order.
The arrays given back may share memory with those passed in. It runs past 300 lines for the sake of the messages.
"""

from __future__ import annotations

import csv
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.errors import bad_type, bad_value

if TYPE_CHECKING:
    import pandas


def as_matrix(x: Any, width: int | None = None) -> np.ndarray:
    """Give ``x`` as a matrix of finite numbers.

    Parameters
    ----------
    x : array-like or pandas.DataFrame, shape (n, d)
        A row a data point, a column a feature. Booleans count as 0 and 1.
    width : int, optional
        The d that is wanted, where it is known.

    Returns
    -------
    numpy.ndarray, shape (n, d), float64

    Raises
    ------
    ZooTypeError
        Text, objects, complex numbers, sparse matrices, iterators.
    ZooValueError
        Not two-dimensional, empty; masked, missing or infinite entries.
    """
    matrix = _numbers("x", x)
    if matrix.size == 0:
        raise bad_value("x", "non-empty", f"shape {matrix.shape}", "Pass at least one row and one column.")
    if matrix.ndim != 2:
        rule = "2-D, a row a data point and a column a feature"
        raise bad_value("x", rule, f"shape {matrix.shape}", _shape_mend(x, matrix, width))
    _check_finite("x", matrix, column_names(x) if is_frame(x) else range(matrix.shape[1]))
    return matrix


def as_targets(y: Any, n: int) -> np.ndarray:
    """Give ``y`` as a vector of ``n`` finite numbers.

    Parameters
    ----------
    y : array-like, pandas.Series or one-column pandas.DataFrame, shape (n,) or (n, 1)
        Targets, in the caller's units.
    n : int
        The number of rows of the ``x`` they belong to.

    Returns
    -------
    numpy.ndarray, shape (n,), float64

    Raises
    ------
    ZooTypeError, ZooValueError
        As ``as_matrix`` does; also for another length, or several columns.
    """
    targets = _numbers("y", y)
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        mend = "Take one column, y[:, 0]." if targets.ndim == 2 else "Pass a vector, one target a row."
        raise bad_value("y", "of shape (n,) or (n, 1)", f"shape {targets.shape}", mend)
    if len(targets) != n:
        mend = "Check that both come from the same rows."
        raise bad_value("y", f"as long as x, which has {n} rows", f"{len(targets)} targets", mend)
    _check_finite("y", targets, None)
    return targets


def as_inputs(x: Any, feature_names: Sequence[str]) -> np.ndarray:
    """Give ``x`` as inputs to predict at, with the columns in the order of the training data.

    A frame is realigned by column name, and columns that were not trained on are left out. Where the training data had
    no names (``x0 x1 …``) and the frame has none of these, its columns are taken by position.

    Parameters
    ----------
    x : array-like or pandas.DataFrame, shape (m, d)
        Inputs, in the units of the training data.
    feature_names : sequence of str, length d
        The columns of the training data.

    Returns
    -------
    numpy.ndarray, shape (m, d), float64

    Raises
    ------
    ZooTypeError, ZooValueError
        As ``as_matrix`` does; also for another width than ``d``, or a frame that lacks or repeats a column.
    """
    if is_frame(x):
        x = _realigned(x, tuple(feature_names))
    width = len(feature_names)
    inputs = as_matrix(x, width)
    if inputs.shape[1] != width:
        mend = f"Pass the columns of the training data, in that order: {_some(feature_names)}."
        raise bad_value("x", f"{width} columns wide", f"shape {inputs.shape}", mend)
    return inputs


def read_table(path: Path) -> pandas.DataFrame:
    """Read a UTF-8 text table with a header line; comma, semicolon or tab between the columns.

    Raises
    ------
    ZooValueError
        A header with empty or repeated names, rows wider than the header, a file that is not text.
    """
    import pandas

    settings = {"index_col": False, "skipinitialspace": True, "low_memory": False}
    try:
        delimiter = _delimiter(path)
        with warnings.catch_warnings():
            # Where rows are wider than the header, pandas warns and drops what is too much.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            return pandas.read_csv(path, sep=delimiter, **settings)
    except (UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
        rule = "a UTF-8 text table with rows as wide as its header"
        got = f"{str(path)!r} ({_first_line(error)})"
        raise bad_value("path", rule, got, "Mend the rows, or save the file as UTF-8.") from error


def default_names(width: int) -> tuple[str, ...]:
    """Name ``width`` features that came without names: ``x0 x1 …``."""
    return tuple(f"x{i}" for i in range(width))


def column_names(frame: pandas.DataFrame) -> tuple[str, ...]:
    """Give the column names of a frame as text."""
    return tuple(str(column) for column in frame.columns)


def is_frame(data: Any) -> bool:
    """Tell whether ``data`` is a pandas DataFrame, without importing pandas: who has one has imported it."""
    return "pandas" in sys.modules and isinstance(data, sys.modules["pandas"].DataFrame)


def is_series(data: Any) -> bool:
    """Tell whether ``data`` is a pandas Series, without importing pandas."""
    return "pandas" in sys.modules and isinstance(data, sys.modules["pandas"].Series)


def check_row_labels(x: Any, y: Any) -> None:
    """Raise ZooValueError if two pandas objects hold the same row labels in another order.

    Rows are paired by position, so that these would be mismatched. Labels that merely differ say nothing, and pass.
    """
    if not (is_frame(x) and (is_frame(y) or is_series(y))) or x.index.equals(y.index):
        return
    if x.index.is_unique and y.index.is_unique and set(x.index) == set(y.index):
        got = f"the same row labels in another order, beginning {y.index[0]!r} where x begins {x.index[0]!r}"
        mend = "Pass y.loc[x.index], or y.to_numpy() if the order is right and the labels are not."
        raise bad_value("y", "in the row order of x", got, mend)


def _delimiter(path: Path) -> str:
    """Give the mark that parts the header line into most columns, once the names there are found fit to use."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        line = file.readline()
    headers = {mark: next(csv.reader([line], delimiter=mark, skipinitialspace=True), []) for mark in ",;\t"}
    delimiter = max(headers, key=lambda mark: len(headers[mark]))
    names = headers[delimiter]
    rule = "a table whose first line names every column once"
    if not names:
        raise bad_value("path", rule, f"{str(path)!r} with an empty first line", "Write the column names there.")
    if "" in names:
        mend = "Name it; if it holds row numbers that pandas saved, save again with to_csv(index=False)."
        raise bad_value("path", rule, f"no name for column {names.index('') + 1} of {len(names)}", mend)
    if twice := repeated(names):
        raise bad_value("path", rule, f"{_some(twice)} more than once", "Rename or drop the repeated columns.")
    return delimiter


def repeated(names: Sequence[str]) -> list[str]:
    """Give the names that occur more than once."""
    return [name for name in dict.fromkeys(names) if list(names).count(name) > 1]


def _shape_mend(x: Any, matrix: np.ndarray, width: int | None) -> str:
    """Say how to make a matrix of ``x``: with ``width`` known, a vector of that length is one row, not one feature."""
    if matrix.ndim == 0:
        return "Pass a row for each data point, [[x]] for one."
    if matrix.ndim > 2:
        return "Flatten each data point, x.reshape(len(x), -1)."
    if width in (None, 1):
        return "Pass x.to_frame() for one feature." if is_series(x) else "Pass x[:, None] for one feature."
    if len(matrix) == width:
        return "Pass x.to_frame().T for one row." if is_series(x) else "Pass x[None, :] for one row."
    return f"Pass rows of {width} features each, shape (m, {width})."


def _numbers(argument: str, values: Any) -> np.ndarray:
    """Give ``values`` as float64 of whatever shape; raise for everything that is not plain numbers."""
    _check_container(argument, values)
    if is_frame(values):
        # By column: taken whole, a frame of mixed columns is an array of objects.
        columns = [_column(argument, values.iloc[:, i], name) for i, name in enumerate(column_names(values))]
        return np.column_stack(columns) if columns else np.empty(values.shape)
    if is_series(values):
        return _column(argument, values, values.name)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"{type(values).__name__}, of which NumPy says: {_first_line(error)}"
        raise bad_type(argument, "an array of numbers", got, "Give all rows the same length, as numbers.") from error
    # The second test lets in number types whose kind NumPy does not know, such as the bfloat16 of JAX.
    if array.dtype.kind in "biuf" or np.can_cast(array.dtype, np.float64):
        return array.astype(np.float64, copy=False)
    if array.size == 0:
        return np.empty(array.shape)  # of no type that matters: its shape is what is wrong with it
    if array.ndim == 0:
        mend = "Pass an array, a list of rows or a frame."
        raise bad_type(argument, "an array of numbers", repr(values), mend)
    if array.dtype.kind == "c":
        mend = f"Pass {argument}.real, or real and imaginary parts as two columns."
        raise bad_type(argument, "real", f"dtype {array.dtype}", mend)
    _, value = _first_non_number(array.ravel().tolist())
    mend = f"Encode it as numbers, then pass np.asarray({argument}, dtype=float)."
    raise bad_type(argument, "an array of numbers", f"dtype {array.dtype}, holding {value!r}", mend)


def _check_container(argument: str, values: Any) -> None:
    """Raise for containers that NumPy would turn into something else than the numbers they hold."""
    kind, rule = type(values).__name__, "an array of numbers"
    if isinstance(values, Iterator):
        raise bad_type(argument, rule, f"a {kind}", f"Collect it first, np.array(list({argument})).")
    if isinstance(values, (Mapping, Set)):
        raise bad_type(argument, rule, f"a {kind}", "Collect its entries in the order you mean, np.array([…]).")
    if callable(getattr(values, "toarray", None)):
        raise bad_type(argument, "a dense array", f"a sparse {kind}", f"Pass {argument}.toarray().")
    if callable(getattr(values, "to_pandas", None)):
        # Another library's frame: NumPy would read its numbers and forget its column names.
        raise bad_type(argument, "an array or a pandas frame", f"a {kind}", f"Pass {argument}.to_pandas().")
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        where = np.argwhere(np.ma.getmaskarray(values))
        got = f"{len(where)} masked entries in {_rows(where)}"
        raise bad_value(argument, "without masked entries", got, f"Drop those rows, or pass {argument}.filled(…).")


def _column(argument: str, column: pandas.Series, name: object) -> np.ndarray:
    from pandas.api.types import is_complex_dtype, is_numeric_dtype

    if len(column) == 0:
        return np.empty(0)
    if is_numeric_dtype(column.dtype) and not is_complex_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    row, value = _first_non_number(column.tolist())
    got = f"{value!r} in column {name!r}, row {row}, of dtype {column.dtype}"
    mend = "Encode that column as numbers (decimals with a point) or drop it."
    raise bad_type(argument, "numbers in every column", got, mend)


def _first_non_number(values: list[Any]) -> tuple[int, Any]:
    """Give the first entry that does not read as a number, and where; where all read as numbers, the first entry."""
    for position, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            return position, value
    return 0, values[0]


def _check_finite(argument: str, numbers: np.ndarray, names: Sequence[Any] | None) -> None:
    """Raise if any entry is missing or infinite, saying how many and where."""
    where = np.argwhere(~np.isfinite(numbers))
    if len(where) == 0:
        return
    first = tuple(where[0])
    entries = "1 missing or infinite entry" if len(where) == 1 else f"{len(where)} missing or infinite entries"
    column = f", column {names[first[1]]!r}" if names is not None else ""
    got = f"{entries} in {_rows(where)}: {numbers[first]} at row {first[0]}{column}"
    keep = f"np.isfinite({argument})" + (".all(axis=1)" if numbers.ndim == 2 else "")
    raise bad_value(argument, "finite everywhere", got, f"Drop those rows, keep = {keep}, or fill them.")


def _realigned(frame: pandas.DataFrame, names: tuple[str, ...]) -> pandas.DataFrame:
    """Give the columns called ``names``, in that order; the frame itself where only position can be meant."""
    columns = column_names(frame)
    missing = [name for name in names if name not in columns]
    if len(missing) == len(names) and names == default_names(len(names)):
        return frame
    if missing:
        mend = "Rename the columns, or pass x.to_numpy() if they are in the order of the training data."
        raise bad_value("x", f"a frame with the columns {_some(names)}", f"one without {_some(missing)}", mend)
    if twice := [name for name in repeated(columns) if name in names]:
        mend = "Keep one of each, x.loc[:, ~x.columns.duplicated()]."
        raise bad_value("x", "a frame with one column of each name", f"several called {_some(twice)}", mend)
    return frame.iloc[:, [columns.index(name) for name in names]]


def _rows(where: np.ndarray, most: int = 5) -> str:
    """Name the first few rows of the positions ``where``, shape (k, ndim), counted from 0."""
    rows = list(dict.fromkeys(int(position[0]) for position in where))
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:most]))}{more} (counted from 0)"


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
