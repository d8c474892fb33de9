"""EndlessSampler: epochs of a fixed length over a data set of any size; plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_flag, check_integer
from lightning_adapt._shared.hashing import derive_key, generator, uniform
from lightning_adapt._shared.sampling import EpochSampler

__all__ = ["DrawnRow", "EndlessSampler"]


class DrawnRow(int):
    """A row of a data set that knows its place in the endless order; random numbers of its views depend on that alone.

    It is an int, so that samplers, batches and data sets which know nothing of it work as ever.

    Attributes:
        draw: Place in the order of all ranks together, counted over all epochs.
    """

    draw: int

    def __new__(cls, row: int, draw: int) -> DrawnRow:
        """Return a row with its place."""
        made = super().__new__(cls, row)
        made.draw = draw
        return made

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        # for workers: pickle would call __new__ with the number alone
        return int(self), self.draw


class EndlessSampler(EpochSampler):
    """Draw passes over a data set one after the other, cut into epochs of a fixed length.

    A small set (40 labels) is drawn many times in an epoch, a large one over several epochs; each pass has an order of
    its own. It is a `DistributedSampler`, so that Lightning leaves it alone: a plain RandomSampler with replacement
    would become a sampler over the data set once, which for 40 labels in batches of 64 gives no batch at all.

    Args:
        data_source: As in `EpochSampler`.
        samples_per_rank: Samples that one rank draws in an epoch.
        replacement: Draw each sample independently of the others, as the authors of SAA do.
        num_replicas: As in `EpochSampler`.
        rank: As in `EpochSampler`.
        seed: As in `EpochSampler`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        data_source: int | Sized | EpochSampler,
        samples_per_rank: int,
        *,
        replacement: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(data_source, num_replicas=num_replicas, rank=rank, seed=seed)
        remedy = "Pass steps per epoch times the batch size of one rank."
        self.samples_per_rank = check_integer("samples_per_rank", samples_per_rank, remedy, minimum=1)
        self.replacement = check_flag("replacement", replacement, "Pass True to draw independently.")
        self._orders: dict[int, Tensor] = {}  # of the passes drawn last

    def epoch_size(self, epoch: int) -> int:  # noqa: ARG002
        """Return the samples of one rank times the number of ranks."""
        return self.samples_per_rank * self.num_replicas

    def draw(self, epoch: int, positions: Tensor) -> Tensor:
        """Return what lies at these places of the epoch's stretch of the endless order."""
        n, places = self.n_rows, epoch * self.epoch_size(epoch) + positions
        if self.replacement:
            return (uniform(places, derive_key(self.seed, n)) * n).long()
        rows, passes = torch.empty_like(positions), places // n
        for number in torch.unique(passes).tolist():
            here = passes == number
            rows[here] = self._order(number, n)[places[here] % n]
        return rows

    def _order(self, number: int, n: int) -> Tensor:
        if len(self._orders.get(number, ())) != n:
            while len(self._orders) > 1:
                del self._orders[min(self._orders)]
            self._orders[number] = torch.randperm(n, generator=generator(self.seed, number))
        return self._orders[number]

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for a saved position to mean the same samples; plain values."""
        here = {"samples per epoch": self.epoch_size(0), "replacement": self.replacement}
        return {**super().fingerprint(), **here, "rows": self._rows_digest()}

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.epoch_size(self.epoch) + self.rank
        start, ranks = self._start, self.num_replicas
        for number, row in enumerate(super().__iter__(), start):
            yield DrawnRow(row, first + number * ranks)
