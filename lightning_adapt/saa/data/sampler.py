"""EndlessSampler: epochs of a fixed length over a data set of any size; plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_flag, check_integer
from lightning_adapt._shared.hashing import derive_key, generator, uniform
from lightning_adapt._shared.sampling import EpochSampler
from lightning_adapt.saa.streams import UNLABELED_ORDER

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
        stream: Samplers of one seed with different streams draw independently of each other.
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
        stream: int = UNLABELED_ORDER,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(data_source, num_replicas=num_replicas, rank=rank, seed=seed)
        remedy = "Pass steps per epoch times the batch size of one rank."
        self.samples_per_rank = check_integer("samples_per_rank", samples_per_rank, remedy, minimum=1)
        self.replacement = check_flag("replacement", replacement, "Pass True to draw independently.")
        self.stream = check_integer("stream", stream, "Pass a whole number that is not negative.")
        self._orders: dict[int, Tensor] = {}  # of the passes drawn last

    def epoch_size(self, epoch: int) -> int:  # noqa: ARG002
        """Return the samples of one rank times the number of ranks."""
        return self.samples_per_rank * self.num_replicas

    def draw(self, epoch: int, positions: Tensor) -> Tensor:
        """Return what lies at these places of the epoch's stretch of the endless order."""
        n, places = self.n_rows, epoch * self.epoch_size(epoch) + positions
        if self.replacement:
            return (uniform(places, derive_key(self.seed, self.stream)) * n).long()
        in_order, back = torch.sort(places)
        numbers, counts = torch.unique_consecutive(in_order // n, return_counts=True)
        parts = torch.split(in_order % n, counts.tolist())
        drawn = [self._order(number, n)[part] for number, part in zip(numbers.tolist(), parts, strict=True)]
        rows = torch.empty_like(positions)
        rows[back] = torch.cat(drawn)
        return rows

    def _order(self, number: int, n: int) -> Tensor:
        if len(self._orders.get(number, ())) != n:
            while len(self._orders) > 1:
                del self._orders[min(self._orders)]
            self._orders[number] = torch.randperm(n, generator=generator(self.seed, self.stream, number))
        return self._orders[number]

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for a saved position to mean the same samples; plain values."""
        here = {"samples per epoch": self.epoch_size(0), "replacement": self.replacement, "stream": self.stream}
        return {**super().fingerprint(), **here, "rows": self._rows_digest()}

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.epoch_size(self.epoch) + self.rank
        start, ranks = self._start, self.num_replicas
        for number, row in enumerate(super().__iter__(), start):
            yield DrawnRow(row, first + number * ranks)
