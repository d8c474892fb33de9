"""Data read a batch at a time: index lists for loaders that Lightning leaves alone under DDP, and what joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.sampling import EpochSampler


class EpochBatchSampler(DistributedSampler[Any]):
    """The batch form of a sampler: yields lists of rows, for `DataLoader(..., sampler=this, batch_size=None)`.

    Lightning rebuilds a custom `batch_sampler` around the full data under DDP, but leaves a `DistributedSampler` given
    as `sampler` alone; so index lists must come from there. The data set must accept a list as index
    (`ListIndexed` wraps one that does not).

    Args:
        sampler: The sampler that chooses the rows.
        batch_size: Rows per list.
        drop_last: Leave out a last list that is shorter.

    Raises:
        ValueError: If `batch_size` is smaller than 1.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, *, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = check_integer("batch_size", batch_size, "Pass the batch size of one rank.", minimum=1)
        self.drop_last = drop_last

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Number of ranks."""
        return self.sampler.num_replicas

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This rank."""
        return self.sampler.rank

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """Epoch that the next iteration draws."""
        return self.sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.sampler.set_epoch(epoch)

    def start_at(self, batches: int) -> None:
        """Skip the first lists in the next iteration."""
        self.sampler.start_at(batches * self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rows: list[int] = []
        for row in self.sampler:
            rows.append(row)
            if len(rows) == self.batch_size:
                yield rows
                rows = []
        if rows and not self.drop_last:
            yield rows

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the sampler that chooses the rows."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken."""
        self.sampler.load_state_dict(state)


class ListIndexed(Dataset[Any]):
    """Lets a data set be indexed by lists of rows, for loaders that run without batching of their own.

    Args:
        dataset: Any map-style data set.
        collate_fn: Joins the samples of a list.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[list[Any]], Any]) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn

    def __getitem__(self, rows: list[int]) -> Any:
        return self.collate_fn([self.dataset[row] for row in rows])

    def __len__(self) -> int:
        return len(self.dataset)


def as_is(batch: Any) -> Any:
    """Return a batch unchanged: the `collate_fn` of data that comes in batches."""
    return batch
