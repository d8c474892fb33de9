"""RowSampler: shuffles a set of rows that may change while training runs; what other samplers of ours stack on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.hashing import generator
from lightning_adapt._shared.sampling import EpochSampler


class RowSampler(EpochSampler):
    """Shuffles a set of rows that may be replaced while training runs; the inner sampler for subsets.

    Args:
        rows: Rows of the data set, distinct. Shape (N,).
        num_replicas: As in `EpochSampler`.
        rank: As in `EpochSampler`.
        seed: As in `EpochSampler`.

    Raises:
        ValueError: If `rows` is empty, negative or holds a row twice.
    """

    def __init__(
        self,
        rows: Sequence[int] | Tensor,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        self._rows = _check_rows(rows)
        self._version = 0
        super().__init__(len(self._rows), num_replicas=num_replicas, rank=rank, seed=seed)

    def set_rows(self, rows: Sequence[int] | Tensor) -> None:
        """Replace the rows; samplers stacked on this one plan anew.

        Args:
            rows: As in the constructor.

        Raises:
            ValueError: As in the constructor.
        """
        self._rows = _check_rows(rows)
        self._version += 1

    @property
    def n_rows(self) -> int:
        """Number of rows to draw from."""
        return len(self._rows)

    @property
    def version(self) -> int:
        """Counts the calls of `set_rows`."""
        return self._version

    def rows(self) -> Tensor:
        """Return the rows, int64 of shape (N,)."""
        return self._rows

    def epoch_size(self, epoch: int) -> int:  # noqa: ARG002
        """Return N rounded down to a multiple of the number of ranks."""
        return self.n_rows // self.num_replicas * self.num_replicas

    def draw(self, epoch: int, positions: Tensor) -> Tensor:
        """Return positions of the epoch's own shuffle."""
        return torch.randperm(self.n_rows, generator=generator(self.seed, epoch))[positions]


def _check_rows(rows: Sequence[int] | Tensor) -> Tensor:
    checked = torch.as_tensor(rows, dtype=torch.int64).flatten().clone()
    remedy = "Pass each row of the data set at most once."
    if len(checked) == 0 or int(checked.min()) < 0:
        raise ValueError(problem("rows", "at least one row number >= 0", rows, remedy))
    if len(torch.unique(checked)) != len(checked):
        raise ValueError(problem("rows", "distinct", rows, remedy))
    return checked
