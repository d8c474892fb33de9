"""From columns to tensors without a look ahead: ids numbered by first appearance, numbers scaled by the past alone.

Columns are NumPy arrays or pandas Series, sorted by time; nothing here imports pandas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

UNKNOWN = 0  # the row of ids that are missing or, when they share a row, new

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class EncodedIds(NamedTuple):
    """An id column as row numbers of an embedding.

    Attributes:
        rows: Row number per sample; 0 for a missing id. Shape (N,), dtype int64.
        values: The id of row 1, 2, ...
    """

    rows: Tensor
    values: list[Any]


def encode_ids(column: Any, n_train: int, *, own_rows: bool) -> EncodedIds:
    """Number ids from 1 in the order in which they first appear.

    The number of an id depends on rows up to its first appearance alone, so that no later row shows through.

    Args:
        column: Ids in time order, any type that can be hashed. Shape (N,).
        n_train: How many of the rows are for training.
        own_rows: True: an id that appears only after the training rows gets a row of its own. False: all of them get
            row 0, as do missing ids in both cases.

    Returns:
        Row numbers and the ids that they stand for.

    Example:
        >>> encode_ids(np.array(["b", "a", "b", "c"]), 2, own_rows=True)
        EncodedIds(rows=tensor([1, 2, 1, 3]), values=['b', 'a', 'c'])
        >>> encode_ids(np.array(["b", "a", "b", "c"]), 2, own_rows=False)
        EncodedIds(rows=tensor([1, 2, 1, 0]), values=['b', 'a'])
    """
    codes, values = _first_appearance(column)
    if not own_rows:
        known = int(codes[:n_train].max(initial=-1)) + 1
        codes = np.where(codes < known, codes, -1)
        values = values[:known]
    return EncodedIds(torch.from_numpy(codes + 1), values)


def _first_appearance(column: Any) -> tuple[IntArray, list[Any]]:
    """Return codes from 0 by first appearance, -1 for missing, and the value of each code."""
    if hasattr(column, "factorize"):  # a pandas Series
        codes, values = column.factorize()
        return np.array(codes, dtype=np.int64), values.tolist()
    array = np.asarray(column)
    if array.dtype.kind == "O":
        numbers: dict[Any, int] = {}
        found = [-1 if _is_missing(value) else numbers.setdefault(value, len(numbers)) for value in array.tolist()]
        return np.array(found, dtype=np.int64), list(numbers)
    values, first, inverse = np.unique(array, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    codes = rank[inverse.reshape(-1)]
    if array.dtype.kind == "f" and np.isnan(array).any():
        missing = int(codes[np.isnan(array)][0])
        codes = np.where(codes == missing, -1, codes - (codes > missing))
        order = order[order != len(values) - 1]  # NaN sorts last
    return codes, values[order].tolist()


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


class Scaled(NamedTuple):
    """A numeric column, standardised.

    Attributes:
        values: (value - mean) / std, 0 where missing. Shape (N,), dtype float32.
        mean: Mean of the training rows.
        std: Their standard deviation; 1 where they do not vary.
    """

    values: Tensor
    mean: float
    std: float


def standardise(name: str, column: Any, n_train: int) -> Scaled:
    """Standardise a numeric column by its training rows; missing values become 0, the training mean.

    Args:
        name: Name of the column, for the error text.
        column: Numbers in time order. Shape (N,).
        n_train: How many of the rows are for training.

    Returns:
        The values with mean and standard deviation.

    Raises:
        ValueError: If the column holds no numbers, or infinite ones.

    Example:
        >>> standardise("price", np.array([1.0, 3.0, float("nan"), 5.0]), 2)
        Scaled(values=tensor([-1.,  1.,  0.,  3.]), mean=2.0, std=1.0)
    """
    numbers = to_floats(name, column)
    if np.isinf(numbers).any():
        raise ValueError(problem(name, "finite or missing", "an infinite value", "Clip the column first."))
    known = numbers[:n_train][~np.isnan(numbers[:n_train])]
    mean = float(known.mean()) if len(known) else 0.0
    spread = float(known.std()) if len(known) else 0.0
    std = spread if spread > 0 else 1.0
    scaled = np.nan_to_num((numbers - mean) / std, nan=0.0)
    return Scaled(torch.from_numpy(scaled.astype(np.float32)), mean, std)


def to_floats(name: str, column: Any) -> FloatArray:
    """Return a column as float64, missing values as NaN.

    Args:
        name: Name of the column, for the error text.
        column: Numbers or booleans, pandas' own nullable types included. Shape (N,).

    Returns:
        The numbers. Shape (N,).

    Raises:
        ValueError: If something in it is no number.
    """
    try:
        if hasattr(column, "to_numpy"):
            return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
        return np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError) as error:
        remedy = "Make it numeric first, or use it as an id field."
        raise ValueError(problem(name, "a column of numbers", column, remedy)) from error


def to_labels(name: str, column: Any, positive: float | None) -> Tensor:
    """Return labels 0 and 1.

    Args:
        name: Name of the column, for the error text.
        column: Labels or, with `positive`, any numbers. Shape (N,).
        positive: Values from here on are a 1, the others a 0; None: the column holds 0 and 1 already.

    Returns:
        Labels. Shape (N,), dtype float32.

    Raises:
        ValueError: If a label is missing or, without `positive`, neither 0 nor 1.
    """
    numbers = to_floats(name, column)
    missing = int(np.isnan(numbers).sum())
    if missing:
        raise ValueError(problem(name, "a label in every row", f"{missing} missing ones", "Drop these rows first."))
    if positive is not None:
        return torch.from_numpy((numbers >= positive).astype(np.float32))
    strange = np.unique(numbers[(numbers != 0) & (numbers != 1)])
    if len(strange):
        remedy = "Pass `positive`, the smallest value that counts as a click (4 for ratings)."
        raise ValueError(problem(name, "0 or 1 in every row", strange[:5].tolist(), remedy))
    return torch.from_numpy(numbers.astype(np.float32))


def time_order(name: str, column: Any, ties: list[tuple[str, Any]]) -> IntArray:
    """Return the rows in the order of time; equal times in the order of `ties`, then as they came.

    Args:
        name: Name of the time column, for the error text.
        column: Numbers or datetimes. Shape (N,).
        ties: (name, column) pairs that order rows of equal time, the most important first.

    Returns:
        Row numbers. Shape (N,), dtype int64.

    Raises:
        ValueError: If times are missing, or are text, which would sort "10" before "9".
    """
    keys = [_sortable(tie, values) for tie, values in reversed(ties)]
    return np.lexsort([*keys, _times(name, column)])


def _times(name: str, column: Any) -> npt.NDArray[Any]:
    kind = getattr(getattr(column, "dtype", None), "kind", "O")
    if kind not in "iufM":
        remedy = "Convert it first, with pandas.to_datetime or astype(float): text would sort '10' before '9'."
        raise ValueError(problem(name, "a column of numbers or datetimes", column, remedy))
    if kind == "M":  # pandas' datetimes with a time zone, too
        times = column.to_numpy(dtype="datetime64[ns]") if hasattr(column, "to_numpy") else np.asarray(column)
        missing = np.isnat(times)
    else:
        times = np.asarray(column)
        times = times if times.dtype.kind in "iuf" else to_floats(name, column)  # pandas' nullable numbers
        missing = np.isnan(times)
    if missing.any():
        remedy = "Drop the rows that have no time: they have no place in the order."
        raise ValueError(problem(name, "a time in every row", f"{int(missing.sum())} missing ones", remedy))
    return times


def _sortable(name: str, column: Any) -> npt.NDArray[Any]:
    array = np.asarray(column)
    if array.dtype.kind in "iufMmb":
        return array
    try:
        return np.unique(array.astype(str), return_inverse=True)[1].reshape(-1)
    except (TypeError, ValueError) as error:
        raise ValueError(problem(name, "a column that can be sorted", column, "Leave it out of `sort_by`.")) from error
