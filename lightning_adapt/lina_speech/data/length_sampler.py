"""LengthBatchSampler: batches of utterances of like length, a pure function of (seed, epoch); plain PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler
from typing_extensions import Self

from lightning_adapt._shared.batch_planner import BatchPlanner
from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.hashing import derive_key
from lightning_adapt._shared.per_row import digest
from lightning_adapt.lina_speech.data.batch_plan import (
    BatchPlan,
    Integers,
    Item,
    check_batching,
    cut_by_length,
    evaluation_batches,
    join_rows,
    shared_out,
    with_count,
    with_items,
)

__all__ = ["FixedBatches", "LengthBatchSampler"]

_STREAM = 0x11A5  # apart from the other random numbers of a seed
_PROBED = 4  # epochs looked at for the number of batches of all epochs


class LengthBatchSampler(BatchPlanner):
    """Plan batches of utterances of like length anew for every epoch, with joins of utterances of one speaker.

    For `ResumableLoader(dataset, sampler=this, batch_size=None)`: it yields whole batches, lists of items, and an item
    is a tuple of rows that are to be joined, mostly of one. A batch is at most `tokens_per_batch` frames once padded.

    A global batch of R ranks is planned as one, of like lengths, and then shared out in R parts; where `max_batch_size`
    rather than `tokens_per_batch` bounds it, global batches do not depend on how many ranks share them.

    Every epoch has the same number of batches, the same on every rank. Its batches are counted in the first few epochs;
    an epoch that needs fewer has its largest batches split, one that needs more leaves a batch or two out, drawn anew
    each time. All other rows occur once per epoch.

    Args:
        frames: Frames of each row, >= 1. Shape (N,).
        speakers: Number of the speaker of each row; None: all rows may be joined with each other. Shape (N,).
        tokens_per_batch: Most padded frames of a batch. A row that alone is longer has a batch of its own (a warning
            says how many there are).
        max_batch_size: Most items of a batch.
        join_probability: Share of the items that are joins, in [0, 1], where the limits of length and the number of
            utterances of a speaker allow it.
        max_joined: Most utterances of a join; their number is uniform in 2..max_joined.
        max_frames: Longest join; None for `tokens_per_batch`.
        num_replicas: As in `EpochSampler`.
        rank: As in `EpochSampler`.
        seed: As in `EpochSampler`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or there are fewer rows than ranks; the latter at the first use.

    Example:
        >>> sampler = LengthBatchSampler([30, 31, 90], tokens_per_batch=100, join_probability=0.0)
        >>> sorted(sorted(batch) for batch in sampler)
        [[(0,), (1,)], [(2,)]]
    """

    def __init__(
        self,
        frames: Sequence[int] | Tensor,
        speakers: Sequence[int] | Tensor | None = None,
        *,
        tokens_per_batch: int = 4000,
        max_batch_size: int = 64,
        join_probability: float = 0.5,
        max_joined: int = 3,
        max_frames: int | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        self.frames = _whole_numbers("frames", frames, minimum=1)
        rows = len(self.frames)
        self.speakers = np.zeros(rows, np.int64) if speakers is None else _whole_numbers("speakers", speakers)
        if len(self.speakers) != rows:
            remedy = "Pass one speaker per row, or None."
            raise ValueError(problem("speakers", f"{rows} numbers, as `frames`", len(self.speakers), remedy))
        super().__init__(rows, num_replicas=num_replicas, rank=rank, seed=seed)
        self._whole = (self.frames, self.speakers)
        self._chosen: Tensor | None = None
        self._version = 0
        checked = check_batching(tokens_per_batch, max_batch_size, join_probability, max_joined)
        self.tokens_per_batch, self.max_batch_size, self.join_probability, self.max_joined = checked
        longest = tokens_per_batch if max_frames is None else max_frames
        longest = check_integer("max_frames", longest, "Pass the longest item in frames, or None.", minimum=1)
        self.max_frames = min(longest, self.tokens_per_batch)
        self._plans: dict[tuple[int, int], BatchPlan] = {}  # of the epochs planned last, by (epoch, ranks)
        self._counts: dict[int, int] = {}  # batches of an epoch, by the number of ranks
        too_long = int((self.frames > self.tokens_per_batch).sum())
        if too_long:
            warnings.warn(
                f"{too_long} of {rows} utterances are longer than tokens_per_batch={self.tokens_per_batch}, the "
                f"longest is {int(self.frames.max())} frames. Each has a batch of its own, which needs more memory "
                "than the others. Raise tokens_per_batch, or lower max_seconds.",
                stacklevel=2,
            )

    # -- the plan -------------------------------------------------------------------------------------------------
    def plan(self, epoch: int) -> BatchPlan:
        """Return the batches of an epoch, all ranks together."""
        wanted = (epoch, self.num_replicas)
        if wanted not in self._plans:
            while len(self._plans) > 1:
                del self._plans[next(iter(self._plans))]
            self._plans[wanted] = self._made(epoch, self.epoch_size(epoch) // self.num_replicas)
        return self._plans[wanted]

    def _made(self, epoch: int, count: int | None) -> BatchPlan:
        """Return the plan of an epoch, with as many batches as come of it where `count` is None."""
        key = derive_key(self.seed, _STREAM, epoch)
        joining: dict[str, Any] = {"probability": self.join_probability, "most": self.max_joined, "key": key}
        rows, starts = join_rows(self.frames, self.speakers, max_frames=self.max_frames, **joining)
        starts = with_items(starts, (count or 0) * self.num_replicas)
        places = np.flatnonzero(starts)
        item_frames = np.add.reduceat(self.frames[rows], places)
        limits = {"tokens_per_batch": self.tokens_per_batch, "max_batch_size": self.max_batch_size}
        order, batches = cut_by_length(item_frames, key=key, replicas=self.num_replicas, **limits)
        sizes = np.diff(places, append=len(rows))[order]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        # the rows of all items, in the order of the items
        moved = rows[np.repeat(places[order] - ends[:-1], sizes) + np.arange(len(rows))]
        moved = moved if self._chosen is None else self._chosen.numpy()[moved]
        chosen = np.asarray(batches) if count is None else with_count(batches, count, key)
        shared = shared_out(chosen, self.num_replicas)
        return BatchPlan(moved, ends, item_frames[order], shared, max(0, len(batches) - len(chosen)))

    def padding_share(self, epoch: int) -> float:
        """Return the share of padding in the frames of an epoch's batches, in [0, 1)."""
        return self.plan(epoch).padding_share()

    # -- what EpochSampler asks for; a "sample" here is a batch ---------------------------------------------------
    def epoch_size(self, epoch: int) -> int:  # noqa: ARG002
        """Return the number of batches of all ranks together; the same in every epoch."""
        replicas = self.num_replicas
        if replicas not in self._counts:
            rows = len(self.frames)
            if rows < replicas:
                remedy = "Train with fewer processes or more utterances."
                raise ValueError(problem("frames", f"at least one row for each of {replicas} ranks", rows, remedy))
            needed = max(len(self._made(epoch, None).batches) for epoch in range(_PROBED))  # a multiple of the ranks
            self._counts[replicas] = min(needed // replicas, rows // replicas) * replicas
        return self._counts[replicas]

    def draw(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the first row of the batches at these positions of the epoch."""
        plan = self.plan(epoch)
        first_items = plan.batches[positions.numpy(), 0]
        return torch.from_numpy(plan.rows[plan.item_ends[first_items]])

    def batch(self, epoch: int, number: int) -> list[Item]:
        """Return the items of a batch, all ranks counted together."""
        return self.plan(epoch).batch(number)

    def chosen_rows(self) -> Tensor | None:
        """Return the rows that batches are planned of, int64 of shape (n,); None for all."""
        return self._chosen

    def set_rows(self, rows: Tensor) -> None:
        """Plan batches of these rows from now on.

        Args:
            rows: Distinct rows of the data set. Shape (n,), dtype int64.

        Raises:
            ValueError: If there are none, one comes twice, or one is not there.
        """
        chosen, n = torch.as_tensor(rows, dtype=torch.int64).clone(), len(self._whole[0])
        if (
            len(chosen) == 0
            or len(torch.unique(chosen)) < len(chosen)
            or int(chosen.min()) < 0
            or int(chosen.max()) >= n
        ):
            remedy = "Pass each row of the data set at most once."
            raise ValueError(problem("rows", f"distinct numbers of the {n} rows, at least one", rows, remedy))
        self._chosen = chosen
        self.frames, self.speakers = (values[chosen.numpy()] for values in self._whole)
        self._plans, self._counts = {}, {}
        self._version += 1

    def copy(self) -> Self:
        """Return a planner of its own that plans the same."""
        other = copy(self)
        vars(other).update(_plans={}, _counts={})
        return other

    @property
    def version(self) -> int:
        """Counts the calls of `set_rows`."""
        return self._version

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for a saved position to mean the same batches; plain values."""
        return {
            **super().fingerprint(),
            **({} if self._chosen is None else {"rows": digest(self._chosen)}),
            "frames": digest(torch.from_numpy(self.frames)),
            "speakers": digest(torch.from_numpy(self.speakers)),
            "tokens of a global batch": self.tokens_per_batch * self.num_replicas,
            "global batch": self.max_batch_size * self.num_replicas,
            "join_probability": self.join_probability,
            "max_joined": self.max_joined,
            "max_frames": self.max_frames,
        }

    @property
    def n_rows(self) -> int:
        """Number of utterances, N."""
        return len(self.frames)


class FixedBatches(DistributedSampler[Any]):
    """Batches of an evaluation: rows in their order, one per item, none left out, equally many for every rank.

    It is a `DistributedSampler`, so that Lightning leaves it alone.

    Args:
        frames: Frames of each row. Shape (N,), N >= 1.
        tokens_per_batch: As in `LengthBatchSampler`.
        max_batch_size: As in `LengthBatchSampler`.
        num_replicas: Number of ranks.
        rank: This rank.
    """

    def __init__(
        self,
        frames: Sequence[int] | Tensor,
        *,
        tokens_per_batch: int,
        max_batch_size: int,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        lengths = _whole_numbers("frames", frames, minimum=1).tolist()
        limits = {"tokens_per_batch": tokens_per_batch, "max_batch_size": max_batch_size, "replicas": num_replicas}
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0
        self.batches = evaluation_batches(lengths, **limits)[rank::num_replicas]

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def _whole_numbers(argument: str, values: Sequence[int] | Tensor, minimum: int = 0) -> Integers:
    given = torch.as_tensor(values)
    found = np.array(given.numpy(), dtype=np.int64)  # a copy
    fits = not given.is_floating_point() and found.ndim == 1 and len(found) > 0 and int(found.min()) >= minimum
    if not fits:
        remedy = "Pass one whole number per utterance."
        raise ValueError(problem(argument, f"a row of whole numbers >= {minimum}, at least one", values, remedy))
    return found
