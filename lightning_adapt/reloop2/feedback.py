"""Labels that come late: what was served waits for them; under several processes all ranks learn from the same rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.collectives import gather_rows
from lightning_adapt.reloop2.capture import Keys
from lightning_adapt.reloop2.compensator import Memory

__all__ = ["Feedback", "FeedbackQueue"]


@dataclass
class Feedback:
    """Rows whose labels are there, in the order in which they were served.

    Attributes:
        keys: What the memory looks rows up by.
        labels: Shape (B,), float32.
        base: What the base model gave. Shape (B,).
        signals: What the memory said. Shape (B, m).
    """

    keys: Keys
    labels: Tensor
    base: Tensor
    signals: Tensor


class FeedbackQueue:
    """Writes each batch to the memory once `delay` more batches have been served.

    Args:
        delay: Batches that a label is late; 0: written before the next batch is served.
    """

    def __init__(self, delay: int) -> None:
        self.delay = delay
        self._waiting: deque[Feedback] = deque()
        self._first_ids: Tensor | None = None
        self._rows_so_far = 0

    def begin(self) -> None:
        """Begin a pass over a loader: rows are counted anew."""
        self._first_ids, self._rows_so_far = None, 0

    def add(self, memory: Memory, batch: Feedback) -> None:
        """Take in a batch, and write the one whose labels have become old enough.

        Args:
            memory: Where to write.
            batch: The batch that was just served.
        """
        self._waiting.append(batch)
        while len(self._waiting) > self.delay:
            self._write(memory, self._waiting.popleft())

    def flush(self, memory: Memory) -> None:
        """Write all that waits: the stage is over, and its last labels come before anything else is served.

        Args:
            memory: Where to write.
        """
        while self._waiting:
            self._write(memory, self._waiting.popleft())

    def clear(self) -> None:
        """Drop all that waits."""
        self._waiting.clear()

    @staticmethod
    def _write(memory: Memory, batch: Feedback) -> None:
        memory.write(batch.keys, batch.labels, batch.base, batch.signals)  # type: ignore[arg-type]

    def gathered(self, trainer: Any, batch: Feedback, ids: Tensor | None, n_rows: int | None) -> Feedback:
        """Return the rows of all ranks in the order in which one process would have served them.

        Lightning deals the rows of a test set out in turn and fills up with the first rows at the end: by the rows'
        ids, where there are any, or else by their place, rows are put back in order and fill-ups dropped.

        Args:
            trainer: The Trainer.
            batch: The rows of this rank.
            ids: Ids of the rows, which order them. Shape (B,), int64; None: the place tells.
            n_rows: Rows of the data set; None if unknown.

        Returns:
            The rows of all ranks, the same on each.
        """
        if trainer.world_size == 1:
            return batch
        place = torch.arange(len(batch.labels), device=batch.labels.device) * trainer.world_size + trainer.global_rank
        order = gather_rows(trainer, place if ids is None else ids.to(place))
        kept = order.argsort(stable=True)
        if ids is None:
            room = len(order) if n_rows is None else max(n_rows - self._rows_so_far, 0)
            self._rows_so_far += len(order)
            kept = kept[:room]
        else:
            kept = self._without_repeats(order, kept)
        return Feedback(
            _each(batch.keys, lambda value: gather_rows(trainer, value)[kept]),
            *(gather_rows(trainer, value)[kept] for value in (batch.labels, batch.base, batch.signals)),
        )

    def _without_repeats(self, ids: Tensor, order: Tensor) -> Tensor:
        sorted_ids = ids[order]
        fresh = torch.ones_like(sorted_ids, dtype=torch.bool)
        fresh[1:] = sorted_ids[1:] != sorted_ids[:-1]
        if self._first_ids is None:
            self._first_ids = sorted_ids
        else:
            fresh &= ~torch.isin(sorted_ids, self._first_ids)  # samplers fill up with rows of the first batch
        return order[fresh]


def _each(keys: Keys, change: Any) -> Keys:
    if isinstance(keys, Mapping):
        return {name: change(value) for name, value in sorted(keys.items())}
    return change(keys)  # type: ignore[no-any-return]
