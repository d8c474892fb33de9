"""Read a table from a DataFrame, a mapping of columns, or a file, and lay it out in time order as tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.imports import require
from lightning_adapt.reloop2.data.encoding import encode_ids, standardise, time_order, to_labels

RESERVED = ("label", "index", "slot")  # what a batch holds beside its fields
_ROUNDING = 1e-6  # rows; 600 * (400 / 600) is a little less than 400
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def read_table(data: Any) -> dict[str, Any]:
    """Return the columns of a table.

    Args:
        data: A pandas DataFrame, a mapping of name to column, or the path of a .parquet, .csv, .tsv or .txt file (the
            text files may be compressed, as in `log.csv.gz`).

    Returns:
        Name -> column, a pandas Series or a NumPy array, all of equal length.

    Raises:
        TypeError: If it is none of these.
        ValueError: If the ending is unknown, names are double, or the columns differ in length.
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If a file is to be read without the extra `recsys`.
    """
    if isinstance(data, (str, os.PathLike)):
        data = _read_file(Path(data))
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        names = [str(name) for name in data.columns]
        if len(set(names)) != len(names):
            raise ValueError(problem("data", "a table whose columns have names of their own", names, "Rename them."))
        return {name: data.iloc[:, position] for position, name in enumerate(names)}
    if not isinstance(data, Mapping):
        allowed = "a pandas DataFrame, a mapping of columns, or the path of a .parquet or .csv file"
        raise TypeError(problem("data", allowed, data, "Pass your log as one of these."))
    columns = {str(name): column if _is_series(column) else np.asarray(column) for name, column in data.items()}
    lengths = {name: len(column) if np.ndim(column) == 1 else np.shape(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or any(isinstance(length, tuple) for length in lengths.values()):
        raise ValueError(problem("data", "a table of equally long columns", lengths, "Pass one value per row."))
    return columns


def _read_file(path: Path) -> Any:
    endings = [ending.lower() for ending in path.suffixes]
    kind = next((ending for ending in endings if ending in _SEPARATORS or ending in (".parquet", ".pq")), None)
    if kind is None:
        raise ValueError(
            problem("data", "a .parquet, .csv, .tsv or .txt file", str(path), "Read it with pandas and pass the frame.")
        )
    if not path.is_file():
        raise FileNotFoundError(f"`data`: there is no file {str(path)!r} (seen from {Path.cwd()}). Check the path.")
    if kind in _SEPARATORS:
        require("recsys", "Reading a text table", "pandas")
        import pandas as pd

        read = partial(pd.read_csv, sep=_SEPARATORS[kind])
    else:
        require("recsys", "Reading a parquet table", "pandas", "pyarrow")
        import pandas as pd

        read = pd.read_parquet
    try:
        return read(path)
    except Exception as error:  # what is no such table makes pandas and pyarrow raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`data`: {path} cannot be read as a table: {reason}. Read it with pandas, and pass the frame."
        ) from error


def _is_series(column: Any) -> bool:
    return hasattr(column, "factorize") and hasattr(column, "iloc")


@dataclass(frozen=True)
class Roles:
    """Which column plays which part.

    Args:
        time: Column to sort by.
        label: Column of the labels.
        fields: Id columns; None: every column that is left over.
        numeric: Numeric columns.
        sort_by: Columns that order rows of equal time; they may have other parts, too.
    """

    time: str
    label: str
    fields: tuple[str, ...] | None
    numeric: tuple[str, ...]
    sort_by: tuple[str, ...]

    def checked(self, columns: Mapping[str, Any]) -> Roles:
        """Return the roles with `fields` filled in, after checking them against the columns that are there.

        Args:
            columns: Name -> column.

        Returns:
            The roles.

        Raises:
            ValueError: If a column is missing, has two parts or a reserved name, or no field is left.
        """
        given = {"time": (self.time,), "label": (self.label,), "fields": self.fields or (), "numeric": self.numeric}
        for argument, names in (*given.items(), ("sort_by", self.sort_by)):
            for name in names:
                if name not in columns:
                    raise ValueError(problem(argument, f"among the columns {list(columns)}", name, "Check the name."))
        used = [name for names in given.values() for name in names]
        twice = sorted({name for name in used if used.count(name) > 1})
        if twice:
            remedy = "Give each column one part; a label among the fields would show the answer."
            raise ValueError(problem("fields", "columns without another part", twice, remedy))
        fields = self.fields if self.fields is not None else _left_over(columns, used)
        reserved = [name for name in (*fields, *self.numeric) if name in RESERVED]
        if reserved or not fields:
            allowed = f"at least one column, none of them named {RESERVED}"
            raise ValueError(problem("fields", allowed, list(fields), "Rename the column, or name the id columns."))
        return Roles(self.time, self.label, fields, self.numeric, self.sort_by)


def _left_over(columns: Mapping[str, Any], used: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name for name in columns if name not in used)
    doubtful = [name for name in names if getattr(columns[name].dtype, "kind", "O") in "fcmM"]
    if doubtful:
        remedy = f"{doubtful} look like numbers or times: name the id columns in `fields`, numbers in `numeric`."
        raise ValueError(problem("fields", "given for this table", None, remedy))
    return names


@dataclass(frozen=True)
class Split:
    """Rows of each part, in time order: train, then val, then test.

    Args:
        n_train: Rows for training.
        n_val: Rows for validation, after them.
        n_test: Rows of the stream, after these.
    """

    n_train: int
    n_val: int
    n_test: int

    @classmethod
    def of(cls, n_rows: int, train_share: float, val_share: float) -> Split:
        """Split a table by shares of all its rows.

        Args:
            n_rows: Rows of the table.
            train_share: Share before the stream begins, in (0, 1).
            val_share: Share of all rows that is cut from the end of it for validation.

        Returns:
            The split.

        Raises:
            ValueError: If a part with a share above 0 would be empty.
        """
        before, n_val = (int(n_rows * share + _ROUNDING) for share in (train_share, val_share))
        split = cls(before - n_val, n_val, n_rows - before)
        if split.n_train < 1 or split.n_test < 1 or (val_share > 0 and n_val < 1):
            received = f"train_share={train_share}, val_share={val_share} and {n_rows} rows"
            allowed = "such that train, validation and test part have rows"
            raise ValueError(problem("train_share", allowed, received, "Change the shares or pass more rows."))
        return split


@dataclass(frozen=True)
class EncodedTable:
    """A log in time order as tensors, N rows.

    Args:
        columns: Field -> values of shape (N,): ids int64, numbers float32; then "label" float32, "index" int64 (the
            row number) and "slot" int64 (0..S-1 in the stream, -1 before it).
        field_sizes: Id field -> number of its rows, row 0 for unknown ids included.
        vocabulary: Id field -> the ids of rows 1, 2, ...
        scales: Numeric field -> mean and standard deviation of its training rows.
        slot_edges: First row of each slot, then N. Shape (S + 1,), dtype int64.
        split: Rows per part.
    """

    columns: dict[str, Tensor]
    field_sizes: dict[str, int]
    vocabulary: dict[str, list[Any]]
    scales: dict[str, tuple[float, float]]
    slot_edges: Tensor
    split: Split

    def rows(self, rows: Tensor | slice) -> dict[str, Tensor]:
        """Return a batch: name -> values of the given rows, shape (B,)."""
        return {name: column[rows] for name, column in self.columns.items()}

    def part(self, name: str) -> slice:
        """Return the rows of "train", "val" or "test"."""
        split = self.split
        starts = {"train": 0, "val": split.n_train, "test": split.n_train + split.n_val}
        lengths = {"train": split.n_train, "val": split.n_val, "test": split.n_test}
        return slice(starts[name], starts[name] + lengths[name])


def encode_table(
    columns: Mapping[str, Any],
    roles: Roles,
    *,
    train_share: float,
    val_share: float,
    slots: int,
    positive: float | None,
    own_rows: bool,
) -> EncodedTable:
    """Sort a table by time, split it and turn it into tensors.

    Args:
        columns: Name -> column; see `read_table`.
        roles: Which column plays which part.
        train_share: As in `Split.of`.
        val_share: As in `Split.of`.
        slots: Equal parts of the stream.
        positive: As in `to_labels`.
        own_rows: As in `encode_ids`.

    Returns:
        The table.

    Raises:
        ValueError: If the columns do not allow it; the text says which and why.
    """
    roles = roles.checked(columns)
    order = time_order(roles.time, columns[roles.time], [(name, columns[name]) for name in roles.sort_by])
    split = Split.of(len(order), train_share, val_share)
    remedy = f"The stream has {split.n_test} rows."
    slots = check_integer("slots", slots, remedy, minimum=1, maximum=split.n_test)
    tensors: dict[str, Tensor] = {}
    vocabulary, scales = {}, {}
    for name in roles.fields or ():
        tensors[name], vocabulary[name] = encode_ids(_take(columns[name], order), split.n_train, own_rows=own_rows)
    for name in roles.numeric:
        tensors[name], *scale = standardise(name, _take(columns[name], order), split.n_train)
        scales[name] = (scale[0], scale[1])
    first = split.n_train + split.n_val
    edges = first + torch.arange(slots + 1) * split.n_test // slots
    slot = torch.bucketize(torch.arange(len(order)), edges, right=True) - 1
    index = torch.arange(len(order))
    tensors |= {"label": to_labels(roles.label, _take(columns[roles.label], order), positive)}
    tensors |= {"index": index, "slot": slot}
    sizes = {name: 1 + len(values) for name, values in vocabulary.items()}
    return EncodedTable(tensors, sizes, vocabulary, scales, edges, split)


def _take(column: Any, rows: Any) -> Any:
    return column.iloc[rows] if _is_series(column) else column[rows]
