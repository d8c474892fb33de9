"""Plans of batches: which utterances are joined, and which items of like length share a batch; NumPy only."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_adapt._shared.checks import check_integer, check_share
from lightning_adapt._shared.hashing import derive_key, uniform

__all__ = [
    "BatchPlan",
    "Item",
    "check_batching",
    "cut_by_length",
    "evaluation_batches",
    "join_rows",
    "shared_out",
    "with_count",
    "with_items",
]

Item = tuple[int, ...]  # rows of one speaker, joined in this order
Integers = NDArray[np.int64]

_SHUFFLE, _SIZES, _WITHIN, _BATCHES = range(1, 5)  # streams of random numbers
BUCKET_GROWTH = 1.1  # a bucket's longest item is at most so much longer than its shortest


def check_batching(
    tokens_per_batch: Any, max_batch_size: Any, join_probability: Any, max_joined: Any
) -> tuple[int, int, float, int]:
    """Return the four numbers that a plan follows, checked, in their order.

    Raises:
        TypeError: If one has the wrong type.
        ValueError: If one is out of range.
    """
    return (
        check_integer("tokens_per_batch", tokens_per_batch, "Pass 4000.", minimum=1),
        check_integer("max_batch_size", max_batch_size, "Pass 64.", minimum=1),
        check_share("join_probability", join_probability, "Pass 0.5, or 0 for no joins."),
        check_integer("max_joined", max_joined, "Pass 3, or 1 for no joins.", minimum=1),
    )


@dataclass(frozen=True)
class BatchPlan:
    """The batches of an epoch, all ranks together, in order.

    Attributes:
        rows: Rows in the order of the items. Shape (R,).
        item_ends: Item i is `rows[item_ends[i]:item_ends[i + 1]]`. Shape (I + 1,).
        frames: Frames of each item. Shape (I,).
        batches: First item and the one after the last of each batch. Shape (K, 2).
        dropped_batches: Batches that were left out to keep the number constant.
    """

    rows: Integers
    item_ends: Integers
    frames: Integers
    batches: Integers
    dropped_batches: int

    def batch(self, number: int) -> list[Item]:
        """Return the items of a batch.

        Args:
            number: Which batch, 0..K-1.

        Returns:
            Tuples of rows.
        """
        first, last = self.batches[number].tolist()
        ends = self.item_ends[first : last + 1].tolist()
        return [tuple(self.rows[a:b].tolist()) for a, b in pairwise(ends)]

    def padding_share(self) -> float:
        """Return the share of frames in all batches that are padding, in [0, 1)."""
        used = padded = 0
        for first, last in self.batches.tolist():
            lengths = self.frames[first:last]
            used += int(lengths.sum())
            padded += int(lengths.max()) * (last - first)
        return 1.0 - used / padded


def join_rows(
    frames: Integers, speakers: Integers, *, probability: float, most: int, max_frames: int, key: int
) -> tuple[Integers, NDArray[np.bool_]]:
    """Shuffle the rows of each speaker and put some of them together.

    Args:
        frames: Frames of each row. Shape (N,).
        speakers: Speaker of each row. Shape (N,).
        probability: Share of the items that are to be joins, in [0, 1].
        most: Most rows in a join; its size is uniform in 2..most.
        max_frames: A join that would be longer is cut in front of the row that is too much.
        key: Key of the random numbers.

    Returns:
        The rows in their new order, and whether an item starts there. Shapes (N,).
    """
    order = np.lexsort((_uniform(len(frames), key, _SHUFFLE), speakers))
    starts = np.ones(len(frames), dtype=bool)
    if probability == 0.0 or most == 1:
        return order, starts
    drawn = _uniform(len(frames), key, _SIZES)
    sizes = np.where(drawn < probability, 2 + np.floor(drawn / probability * (most - 1)), 1).astype(np.int64)
    first = np.cumsum(sizes) - sizes
    starts[:] = False
    starts[first[first < len(frames)]] = True
    starts[1:] |= np.diff(speakers[order]) != 0
    _cut_long_items(starts, frames[order], most, max_frames)
    return order, starts


def _cut_long_items(starts: NDArray[np.bool_], lengths: Integers, most: int, max_frames: int) -> None:
    """Start an item anew where it would grow past `max_frames`; changes `starts`."""
    places = np.arange(len(starts))
    column = places - np.maximum.accumulate(np.where(starts, places, 0))
    totals = lengths.copy()
    for number in range(1, most):  # row `number` of all items at once; the rows before it are settled
        here = places[column == number]
        total = totals[here - 1] + lengths[here]
        fits = total <= max_frames
        totals[here] = np.where(fits, total, lengths[here])
        starts[here[~fits]] = True


def with_items(starts: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return the starts with joins taken apart, from the front, until there are at least `count` items."""
    missing = count - int(starts.sum())
    if missing <= 0:
        return starts
    starts = starts.copy()
    starts[np.flatnonzero(~starts)[:missing]] = True
    return starts


