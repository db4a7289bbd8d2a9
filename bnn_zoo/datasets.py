"""Data to fit: the ``Dataset``, the ways to make one, and the sets that are known by name.

This module stands alone: it knows nothing of models or methods. Everything is in the units it was measured in;
``fit`` does the scaling. What arrays and tables are refused, and why, is written in ``bnn_zoo.inputs``; what the UCI
sets hold, in ``bnn_zoo.uci``. It runs past 300 lines because this is where users' data come in: a third of it says what
is wrong with them and how to mend it.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from bnn_zoo import downloads, inputs, uci
from bnn_zoo.errors import bad_type, bad_value, check_count, unknown_name
from bnn_zoo.inputs import as_inputs, as_targets

if TYPE_CHECKING:
    import pandas

__all__ = ["Dataset", "Entry", "as_dataset", "as_inputs", "as_targets", "at_hand", "load", "table", "truth"]

Curve = Callable[[Any], np.ndarray]


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


def as_dataset(data: Any) -> Dataset:
    """Give a ``Dataset`` for whatever ``fit`` may be handed.

    Parameters
    ----------
    data : Dataset, (x, y) pair, or str
        A pair may hold anything array-like; pandas names are kept. A string is a registered name, as in ``table()``.

    Raises
    ------
    ZooTypeError
        Anything else, with the way to turn it into one of these.
    ZooValueError
        An unknown name, or a pair that does not pass the checks of ``Dataset``.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str) and not data.lower().endswith((".csv", ".tsv", ".txt")):
        return load(data)
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        label = y.columns[0] if inputs.is_frame(y) and y.shape[1] else y.name if inputs.is_series(y) else None
        return Dataset(x, y, target_name="y" if label is None else str(label))
    raise bad_type("data", "a Dataset, an (x, y) pair or the name of a set", *_not_a_dataset(data))


@dataclass(frozen=True)
class Entry:
    """A set that is known by name: one row of ``table()`` and the way to read it."""

    name: str
    rows: int
    features: int
    target: str
    description: str
    source: str
    licence: str
    loader: Callable[[], Dataset]
    standard_splits: int = 0
    gap_splits: int = 0
    file: str | None = None  # that is downloaded; None where the set comes with the zoo


@overload
def load(name: str, split: None = None, *, gap: None = None) -> Dataset: ...
@overload
def load(name: str, split: int, *, gap: None = None) -> tuple[Dataset, Dataset]: ...
@overload
def load(name: str, split: None = None, *, gap: int) -> tuple[Dataset, Dataset]: ...
def load(name: str, split: int | None = None, *, gap: int | None = None) -> Dataset | tuple[Dataset, Dataset]:
    """Load a set by name, whole or parted into train and test as published.

    The UCI sets are downloaded once, into the user's cache. Without a network, set the environment variable
    ``BNN_ZOO_DATA`` to a folder that holds them as ``NAME/data.txt`` (and ``NAME/gap/index_train_0.txt`` and so on);
    then nothing is downloaded. Every file is checked by its SHA-256.

    Parameters
    ----------
    name : str
        One of those that ``table()`` lists.
    split : int, optional
        Which of the set's standard train and test splits, from 0: nine tenths and one tenth of the rows, at random,
        the same as in the papers (Hernández-Lobato & Adams, ICML 2015).
    gap : int, optional
        Which of its gap splits, from 0, instead: to test is the middle third of the rows by feature number ``gap``, to
        train what lies on both sides (Foong et al., arXiv 1906.11537, 2019).

    Returns
    -------
    Dataset, or (Dataset, Dataset)
        The whole set, in the order of its file; with ``split`` or ``gap`` (train, test), in the published order.

    Raises
    ------
    ZooTypeError, ZooValueError
        An unknown name (the nearest known one is offered); a split that the set does not have; both ``split`` and
        ``gap``; data that cannot be downloaded, or that have another hash than they should.

    Examples
    --------
    >>> train, test = load("yacht", split=3)  # doctest: +SKIP
    >>> train, test = load("yacht", gap=5)  # what lies between low and high Froude numbers  # doctest: +SKIP
    """
    entry = _entry(name)
    if split is not None and gap is not None:
        raise bad_value("gap", "None where split is given", repr(gap), "Ask for one of the two.")
    # Both numbers are checked before anything is downloaded.
    split, gap = _split_number(entry, "split", split), _split_number(entry, "gap", gap)
    whole = entry.loader()
    if split is not None:
        train, test = uci.standard_split(len(whole), split)
    elif gap is not None:
        train, test = uci.gap_split(name, gap)
    else:
        return whole
    return whole.subset(train), whole.subset(test)


