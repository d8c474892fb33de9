"""One array of vectors on disk: written bit by bit, resumed after a kill, checked when read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any

import numpy as np
from typing_extensions import Self

from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.text_files import read_json
from lightning_adapt.divconq.embed.array_file import open_array
from lightning_adapt.divconq.embed.embedders import FloatArray

__all__ = ["VectorFile", "check_width", "read_vector_file"]

MARK_SECONDS = 5.0  # at most this much work is lost in a kill
_HASHED_BYTES = 2**24


def read_vector_file(path: Path, about: Mapping[str, Any], length: int) -> FloatArray | None:
    """Return the vectors of a finished file.

    Args:
        path: The `.npy` file; what it is stands in a `.json` file beside it.
        about: What it should be; JSON values.
        length: Number of rows it should have.

    Returns:
        A read-only memory map of shape (length, D), dtype float32; None if there is no such file, or it is damaged
        (with a warning).
    """
    if not path.exists():
        return None
    try:
        found, vectors = read_json(path.with_suffix(".json")), open_array(path)
        sound = (
            found["about"] == about
            and vectors.dtype == np.float32
            and vectors.ndim == 2
            and len(vectors) == length
            and found["sha256"] == _digest(path)
        )
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if sound:
        return vectors
    warnings.warn(f"The vectors in {path} are damaged and are made again.", stacklevel=2)
    return None


class VectorFile:
    """A `.npy` file in the making; enter it, put rows in order, finish it.

    Unfinished rows are kept beside the target, with a note of how many are done, so that the next try goes on after
    them. Only one process at a time owns them; others make a file of their own. The last one to finish wins; nobody
    ever sees half a file.

    Args:
        path: The target.
        about: What it is; JSON values.
        length: Number of rows N.

    Attributes:
        rows_done: Rows that are there already.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], length: int) -> None:
        self.path, self.about, self.length = path, dict(about), length
        self.rows_done = 0
        self._vectors: np.memmap[Any, np.dtype[np.float32]] | None = None
        self._lock: int | None = None
        self._data = self._note = self._locked = Path()
        self._marked = time.monotonic()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stem = f".unfinished-{self.path.stem}"
        self._data, self._note, self._locked = (
            self.path.with_name(stem + ending) for ending in (".npy", ".json", ".lock")
        )
        self._lock = _try_lock(self._locked)
        if self._lock is None:  # another process is at it, or this system has no such locks
            self._data = self.path.with_name(f"{stem}-{token_hex(8)}.npy")
        else:
            self._resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            self._vectors = None
            self._data.unlink(missing_ok=True)
            return
        if self._vectors is not None:  # not finished: keep what is there
            self._mark()
            self._vectors = None
        if not self._data.exists():
            self._locked.unlink(missing_ok=True)
        os.close(self._lock)

    def put(self, row: int, vectors: FloatArray) -> None:
        """Write the next rows.

        Args:
            row: Number of the first one: `rows_done`.
            vectors: Shape (n, D), dtype float32; D as in the first call.

        Raises:
            ValueError: If D has changed.
            OSError: If it cannot be written.
        """
        if self._vectors is None:
            shape = (self.length, vectors.shape[1])
            if self._lock is not None:  # what is left of unfinished rows that cannot be gone on with
                self._note.unlink(missing_ok=True)
            mapped = np.lib.format.open_memmap(self._data, mode="w+", dtype=np.float32, shape=shape)
            try:
                _claim(self._data)
            except OSError:
                self._data.unlink()
                raise
            self._vectors = mapped
        check_width(vectors, self._vectors.shape[1])
        self._vectors[row : row + len(vectors)] = vectors
        self.rows_done = row + len(vectors)
        if time.monotonic() - self._marked >= MARK_SECONDS:
            self._mark()

    def finish(self) -> FloatArray:
        """Put the file in its place.

        Returns:
            A read-only memory map of it. Shape (N, D), dtype float32.

        Raises:
            OSError: If it cannot be written.
        """
        if self._vectors is not None:
            self._vectors.flush()
            self._vectors = None
        text = json.dumps({"about": self.about, "sha256": _digest(self._data)}, indent=1)
        with whole_file(self.path.with_suffix(".json")) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
        self._data.replace(self.path)
        if self._lock is not None:
            self._note.unlink(missing_ok=True)
        vectors: FloatArray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return vectors

    def _mark(self) -> None:
        """Note how many rows are done, once they are."""
        if self._lock is None or self._vectors is None:
            return
        self._vectors.flush()
        with whole_file(self._note) as unfinished:
            unfinished.write_text(json.dumps({"about": self.about, "rows": self.rows_done}), encoding="utf-8")
        self._marked = time.monotonic()

    def _resume(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
            note = read_json(self._note)
            vectors: Any = open_array(self._data, "r+")
            rows = int(note["rows"])
            fits = vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == self.length
            if fits and note["about"] == self.about and 0 < rows <= self.length:
                _claim(self._data)
                self._vectors, self.rows_done = vectors, rows


def _claim(path: Path) -> None:
    """Have a file's space on the disk now: a map of a sparse file ends the process when the disk is full later."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:  # others: a file system without such a call
                raise


def check_width(vectors: FloatArray, width: int) -> None:
    """Refuse rows of another length than the earlier ones.

    Args:
        vectors: Shape (n, D), dtype float32.
        width: D of the earlier ones.

    Raises:
        ValueError: If they differ.
    """
    if vectors.shape[1] != width:
        raise ValueError(f"The embedder gave vectors of length {vectors.shape[1]} after {width}.")


def _try_lock(path: Path) -> int | None:
    """Return the descriptor of a locked file, or None; the system lets go of it when the process ends, however."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:  # noqa: PTH116 - beside fstat; else it was just removed
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASHED_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
