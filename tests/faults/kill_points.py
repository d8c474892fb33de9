"""Kills right inside the writing of a file, where a random moment seldom hits."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileOpener

__all__ = ["HALF_A_COPY", "KILL_POINTS", "Armed"]

HALF_A_COPY = "half a checkpoint copied from another file system"
_HALF_A_CHECKPOINT, _HALF_A_FILE = "half a checkpoint", "half a file"
_BEFORE, _AFTER = "before a rename", "after a rename"
KILL_POINTS = (_HALF_A_CHECKPOINT, _HALF_A_FILE, _BEFORE, _AFTER)


class Armed:
    """Lets the process that calls it kill itself, with all of its group, inside the nth write of a kind.

    A run with fewer writes of that kind comes to its end.

    Args:
        point: One of `KILL_POINTS`, or `HALF_A_COPY`.
        number: Which of these writes, from 1.
    """

    def __init__(self, point: str, number: int) -> None:
        self.point, self.left = point, number

    def __call__(self) -> None:
        if self.point == _HALF_A_CHECKPOINT:
            self._wrap(LocalFileOpener, "write", self._half_written)
        elif self.point == _HALF_A_FILE:
            self._wrap(Path, "write_bytes", self._half_bytes)
            self._wrap(Path, "write_text", self._half_bytes)
        elif self.point == HALF_A_COPY:
            self._wrap(shutil, "copyfile", self._half_copied)
            os.rename = _other_file_system  # type: ignore[assignment]
        else:
            for owner, name in ((os, "rename"), (os, "replace"), (Path, "replace")):
                self._wrap(owner, name, self._renamed)

    def _wrap(self, owner: Any, name: str, instead: Callable[..., None]) -> None:
        usual = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                instead(usual, *arguments, **options)
                os.killpg(0, signal.SIGKILL)
            return usual(*arguments, **options)

        setattr(owner, name, wrapped)

    def _half_written(self, usual: Any, file: Any, content: Any) -> None:
        usual(file, content[: len(content) // 2])
        file.f.flush()

    def _half_bytes(self, usual: Any, path: Path, content: Any, *arguments: Any, **options: Any) -> None:
        usual(path, content[: len(content) // 2], *arguments, **options)

    def _half_copied(self, usual: Any, source: str, target: str, **options: Any) -> None:
        content = Path(source).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])

    def _renamed(self, usual: Any, *arguments: Any) -> None:
        if self.point == _AFTER:
            usual(*arguments)


def _other_file_system(source: Any, target: Any) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link", str(source))
