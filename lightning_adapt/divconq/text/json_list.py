"""Where the items of a JSON list are in a file, found without holding the list; and errors about JSON."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from lightning_adapt.divconq.text.readers import RowError, malformed

__all__ = ["CHUNK_BYTES", "EXCERPT", "LIST_EXPECTED", "ListScanner", "Span", "as_mapping", "not_json"]

CHUNK_BYTES = 2**22
EXCERPT = 40  # characters before and after a mistake
LIST_EXPECTED = "a list of JSON objects"
_SPACE = " \t\r\n"
Span = tuple[int, int, int]  # first byte, number of bytes, number of the line it starts on


class ListScanner:
    """Finds the items of a JSON list in a file, a few MB at a time.

    Args:
        file: The file, at `offset`.
        name: Its name, for error texts.
        offset: The byte it is at.
    """

    def __init__(self, file: BinaryIO, name: str, offset: int) -> None:
        self._file, self._name, self._offset, self._line = file, name, offset, 1
        self._utf8, self._json = codecs.getincrementaldecoder("utf-8")(), json.JSONDecoder()
        self._text, self._at = "", 0

    def __iter__(self) -> Iterator[Span]:
        self._take("[")
        if self._peek() == "]":
            self._take("]")
        else:
            yield self._item()
            while self._take(",]") == ",":
                yield self._item()
        if rest := self._peek():
            raise self._wrong("there is more text after the list", rest)

    def _item(self) -> Span:
        self._peek()
        start, line, chunk_bytes = self._offset, self._line, CHUNK_BYTES
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                break
            except (ValueError, RecursionError) as error:
                if self._is_certain(error) or not self._more(chunk_bytes):
                    place = f"{self._name}, line {self._line}"
                    raise not_json(place, LIST_EXPECTED, error, self._text, self._at) from error
                chunk_bytes *= 2  # a row longer than a chunk: do not parse its start too often
        as_mapping(value, f"{self._name}, line {line}", LIST_EXPECTED)
        self._advance(end)
        return start, self._offset - start, line

    def _is_certain(self, error: Exception) -> bool:
        """Return whether more text could not mend it: it is no string without an end, and not at the end."""
        if not isinstance(error, json.JSONDecodeError):
            return True
        return not error.msg.startswith("Unterminated string") and error.pos + 16 < len(self._text)

    def _take(self, allowed: str) -> str:
        found = self._peek()
        if not found or found not in allowed:
            raise self._wrong(f"{' or '.join(map(repr, allowed))} is missing", found)
        self._advance(self._at + 1)
        return found

    def _peek(self) -> str:
        """Return the next character that is no white space, without taking it; "" at the end of the file."""
        while True:
            end = self._at
            while end < len(self._text) and self._text[end] in _SPACE:
                end += 1
            self._advance(end)
            if end < len(self._text):
                return self._text[end]
            if not self._more(CHUNK_BYTES):
                return ""

    def _advance(self, end: int) -> None:
        taken = self._text[self._at : end]
        self._offset += len(taken) if taken.isascii() else len(taken.encode())
        self._line += taken.count("\n")
        self._at = end

    def _more(self, size: int) -> bool:
        data = self._file.read(size)
        try:
            text = self._utf8.decode(data, final=not data)
        except UnicodeDecodeError as error:
            around = ascii(error.object[max(0, error.start - EXCERPT) : error.start + EXCERPT])
            place = f"{self._name}, line {self._line} or later"
            raise malformed(place, "UTF-8 text", "some bytes are not", around) from error
        self._text, self._at = self._text[self._at :] + text, 0
        return bool(data)

    def _wrong(self, what: str, found: str) -> RowError:
        excerpt = self._text[max(0, self._at - EXCERPT) : self._at + EXCERPT] if found else "the end of the file"
        return malformed(f"{self._name}, line {self._line}", LIST_EXPECTED, what, excerpt)


def as_mapping(value: Any, place: str, expected: str) -> Mapping[str, Any]:
    """Return a parsed row if it is a JSON object.

    Args:
        value: What was parsed.
        place: File and line.
        expected: What the file should hold.

    Returns:
        The value.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(value, dict):
        raise malformed(place, expected, f"got a {type(value).__name__}", str(value))
    return value


def not_json(place: str, expected: str, error: Exception, text: str, start: int = 0) -> RowError:
    """Return the error for text that is no JSON.

    Args:
        place: File and line.
        expected: What the file should hold.
        error: What `json` raised.
        text: The text.
        start: Where the row begins in it.

    Returns:
        The error, to be raised; with an excerpt of the text around the mistake.
    """
    if isinstance(error, json.JSONDecodeError):
        excerpt = text[max(start, error.pos - EXCERPT) : error.pos + EXCERPT]
        return malformed(place, expected, f"the JSON is malformed at column {error.colno} ({error.msg})", excerpt)
    why = "it is nested too deeply" if isinstance(error, RecursionError) else f"a value cannot be read ({error})"
    return malformed(place, expected, why, text[start : start + 2 * EXCERPT])
