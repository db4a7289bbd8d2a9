"""Data sets and the door they come in by: what is kept, what is refused, and that the message tells the mend."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from bnn_zoo import datasets, uci
from bnn_zoo.datasets import Dataset, as_dataset, as_inputs, as_targets, load, truth
from bnn_zoo.errors import ZooTypeError, ZooValueError

DATA = Path(__file__).parents[1] / "data"
X = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 35.0], [4.0, 41.0], [5.0, 50.0]])
Y = np.array([1.5, 2.5, 3.5, 4.5, 6.0])


def refused(kind: type[Exception], *parts: str):
    """Expect ``kind``, with every one of ``parts`` in its message, in this order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(map(re.escape, parts)))


# --- what a Dataset keeps ------------------------------------------------------------------------------------------


def test_defaults():
    data = Dataset(X, Y)
    assert (data.feature_names, data.target_name, data.name) == (("x0", "x1"), "y", "data")
    assert (data.num_rows, data.num_features, len(data)) == (5, 2, 5)
    assert data.x.shape == (5, 2) and data.y.shape == (5,)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a.tolist(),
        lambda a: a.astype(int),
        lambda a: a.astype(np.uint8),
        lambda a: a.astype(np.float16),
        lambda a: a.astype(np.longdouble),
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: np.ma.masked_array(a),
        lambda a: jnp.asarray(a),
        lambda a: jnp.asarray(a, dtype=jnp.bfloat16),
        lambda a: jax.device_get(jnp.asarray(a)),  # read-only
        lambda a: pd.DataFrame(a),
        lambda a: pd.DataFrame(a).astype("Int64"),
        lambda a: pd.DataFrame({"a": a[:, 0].astype(int), "b": a[:, 1]}),
    ],
)
def test_every_kind_of_array_becomes_float64(make):
    """Fails if a frame is taken whole (objects), or bfloat16 (kind V) is turned away."""
    data = Dataset(make(X), Y)
    assert data.x.dtype == np.float64 and data.x.flags.c_contiguous
    assert np.array_equal(data.x, X)


@pytest.mark.parametrize("make", [np.asarray, list, pd.Series, jnp.asarray, lambda y: y[:, None], pd.DataFrame])
def test_every_kind_of_vector_becomes_flat_float64(make):
    y = Dataset(X, make(Y)).y
    assert y.dtype == np.float64 and y.shape == (5,) and np.array_equal(y, Y)


