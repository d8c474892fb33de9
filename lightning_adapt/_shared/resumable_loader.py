"""ResumableLoader: a DataLoader that starts exactly where training stopped; plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.sampling import EpochSampler
from lightning_adapt._shared.state import read_version

STATE_VERSION = 1


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over an `EpochSampler` that starts exactly where training stopped.

    Its iterator builds the real one at the first `next`: Lightning makes the iterator before it sets the epoch, and
    with workers a plain loader would fetch the wrong epoch's first batches (Lightning #21938). It counts the batches
    handed out, not the samples that workers fetch ahead.

    Args:
        dataset: A map-style data set.
        sampler: One of our samplers.
        position: Returns the batches of the running epoch already used; read once, at the first `next` of the first
            iterator (a Trainer's own: it makes one as soon as it has the loader). Whoever passes it also checks on
            resume that it means the same samples. None: counted by the loader and restored by `load_state_dict`.
        **options: The other arguments of `DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        sampler: EpochSampler,
        position: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, sampler=sampler, **options)
        self._position = position
        self._position_unread = position is not None
        self._skip = 0
        self._delivered = 0
        self._counted_epoch = -1  # the epoch that the two counts belong to

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # any iterator will do for the users of a loader
        return _LazyIterator(self)

    def _take_position(self) -> Callable[[], int] | None:
        position, self._position_unread = self._position if self._position_unread else None, False
        return position

    def _begin(self, position: Callable[[], int] | None) -> Iterator[Any]:
        sampler: EpochSampler = self.sampler  # type: ignore[assignment]
        skip = self._skip if self._counted_epoch == sampler.epoch else 0
        self._delivered = skip if position is None else position()
        self._counted_epoch = sampler.epoch
        self._skip = 0
        sampler.start_at(self._delivered * (self.batch_size or 1))
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Return a plain state: the epoch, the batches used in it, and what they depend on."""
        sampler: EpochSampler = self.sampler  # type: ignore[assignment]
        batches = self._delivered if self._counted_epoch == sampler.epoch else 0
        done = batches >= len(self)
        return {
            "version": STATE_VERSION,
            "sampler": {**sampler.state_dict(), "epoch": sampler.epoch + done, "yielded": 0},
            "batches": 0 if done else batches,
            "batch_size": self.batch_size or 1,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If the samples or the global batch size would differ.
        """
        read_version(state, STATE_VERSION, type(self).__name__)
        if self._position is not None:
            return
        sampler: EpochSampler = self.sampler  # type: ignore[assignment]
        here = sampler.num_replicas * (self.batch_size or 1)
        saved = state["sampler"]["num_replicas"] * state["batch_size"]
        if here != saved:
            remedy = "Keep ranks times batch size as in the saved run."
            raise ValueError(problem("batch_size", f"such that the global batch is {saved}", here, remedy))
        sampler.load_state_dict(state["sampler"])
        self._skip = self._delivered = state["batches"]
        self._counted_epoch = sampler.epoch


class _LazyIterator(Iterator[Any]):
    def __init__(self, loader: ResumableLoader) -> None:
        self._loader = loader
        self._position = loader._take_position()
        self._running: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._running is None:
            self._running = self._loader._begin(self._position)
        batch = next(self._running)
        self._loader._delivered += 1
        return batch

    def __len__(self) -> int:
        return len(self._loader)
