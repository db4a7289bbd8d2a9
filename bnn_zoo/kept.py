"""How the draws of a posterior are kept: in memory as a rule, in a file, or as functions in place of weights."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bnn_zoo.datasets import Dataset
from bnn_zoo.engine import kept
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.kept import Keep
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_type, bad_value, check_choice
from bnn_zoo.inputs import as_inputs
from bnn_zoo.paths import as_path
from bnn_zoo.probes import probe_points

KEEP = ("weights", "functions")
MOST_ROWS = 1000  # training inputs at which functions are kept, beside those that were asked for


@dataclass(frozen=True, eq=False)
class Kept:
    """What was asked to be kept of a posterior's draws.

    Attributes
    ----------
    keep : Keep
        As methods have it.
    inputs : ndarray, optional
        Inputs ``(K, d)``, in the user's units, whose functions were kept in place of weights.
    behind : Problem, optional
        The model that draws were made of, and its rows, where functions were kept.
    has_rows : bool
        Whether these are all of the rows: a file holds some.
    """

    keep: Keep
    inputs: np.ndarray | None = None
    behind: Problem | None = None
    has_rows: bool = True

    @cached_property
    def _places(self) -> dict[bytes, int]:
        assert self.inputs is not None
        return {row.tobytes(): i for i, row in enumerate(self.inputs)}

    def places(self, x: np.ndarray) -> np.ndarray:
        """Return where the rows of ``x (m, d)`` are among the inputs, ``(m,)``.

        Raises
        ------
        ZooValueError
            If one of them is not.
        """
        found = np.array([self._places.get(row.tobytes(), -1) for row in _plain(x)])
        if (found < 0).any():
            row = int(np.argmax(found < 0))
            got = f"row {row}, one of {int((found < 0).sum())} of {len(x)} that are others"
            mend = "Name all inputs when fitting: zoo.fit(..., keep='functions', at=x); or keep the weights."
            raise bad_value("x", f"of the {len(self.inputs)} inputs whose functions were kept", got, mend)  # type: ignore
        return found

    def on_scale(self, scaling: Scaling, dtype: Any) -> Kept:
        """The same with what methods need: inputs on the model's scale."""
        if self.inputs is None:
            return self
        return replace(self, keep=replace(self.keep, at=scaling.inputs(self.inputs, dtype)))

    def table(self, problem: Problem, data: Dataset, scaling: Scaling) -> Problem:
        """Return the problem by which functions that were kept are read, ``data`` being the rows that were."""
        assert self.inputs is not None
        targets = scaling.targets(data.y, problem.x.dtype)
        return kept.table(problem, len(self.inputs), self.places(data.x), targets)

    def __str__(self) -> str:
        if self.inputs is not None:
            digest = hashlib.sha256(self.inputs.tobytes()).hexdigest()[:16]
            return f"functions at {len(self.inputs)} inputs, SHA-256 {digest}"
        return "weights" if self.keep.folder is None else f"weights in {self.keep.folder}"


IN_MEMORY = Kept(kept.IN_MEMORY)


def as_kept(keep: Any, at: Any, method: Any, method_name: str, data: Dataset) -> Kept:
    """Return what `bnn_zoo.fit` was asked to keep.

    Raises
    ------
    ZooTypeError, ZooValueError
        If it is not one of these, or the method has no chains, or ``at`` does not fit or has no use.
    """
    if not isinstance(keep, (str, os.PathLike)):
        raise bad_type("keep", "'weights', 'functions' or a pathlib.Path", repr(keep), "'weights' is usual.")
    if isinstance(keep, str):
        check_choice("keep", keep, KEEP)
    if keep != "functions" and at is not None:
        raise bad_value("at", "given with keep='functions' alone", f"keep={keep!r}", "Leave one of the two out.")
    if keep == "weights":
        return IN_MEMORY
    if not getattr(method, "keeps", False):
        got = f"{keep!r} with method {method_name}, which makes its draws all at once"
        raise bad_value("keep", "'weights' for a method without chains", got, "Ask for fewer draws or members.")
    if keep != "functions":
        folder = as_path(keep, "keep")
        if folder.exists() and not folder.is_dir():
            raise bad_value("keep", "a folder", f"the file {str(folder)!r}", "Give another name.")
        return Kept(Keep(folder=folder))
    rows = sampled(data).x
    inputs = [rows, probe_points(rows, None)[0]] + ([] if at is None else [as_inputs(at, data.feature_names)])
    distinct = _plain(np.concatenate(inputs))
    _, first = np.unique(distinct, axis=0, return_index=True)
    return Kept(IN_MEMORY.keep, distinct[np.sort(first)])


def sampled(data: Dataset) -> Dataset:
    """The training rows whose functions are kept: all of them, or 1,000 at random."""
    if len(data) <= MOST_ROWS:
        return data
    some = np.sort(np.random.default_rng(0).choice(len(data), MOST_ROWS, replace=False))
    return replace(data, x=data.x[some], y=data.y[some])


def _plain(x: Any) -> np.ndarray:
    """Rows whose bytes are equal where they are; 0 is 0, whatever its sign."""
    return np.ascontiguousarray(np.asarray(x, np.float64)) + 0.0
