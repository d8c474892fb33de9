"""The state behind a predictor, and the journal that lets it survive: what is acted on was committed before."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from lightning_adapt.reloop2.serving.journal import Journal, JournalError
from lightning_adapt.reloop2.serving.journal_entries import Entry
from lightning_adapt.reloop2.serving.predictor_state import PredictorState, read_state

__all__ = ["KeptState"]


class KeptState:
    """A state that changes by entries only, each written to the journal first.

    Args:
        state: What to begin with, unless the journal has a history.
        weights: Fingerprint of the base weights.
        journal: The journal; None keeps nothing on the disk.
    """

    def __init__(self, state: PredictorState, weights: str, journal: Journal | None) -> None:
        self.state, self.weights, self.journal = state, weights, journal
        self._broken = self._grouping = False

    def begin(self, places: Mapping[str, Any], prepare: Callable[[], None], *, timeout_s: float, max_rows: int) -> None:
        """Go on where the journal ends, or begin.

        Args:
            places: Where the memory sits in the model. JSON values.
            prepare: Readies a memory that nothing was written to.
            timeout_s: Seconds that rows wait from now on.
            max_rows: Rows that wait at most from now on.

        Raises:
            JournalError: If another process has the journal.
            ValueError: If the journal belongs to something else, or is damaged.
            OSError: If a snapshot cannot be written.
        """
        if self.journal is None:
            prepare()
            self.state.waiting.resize(timeout_s, max_rows)
            return
        memory = self.state.memory
        settings = {name: value for name, value in memory.config().items() if name != "dim"}  # it comes with the keys
        kind = type(memory).__name__
        owner = {"weights": self.weights, "memory": kind, "settings": settings, "places": dict(places)}
        try:
            if self.journal.open(owner):
                self._replay(self.journal)
            else:
                prepare()
                self.journal.begin(owner, partial(self._write, self.journal))
            waiting = self.state.waiting
            if (waiting.timeout_s, waiting.max_rows) != (timeout_s, max_rows):
                waiting.resize(timeout_s, max_rows)
                # a replay of what came before has to have the old bounds
                self.journal.snapshot(partial(self._write, self.journal))
        except BaseException:
            self.journal.close()
            raise

    def _replay(self, journal: Journal) -> None:
        if not journal.snapshot_path.exists():
            remedy = "Put it back, or begin with a new journal."
            raise ValueError(f"{journal.path} needs {journal.snapshot_path}, which is missing. {remedy}")
        saved = read_state(journal.snapshot_path, self.weights)
        if saved.place is None:
            raise ValueError(f"{journal.snapshot_path} is no snapshot of a journal. Put the right file there.")
        self.state.memory.load_state_dict(saved.memory.state_dict())
        self.state.waiting, self.state.rows_to_calibrate = saved.waiting, saved.rows_to_calibrate
        try:
            for entry in journal.replay(saved.place):
                self.state.apply(entry)
        except (RuntimeError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, JournalError):
                raise
            text = " ".join(str(error).split())
            raise ValueError(f"{journal.path} and {journal.snapshot_path} do not fit together: {text}") from error

    def take(self, entry: Entry) -> None:
        """Write an entry to the journal, then act on it.

        Args:
            entry: The entry.

        Raises:
            JournalError: If it could not be written; then it was not acted on.
        """
        if self.journal is not None:
            self.journal.append(entry)
        try:
            self.state.apply(entry)
        except BaseException:
            self._broken = True  # the memory may have taken half of a step
            raise
        if not self._grouping:
            self._snapshot_if_due()

    @contextmanager
    def group(self) -> Iterator[None]:
        """Commit all entries of a block at its end.

        Yields:
            Nothing.

        Raises:
            JournalError: At the end, if they could not be written. They were acted on, so that the state is lost.
        """
        if self.journal is None or self._grouping:
            yield
            return
        self._grouping = True
        try:
            with self.journal.group():
                yield
        except JournalError:
            self._broken = True
            raise
        finally:
            self._grouping = False
        self._snapshot_if_due()

    def close(self) -> None:
        """Let go of the journal."""
        if self.journal is not None:
            self.journal.close()

    def check_usable(self) -> None:
        """Raise JournalError if the state is lost in memory, so that only the journal or a file has it."""
        if self._broken:
            raise JournalError("An error stopped this predictor inside a step. Build it anew from its journal or file.")

    def _snapshot_if_due(self) -> None:
        if self.journal is None or not self.journal.needs_snapshot:
            return
        try:
            self.journal.snapshot(partial(self._write, self.journal))
        except Exception as error:  # whatever it is: the label in hand is safe in the journal, and has to be confirmed
            self.journal.rows_since_snapshot = 0
            warnings.warn(f"No snapshot could be written, so that {self.journal.path} grows: {error}", stacklevel=4)

    def _write(self, journal: Journal, path: Any) -> None:
        self.state.place = journal.place
        self.state.write(path, self.weights)
