"""Data to fit: whatever ``fit`` may be handed, and the sets that are known by name.

The class is `bnn_zoo.dataset.Dataset`; what the UCI sets hold is in ``bnn_zoo.uci``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from bnn_zoo import downloads, inputs, uci
from bnn_zoo.dataset import Dataset
from bnn_zoo.errors import bad_type, bad_value, unknown_name
from bnn_zoo.inputs import as_inputs, as_targets

if TYPE_CHECKING:
    import pandas

__all__ = ["Dataset", "Entry", "as_dataset", "as_inputs", "as_targets", "at_hand", "load", "table", "truth"]

Curve = Callable[[Any], np.ndarray]


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
