"""Looking at a journal while it is in use, as the disk would show it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path


def entries(path: Path) -> list[tuple[int, str]]:
    """Numbers and kinds of the entries on the disk, read from a copy."""
    copy = copied(path, path.parent / "look")
    with closing(sqlite3.connect(copy)) as connection:
        return connection.execute("SELECT seq, kind FROM entries ORDER BY seq").fetchall()


def copied(path: Path, folder: Path) -> Path:
    """What the disk would hold if the power went now."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)
    return folder / path.name
