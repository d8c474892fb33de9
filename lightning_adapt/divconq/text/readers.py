"""Files of instruction data: rows by number without holding them all, and chosen rows in the input's own form."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, overload

from lightning_adapt._shared.checks import check_integer, describe, problem
from lightning_adapt.divconq.text.conversation import Conversation
from lightning_adapt.divconq.text.formats import Format, detect_format, to_conversation

__all__ = ["InstructionRows", "RowError", "malformed", "open_rows", "write_rows"]

_ENDINGS = ".jsonl, .ndjson, .json, .parquet, or a folder written by `datasets` (`save_to_disk`)"
_FIRST_ROWS = 4
_SAME_FORM = "Chosen rows are written in the form that they came in."


class RowError(ValueError):
    """A row that cannot be read; the text names file and line already."""


def malformed(place: str, expected: str, found: str, excerpt: str) -> RowError:
    """Return the error for text that is not what it should be.

    Args:
        place: File and line.
        expected: What should be there.
        found: What is wrong, worded to follow "but".
        excerpt: The text around it.

    Returns:
        The error, to be raised.
    """
    return RowError(f"{place}: expected {expected}, but {found}: {describe(excerpt)}.")


class InstructionRows(Sequence[Mapping[str, Any]], ABC):
    """Rows of one file or folder, read when asked for.

    Args:
        path: Where they are; None for a data set in memory.

    Attributes:
        path: The same.
        kind: "jsonl", "json", "parquet" or "datasets".
    """

    kind: ClassVar[str]
    endings: ClassVar[tuple[str, ...]]  # of a file that chosen rows can be written to

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._format: Format | None = None

    @abstractmethod
    def _read(self, row: int) -> Mapping[str, Any]:
        """Return row 0..N-1."""

    @abstractmethod
    def _write(self, rows: Sequence[int], out: Path) -> None:
        """Write rows, whole or not at all."""

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, row: slice) -> list[Mapping[str, Any]]: ...

    def __getitem__(self, row: int | slice) -> Mapping[str, Any] | list[Mapping[str, Any]]:
        if isinstance(row, slice):
            return [self._read(index) for index in range(*row.indices(len(self)))]
        index = row + len(self) if row < 0 else row
        if not 0 <= index < len(self):
            raise IndexError(f"Row {row} is outside the {len(self)} rows of {self._name}.")
        return self._read(int(index))

    @property
    def format(self) -> Format:
        """Format of the rows, by the first ones.

        Raises:
            ValueError: If they are in none, or in different ones; names the place.
        """
        if self._format is None:
            found = [self._detect(row) for row in range(min(_FIRST_ROWS, len(self)))]
            if len(set(found)) > 1:
                other = next(row for row, name in enumerate(found) if name != found[0])
                raise ValueError(
                    f"{self.place(other)}: this row is in the format {found[other]}, but the first one is in "
                    f"{found[0]}. Put rows of one format in a file."
                )
            self._format = found[0]
        return self._format

    def conversation(self, row: int) -> Conversation:
        """Return the turns of a row.

        Args:
            row: 0..N-1.

        Returns:
            The turns.

        Raises:
            IndexError: If there is no such row.
            ValueError: If the row cannot be read, or is not in the format of the first ones; names the place.
        """
        try:
            return to_conversation(self[row], self.format)
        except RowError:
            raise
        except (TypeError, ValueError) as error:
            raise RowError(f"{self.place(row)}: {error}") from error

    def place(self, row: int) -> str:
        """Return how to name a row to the user.

        Args:
            row: 0..N-1.

        Returns:
            Such as "pool.jsonl, line 7".
        """
        return f"{self._name}, row {row}"

    def write(self, rows: Iterable[int], out: str | os.PathLike[str]) -> None:
        """Write chosen rows in the form that they came in; see `write_rows`."""
        target = Path(out)
        chosen = [check_integer("rows", row, "Pass row numbers of this file.", maximum=len(self) - 1) for row in rows]
        if not chosen:
            raise ValueError(problem("rows", "at least one row", "none", "Choose some rows before writing them."))
        own = "" if self.path is None else self.path.suffix
        if target.suffix not in {*self.endings, own}:
            allowed = " or ".join(repr(ending) for ending in self.endings if ending) or "no ending (a folder)"
            raise ValueError(
                problem("out", f"a path with {allowed}, as rows from {self._name} need", str(out), _SAME_FORM)
            )
        if self.path is not None and target.exists() and target.resolve() == self.path.resolve():
            raise ValueError(problem("out", "another path than the input's", str(out), "Name a new file."))
        self._write(chosen, target)

    @property
    def _name(self) -> str:
        return "the data set" if self.path is None else self.path.name

    def _detect(self, row: int) -> Format:
        try:
            return detect_format(self[row])
        except RowError:
            raise
        except (TypeError, ValueError) as error:
            raise RowError(f"{self.place(row)}: {error}") from error


def open_rows(source: Any, argument: str = "data") -> InstructionRows:
    """Open a file of instruction data.

    JSON Lines and JSON lists are told apart by what is in them, whatever the ending. Memory: 24 bytes per row for JSON,
    one row group for parquet, nothing for `datasets`.

    Args:
        source: A path ending in .jsonl, .ndjson, .json or .parquet, a folder written by `datasets`, or a data set of
            `datasets` that is in memory.
        argument: Where the source came from, for the error text.

    Returns:
        The rows.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the package it needs is missing; names the extra.
        TypeError: If the source is neither a path nor a data set.
        ValueError: If the file is empty, of another kind, or malformed; names the line.
    """
    from lightning_adapt.divconq.text.json_rows import open_json
    from lightning_adapt.divconq.text.table_rows import DatasetRows, ParquetRows, open_folder

    if hasattr(source, "column_names") and hasattr(source, "select"):
        return _not_empty(DatasetRows(source), argument)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            problem(argument, "a path or a data set of `datasets`", source, f"Name {_ENDINGS}; or one split.")
        )
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(problem(argument, "a file that is there", str(path), "Check the path."))
    if path.is_dir():
        return _not_empty(open_folder(path), argument)
    if path.suffix in {".jsonl", ".ndjson", ".json"}:
        return _not_empty(open_json(path), argument)
    if path.suffix == ".parquet":
        return _not_empty(ParquetRows(path), argument)
    raise ValueError(problem(argument, f"a file ending in {_ENDINGS}", str(path), "Convert or rename the file."))


def write_rows(rows: Iterable[int], source: InstructionRows, out: str | os.PathLike[str]) -> None:
    """Write chosen rows in the form that they came in, whole or not at all.

    Lines of JSON Lines and items of a JSON list are copied byte for byte; a parquet file keeps its columns and types; a
    data set of `datasets` becomes a folder.

    Args:
        rows: Row numbers, in the order in which they are written.
        source: Where they come from.
        out: The file, or the folder for `datasets`; a file that is there is replaced.

    Raises:
        FileExistsError: If `out` is a folder that is there.
        OSError: If it cannot be written.
        TypeError: If a row is no whole number.
        ValueError: If there is no row, a row is out of range, or `out` has another ending than the input, or is the
            input.
    """
    source.write(rows, out)


def _not_empty(rows: InstructionRows, argument: str) -> InstructionRows:
    if len(rows) == 0:
        name = "the data set" if rows.path is None else str(rows.path)
        raise ValueError(problem(argument, "at least one row long", f"{name} without any row", "Check the file."))
    return rows
