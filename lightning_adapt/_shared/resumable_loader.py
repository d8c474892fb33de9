"""ResumableLoader: a DataLoader that starts exactly where training stopped; plain PyTorch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.sampling import EpochSampler
from lightning_adapt._shared.state import read_version, reading_state

STATE_VERSION = 1


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over an `EpochSampler` that starts exactly where training stopped.

    Its iterator builds the real one at the first `next`: Lightning makes the iterator before it sets the epoch, and
    with workers a plain loader would fetch the wrong epoch's first batches (Lightning #21938). It counts the batches
    handed out, not the samples that workers fetch ahead.

    Args:
        dataset: A map-style data set.
        sampler: One of our samplers.
        position: Returns the running epoch and its batches already used; read at the first `next` of an iterator, the
            batches only by the first one (a Trainer's own: it makes one as soon as it has the loader). Whoever passes
            it also checks on resume that it means the same samples. None: the epoch is the sampler's, and the batches
            are counted by the loader and restored by `load_state_dict`.
        **options: The other arguments of `DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        sampler: EpochSampler,
        position: Callable[[], tuple[int, int]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset, sampler=sampler, **options)
        self._position = position
        # for the first iterator made from now on
        self._start: Callable[[], int] | None = None if position is None else lambda: position()[1]
        self._lead: weakref.ref[_LazyIterator] | None = None  # whose batches count, and who has the kept workers
        self._delivered = 0
        self._counted_epoch = -1  # the epoch that the count belongs to

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # any iterator will do for the users of a loader
        start, self._start = self._start, None
        return _LazyIterator(self, start)

    def __getstate__(self) -> dict[str, Any]:
        # kept workers and running iterators stay in this process
        return {**self.__dict__, "_iterator": None, "_lead": None}

    def _begin(self, iterator: _LazyIterator) -> Iterator[Any]:
        """Start the real iterator; one that begins while another is under way gets workers of its own.

        Kept workers serve one iterator at a time: a second pass over the train loader inside an epoch (a memory bank,
        BatchNorm statistics) would end the first one early.
        """
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):  # Lightning can build a loader anew by its constructor
            remedy = "`overfit_batches` of the Trainer replaces it: use `limit_train_batches` instead."
            raise ValueError(problem("sampler", "one of ours", type(sampler).__name__, remedy))
        if self._position is not None:  # a Trainer may set another: see compat.position_in_run
            sampler.set_epoch(self._position()[0])
        sampler.start_at(iterator.delivered * (self.batch_size or 1))
        lead = self._lead() if self._lead is not None else None
        if lead is not None and not lead.finished:
            return self._get_iterator()
        self._lead, self._delivered, self._counted_epoch = weakref.ref(iterator), iterator.delivered, sampler.epoch
        return super().__iter__()

    def _count(self, iterator: _LazyIterator) -> None:
        if self._lead is not None and self._lead() is iterator:
            self._delivered = iterator.delivered

    def state_dict(self) -> dict[str, Any]:
        """Return a plain state: the epoch, the batches used in it, and what they depend on; not who else keeps it."""
        if self._position is not None:
            return {"version": STATE_VERSION}
        sampler: EpochSampler = self.sampler  # type: ignore[assignment]
        batches = self._delivered if self._counted_epoch == sampler.epoch else 0
        done = batches >= len(self)
        return {
            "version": STATE_VERSION,
            "sampler": {**sampler.state_dict(), "epoch": sampler.epoch + done, "yielded": 0},
            "batches": 0 if done else batches,
            "batch_size": self.batch_size or 1,
        }

    @reading_state("a loader")
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
        batches, epoch = state["batches"], sampler.epoch
        self._delivered, self._counted_epoch = batches, epoch
        self._start = lambda: batches if sampler.epoch == epoch else 0


class _LazyIterator(Iterator[Any]):
    def __init__(self, loader: ResumableLoader, start: Callable[[], int] | None) -> None:
        self._loader = loader
        self._start = start
        self._running: Iterator[Any] | None = None
        self.delivered = 0  # batches of the epoch, those before the start included

    @property
    def finished(self) -> bool:
        return self.delivered >= len(self._loader)

    def __next__(self) -> Any:
        if self._running is None:
            self.delivered = 0 if self._start is None else self._start()
            self._running = self._loader._begin(self)
        batch = next(self._running)
        self.delivered += 1
        self._loader._count(self)
        return batch

    def __len__(self) -> int:
        return len(self._loader)