def test_booleans_count_as_zero_and_one():
    assert Dataset(X > 15, Y > 3).x.tolist() == [[0, 0], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert Dataset(X, Y > 3).y.tolist() == [0, 0, 1, 1, 1]
    frame = pd.DataFrame({"a": [True, False, True, True, False], "b": Y})  # to_numpy() of this one gives objects
    assert Dataset(frame, Y).x[:, 0].tolist() == [1, 0, 1, 1, 0]


def test_values_beyond_float32_are_kept():
    assert Dataset(X * 1e300, Y * 1e39).x[4, 1] == 5e301


def test_later_changes_of_the_original_do_not_reach_the_data():
    x, y = X.copy(), Y.copy()
    data = Dataset(x, y)
    x[0, 0] = y[0] = -99
    assert data.x[0, 0] == 1.0 and data.y[0] == 1.5


@pytest.mark.parametrize("how", [lambda d: d, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_arrays_and_fields_cannot_be_written_to(how):
    data = how(Dataset(X, Y, ("a", "b"), "t", "n"))
    assert np.array_equal(data.x, X) and (data.feature_names, data.target_name, data.name) == (("a", "b"), "t", "n")
    with pytest.raises(ValueError, match="read-only"):
        data.x[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        data.y[0] = 1
    with pytest.raises(FrozenInstanceError):
        data.y = Y


def test_frame_columns_become_feature_names():
    assert Dataset(pd.DataFrame(X, columns=["age", "bmi"]), Y).feature_names == ("age", "bmi")
    assert Dataset(pd.DataFrame(X), Y).feature_names == ("0", "1")
    assert Dataset(pd.DataFrame(X, columns=["age", "bmi"]), Y, ["u", "v"]).feature_names == ("u", "v")
    assert Dataset(X, Y, pd.Index(["u", "v"])).feature_names == ("u", "v")
    assert all(type(name) is str for name in Dataset(X, Y, np.array(["u", "v"])).feature_names)


def test_to_frame_puts_the_target_last_and_is_a_copy():
    data = Dataset(X, Y, ("a", "b"), "t")
    frame = data.to_frame()
    assert list(frame.columns) == ["a", "b", "t"] and np.array_equal(frame.to_numpy(), np.column_stack([X, Y]))
    frame.loc[0, "a"] = -99
    assert data.x[0, 0] == 1.0


def test_repr():
    assert repr(Dataset(X, Y, ("a", "b"), "t", "mine")) == "Dataset 'mine': 5 rows × 2 features (a, b) → t"
    assert repr(Dataset(X[:1, :1], Y[:1])) == "Dataset 'data': 1 row × 1 feature (x0) → y"
    assert "(age, sex, bmi, bp, s1, s2, …) → progression" in repr(load("diabetes"))


def test_html_shows_each_column_and_escapes_its_name():
    html = Dataset(X, Y, ("a<b", "c"), "t")._repr_html_()
    assert "a&lt;b" in html and "a<b" not in html
    row = html[html.index("<th>c</th>") :]
    assert re.findall("<td>(.*?)</td>", row)[:4] == ["31.2", f"{X[:, 1].std(ddof=1):.4g}", "10", "50"]


def test_html_survives_what_has_no_standard_deviation():
    assert "1e+300" in Dataset([[1e300], [-1e300]], [0, 1])._repr_html_()
    assert "NaN" in Dataset([[1.0]], [0])._repr_html_()


# --- what a Dataset refuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "kind", "parts"),
    [
        (Y, ZooValueError, ["x should be 2-D", "shape (5,)", "x[:, None]"]),
        (pd.Series(Y), ZooValueError, ["x should be 2-D", "x.to_frame()"]),
        (3.0, ZooValueError, ["x should be 2-D", "shape ()", "[[x]]"]),
        (np.ones((5, 2, 2)), ZooValueError, ["shape (5, 2, 2)", "x.reshape(len(x), -1)"]),
        (np.ones((0, 2)), ZooValueError, ["x should be non-empty", "(0, 2)", "at least one row and one column"]),
        (np.ones((5, 0)), ZooValueError, ["x should be non-empty", "(5, 0)"]),
        ([], ZooValueError, ["x should be non-empty"]),
        (pd.DataFrame({"a": []}), ZooValueError, ["x should be non-empty", "(0, 1)"]),
        (pd.DataFrame(index=range(5)), ZooValueError, ["x should be non-empty", "(5, 0)"]),
        (X.astype(str), ZooTypeError, ["x should be an array of numbers", "dtype <U", "np.asarray(x, dtype=float)"]),
        ([[1, "red"]] * 5, ZooTypeError, ["holding 'red'", "Encode it"]),
        (X.astype(object), ZooTypeError, ["dtype object", "np.asarray(x, dtype=float)"]),
        ([[1.0, None]] * 5, ZooTypeError, ["dtype object, holding None"]),
        (X + 1j, ZooTypeError, ["x should be real", "complex128", "x.real"]),
        (X.astype("datetime64[s]"), ZooTypeError, ["dtype datetime64[s]", "Encode it"]),
        ([[1.0, 2.0], [3.0]], ZooTypeError, ["inhomogeneous", "same length"]),
        ((row for row in X), ZooTypeError, ["got a generator", "np.array(list(x))"]),
        ({"a": Y}, ZooTypeError, ["got a dict", "np.array([…])"]),
        ({1.0, 2.0}, ZooTypeError, ["got a set", "np.array([…])"]),
        (None, ZooTypeError, ["got None", "an array, a list of rows or a frame"]),
        ("diabetes", ZooTypeError, ["got 'diabetes'", "an array, a list of rows or a frame"]),
        (scipy.sparse.csr_matrix(X), ZooTypeError, ["got a sparse csr_matrix", "x.toarray()"]),
        (scipy.sparse.coo_array(X), ZooTypeError, ["got a sparse coo_array", "x.toarray()"]),
        (
            np.ma.masked_array(X, mask=X > 40),
            ZooValueError,
            ["2 masked entries in rows 3, 4 (counted from 0)", "x.filled(…)"],
        ),
        (pd.DataFrame(X).assign(c=1j), ZooTypeError, ["in column 'c'", "complex128"]),
        (
            pd.DataFrame({"a": Y, "colour": [1, 2, "red", 4, "blue"]}),
            ZooTypeError,
            ["'red' in column 'colour', row 2", "Encode that column as numbers", "or drop it"],
        ),
        (pd.DataFrame({"a": Y, "b": list("vwxyz")}), ZooTypeError, ["'v' in column 'b', row 0, of dtype "]),
        (pd.DataFrame({"a": pd.date_range("2020", periods=5)}), ZooTypeError, ["in column 'a'", "datetime64"]),
        (pd.DataFrame({"a": pd.Categorical([1, 2, 3, 4, 5])}), ZooTypeError, ["in column 'a'", "category"]),
    ],
)
def test_x_is_refused(x, kind, parts):
    with refused(kind, *parts):
        Dataset(x, Y)


class ForeignFrame:
    """Stands for a polars frame: NumPy can read it, and would lose its column names."""

    def to_pandas(self):
        return pd.DataFrame(X)

    def __array__(self, dtype=None, copy=None):
        return X


def test_frame_of_another_library_is_refused():
    with refused(ZooTypeError, "got a ForeignFrame", "x.to_pandas()"):
        Dataset(ForeignFrame(), Y)


def test_traced_array_is_refused():
    with refused(ZooTypeError, "x should be an array of numbers", "NumPy says"):
        jax.jit(lambda x: Dataset(x, Y).num_rows)(X)


@pytest.mark.parametrize(
    ("y", "kind", "parts"),
    [
        (Y[:4], ZooValueError, ["y should be as long as x, which has 5 rows; got 4 targets", "same rows"]),
        ([], ZooValueError, ["got 0 targets"]),
        (np.ones((5, 2)), ZooValueError, ["shape (5, 2)", "y[:, 0]"]),
        (Y[None, :], ZooValueError, ["shape (1, 5)", "y[:, 0]"]),
        (np.ones((5, 1, 1)), ZooValueError, ["shape (5, 1, 1)", "one target a row"]),
        (3.0, ZooValueError, ["shape ()", "one target a row"]),
        (list("abcde"), ZooTypeError, ["y should be an array of numbers", "'a'", "np.asarray(y, dtype=float)"]),
        (pd.Series(list("abcde"), name="kind"), ZooTypeError, ["'a' in column 'kind', row 0"]),
        (Y * 1j, ZooTypeError, ["y should be real", "y.real"]),
        (iter(Y), ZooTypeError, ["np.array(list(y))"]),
        (np.ma.masked_equal(Y, 2.5), ZooValueError, ["1 masked entries in row 1", "y.filled(…)"]),
        (
            [1, np.nan, 3, np.inf, 5],
            ZooValueError,
            ["2 missing or infinite entries in rows 1, 3", "nan at row 1.", "keep = np.isfinite(y),"],
        ),
        (pd.Series([1, None, 3, 4, 5], dtype="Int64"), ZooValueError, ["1 missing or infinite entry in row 1"]),
    ],
)
def test_y_is_refused(y, kind, parts):
    with refused(kind, *parts):
        Dataset(X, y)


def test_missing_entries_are_counted_and_placed():
    x = np.arange(40.0).reshape(20, 2)
    x[3, 1], x[5], x[7:12, 0] = np.nan, np.inf, -np.inf
    where = "8 missing or infinite entries in rows 3, 5, 7, 8, 9 and 2 more (counted from 0): nan at row 3, column 1."
    with refused(ZooValueError, where, "keep = np.isfinite(x).all(axis=1)"):
        Dataset(x, np.ones(20))
    with refused(ZooValueError, "nan at row 3, column 'bmi'"):
        Dataset(pd.DataFrame(x, columns=["age", "bmi"]), np.ones(20))


@pytest.mark.parametrize(
    ("names", "kind", "parts"),
    [
        (("a", "b", "c"), ZooValueError, ["2 names, as many as x has columns; got 3", "leave feature_names out"]),
        (("a",), ZooValueError, ["2 names", "got 1"]),
        ((), ZooValueError, ["2 names", "got 0"]),
        (("a", "a"), ZooValueError, ["feature_names should be all different; got 'a' twice", "Rename or drop"]),
        ("ab", ZooTypeError, ["feature_names should be a list or tuple of str; got 'ab'"]),
        ({"a", "b"}, ZooTypeError, ["a list or tuple of str"]),
        (7, ZooTypeError, ["a list or tuple of str; got 7"]),
        ((0, 1), ZooTypeError, ["str throughout; got 0", "[str(name) for name in …]"]),
    ],
)
def test_feature_names_are_refused(names, kind, parts):
    with refused(kind, *parts):
        Dataset(X, Y, names)


def test_other_names_are_refused():
    with refused(ZooTypeError, "target_name should be text; got 3"):
        Dataset(X, Y, target_name=3)
    with refused(ZooTypeError, "name should be text; got None"):
        Dataset(X, Y, name=None)
    with refused(ZooValueError, "'a' twice", "Rename or drop"):
        Dataset(pd.DataFrame(X, columns=["a", "a"]), Y)
    with refused(ZooValueError, "target_name should be none of feature_names; got 'y'", "drop that column"):
        Dataset(pd.DataFrame(X, columns=["x", "y"]), Y)


def test_rows_labelled_in_another_order_are_refused():
    """Fails if rows are paired by position although their labels say otherwise."""
    x, y = pd.DataFrame(X), pd.Series(Y)
    with refused(ZooValueError, "y should be in the row order of x", "beginning 4 where x begins 0", "y.loc[x.index]"):
        Dataset(x, y[::-1])
    assert np.array_equal(Dataset(x[::-1], y[::-1]).y, Y[::-1])
    # Labels that merely differ are those of rows filtered first and numbered anew.
    assert np.array_equal(Dataset(x, y.set_axis(list("vwxyz"))).y, Y)


# --- split and subset ----------------------------------------------------------------------------------------------


def test_split_parts_every_row_once_and_keeps_pairs_and_names():
    x = np.arange(100.0)[:, None]
    data = Dataset(x, x[:, 0] ** 2, ("a",), "t", "n")
    train, test = data.split(test_size=0.25, seed=3)
    assert (len(train), len(test)) == (75, 25)
    both = np.concatenate([train.x[:, 0], test.x[:, 0]])
    assert np.array_equal(np.sort(both), x[:, 0]) and not np.array_equal(both, x[:, 0])
    for part in (train, test):
        assert np.array_equal(part.y, part.x[:, 0] ** 2)
        assert (part.feature_names, part.target_name, part.name) == (("a",), "t", "n")
    # Not the last quarter, as without shuffling: uniform ranks have mean 49.5 and here a standard error of 5.
    assert abs(test.x.mean() - 49.5) < 25


def test_split_is_repeatable_and_depends_on_the_seed():
    data = load("diabetes")
    first, again, other = (data.split(seed=seed)[1].y for seed in (0, np.int64(0), 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(first, data.split()[1].y) and len(first) == 88


@pytest.mark.parametrize(
    ("size", "expected"), [(1, 1), (4, 4), (np.int64(2), 2), (0.5, 2), (0.01, 1), (0.99, 4), (np.float32(0.6), 3)]
)
def test_both_parts_hold_something(size, expected):
    train, test = Dataset(X, Y).split(size)
    assert len(test) == expected and len(train) == 5 - expected


@pytest.mark.parametrize(
    ("size", "kind", "parts"),
    [
        (0, ZooValueError, ["leaves some to train on; got 0", "1 to 4 rows"]),
        (5, ZooValueError, ["leaves some to train on; got 5", "1 to 4 rows"]),
        (-1, ZooValueError, ["got -1", "1 to 4 rows"]),
        (0.0, ZooValueError, ["strictly between 0 and 1; got 0.0", "a fraction such as 0.2"]),
        (1.0, ZooValueError, ["strictly between 0 and 1; got 1.0", "a whole number of rows"]),
        (20.0, ZooValueError, ["got 20.0", "a whole number of rows"]),
        (float("nan"), ZooValueError, ["got nan", "a fraction such as 0.2"]),
        (True, ZooTypeError, ["test_size should be a number; got True"]),
        ("0.2", ZooTypeError, ["test_size should be a number; got '0.2'"]),
        (None, ZooTypeError, ["test_size should be a number; got None", "a fraction such as 0.2"]),
    ],
)
def test_split_sizes_are_refused(size, kind, parts):
    with refused(kind, *parts):
        Dataset(X, Y).split(size)


def test_split_refuses_other_mistakes():
    with refused(ZooValueError, "at least two rows long to be split; got 1", "Use it whole"):
        Dataset(X[:1], Y[:1]).split()
    with refused(ZooValueError, "seed should be at least 0; got -1"):
        Dataset(X, Y).split(seed=-1)
    with refused(ZooTypeError, "seed should be a whole number; got None"):
        Dataset(X, Y).split(seed=None)


@pytest.mark.parametrize(
    ("indices", "rows"),
    [
        ([3, 0, 0], [3, 0, 0]),
        (np.array([-1]), [4]),
        (slice(None, None, 2), [0, 2, 4]),
        (Y > 3, [2, 3, 4]),
        ([True, False, False, False, True], [0, 4]),
        (jnp.array([1, 2]), [1, 2]),
    ],
)
def test_subset(indices, rows):
    part = Dataset(X, Y, ("a", "b"), "t", "n").subset(indices)
    assert np.array_equal(part.x, X[rows]) and np.array_equal(part.y, Y[rows])
    assert (part.feature_names, part.target_name, part.name) == (("a", "b"), "t", "n")


@pytest.mark.parametrize("indices", [5, [5], [-6], [], [0.5], [True, False], [[0, 1]], slice(0, 0), "a", None])
def test_subset_refuses_what_does_not_index_rows(indices):
    with refused(ZooValueError, "indices should be rows out of 5", "whole numbers below 5, or a mask"):
        Dataset(X, Y).subset(indices)


# --- frames and files ----------------------------------------------------------------------------------------------


def table_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "houses.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_from_frame_takes_the_target_from_wherever_it_stands():
    frame = pd.DataFrame({"age": [1, 2], "price": [3.0, 4.0], "new": [True, False]})
    data = Dataset.from_frame(frame, "price")
    assert (data.feature_names, data.target_name, data.name) == (("age", "new"), "price", "data")
    assert data.x.tolist() == [[1, 1], [2, 0]] and data.y.tolist() == [3, 4]
    assert Dataset.from_frame(pd.DataFrame(X), 0).feature_names == ("1",)


@pytest.mark.parametrize(
    ("frame", "kind", "parts"),
    [
        (X, ZooTypeError, ["frame should be a pandas DataFrame; got ndarray", "pandas.DataFrame(frame)"]),
        (
            pd.DataFrame({"a": [1], "Prices": [2]}),
            ZooValueError,
            ["got 'price'", "Did you mean 'Prices'?", "Columns: a"],
        ),
        (pd.DataFrame({"a": [1], "b": [2]}), ZooValueError, ["a column of the table; got 'price'. Columns: a, b."]),
        (pd.DataFrame({"price": [1]}), ZooValueError, ["only 'price'", "Add a feature"]),
        (pd.DataFrame([[1, 2, 3]], columns=["price", "a", "price"]), ZooValueError, ["'price'", "drop that column"]),
        (pd.DataFrame([[1, 2, 3]], columns=["a", "a", "price"]), ZooValueError, ["'a' twice", "Rename or drop"]),
        (
            pd.DataFrame({"a": [1, 2], "price": [1, None]}),
            ZooValueError,
            ["nan at row 1, column 'price'", "Drop those rows"],
        ),
        (pd.DataFrame({"price": [1, 2], "a": ["u", "v"]}), ZooTypeError, ["'u' in column 'a', row 0", "or drop it"]),
    ],
)
def test_from_frame_refuses(frame, kind, parts):
    with refused(kind, *parts):
        Dataset.from_frame(frame, "price")


@pytest.mark.parametrize(
    "text",
    [
        "size,price,age\n1.5,10,3\n2.5,20,4\n",
        "size;price;age\n1.5;10;3\n2.5;20;4\n",
        "size\tprice\tage\r\n1.5\t10\t3\r\n2.5\t20\t4\r\n",
        "\ufeffsize, price, age\n1.5, 10, 3\n2.5, 20, 4",
        '"size","price","age"\n"1.5","10","3"\n\n2.5,20,4\n',
    ],
)
def test_from_csv_finds_the_delimiter(tmp_path, text):
    data = Dataset.from_csv(table_file(tmp_path, text), target="price")
    assert (data.feature_names, data.target_name, data.name) == (("size", "age"), "price", "houses")
    assert data.x.tolist() == [[1.5, 3], [2.5, 4]] and data.y.tolist() == [10, 20]


def test_from_csv_takes_quoted_delimiters_and_all_digits(tmp_path):
    text = '"a, b; c",price\n0.12345678901234567,1\n1.7976931348623157e308,2\n'
    data = Dataset.from_csv(str(table_file(tmp_path, text)), "price")
    assert data.feature_names == ("a, b; c",)
    # Not to the bit: older versions of pandas are a rounding off.
    assert data.x[:, 0] == pytest.approx([0.12345678901234567, 1.7976931348623157e308], rel=1e-15)


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("a,prize\n1,2\n", ZooValueError, ["got 'price'", "Did you mean 'prize'?"]),
        ("a,price\n1,2\n,3\n", ZooValueError, ["nan at row 1, column 'a'", "Drop those rows"]),
        ("a,price\n1,2\n1\n", ZooValueError, ["nan at row 1, column 'price'"]),
        ("a,price\n1,2\n?,3\n", ZooTypeError, ["'?' in column 'a', row 1", "Encode that column"]),
        ("a;price\n1,5;2\n", ZooTypeError, ["'1,5' in column 'a', row 0", "decimals with a point"]),
        ("a,price\n1,2,3\n", ZooValueError, ["rows as wide as its header", "Mend the rows"]),
        ("a,price\n1,2\n1,2,3\n", ZooValueError, ["rows as wide as its header", "line 3", "Mend the rows"]),
        (",price\n1,2\n", ZooValueError, ["no name for column 1 of 2", "to_csv(index=False)"]),
        ("\ufeff,price\n1,2\n", ZooValueError, ["no name for column 1 of 2"]),
        ("a,price,a\n1,2,3\n", ZooValueError, ["'a' more than once", "Rename or drop"]),
        ("", ZooValueError, ["an empty first line", "Write the column names there"]),
        ("a,price\n", ZooValueError, ["x should be non-empty", "at least one row"]),
        ("price\n1\n", ZooValueError, ["only 'price'", "Add a feature"]),
        (b"a,price\n\xff\xfe\xff,2\n", ZooValueError, ["a UTF-8 text table", "save the file as UTF-8"]),
    ],
)
def test_from_csv_refuses(tmp_path, text, kind, parts):
    with refused(kind, *parts):
        Dataset.from_csv(table_file(tmp_path, text), "price")


def test_from_csv_refuses_what_is_no_file(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with refused(ZooValueError, "path should be an existing file", str(path), "Check the name; seen from"):
            Dataset.from_csv(path, "y")


# --- as_dataset ----------------------------------------------------------------------------------------------------


def test_as_dataset_takes_a_dataset_a_pair_and_a_name():
    data = Dataset(X, Y)
    assert as_dataset(data) is data
    assert as_dataset("cubic").name == "cubic"
    pair = as_dataset((X.tolist(), jnp.asarray(Y)))
    assert np.array_equal(pair.x, X) and (pair.target_name, pair.name) == ("y", "data")


@pytest.mark.parametrize(
    ("y", "name"),
    [
        (pd.Series(Y, name="t"), "t"),
        (pd.DataFrame({"t": Y}), "t"),
        (pd.Series(Y, name=0), "0"),
        (pd.Series(Y), "y"),
        (Y, "y"),
    ],
)
def test_as_dataset_keeps_pandas_names(y, name):
    data = as_dataset((pd.DataFrame(X, columns=["a", "b"]), y))
    assert (data.feature_names, data.target_name) == (("a", "b"), name)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (X, ["got one ndarray of shape (5, 2)", "(data[:, :-1], data[:, -1])"]),
        (jnp.ones((2, 3)), ["of shape (2, 3)", "(data[:, :-1], data[:, -1])"]),
        ({"x": X, "y": Y}, ["got a dict of 2", "(data['x'], data['y'])"]),
        ((X, Y, X), ["got a tuple of 3", "(x, y)", "Dataset.split"]),
        ([X, Y], ["got a list of 2", "a tuple of two, (x, y)"]),
        (pd.DataFrame(X), ["one DataFrame", "Dataset.from_frame(frame, target=…)"]),
        ("houses.CSV", ["got 'houses.CSV'", "Dataset.from_csv(path, target=…)"]),
        (Path("houses.csv"), ["Dataset.from_csv(path, target=…)"]),
        (None, ["got a NoneType", "x of shape (n, d) and y of shape (n,)"]),
        (Dataset, ["got a type", "Pass (x, y)"]),
    ],
)
def test_as_dataset_refuses(data, parts):
    with refused(ZooTypeError, "data should be a Dataset, an (x, y) pair or the name of a set", *parts):
        as_dataset(data)


def test_as_dataset_offers_the_nearest_name():
    with refused(ZooValueError, "got 'diabetis'", "Did you mean 'diabetes'?"):
        as_dataset("diabetis")


# --- as_inputs and as_targets --------------------------------------------------------------------------------------


def test_as_inputs_realigns_a_frame_by_name():
    """Fails if columns are taken by position: the answer would be wrong and nothing would say so."""
    frame = pd.DataFrame({"extra": ["u"] * 5, "b": X[:, 1], "a": X[:, 0]})
    assert np.array_equal(as_inputs(frame, ("a", "b")), X)
    assert np.array_equal(as_inputs(frame[["b", "a"]].set_axis(["x1", "x0"], axis=1), ("x0", "x1")), X)
    assert np.array_equal(as_inputs(pd.DataFrame(X[:, ::-1], columns=[1, 0]), ("0", "1")), X)


def test_as_inputs_goes_by_position_where_nothing_was_named():
    assert np.array_equal(as_inputs(pd.DataFrame(X, columns=["b", "a"]), ("x0", "x1")), X)
    assert np.array_equal(as_inputs(X.tolist(), ("a", "b")), X)
    assert as_inputs(jnp.ones((1, 2), dtype=jnp.int32), ("a", "b")).dtype == np.float64


@pytest.mark.parametrize(
    ("x", "names", "kind", "parts"),
    [
        (Y[:2], "ab", ZooValueError, ["x should be 2-D", "x[None, :]"]),
        (pd.Series(Y[:2]), "ab", ZooValueError, ["x should be 2-D", "x.to_frame().T"]),
        (Y, "ab", ZooValueError, ["shape (5,)", "rows of 2 features each, shape (m, 2)"]),
        (Y, "a", ZooValueError, ["shape (5,)", "x[:, None]"]),
        (Y[:1], "a", ZooValueError, ["shape (1,)", "x[:, None]"]),
        (X, "abc", ZooValueError, ["3 columns wide; got shape (5, 2)", "in that order: 'a', 'b', 'c'"]),
        (X, "a", ZooValueError, ["1 columns wide; got shape (5, 2)"]),
        (X[:0], "ab", ZooValueError, ["non-empty", "at least one row"]),
        (X * np.nan, "ab", ZooValueError, ["10 missing or infinite entries", "keep = np.isfinite(x).all(axis=1)"]),
        (X.astype(str), "ab", ZooTypeError, ["np.asarray(x, dtype=float)"]),
        (pd.DataFrame({"a": Y, "c": Y}), "abd", ZooValueError, ["one without 'b', 'd'", "x.to_numpy()"]),
        (pd.DataFrame(X), "ab", ZooValueError, ["one without 'a', 'b'", "Rename the columns"]),
        (pd.DataFrame(X, columns=["a", "a"]), "a", ZooValueError, ["several called 'a'", "x.columns.duplicated()"]),
        (pd.DataFrame(X, columns=["u", "v"]), ("x0",), ZooValueError, ["1 columns wide", "'x0'"]),
        (pd.DataFrame(X, columns=["x0", "v"]), ("x0", "x1"), ZooValueError, ["one without 'x1'"]),
    ],
)
def test_as_inputs_refuses(x, names, kind, parts):
    with refused(kind, *parts):
        as_inputs(x, tuple(names))


def test_long_lists_of_names_are_cut_short():
    with refused(ZooValueError, "'x9' and 30 more"):
        as_inputs(X, [f"x{i}" for i in range(40)])


def test_as_targets():
    assert np.array_equal(as_targets(Y[:, None].astype(np.float32), 5), Y)
    with refused(ZooValueError, "as long as x, which has 3 rows; got 5 targets", "same rows"):
        as_targets(Y, 3)


# --- the sets that come with the zoo -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["diabetes", "cubic", "two_clusters", "wave"])
def test_table_tells_the_truth_about_each_set(name):
    row = datasets.table().set_index("name").loc[name]
    data = load(name)
    assert (len(data), data.num_features, data.target_name, data.name) == (*row[["rows", "features", "target"]], name)
    assert row["description"] and row["source"]


def test_table_lists_every_set():
    table = datasets.table()
    assert list(table.columns) == [
        "name", "rows", "features", "target", "standard_splits", "gap_splits", "description", "source", "licence",
    ]  # fmt: skip
    assert list(table["name"]) == ["diabetes", "cubic", "two_clusters", "wave", *(real.name for real in uci.SETS)]


def test_diabetes_is_in_real_units():
    data = load("diabetes")
    assert data.feature_names == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    assert data.x[0].tolist() == [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87] and data.y[0] == 151


def test_load_refuses():
    with refused(ZooValueError, "got 'Diabetes'", "Did you mean 'diabetes'?"):
        load("Diabetes")
    with refused(ZooValueError, "got 'zzz'", "Known: airfoil, concrete, cubic, diabetes, energy"):
        load("zzz")
    with refused(ZooTypeError, "name should be the name of a set; got 3", "Choose from diabetes, cubic"):
        load(3)
    for split in (0, 3):
        with refused(ZooValueError, "split should be None for 'wave'", f"got {split}", "load('wave').split("):
            load("wave", split=split)


def test_missing_data_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "bnn_zoo" / "datasets.py"))
    with refused(ZooValueError, "cubic.csv", str(tmp_path / "bnn_zoo" / "data"), str(tmp_path / "data"), "Reinstall"):
        load("cubic")


