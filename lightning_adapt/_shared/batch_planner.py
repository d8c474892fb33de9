"""BatchPlanner: base of samplers that plan whole batches, and what other samplers of ours may do with a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_adapt._shared.sampling import EpochSampler


class BatchPlanner(EpochSampler):
    """Base of samplers whose samples are whole batches, planned anew for every epoch, equally many in each.

    A method that draws a share of the data takes whole batches of a plan (`batch`); one that chooses rows has batches
    planned of these rows alone (`restricted`). Both need nothing else, so that they work with any planner.

    A subclass implements `batch`, `chosen_rows`, `set_rows`, and what `EpochSampler` asks for.
    """

    def batch(self, epoch: int, number: int) -> Any:
        """Return one batch of the plan of an epoch.

        Args:
            epoch: The epoch, from 0.
            number: Which of the batches of all ranks together, 0 <= number < epoch_size(epoch).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement batch.")

    def chosen_rows(self) -> Tensor | None:
        """Return the rows that batches are planned of, int64 of shape (n,); None for all of the data set."""
        raise NotImplementedError(f"{type(self).__name__} must implement chosen_rows.")

    def set_rows(self, rows: Tensor) -> None:
        """Plan batches of these rows from now on.

        Args:
            rows: Distinct rows of the data set. Shape (n,), dtype int64.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement set_rows.")

    def copy(self) -> Self:
        """Return a planner of its own that plans the same."""
        raise NotImplementedError(f"{type(self).__name__} must implement copy.")

    def restricted(self, rows: Tensor) -> Self:
        """Return a planner like this one for some of the rows; this one stays as it is.

        Args:
            rows: As in `set_rows`.
        """
        other = self.copy()
        other.set_rows(rows)
        return other

    def rows(self) -> NoReturn:
        """Refuse to be sampled from: what this sampler chooses are batches, not rows.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"{type(self).__name__} plans whole batches; no other sampler can draw rows from it. "
            "Choose rows before it is made, or use a loader with a batch_size."
        )

    def rank_rows(self, samples: Tensor) -> Tensor:
        """Return the first row of these batches of this rank, int64 of shape (S,)."""
        return self.draw(self.epoch, samples * self.num_replicas + self.rank)

    def epoch_rows(self, epoch: int) -> Tensor:
        """Return the rows of a whole epoch, all ranks together, in the order of the batches; int64 of shape (R,)."""
        return rows_of_batches([self.batch(epoch, number) for number in range(self.epoch_size(epoch))])

    def __iter__(self) -> Iterator[Any]:
        epoch, start, size = self.epoch, self._start, self.epoch_size(self.epoch)
        self._start, self._yielded = 0, start
        for number in range(self.rank + start * self.num_replicas, size, self.num_replicas):
            self._yielded += 1
            yield self.batch(epoch, number)


def rows_of_batches(batches: list[Any]) -> Tensor:
    """Return the rows of planned batches, in order.

    Args:
        batches: Lists of items, each a tuple of rows.

    Returns:
        Shape (R,), dtype int64.
    """
    return torch.tensor([row for batch in batches for item in batch for row in item], dtype=torch.int64)
