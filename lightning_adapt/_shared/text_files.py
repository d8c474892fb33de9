"""Text and JSON that somebody else wrote: whatever is wrong with it becomes one ValueError that says where."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["parse_json", "read_json", "read_text"]


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file in UTF-8, without a byte order mark.

    Args:
        path: The file.

    Returns:
        The text.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no text in UTF-8; names the file.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)} is no text in UTF-8: {error}. Convert the file to UTF-8.") from error


def parse_json(text: str | bytes, what: str) -> Any:
    """Return the value that JSON text stands for.

    Args:
        text: The text.
        what: What it is, for the error text, such as the path of a file.

    Returns:
        The value.

    Raises:
        ValueError: If it is no JSON, nested too deeply, or has a number with too many digits; says what it is.

    Example:
        >>> parse_json('{"a": 1}', "the settings")
        {'a': 1}
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{what} is no readable JSON: it is nested too deeply.") from error
    except ValueError as error:  # also of bytes that are no text, and of numbers with thousands of digits
        raise ValueError(f"{what} is no readable JSON: {error}.") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value in a JSON file.

    Args:
        path: The file.

    Returns:
        The value.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no JSON in UTF-8; names the file.
    """
    return parse_json(read_text(path), os.fspath(path))
