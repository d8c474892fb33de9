"""JSON Lines and JSON lists: where every row is in the file, and rows parsed when asked for."""

from __future__ import annotations

import codecs
import json
import os
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lightning_adapt._shared.files import whole_file
from lightning_adapt.divconq.text.json_list import (
    CHUNK_BYTES,
    EXCERPT,
    LIST_EXPECTED,
    ListScanner,
    Span,
    as_mapping,
    not_json,
)
from lightning_adapt.divconq.text.readers import InstructionRows, RowError, malformed

__all__ = ["JsonLines", "JsonList", "open_json"]

_OTHER_FILES = {
    codecs.BOM_UTF16_LE: "UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16; save it as UTF-8",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"PK\x03\x04": "a zip; unpack it",
    b"PAR1": "a parquet file; let its name end in .parquet",
}


class JsonRows(InstructionRows):
    """Rows of a JSON file at known places.

    Args:
        path: The file.
        spans: Where the rows are.
    """

    expected: ClassVar[str]

    def __init__(self, path: Path, spans: Iterator[Span]) -> None:
        super().__init__(path)
        self._stamp = _stamp(path)
        self._open(path)
        numbers = array("q")
        for span in spans:
            numbers.extend(span)
        self._spans = np.frombuffer(numbers, dtype=np.int64).reshape(-1, 3)  # (N, 3)

    def __len__(self) -> int:
        return len(self._spans)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_descriptor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        path = state["path"]
        if _stamp(path) != self._stamp:
            raise RowError(f"{path} has changed since it was opened. Open it again.")
        self._open(path)

    def place(self, row: int) -> str:
        """Return file and line of a row.

        Args:
            row: 0..N-1.

        Returns:
            Such as "pool.jsonl, line 7".
        """
        return f"{self._name}, line {self._spans[row, 2]}"

    def raw(self, row: int) -> bytes:
        """Return the bytes of a row as they are in the file, without a line feed at the end.

        Args:
            row: 0..N-1.

        Returns:
            The bytes.

        Raises:
            ValueError: If the file has become shorter.
        """
        start, size, _ = map(int, self._spans[row])
        data = self._pread(size, start)
        if len(data) != size:
            raise RowError(f"{self.path} has become shorter since it was opened. Open it again.")
        return data

    def _read(self, row: int) -> Mapping[str, Any]:
        data = self.raw(row)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            excerpt = ascii(data[max(0, error.start - EXCERPT) : error.start + EXCERPT])
            what = f"byte {error.start + 1} of the row is not"
            raise malformed(self.place(row), "UTF-8 text", what, excerpt) from error
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise not_json(self.place(row), self.expected, error, text) from error
        return value if type(value) is dict else as_mapping(value, self.place(row), self.expected)

    def _pread(self, size: int, start: int) -> bytes:
        if hasattr(os, "pread"):  # no shared position: safe in forked workers and threads
            parts = []
            while size and (part := os.pread(self._descriptor, min(size, 2**30), start)):
                parts.append(part)
                size, start = size - len(part), start + len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        with Path(str(self.path)).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def _open(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._descriptor)


class JsonLines(JsonRows):
    """One JSON object per line; blank lines do not count.

    Args:
        path: The file.
        start: First byte after a byte order mark.
    """

    kind = "jsonl"
    endings = (".jsonl", ".ndjson")
    expected = "one JSON object on each line, or a list of them, from [ to ]"

    def __init__(self, path: Path, start: int = 0) -> None:
        super().__init__(path, _line_spans(path, start))

    def _write(self, rows: Sequence[int], out: Path) -> None:
        with whole_file(out) as unfinished, unfinished.open("wb") as file:
            for row in rows:
                file.write(self.raw(row) + b"\n")


class JsonList(JsonRows):
    """A list of JSON objects, over any number of lines.

    Args:
        path: The file.
        start: First byte after a byte order mark.
    """

    kind = "json"
    endings = (".json",)
    expected = LIST_EXPECTED

    def __init__(self, path: Path, start: int = 0) -> None:
        with path.open("rb") as file:
            file.seek(start)
            super().__init__(path, iter(ListScanner(file, path.name, start)))

    def _write(self, rows: Sequence[int], out: Path) -> None:
        with whole_file(out) as unfinished, unfinished.open("wb") as file:
            for place, row in enumerate(rows):
                file.write((b",\n" if place else b"[\n") + self.raw(row))
            file.write(b"\n]\n")


def open_json(path: Path) -> JsonRows:
    """Open a JSON file by what is in it: a list, or one object per line.

    Args:
        path: The file.

    Returns:
        The rows; without any row if there is nothing but white space.

    Raises:
        ValueError: If it is of another kind, or a JSON list is malformed; names the line.
    """
    with path.open("rb") as file:
        head = file.read(4)
        for mark, what in _OTHER_FILES.items():
            if head.startswith(mark):
                raise RowError(f"{path.name}: expected UTF-8 text in JSON, but the file is {what}.")
        start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        file.seek(start)
        chunk = b" "
        while chunk and not (chunk := chunk.lstrip()):
            chunk = file.read(CHUNK_BYTES)
    return JsonList(path, start) if chunk.startswith(b"[") else JsonLines(path, start)


def _line_spans(path: Path, start: int) -> Iterator[Span]:
    with path.open("rb") as file:
        file.seek(start)
        for number, line in enumerate(file, start=1):  # in binary mode nothing but a line feed ends a line
            if not line.isspace():
                yield start, len(line) - line.endswith(b"\n"), number
            start += len(line)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