@pytest.mark.parametrize("inside", ["data", "bnn_zoo/data"])
def test_data_are_found_in_a_checkout_and_in_a_wheel(tmp_path, monkeypatch, inside):
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "bnn_zoo" / "datasets.py"))
    (tmp_path / inside).mkdir(parents=True)
    (tmp_path / inside / "cubic.csv").write_text("x,y\n1,2\n")
    assert load("cubic").x.tolist() == [[1.0]]


def make_data():
    spec = importlib.util.spec_from_file_location("make_data", DATA / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generator_makes_the_committed_bytes(tmp_path):
    """Fails if a formula, a seed or a file is changed without the others."""
    make_data().main(tmp_path)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in DATA.glob("*.csv")) == ["cubic.csv", "two_clusters.csv", "wave.csv"]
    for name in made:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


def test_truths_are_the_stated_formulas():
    x = np.array([-0.8, 0.3, 2.0])
    for name, mean, noise_sd in [
        ("cubic", x * x * x, [3.0, 3.0, 3.0]),
        ("two_clusters", np.cos(4 * x) * np.cos(0.8) - np.sin(4 * x) * np.sin(0.8), [0.1, 0.1, 0.1]),
        ("wave", 2 * np.sin(x) * np.cos(x), [-0.03, 0.08, 0.25]),
    ]:
        for form in (x, x[:, None], x.tolist(), jnp.asarray(x[:, None])):
            rounding = 1e-5 if isinstance(form, jax.Array) else 1e-14
            assert truth(name)[0](form) == pytest.approx(mean, abs=rounding * 8), name
            assert truth(name)[1](form) == pytest.approx(noise_sd, abs=rounding), name


