"""``Dataset``: a table of inputs and one target, and the ways to make one.

It stands alone: it knows nothing of models or methods. Everything is in the units it was measured in; ``fit`` does the
scaling. What arrays and tables are refused, and why, is written in ``bnn_zoo.inputs``; sets that are known by name are
in ``bnn_zoo.datasets``. A third of this says what is wrong with users' data and how to mend it.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable, Set
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo import inputs
from bnn_zoo.errors import bad_type, bad_value, check_count
from bnn_zoo.inputs import as_targets

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Inputs and one target, checked once and never changed afterwards.

    Parameters
    ----------
    x : array-like or pandas.DataFrame, shape (n, d)
        Inputs; kept as a read-only float64 copy, so that nothing done to the original can change a result.
    y : array-like or pandas.Series, shape (n,) or (n, 1)
        Targets; kept likewise, with shape (n,).
    feature_names : sequence of str, length d, optional
        By default the column names of a frame, else ``x0 x1 …``.
    target_name, name : str
        What ``y`` and the whole set are called in tables, plots and reports.

    Raises
    ------
    ZooTypeError, ZooValueError
        As ``inputs.as_matrix`` and ``as_targets`` do; also for names that are too few, too many or repeated.
    """

    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...] = None  # type: ignore[assignment]  # a tuple from __post_init__ on
    target_name: str = "y"
    name: str = "data"

    def __post_init__(self) -> None:
        x = inputs.as_matrix(self.x)
        y = as_targets(self.y, len(x))
        inputs.check_row_labels(self.x, self.y)
        names = self.feature_names
        if names is None:
            names = inputs.column_names(self.x) if inputs.is_frame(self.x) else inputs.default_names(x.shape[1])
        names = _checked_names(names, x.shape[1], self.target_name, self.name)
        for field, value in (("x", _read_only(x)), ("y", _read_only(y)), ("feature_names", names)):
            object.__setattr__(self, field, value)

    @classmethod
    def from_frame(cls, frame: pandas.DataFrame, target: str, *, name: str = "data") -> Dataset:
        """Take one column of a frame as the target and all others as features.

        Parameters
        ----------
        frame : pandas.DataFrame, shape (n, d + 1)
            Numbers in every column.
        target : str
            The column to predict.
        name : str
            What the set is called.

        Raises
        ------
        ZooTypeError
            Not a frame, or a column that is not numbers (named, with its first offending value).
        ZooValueError
            No such column, repeated columns, nothing beside the target, missing values (row and column named).
        """
        if not inputs.is_frame(frame):
            raise bad_type("frame", "a pandas DataFrame", type(frame).__name__, "Pass pandas.DataFrame(frame).")
        columns = inputs.column_names(frame)
        _check_target(target, columns)
        # Through the checks with the target still in its place, so that errors name it like every other column.
        values, at = inputs.as_matrix(frame), columns.index(str(target))
        return cls(np.delete(values, at, axis=1), values[:, at], columns[:at] + columns[at + 1 :], str(target), name)

    @classmethod
    def from_csv(cls, path: str | os.PathLike, target: str) -> Dataset:
        """Read a UTF-8 text table with a header line; comma, semicolon or tab between the columns.

        Parameters
        ----------
        path : str or path-like
            The file, after which the set is called.
        target : str
            The column to predict.

        Raises
        ------
        ZooTypeError, ZooValueError
            No such file, a header with empty or repeated names, ragged rows; and all that ``from_frame`` refuses.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise bad_value("path", "an existing file", repr(str(path)), f"Check the name; seen from {Path.cwd()}.")
        return cls.from_frame(inputs.read_table(path), target, name=path.stem)

    @property
    def num_rows(self) -> int:
        """The number of data points, n."""
        return self.x.shape[0]

    @property
    def num_features(self) -> int:
        """The number of columns of ``x``, d."""
        return self.x.shape[1]

    def __len__(self) -> int:
        return self.num_rows

    def split(self, test_size: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Shuffle the rows and part them into ``(train, test)``, the same way for the same seed.

        Parameters
        ----------
        test_size : float or int
            A fraction strictly between 0 and 1 (rounded to rows, at least one in each part), or a number of rows.
        seed : int
            0 or above.

        Raises
        ------
        ZooTypeError, ZooValueError
            A size that leaves a part empty, or a seed that is not a whole number from 0 on.
        """
        num_test = _num_test(test_size, self.num_rows)
        seed = int(seed) if isinstance(seed, np.integer) else seed
        check_count("seed", seed, least=0)
        order = np.random.default_rng(seed).permutation(self.num_rows)
        return self.subset(order[num_test:]), self.subset(order[:num_test])

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes of ``x`` and ``y``: whether two sets hold the same numbers."""
        return hashlib.sha256(self.x.tobytes() + self.y.tobytes()).hexdigest()

    def subset(self, indices: Any) -> Dataset:
        """Take some rows, in the order given; all names are kept.

        Parameters
        ----------
        indices : slice, array-like of int, or array-like of bool with shape (n,)
            As in NumPy.

        Raises
        ------
        ZooValueError
            Rows that do not exist, no rows at all, or anything that does not index rows.
        """
        rule, mend = f"rows out of {self.num_rows}", f"Give a slice, whole numbers below {self.num_rows}, or a mask."
        try:
            rows = np.arange(self.num_rows)[indices if isinstance(indices, slice) else np.asarray(indices)]
        except (IndexError, TypeError, ValueError) as error:
            raise bad_value("indices", rule, f"{indices!r:.60} ({error})", mend) from error
        if np.ndim(rows) != 1 or len(rows) == 0:
            raise bad_value("indices", rule, f"{indices!r:.60}, which gives shape {np.shape(rows)}", mend)
        return Dataset(self.x[rows], self.y[rows], self.feature_names, self.target_name, self.name)

    def to_frame(self) -> pandas.DataFrame:
        """Give a pandas frame of shape (n, d + 1), the target last; a copy."""
        import pandas

        return pandas.DataFrame(np.column_stack([self.x, self.y]), columns=[*self.feature_names, self.target_name])

    def __reduce__(self) -> tuple:
        # Through the door again: a plain pickle or deep copy would have arrays that can be written to.
        return Dataset, (self.x, self.y, self.feature_names, self.target_name, self.name)

    def __repr__(self) -> str:
        listed = ", ".join(self.feature_names[:6]) + (", …" if self.num_features > 6 else "")
        plural = "s" * (self.num_features != 1)
        size = f"{self.num_rows} row{'s' * (self.num_rows != 1)} × {self.num_features} feature{plural}"
        return f"Dataset {self.name!r}: {size} ({listed}) → {self.target_name}"

    def _repr_html_(self) -> str:
        with np.errstate(over="ignore", invalid="ignore"):  # values near 1e300 are welcome, though they have no sd here
            summary = self.to_frame().agg(["mean", "std", "min", "max"]).T.rename(columns={"std": "sd"})
        return f"<p>{escape(repr(self))}</p>{summary.to_html(float_format='{:.4g}'.format, max_rows=20)}"


def _read_only(values: np.ndarray) -> np.ndarray:
    copy = np.array(values, dtype=np.float64, order="C")
    copy.setflags(write=False)
    return copy


def _checked_names(names: Any, width: int, target_name: Any, name: Any) -> tuple[str, ...]:
    """Give the names of the features as a tuple of ``width`` once all names are found fit to use."""
    for argument, text in (("target_name", target_name), ("name", name)):
        if not isinstance(text, str):
            raise bad_type(argument, "text", repr(text), "Pass a str.")
    if isinstance(names, (str, Set)) or not isinstance(names, Iterable):
        raise bad_type("feature_names", "a list or tuple of str", repr(names), "Pass one str for each column of x.")
    names = tuple(names)
    if strange := [label for label in names if not isinstance(label, str)]:
        raise bad_type("feature_names", "str throughout", repr(strange[0]), "Pass [str(name) for name in …].")
    if len(names) != width:
        mend = "Pass one name for each column, or leave feature_names out."
        raise bad_value("feature_names", f"{width} names, as many as x has columns", str(len(names)), mend)
    if twice := inputs.repeated(names):
        raise bad_value("feature_names", "all different", f"{twice[0]!r} twice", "Rename or drop the repeated column.")
    if target_name in names:
        mend = "If x still holds the target, drop that column: it gives the answer away. Else pass another target_name."
        raise bad_value("target_name", "none of feature_names", repr(target_name), mend)
    return tuple(map(str, names))  # plain str, where NumPy handed its own kind


def _check_target(target: Any, columns: tuple[str, ...]) -> None:
    if str(target) not in columns:
        lowered = {column.lower(): column for column in columns}
        near = difflib.get_close_matches(str(target).lower(), lowered, n=1, cutoff=0.4)
        hint = f"Did you mean {lowered[near[0]]!r}? " if near else ""
        raise bad_value("target", "a column of the table", repr(target), f"{hint}Columns: {', '.join(columns)}.")
    if len(columns) == 1:
        raise bad_value("the table", "wider than the target", f"only {columns[0]!r}", "Add a feature to learn from.")


def _num_test(test_size: Any, num_rows: int) -> int:
    if num_rows < 2:
        raise bad_value("the data set", "at least two rows long to be split", f"{num_rows}", "Use it whole.")
    if isinstance(test_size, bool) or not isinstance(test_size, Real):
        mend = "Give a fraction such as 0.2, or a number of rows."
        raise bad_type("test_size", "a number", repr(test_size), mend)
    if isinstance(test_size, Integral):
        count = int(test_size)
        if not 1 <= count < num_rows:
            mend = f"Give 1 to {num_rows - 1} rows, or a fraction such as 0.2."
            raise bad_value("test_size", "a number of rows that leaves some to train on", repr(test_size), mend)
        return count
    fraction = float(test_size)
    if not 0 < fraction < 1:
        mend = "Give a fraction such as 0.2, or a whole number of rows."
        raise bad_value("test_size", "strictly between 0 and 1", repr(test_size), mend)
    return min(max(round(fraction * num_rows), 1), num_rows - 1)
