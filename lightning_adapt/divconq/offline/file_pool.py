"""One pass over a file of instruction data: a key, a length and a quality for each row, and no text kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from lightning_adapt._shared.checks import describe
from lightning_adapt.divconq.text.conversation import Conversation, conversation_key, response_of
from lightning_adapt.divconq.text.formats import Format, to_conversation
from lightning_adapt.divconq.text.rows import RowTexts

__all__ = ["Pool", "Progress", "SomeTexts", "read_pool"]

Progress = Callable[[str, int, "int | None"], None]  # what, rows done, rows in all or None
Place = Callable[[int], str]  # how to name a row to the user
EVERY = 500  # rows between two reports of progress


@dataclass(frozen=True)
class Pool:
    """What is kept of a file in memory: 28 bytes per row.

    Attributes:
        texts: Reads the texts of a row from the file when asked.
        keys: Hash of each row's conversation. Shape (n, 16), uint8.
        lengths: Characters of each response, 0 for an empty one. Shape (n,), int32.
        quality: The number in the quality column. Shape (n,), float64; None without such a column.
        fingerprint: Hash of all keys in order: equal for equal conversations, whatever the format of the file.
    """

    texts: RowTexts
    keys: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int32]
    quality: npt.NDArray[np.float64] | None
    fingerprint: str

    def candidates(self, *, copies: bool) -> npt.NDArray[np.int64]:
        """Return the rows that may be chosen: those with a response, of equal ones the first.

        Args:
            copies: Keep the copies, too.

        Returns:
            Row numbers, ascending, int64.
        """
        rows = np.flatnonzero(self.lengths)
        if copies:
            return rows
        high, low = self.keys[rows].view(np.uint64).T
        order = np.lexsort((low, high))  # stable: of equal keys the first row comes first
        new = np.ones(len(rows), dtype=np.bool_)
        new[1:] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
        return np.sort(rows[order[new]])


def read_pool(rows: Any, *, format: Format | None, quality: str | None, progress: Progress) -> Pool:
    """Read every row once, check it, and keep what the selection needs.

    Args:
        rows: What `open_rows` returns.
        format: How a row holds its conversation; None to go by the keys of each row.
        quality: Column with a finite number in every row; None for none.
        progress: Called now and then.

    Returns:
        The pool.

    Raises:
        ValueError: If a row is not in a known format, or has no number in the quality column; names file and row.
    """

    def conversation_at(row: int) -> Conversation:
        return _conversation(rows[row], format, rows.place, row)

    n = len(rows)
    keys, lengths = np.empty((n, 16), dtype=np.uint8), np.zeros(n, dtype=np.int32)
    numbers = None if quality is None else np.empty(n, dtype=np.float64)
    for row in range(n):
        content = rows[row]
        conversation = _conversation(content, format, rows.place, row)
        keys[row] = np.frombuffer(conversation_key(conversation), dtype=np.uint8)
        lengths[row] = len(response_of(conversation).strip())
        if numbers is not None:
            numbers[row] = _number(content, str(quality), rows.place, row)
        if (row + 1) % EVERY == 0 or row + 1 == n:
            progress("reading", row + 1, n)
    fingerprint = hashlib.blake2b(keys.data, digest_size=16).hexdigest()
    return Pool(RowTexts(n, conversation_at, rows.place), keys, lengths, numbers, fingerprint)


def _conversation(content: Any, format: Format | None, place: Place, row: int) -> Conversation:
    try:
        return to_conversation(content, format)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{place(row)}: {problem}") from problem


def _number(content: Mapping[str, Any], column: str, place: Place, row: int) -> float:
    if column not in content:
        raise ValueError(f"{place(row)}: there is no column {column!r}. There are: {', '.join(map(str, content))}.")
    value = content[column]
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{place(row)}: the column {column!r} must hold a finite number, but got {describe(value)}.")
    return float(value)


class SomeTexts(Sequence[str]):
    """The texts of some rows, read from the file when asked for; reports how many were read.

    Args:
        texts: Texts of all rows.
        rows: Rows to show, in this order.
        progress: Called now and then.
        what: Name of the step for `progress`.
        quick_reads: Reads that come before the work proper and do not count.
    """

    def __init__(
        self,
        texts: Sequence[str],
        rows: npt.NDArray[np.int64],
        progress: Progress,
        what: str,
        quick_reads: int = 0,
    ) -> None:
        self._texts, self._rows = texts, rows
        self._progress, self._what = progress, what
        self._read = -quick_reads

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        text = self._texts[int(self._rows[place])]
        self._read += 1
        if self._read > 0 and (self._read % EVERY == 0 or self._read == len(self)):
            self._progress(self._what, min(self._read, len(self)), len(self))
        return text