@pytest.mark.parametrize("name", ["cubic", "two_clusters", "wave"])
def test_sets_were_drawn_from_their_truth(name):
    """Standardised residuals have mean 0 and variance 1, within 4 standard errors; the files are fixed, so no flakes.

    Fails if the noise of ``cubic`` is taken for its variance (9 for 3), or that of ``wave`` for constant.
    """
    data, (mean, noise_sd) = load(name), truth(name)
    z = (data.y - mean(data.x)) / noise_sd(data.x)
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / len(z))


@pytest.mark.parametrize(
    ("name", "pieces"),
    [("cubic", [(-4, 4, 20)]), ("two_clusters", [(-1, -0.7, 50), (0.5, 1, 50)]), ("wave", [(0, 5, 200)])],
)
def test_inputs_fill_the_stated_pieces(name, pieces):
    """Each piece holds its number of points and reaches within a fifth of either end."""
    x = load(name).x[:, 0]
    for low, high, size in pieces:
        inside = x[(x > low) & (x < high)]
        assert len(inside) == size
        assert inside.min() < low + (high - low) / 5 and inside.max() > high - (high - low) / 5
    assert len(x) == sum(size for _, _, size in pieces)


def test_truth_refuses():
    with refused(ZooValueError, "a synthetic set; got 'diabetes', which was measured", "cubic, two_clusters, wave"):
        truth("diabetes")
    with refused(ZooValueError, "got 'wav'", "Did you mean 'wave'?"):
        truth("wav")
    for curve in truth("wave"):
        with refused(ZooValueError, "shape (5, 2)", "x.ravel()"):
            curve(X)


def test_import_is_light():
    """The module stands alone: importing it brings in none of the heavy libraries, its package aside."""
    code = (
        "import sys, types; package = types.ModuleType('bnn_zoo'); package.__path__ = sys.argv[1:];"
        "sys.modules['bnn_zoo'] = package; import bnn_zoo.datasets;"
        "print([m for m in ('pandas', 'sklearn', 'scipy', 'jax', 'numpyro', 'pooch') if m in sys.modules])"
    )
    folder = str(Path(datasets.__file__).parent)
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