def cut_by_length(
    frames: Integers, *, tokens_per_batch: int, max_batch_size: int, key: int, replicas: int = 1
) -> tuple[Integers, list[tuple[int, int]]]:
    """Put items of like length into batches.

    Items go into buckets whose edges grow by a tenth, are shuffled inside each, and cut from the longest bucket to the
    shortest, so that only the last batch is a remainder.

    Args:
        frames: Frames of each item. Shape (I,).
        tokens_per_batch: Most padded frames of a batch; an item that is longer has a batch of its own.
        max_batch_size: Most items of a batch.
        key: Key of the random numbers.
        replicas: Ranks; a batch here is that of all of them, each of whose parts keeps the limits.

    Returns:
        The order of the items, shape (I,), and (first, one after the last) place of each batch in it.
    """
    buckets = np.floor(np.log(np.maximum(frames, 1)) / np.log(BUCKET_GROWTH)).astype(np.int64)
    order = np.lexsort((_uniform(len(frames), key, _WITHIN), -buckets))
    changes = np.flatnonzero(np.diff(buckets[order], prepend=buckets.max() + 1))
    longest = np.maximum.reduceat(frames[order], changes)
    sizes = np.clip(tokens_per_batch // np.maximum(longest, 1), 1, max_batch_size) * replicas
    size_at = np.repeat(sizes, np.diff(changes, append=len(frames))).tolist()
    batches, place = [], 0
    while place < len(frames):
        end = min(place + size_at[place], len(frames))
        batches.append((place, end))
        place = end
    _fill_rest(batches, replicas)
    return order, batches


def _fill_rest(batches: list[tuple[int, int]], least: int) -> None:
    """Let the batch before the last one give the last one what it lacks, if it can; changes `batches`."""
    if len(batches) < 2:
        return
    (first, _), (_, end) = batches[-2:]
    if batches[-1][1] - batches[-1][0] < least and end - first >= 2 * least:
        batches[-2:] = [(first, end - least), (end - least, end)]


def shared_out(batches: Integers, replicas: int) -> Integers:
    """Cut each batch into parts of equal size, give or take an item: those of all ranks, then those of the next batch.

    Of a batch with fewer items than ranks, items are given to several ranks.

    Args:
        batches: First item and the one after the last. Shape (K, 2).
        replicas: Number of ranks, R.

    Returns:
        The same of each part. Shape (K R, 2).
    """
    first, size = batches[:, :1], np.diff(batches, axis=1)
    part = np.arange(replicas)
    begin, end = first + part * size // replicas, first + (part + 1) * size // replicas
    alone = first + part % np.maximum(size, 1)
    begin, end = np.where(size < replicas, alone, begin), np.where(size < replicas, alone + 1, end)
    return np.stack([begin, end], 2).reshape(-1, 2)


def with_count(batches: Sequence[tuple[int, int]], count: int, key: int) -> Integers:
    """Shuffle batches and bring them to a fixed number: too few are split, the largest first; too many are left out.

    Args:
        batches: (first, one after the last) item of each batch; together at least `count` items.
        count: How many there must be.
        key: Key of the random numbers.

    Returns:
        The batches in their order. Shape (count, 2).
    """
    chosen = np.asarray(split_to(batches, count), dtype=np.int64)
    shuffled = np.argsort(_uniform(len(chosen), key, _BATCHES), kind="stable")
    return chosen[shuffled[:count]]


def split_to(batches: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Halve the batches of most items until there are `count`; together they must have as many items.

    Args:
        batches: (first, one after the last) item of each batch.
        count: How many there must be at least.

    Returns:
        The batches, in the order of their items.
    """
    heap = [(first - last, first, last) for first, last in batches]
    heapq.heapify(heap)
    while len(heap) < count:
        _, first, last = heapq.heappop(heap)
        middle = (first + last) // 2
        heapq.heappush(heap, (first - middle, first, middle))
        heapq.heappush(heap, (middle - last, middle, last))
    return sorted((first, last) for _, first, last in heap)


def evaluation_batches(
    frames: Sequence[int], *, tokens_per_batch: int, max_batch_size: int, replicas: int = 1
) -> list[list[Item]]:
    """Cut rows into batches in their order, with no joins and nothing left out, as many for every rank.

    Where the number of batches is no multiple of the ranks, the largest are split; only if there are fewer rows than
    that takes, batches are repeated.

    Args:
        frames: Frames of each row; at least one.
        tokens_per_batch: As in `cut_by_length`.
        max_batch_size: As in `cut_by_length`.
        replicas: Number of ranks.

    Returns:
        The batches of all ranks, batch b for rank b mod `replicas`.
    """
    batches, first, longest = [], 0, 0
    for row, length in enumerate(frames):
        longest = max(longest, length)
        size = row + 1 - first
        if row > first and (size * longest > tokens_per_batch or size > max_batch_size):
            batches.append((first, row))
            first, longest = row, length
    batches.append((first, len(frames)))
    count = -(-len(batches) // replicas) * replicas
    batches = split_to(batches, min(count, len(frames)))
    batches = [batches[number % len(batches)] for number in range(count)]
    return [[(row,) for row in range(*batch)] for batch in batches]


def _uniform(count: int, key: int, stream: int) -> NDArray[np.float64]:
    drawn: Any = uniform(torch.arange(count), derive_key(key, stream)).numpy()
    return drawn  # type: ignore[no-any-return]
