"""Ids by first appearance, numbers by the past alone, time order and labels; and that nothing looks ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_adapt.reloop2.data.encoding import encode_ids, standardise, time_order, to_labels


def by_hand(values: list, n_train: int, own_rows: bool) -> list[int]:
    known: list = []
    result = []
    for place, value in enumerate(values):
        missing = value is None or value != value
        if not missing and value not in known and (own_rows or place < n_train):
            known.append(value)
        result.append(0 if missing or value not in known else known.index(value) + 1)
    return result


COLUMNS = {
    "text": ["b", "a", "b", "c", "a", "d"],
    "numbers": [30, 10, 30, 20, 10, 5],
    "floats with gaps": [2.0, float("nan"), 1.0, 2.0, float("nan"), 0.5],
    "text with gaps": ["b", None, "a", "b", None, "c"],
    "nothing new": [1, 2, 1, 2, 1, 2],
    "all missing": [float("nan")] * 6,
}


@pytest.mark.parametrize("own_rows", [True, False])
@pytest.mark.parametrize("as_series", [True, False], ids=["pandas", "numpy"])
@pytest.mark.parametrize("name", COLUMNS)
def test_ids_are_numbered_by_first_appearance(name, as_series, own_rows):
    values = COLUMNS[name]
    column = pd.Series(values) if as_series else np.array(values)
    rows, names = encode_ids(column, 3, own_rows=own_rows)
    assert rows.dtype == torch.int64
    assert rows.tolist() == by_hand(values, 3, own_rows)
    for value, row in zip(values, rows.tolist(), strict=True):
        assert row == 0 or names[row - 1] == value
    assert int(rows.max()) <= len(names)


def test_categories_of_pandas_that_never_occur_get_no_row():
    column = pd.Series(pd.Categorical(["x", "y", "x"], categories=["z", "y", "x"]))
    rows, names = encode_ids(column, 2, own_rows=True)
    assert (rows.tolist(), names) == ([1, 2, 1], ["x", "y"])


@pytest.mark.parametrize("own_rows", [True, False])
def test_later_rows_change_no_earlier_number(own_rows):
    random = np.random.default_rng(0)
    ids = random.integers(0, 30, 200)
    whole = encode_ids(ids, 100, own_rows=own_rows).rows
    for end in (100, 101, 150):
        other = ids.copy()
        other[end:] = random.integers(0, 60, 200 - end)
        assert torch.equal(encode_ids(other, 100, own_rows=own_rows).rows[:end], whole[:end])


def test_numbers_are_scaled_by_the_training_rows():
    random = np.random.default_rng(1)
    column = random.normal(5, 3, 50)
    column[[3, 40]] = np.nan
    known = np.delete(column[:20], 3)
    values, mean, std = standardise("x", column, 20)
    assert mean == pytest.approx(known.mean())
    assert std == pytest.approx(known.std())
    expected = np.nan_to_num((column - known.mean()) / known.std())
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-6)
    changed = column.copy()
    changed[20:] *= 100
    assert torch.equal(standardise("x", changed, 20).values[:20], values[:20])


@pytest.mark.parametrize("column", [np.full(6, 7.0), np.full(6, np.nan), pd.Series([True] * 6), pd.Series([7] * 6)])
def test_numbers_that_do_not_vary_become_zero(column):
    assert standardise("x", column, 3).values.tolist() == [0.0] * 6


def test_nullable_numbers_of_pandas():
    column = pd.Series([1, None, 3], dtype="Int64")
    assert standardise("x", column, 3).values.tolist() == [-1.0, 0.0, 1.0]
    assert time_order("t", pd.Series([3, 1, 2], dtype="Int64"), []).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="1 missing"):
        time_order("t", column, [])


@pytest.mark.parametrize("column", [["a", "b"], [object(), 1]])
def test_what_is_no_number(column):
    with pytest.raises(ValueError, match="`price` must be a column of numbers"):
        standardise("price", np.array(column, dtype=object), 1)
    with pytest.raises(ValueError, match="`price` must be a column of numbers"):
        standardise("price", pd.Series(column), 1)


def test_infinite_numbers():
    with pytest.raises(ValueError, match="finite"):
        standardise("price", np.array([1.0, np.inf]), 1)


@pytest.mark.parametrize(
    ("column", "positive", "expected"),
    [
        ([0, 1, 1], None, [0, 1, 1]),
        ([True, False], None, [1, 0]),
        ([1, 4, 5, 3.9], 4, [0, 1, 1, 0]),
        ([-1.0, 1.0], 0, [0, 1]),
    ],
)
def test_labels(column, positive, expected):
    for values in (np.array(column), pd.Series(column)):
        labels = to_labels("click", values, positive)
        assert labels.dtype == torch.float32
        assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("column", "words"),
    [([1, 4, 5], r"0 or 1 in every row, but got \[4.0, 5.0\]"), ([1, np.nan, 0], "1 missing"), (["yes"], "numbers")],
)
def test_labels_that_are_none(column, words):
    with pytest.raises(ValueError, match=words):
        to_labels("click", np.array(column), None)


def test_time_order_is_stable_and_breaks_ties():
    times = np.array([2, 1, 2, 1, 0])
    assert time_order("t", times, []).tolist() == [4, 1, 3, 0, 2]
    ties = [("user", np.array([5, 9, 3, 9, 1])), ("item", np.array(["x", "b", "x", "a", "x"]))]
    assert time_order("t", times, ties).tolist() == [4, 3, 1, 2, 0]


@pytest.mark.parametrize(
    "column",
    [
        np.array(["2024-01-02", "2024-01-01"], dtype="datetime64[s]"),
        pd.Series(pd.to_datetime(["2024-01-02", "2024-01-01"])),
        pd.Series(pd.to_datetime(["2024-01-02", "2024-01-01"]).tz_localize("Europe/Paris")),
        pd.Series([2.5, -1.0]),
    ],
)
def test_kinds_of_time(column):
    assert time_order("t", column, []).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (np.array(["10", "9"]), "text would sort"),
        (pd.Series(["10", "9"]), "text would sort"),
        (np.array([1.0, np.nan]), "1 missing"),
        (pd.Series(pd.to_datetime(["2024-01-01", None])), "1 missing"),
    ],
)
def test_times_that_cannot_be_sorted(column, words):
    with pytest.raises(ValueError, match=words):
        time_order("when", column, [])
