"""Parquet files and data sets of `datasets` as rows by number."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt.divconq.text.readers import InstructionRows, RowError

__all__ = ["DatasetRows", "ParquetRows", "open_folder"]

_BLOCK_ROWS = 256
Block = list[dict[str, Any]]


class _Blocks:
    """Reads rows in blocks where they are asked for one after the other, else one at a time.

    Args:
        read: Gives rows start..stop-1.
        length: Number of rows.
    """

    def __init__(self, read: Callable[[int, int], Block], length: int) -> None:
        self._read, self._length = read, length
        self._start, self._block, self._last = 0, Block(), -1

    def row(self, row: int) -> dict[str, Any]:
        """Return one row."""
        if not self._start <= row < self._start + len(self._block):
            stop = min(row + (_BLOCK_ROWS if row == self._last + 1 else 1), self._length)
            self._start, self._block = row, self._read(row, stop)
        self._last = row
        return self._block[row - self._start]


class ParquetRows(InstructionRows):
    """Rows of a parquet file; holds the row group of the newest row.

    Args:
        path: The file.

    Raises:
        ModuleNotFoundError: If pyarrow is missing; names the extra.
        ValueError: If it is no parquet file.
    """

    kind = "parquet"
    endings = (".parquet",)

    def __init__(self, path: Path) -> None:
        require("llm", "Reading a parquet file", "datasets")  # brings pyarrow
        super().__init__(path)
        self._open(path)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_format": self._format}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open(state["path"])

    def _open(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        try:
            self._file = parquet.ParquetFile(path, memory_map=True)
        except (pyarrow.ArrowException, OSError) as error:
            raise RowError(f"{path.name}: expected a parquet file, but it cannot be read: {error}") from error
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._group: tuple[int, Any] = (-1, None)
        self._blocks = _Blocks(self._read_block, len(self))

    def _read(self, row: int) -> Mapping[str, Any]:
        return self._blocks.row(row)

    def _read_block(self, start: int, stop: int) -> Block:
        group = self._group_of(start)
        first, last = int(self._starts[group]), int(self._starts[group + 1])
        rows: Block = self._table(group).slice(start - first, min(stop, last) - start).to_pylist()
        return rows

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _table(self, group: int) -> Any:
        import pyarrow

        if self._group[0] != group:
            self._group = (-1, None)  # let the old one go first
            try:
                self._group = (group, self._file.read_row_group(group))
            except (pyarrow.ArrowException, OSError) as error:
                name, first = self._name, int(self._starts[group])
                raise RowError(f"{name}: the row group from row {first} on cannot be read: {error}") from error
        return self._group[1]

    def _write(self, rows: Sequence[int], out: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        parts = []
        for group, members in groupby(rows, self._group_of):
            places = np.fromiter(members, dtype=np.int64) - self._starts[group]
            parts.append(self._table(group).take(pyarrow.array(places)))
        with whole_file(out) as unfinished:
            parquet.write_table(pyarrow.concat_tables(parts), unfinished)


class DatasetRows(InstructionRows):
    """Rows of a data set of `datasets`, which keeps them in memory-mapped files.

    Args:
        dataset: A `datasets.Dataset`.
        path: The folder it was loaded from, if any.
    """

    kind = "datasets"
    endings = ("",)

    def __init__(self, dataset: Any, path: Path | None = None) -> None:
        super().__init__(path)
        self._dataset = dataset.with_format(None)  # plain Python values
        self._blocks = _Blocks(self._read_block, len(dataset))

    def __len__(self) -> int:
        return len(self._dataset)

    def _read(self, row: int) -> Mapping[str, Any]:
        return self._blocks.row(row)

    def _read_block(self, start: int, stop: int) -> Block:
        columns = self._dataset[start:stop]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _write(self, rows: Sequence[int], out: Path) -> None:
        if out.exists():
            raise FileExistsError(problem("out", "a folder that is not there yet", str(out), "Name a new folder."))
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".unfinished-{token_hex(8)}")
        temporary.mkdir()  # as open to others as the umask says
        try:
            self._dataset.select(rows).save_to_disk(temporary)
            temporary.replace(out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def open_folder(path: Path) -> DatasetRows:
    """Open a folder written by `save_to_disk` of `datasets`.

    Args:
        path: The folder.

    Returns:
        The rows.

    Raises:
        ModuleNotFoundError: If `datasets` is missing; names the extra.
        ValueError: If it is another folder, or holds several splits; says what to name instead.
    """
    names = sorted(inside.name for inside in path.iterdir())
    if "dataset_dict.json" in names:
        splits = ", ".join(str(path / name) for name in names if (path / name).is_dir())
        raise ValueError(problem("data", "one split", str(path), f"Name one of: {splits}."))
    if "state.json" not in names:
        usable = [name for name in names if Path(name).suffix in {".jsonl", ".ndjson", ".json", ".parquet"}]
        remedy = f"Name a file in it, such as {path / usable[0]}." if usable else "Name a file."
        raise ValueError(problem("data", "a file, or a folder written by `datasets`", str(path), remedy))
    require("llm", "Reading a folder written by `datasets`", "datasets")
    from datasets import Dataset

    try:
        dataset = Dataset.load_from_disk(str(path))
    except Exception as error:  # damaged folders raise whatever the part at fault raises
        raise RowError(f"{path}: expected a folder written by `datasets`, but it cannot be read: {error}") from error
    return DatasetRows(dataset, path)
