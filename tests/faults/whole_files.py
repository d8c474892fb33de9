"""Looks at a folder after a kill: which files are whole, and which are unfinished and say so in their names."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

__all__ = ["OURS", "THEIRS", "look_at"]

# beside the file that it becomes; and in TMPDIR, where Lightning writes checkpoints before it moves them
OURS, THEIRS = ".unfinished-", "TMPDIR"
# the observer's own: written by the tests, not by what they look at
_NOTES = ("process-", "diary-", "output.txt", "error.txt", "acknowledged")


def _parquet(path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.read_table(path)


def _tensors(path: Path) -> None:
    from safetensors.torch import load_file

    load_file(path)


def _database(path: Path) -> None:
    """As another process would find it now: with the log that lies beside it."""
    with tempfile.TemporaryDirectory() as folder:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, folder)
        with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    if answer != "ok":
        raise ValueError(answer)


def _nothing(path: Path) -> None:
    """A lock, or a part of a database that is looked at with the database."""


_READERS: dict[str, Callable[[Path], object]] = {
    ".ckpt": lambda path: torch.load(path, weights_only=True),
    ".pt": lambda path: torch.load(path, weights_only=True),
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".parquet": _parquet,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".safetensors": _tensors,
    ".sqlite": _database,
    ".sqlite-wal": _nothing,
    ".sqlite-shm": _nothing,
}


def look_at(folder: Path, temporary: Counter[str]) -> list[str]:
    """Read every file of a folder.

    Args:
        folder: The folder of a run.
        temporary: Counts what is unfinished and says so, by the beginning of its name or its place.

    Returns:
        Files that are half written or of an unknown kind, with the reason.
    """
    wrong = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.relative_to(folder).parts[0] == "tmp":
            temporary[THEIRS] += 1
        elif path.name.startswith(OURS):
            temporary[OURS] += 1
        elif not path.name.startswith(_NOTES):
            try:
                _READERS[path.suffix](path)
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
    return wrong
