"""Text in tables: what is a category, what is a slip, and that new rows are encoded as the fitted ones were."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bnn_zoo.encoding import Encoding, feature_columns, missing_rows
from bnn_zoo.errors import ZooError

WALLS = pd.DataFrame(
    {
        "area": [50, 60.5, 70, 80],
        "wall": ["brick", "wood", " brick ", "wood"],
        "garden": [True, False, True, True],
        "price": [1, 2, 3, 4],
    }
)


def column(*values, **more):
    return pd.DataFrame({"a": list(values), "y": range(len(values))} | more)


def test_text_becomes_indicators_and_numbers_stay():
    encoding = Encoding.fit(WALLS, "price")
    assert encoding.feature_names == ("area", "wall=brick", "wall=wood", "garden")
    x = encoding.apply(WALLS)
    assert list(x.columns) == list(encoding.feature_names)
    assert x.to_numpy().tolist() == [[50, 1, 0, 1], [60.5, 0, 1, 0], [70, 1, 0, 1], [80, 0, 1, 1]]
    data = encoding.dataset(WALLS, "walls")
    assert (data.name, data.target_name, data.y.tolist()) == ("walls", "price", [1, 2, 3, 4])


def test_new_rows_in_another_order_with_fewer_levels_are_encoded_alike():
    encoding = Encoding.from_json(Encoding.fit(WALLS, "price").to_json())
    new = pd.DataFrame({"id": ["x"], "garden": [False], "wall": ["wood"], "area": [1]})
    assert encoding.apply(new).to_numpy().tolist() == [[1, 0, 1, 0]]


def test_numbers_can_be_categories_whole_ones_without_a_point():
    encoding = Encoding.fit(column(10, 9, 2, 10), "y", categorical=["a"])
    assert encoding.columns == {"a": ("2", "9", "10")}
    assert encoding.apply(pd.DataFrame({"a": [9.0, 2.0]})).to_numpy().tolist() == [[0, 1, 0], [1, 0, 0]]


def test_truth_values_with_a_gap_are_numbers_once_it_is_dropped():
    frame = column(True, None, False, True)
    assert missing_rows(frame, ["a"]).tolist() == [False, True, False, False]
    assert Encoding.fit(frame.dropna(), "y").columns == {"a": None}


def test_columns_can_be_left_out():
    assert feature_columns(WALLS, "price", ["wall"]) == ["area", "garden"]
    assert Encoding.fit(WALLS, "price", drop=["wall", "garden"]).feature_names == ("area",)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (column("1,5", "2,5", "3"), {}, r"column 'a' .* '1,5' in row 0 .* decimals with a point"),
        (column("1.5", "2.5", "1O", "4"), {}, r"'1O' in row 2 .*--categorical a"),
        (column("$1", "$2", "b", "$1"), {}, r"'\$1' in row 0"),
        (column("p", "q", "r"), {}, r"another in every row. Leave it out, --drop a"),
        (column(*[f"n{i}" for i in range(60)] * 2), {}, r"at most 50 levels .* got 60"),
        (column(*["x" * 400 + str(i) for i in range(90)]), {"categorical": ["a"]}, "30000 characters"),
        (column("p", None, "q"), {}, r"1 missing entry in column 'a', row 1 \(counted from 0\). .*--drop-missing"),
        (column("p", "  ", "q"), {}, r"missing entry in column 'a', row 1"),
        (column(np.nan, np.nan), {}, "That column is empty"),
        (column(1.0, np.inf), {}, "column 'a' should be finite; got inf in row 1"),
        (column(*pd.to_datetime(["2020-01-01"] * 3)), {}, "Timestamp in row 0"),
        (column("p", "q", "p", **{"a=p": [1, 2, 3]}), {}, "'a=p' twice"),
        (column(1, 2).rename(columns={"a": "y"}), {}, "'y' twice"),
        (column(1, 2), {"drop": ["a"]}, "wider than the target"),
        (column(1, 2), {"drop": ["A"]}, "Did you mean 'a'"),
        (column(1, 2), {"drop": ["y"]}, "other than the target"),
        (column(1, 2), {"categorical": ["b"]}, "categorical should be a column"),
        (column(1, 2), {"target": "Y"}, "Did you mean 'y'"),
        (column("p", "q", "q"), {"target": "a"}, "column 'a' should be numbers, as it is the target; got 'p' in row 0"),
        (column(), {}, "one row or more"),
    ],
)
def test_what_cannot_be_fitted_is_refused(frame, options, message):
    with pytest.raises(ZooError, match=message):
        Encoding.fit(frame, **{"target": "y", **options})


def test_dates_and_codes_are_categories_where_they_occur_again():
    frame = column("2020-01-01", "2020-01-02", "2020-01-01")
    assert Encoding.fit(frame, "y").columns["a"] == ("2020-01-01", "2020-01-02")


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"wall": ["brick", "woood"]}, r"column 'wall' .* 'woood' in row 1 .*Did you mean 'wood'\? Known: brick, wood"),
        ({"wall": ["brick", None]}, "missing entry in column 'wall', row 1"),
        (
            {"area": ["3", "big"]},
            "column 'area' should be numbers, as in the table that was fitted; got 'big' in row 1",
        ),
        ({"area": [1.0, np.nan]}, "missing entry in column 'area', row 1"),
    ],
)
def test_new_rows_that_do_not_fit_are_refused(new, message):
    with pytest.raises(ZooError, match=message):
        Encoding.fit(WALLS, "price").apply(WALLS.iloc[:2].assign(**new))


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ZooError, match=r"one without 'wall'\. Did you mean 'Wall'"):
        Encoding.fit(WALLS, "price").apply(WALLS.rename(columns={"wall": "Wall"}))


def test_rows_keep_their_place_in_the_file_when_others_are_dropped():
    with pytest.raises(ZooError, match="'straw' in row 3"):
        Encoding.fit(WALLS, "price").apply(WALLS.assign(wall=["brick", "wood", "wood", "straw"]).iloc[2:])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"target": 3, "columns": {}}', '{"target": "y", "columns": {"a": [1]}}']
)
def test_what_is_no_encoding_is_refused(text):
    with pytest.raises(ZooError, match="Fit and save again"):
        Encoding.from_json(text)