def _entry(name: Any) -> Entry:
    if not isinstance(name, str):
        raise bad_type("name", "the name of a set", repr(name), f"Choose from {', '.join(_REGISTRY)}.")
    if name not in _REGISTRY:
        raise unknown_name("name", name, _REGISTRY)
    return _REGISTRY[name]


def _split_number(entry: Entry, argument: str, number: Any) -> int | None:
    """Give the number of a split as an int once the set is found to have it; None stays None."""
    if number is None:
        return None
    kind, count = ("standard", entry.standard_splits) if argument == "split" else ("gap", entry.gap_splits)
    if count == 0:
        mend = f"Make your own, load({entry.name!r}).split(test_size=0.2, seed=0)."
        rule = f"None for {entry.name!r}, of which the zoo knows no {kind} splits"
        raise bad_value(argument, rule, repr(number), mend)
    rule, last = f"from 0 to {count - 1} for {entry.name!r}", f"load({entry.name!r}, {argument}={count - 1})"
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
        raise bad_type(argument, f"a whole number {rule}", repr(number), f"The last is {last}.")
    if not 0 <= number < count:
        raise bad_value(argument, rule, repr(number), f"The last is {last}.")
    return int(number)


def at_hand(name: str) -> bool:
    """Tell whether ``load(name)`` knows the name and needs no network for it."""
    entry = _REGISTRY.get(name)
    return entry is not None and (entry.file is None or downloads.at_hand(entry.file))


def num_splits(name: str) -> int:
    """Tell how many standard splits a set has that ``load`` knows."""
    return _entry(name).standard_splits


def table() -> pandas.DataFrame:
    """List the sets that ``load`` knows, one a row; nothing is downloaded.

    Returns
    -------
    pandas.DataFrame
        Columns name, rows, features, target, standard_splits and gap_splits (how many), description, source, licence.
    """
    import pandas

    columns = ["name", "rows", "features", "target", "standard_splits", "gap_splits"]
    columns += ["description", "source", "licence"]
    return pandas.DataFrame([[getattr(e, c) for c in columns] for e in _REGISTRY.values()], columns=columns)


def truth(name: str) -> tuple[Curve, Curve]:
    """Give what a synthetic set was drawn from: the functions in y ~ N(mean(x), noise_sd(x)²).

    Parameters
    ----------
    name : str
        ``cubic``, ``two_clusters`` or ``wave``.

    Returns
    -------
    mean, noise_sd : callable
        Each takes inputs of shape (m,) or (m, 1) and gives a NumPy array of shape (m,), in the units of y.

    Raises
    ------
    ZooValueError
        A name without a known truth.
    """
    if name in _REGISTRY and name not in _TRUTHS:
        mend = f"Only the synthetic sets have a known truth: {', '.join(_TRUTHS)}."
        raise bad_value("name", "a synthetic set", f"{name!r}, which was measured", mend)
    if name not in _TRUTHS:
        raise unknown_name("name", str(name), _TRUTHS)
    mean, noise_sd = _TRUTHS[name]
    return (lambda x: mean(_line(x))), (lambda x: noise_sd(_line(x)))


# The mean and the standard deviation of the noise; data/make_data.py draws from these very functions.
_TRUTHS: dict[str, tuple[Curve, Curve]] = {
    "cubic": (lambda x: x**3, lambda x: np.full_like(x, 3.0)),
    "two_clusters": (lambda x: np.cos(4 * x + 0.8), lambda x: np.full_like(x, 0.1)),
    "wave": (lambda x: np.sin(2 * x), lambda x: 0.05 + 0.1 * x),
}


