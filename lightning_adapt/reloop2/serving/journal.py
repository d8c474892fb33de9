"""A server's diary in SQLite: every prediction that waits, every label that was acknowledged; replayed on restart."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import Self

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt.reloop2.serving.journal_entries import Entry, Place, check_head, head_of, pack, unpack

__all__ = ["Journal", "JournalError"]

_LOCK_WAIT_S = 5.0  # for a predecessor that is just being killed
_TABLES = (
    "CREATE TABLE head (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, time REAL NOT NULL, ids TEXT NOT NULL, "
    "tensors BLOB NOT NULL, digest BLOB NOT NULL)",
)
_REMEDY = "Put back a copy from before, or begin with a new journal."


class JournalError(RuntimeError):
    """Nothing can be written now: another process has the journal, the disk failed, or the journal is closed."""


class Journal:
    """Entries in the order of their commits, each of which is on the disk before `append` returns.

    One process at a time: whoever opens the journal holds it until it ends, however it ends. Entries are chained by
    hashes, so that one that is damaged, missing or out of place is found. Tensors are safetensors bytes, ids JSON;
    nothing is pickled. The file `<path>.snapshot.safetensors` beside it stands for all entries up to some place, and
    those are deleted.

    Args:
        path: The SQLite file; made if it is not there.
        snapshot_every: Rows, predicted or labelled, after which the owner is to write a snapshot; it bounds the file
            and the time of a restart.

    Raises:
        TypeError, ValueError: If `snapshot_every` is no whole number >= 1.
        ModuleNotFoundError: If safetensors is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, snapshot_every: int = 20_000) -> None:
        require("recsys", "A journal", "safetensors")
        self.path = Path(path)
        self.snapshot_every = check_integer("snapshot_every", snapshot_every, "Pass 20000, say.", minimum=1)
        self.rows_since_snapshot = 0
        self._connection: sqlite3.Connection | None = None
        self._grouping = False
        self._place = self._pruned = Place("", 0, "")

    @property
    def snapshot_path(self) -> Path:
        """Where the owner keeps its snapshot."""
        return self.path.with_name(f"{self.path.name}.snapshot.safetensors")

    @property
    def place(self) -> Place:
        """The place after the last entry."""
        return self._place

    @property
    def needs_snapshot(self) -> bool:
        """Whether enough rows have come since the last one."""
        return self.rows_since_snapshot >= self.snapshot_every

    # -- opening ------------------------------------------------------------------------------------------------------
    def open(self, owner: Mapping[str, Any]) -> bool:
        """Open the file and take hold of it.

        Args:
            owner: What the entries belong to, JSON values: the model's weights, the memory's settings.

        Returns:
            Whether it has a history: then read the snapshot, and `replay` from its place. Otherwise call `begin`.

        Raises:
            JournalError: If another process has it, or it cannot be written to.
            ValueError: If it belongs to something else, is damaged, of a newer release, or no journal at all.
        """
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._reading(), self._opening():
            connection = self._connection = self._connect()
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            head = dict(connection.execute("SELECT name, value FROM head")) if "head" in names else {}
        self.rows_since_snapshot = 0
        if not names:
            self._place = self._pruned = Place(secrets.token_hex(16), 0, "")
            return False
        try:
            self._place = self._pruned = check_head(self.path, head, owner)
        except ValueError:
            self.close()
            raise
        return True

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, _LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            # exclusive: held until the process ends; WAL and FULL: a commit that returned survives a loss of power
            for line in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                connection.execute(f"PRAGMA {line}")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def begin(self, owner: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        """Make a new file a journal.

        Args:
            owner: As for `open`.
            write: Writes what the owner begins with to a file that it is given.

        Raises:
            OSError: If the snapshot cannot be written.
            JournalError: If the journal cannot be written.
        """
        self._write_snapshot(write)
        with self._transaction() as connection:
            for line in _TABLES:
                connection.execute(line)
            connection.executemany("INSERT INTO head VALUES (?, ?)", head_of(self._place, owner).items())

    # -- reading ------------------------------------------------------------------------------------------------------
    def replay(self, after: Place) -> Iterator[Entry]:
        """Read what was written after a place, and check all there is.

        Args:
            after: The place of the snapshot.

        Yields:
            The entries in their order.

        Raises:
            ValueError: If entries are damaged or missing, or the snapshot is not of this journal.
        """
        place = self._pruned
        self._check_reached(after, place)
        if after.journal != place.journal or after.seq < place.seq:
            raise self._foreign_snapshot()
        with self._reading():
            for row in self._open.execute("SELECT * FROM entries ORDER BY seq"):
                found = unpack(row, place)
                if found is None:
                    raise ValueError(f"{self.path} is damaged at entry {place.seq + 1}. {_REMEDY}")
                entry, place = found
                self._check_reached(after, place)
                if place.seq > after.seq:
                    self.rows_since_snapshot += len(entry.ids)
                    yield entry
        if place.seq < after.seq:
            raise self._foreign_snapshot()
        self._place = place

    def _check_reached(self, after: Place, place: Place) -> None:
        if place.seq == after.seq and place != after:
            raise self._foreign_snapshot()

    def _foreign_snapshot(self) -> ValueError:
        return ValueError(f"{self.path} is not what {self.snapshot_path} was made from. {_REMEDY}")

    # -- writing ------------------------------------------------------------------------------------------------------
    def append(self, entry: Entry) -> None:
        """Write an entry; when this returns, or the group around it ends, it is on the disk.

        Args:
            entry: The entry; all its rows are one transaction.

        Raises:
            JournalError: If it could not be written. Nothing can be written any more then, until the journal is opened
                anew: whether the entry counts is known only by looking at the disk.
        """
        row, place = pack(entry, self._place)
        with self._writing() if self._grouping else self._transaction() as connection:
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
        self._place = place
        self.rows_since_snapshot += len(entry.ids)

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """Make one transaction of several entries: a wait for the disk is shared.

        Yields:
            Nothing; entries appended inside the block are on the disk when it has ended.

        Raises:
            JournalError: At the end of the block, if they could not be written.
        """
        with self._transaction(after_errors="COMMIT"):  # what was appended before an error was acted on
            self._grouping = True
            try:
                yield
            finally:
                self._grouping = False

    def snapshot(self, write: Callable[[Path], None]) -> None:
        """Keep what the entries led to, and delete them.

        Args:
            write: Writes the owner's state at `place` to a file that it is given.

        Raises:
            OSError: If the snapshot cannot be written.
            JournalError: If the journal cannot be written.
        """
        self._write_snapshot(write)
        place = self._place
        with self._transaction() as connection:
            connection.execute("DELETE FROM entries WHERE seq <= ?", (place.seq,))
            changed = [(str(place.seq), "seq"), (place.digest, "digest")]
            connection.executemany("UPDATE head SET value = ? WHERE name = ?", changed)
        self._pruned, self.rows_since_snapshot = place, 0

    def _write_snapshot(self, write: Callable[[Path], None]) -> None:
        with whole_file(self.snapshot_path) as unfinished:
            write(unfinished)
            _flush(unfinished)
        _flush(self.snapshot_path.parent)  # the entries are deleted next: the new name has to be on the disk

    def close(self) -> None:
        """Let go of the file; another process may open it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- parts --------------------------------------------------------------------------------------------------------
    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalError(f"{self.path} is closed. Open the journal anew: restart the server.")
        return self._connection

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            self.close()
            remedy = "See to the folder and the disk."
            if "locked" in str(error):
                remedy = "Another process owns it: stop that one, or give this one a journal of its own."
            raise JournalError(f"{self.path} cannot be opened: {error}. {remedy}") from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # of texts in it that are none
            self.close()
            raise ValueError(f"{self.path} is no journal, or is damaged: {error}. {_REMEDY}") from error

    @contextlib.contextmanager
    def _transaction(self, *, after_errors: str = "ROLLBACK") -> Iterator[sqlite3.Connection]:
        with self._writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute(after_errors)
                raise
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._open
        except sqlite3.Error as error:
            self.close()  # undoes what was not committed
            remedy = "What was asked for is not acknowledged. See to the disk, then restart the server."
            raise JournalError(f"{self.path} cannot be written: {error}. {remedy}") from error


def _flush(path: Path) -> None:
    if os.name != "posix" and path.is_dir():  # elsewhere a folder cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