def _line(x: Any) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 2 and x.shape[1] == 1:
        return x[:, 0]
    if x.ndim != 1:
        raise bad_value("x", "of shape (m,) or (m, 1)", f"shape {x.shape}", "This set has one feature; pass x.ravel().")
    return x


def _read_diabetes() -> Dataset:
    from sklearn.datasets import load_diabetes

    raw = load_diabetes(scaled=False)  # real units; the scaled one has been centred on rows that a test set will hold
    return Dataset(raw.data, raw.target, tuple(raw.feature_names), "progression", "diabetes")


def _synthetic(name: str, rows: int, description: str, source: str) -> Entry:
    return Entry(name, rows, 1, "y", description, source, "Apache-2.0", partial(_read_synthetic, name))


def _read_synthetic(name: str) -> Dataset:
    return Dataset.from_csv(_data_file(f"{name}.csv"), "y")


def _real(real: uci.RealSet) -> Entry:
    return Entry(
        name=real.name,
        rows=real.rows,
        features=len(real.features),
        target=real.target,
        description=real.description,
        source=real.source,
        licence=real.licence,
        loader=partial(_read_real, real),
        standard_splits=real.standard_splits,
        gap_splits=real.gap_splits,
        file=real.file,
    )


def _read_real(real: uci.RealSet) -> Dataset:
    return Dataset(*uci.read(real), real.features, real.target, real.name)


def _data_file(name: str) -> Path:
    """Find a file that comes with the zoo: in a wheel the data lie inside the package, in a checkout beside it."""
    package = Path(__file__).resolve().parent
    folders = (package / "data", package.parent / "data")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    mend = "Reinstall bnn_zoo, or restore data/ in the checkout."
    raise bad_value(name, "in the data folder", f"neither {folders[0]} nor {folders[1]} with it", mend)


# A new set is one more entry here, with its own loader; one to download goes into uci.SETS, its hash to uci-files.txt.
_ENTRIES = (
    Entry(
        name="diabetes",
        rows=442,
        features=10,
        target="progression",
        description="progression of diabetes over a year, from ten measurements on each patient",
        source="Efron et al., Annals of Statistics 2004 (scikit-learn's copy, unscaled)",
        licence="BSD-3-Clause, as scikit-learn",
        loader=_read_diabetes,
    ),
    _synthetic(
        "cubic",
        20,
        "y = x³ + N(0, 3²), x uniform on (-4, 4): few points, and a trend to extrapolate",
        "in the manner of Hernández-Lobato & Adams, ICML 2015",
    ),
    _synthetic(
        "two_clusters",
        100,
        "y = cos(4x + 0.8) + N(0, 0.1²), x in (-1, -0.7) and (0.5, 1): is there doubt in the gap?",
        "in the manner of Foong et al., 'In-Between' Uncertainty, arXiv 1906.11537, 2019",
    ),
    _synthetic(
        "wave",
        200,
        "y = sin(2x) + N(0, (0.05 + 0.1x)²), x uniform on (0, 5): noise that grows with x",
        "made for this zoo",
    ),
    *map(_real, uci.SETS),
)
_REGISTRY = {entry.name: entry for entry in _ENTRIES}


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


def _not_a_dataset(data: Any) -> tuple[str, str]:
    """Say what was handed to ``as_dataset``, and how to make a data set of it."""
    kind = type(data).__name__
    if inputs.is_frame(data):
        return "one DataFrame", "Say which column is the target: Dataset.from_frame(frame, target=…)."
    if isinstance(data, (str, os.PathLike)):
        return repr(data), "Read a file with Dataset.from_csv(path, target=…)."
    if isinstance(data, Mapping):
        return f"a {kind} of {len(data)}", "Pass a pair of its entries, such as (data['x'], data['y'])."
    if isinstance(data, (tuple, list)):
        return f"a {kind} of {len(data)}", "Pass a tuple of two, (x, y); split test rows off with Dataset.split."
    if isinstance(getattr(data, "shape", None), tuple):
        return f"one {kind} of shape {data.shape}", "Pass (x, y); if y is the last column, (data[:, :-1], data[:, -1])."
    return f"a {kind}", "Pass (x, y), with x of shape (n, d) and y of shape (n,)."
