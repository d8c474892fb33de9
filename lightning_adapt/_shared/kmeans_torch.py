"""Lloyd's k-means in plain torch: blocked, without atomics, so that a run is repeated bit for bit on CPU and CUDA."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_adapt._shared.kmeans_rows import Rows

T = TypeVar("T")

_SCORES = {"cpu": 2**17}  # numbers in a tile of scores: 512 KiB, which the caches of a core hold
_SCORES_ELSEWHERE = 2**26
_TILE = {"cpu": (512, 4096)}  # bounds of the rows of a tile
_TILE_ELSEWHERE = (1024, 2**20)
_CACHED_ROWS = 1024  # rows of a difference that is squared while the cache holds it
_PIECE = 32  # rows summed in float32 before float64 takes over
_SAME = 1e-10  # squared distance, as a share of the squared length, below which two vectors count as equal


class Nearest:
    """Finds the nearest of K centers.

    The squared distance to center c is, but for a term of the row alone, |g|^2 + 2 m.g - 2 x.g with g = c - m and the
    mean m of the centers: rounding then grows with the spread of the centers, not with their distance from the origin.

    Args:
        centers: Shape (K, D), dtype float32.
    """

    def __init__(self, centers: Tensor) -> None:
        wide = centers.double()
        mean = wide.mean(0)
        shifted = wide - mean
        self._bias = (shifted.square().sum(1) + 2 * (shifted @ mean)).float()
        self._weights = (-2 * shifted).float().t().contiguous()
        k, kind = len(centers), centers.device.type
        low, high = _TILE.get(kind, _TILE_ELSEWHERE)
        self._tile = min(max(_SCORES.get(kind, _SCORES_ELSEWHERE) // k, low), high)

    def __call__(self, block: Tensor, labels: Tensor) -> None:
        """Write the labels of a block, the first center where several are equally near.

        Args:
            block: Vectors. Shape (B, D), dtype float32.
            labels: Where to write. Shape (B,), dtype int64, contiguous.
        """
        buffer = torch.empty(min(self._tile, len(block)), len(self._bias), device=block.device)
        for part, into in zip(tiles(block, self._tile), tiles(labels, self._tile), strict=True):
            scores = torch.addmm(self._bias, part, self._weights, out=buffer[: len(part)])
            if scores.device.type == "cpu":  # NumPy's argmin is vectorised, torch's takes ten times as long
                into.copy_(torch.from_numpy(scores.numpy().argmin(1)))
            else:
                torch.argmin(scores, 1, out=into)


def in_order(rows: Rows, work: Callable[[int, Tensor], T]) -> Iterator[T]:
    """Yield what a function makes of each block, in the order of the blocks.

    On the CPU each of torch's threads has blocks of its own: two threads that share every product wait for each other
    between them. What comes out does not depend on the number of threads.

    Args:
        rows: N vectors.
        work: Takes the first row and the vectors of a block; called in several threads at once.

    Yields:
        What it returns.
    """
    threads = torch.get_num_threads() if rows.device.type == "cpu" else 1
    if threads == 1 or rows.n <= rows.block_rows:
        for start, block in rows.blocks():
            yield work(start, block)
        return
    torch.set_num_threads(1)  # what new threads begin with
    try:
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[T]] = deque()
            for start, block in rows.blocks():
                waiting.append(pool.submit(work, start, block))
                if len(waiting) > 2 * threads:  # no more blocks and results in memory than that
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)


def tiles(tensor: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield views of a few rows after another."""
    for start in range(0, len(tensor), rows):
        yield tensor[start : start + rows]


def squared_distances(block: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Return the squared distance of each vector to its center, from the difference itself.

    Args:
        block: Vectors. Shape (B, D), dtype float32.
        centers: Shape (K, D), dtype float32.
        labels: Shape (B,), dtype int64.

    Returns:
        Shape (B,), dtype float32.
    """
    rows = min(len(block), _CACHED_ROWS if block.device.type == "cpu" else len(block))
    buffer, distances = torch.empty(rows, block.shape[1], device=block.device), torch.empty_like(block[:, 0])
    for part, own, into in zip(tiles(block, rows), tiles(labels, rows), tiles(distances, rows), strict=True):
        apart = torch.index_select(centers, 0, own, out=buffer[: len(part)])
        torch.sum(apart.sub_(part).square_(), 1, out=into)
    return distances


def assign(rows: Rows, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest center of every row and the squared distance to it.

    Args:
        rows: N vectors.
        centers: Shape (K, D), dtype float32, on the device of the rows.

    Returns:
        Labels, shape (N,), dtype int64, and squared distances, shape (N,), dtype float32, on the device.
    """
    labels = torch.empty(rows.n, dtype=torch.int64, device=rows.device)
    distances = torch.empty(rows.n, device=rows.device)
    nearest = Nearest(centers)

    def work(start: int, block: Tensor) -> None:
        own = labels[start : start + len(block)]
        nearest(block, own)
        distances[start : start + len(block)] = squared_distances(block, centers, own)

    for _ in in_order(rows, work):
        pass
    return labels, distances


def sums_of(block: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the sums of the vectors of a block by cluster, always added in the same order.

    Rows sorted by label are summed in pieces of a few rows in float32, the pieces in float64: thousands of equal
    rows summed in float32 would drift away from their value.

    Args:
        block: Vectors. Shape (B, D), dtype float32.
        labels: Shape (B,), dtype int64.
        k: Clusters, K.

    Returns:
        Sums, shape (K, D), dtype float64, and the rows of each cluster, shape (K,), dtype int64.
    """
    clusters = torch.arange(k, device=labels.device)
    in_label_order, order = torch.sort(labels, stable=True)
    starts = torch.searchsorted(in_label_order, clusters)
    counts = torch.searchsorted(in_label_order, clusters, right=True) - starts
    steps = torch.arange(0, len(block), _PIECE, device=labels.device)
    pieces = torch.unique(torch.cat([starts[starts < len(block)], steps]))
    partial = F.embedding_bag(order, block, pieces, mode="sum").double()
    bags = torch.searchsorted(in_label_order[pieces], clusters)
    return F.embedding_bag(torch.arange(len(pieces), device=labels.device), partial, bags, mode="sum"), counts


def step(rows: Rows, centers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Assign every row, and return the means of the clusters.

    Args:
        rows: N vectors.
        centers: Shape (K, D), dtype float32.
        labels: Where to write the nearest centers. Shape (N,), dtype int64.

    Returns:
        New centers, shape (K, D), dtype float32 (an empty cluster keeps its old one), and the rows of each cluster,
        shape (K,), dtype int64.
    """
    sums = torch.zeros_like(centers, dtype=torch.float64)
    counts = torch.zeros(len(centers), dtype=torch.int64, device=centers.device)
    nearest = Nearest(centers)

    def work(start: int, block: Tensor) -> tuple[Tensor, Tensor]:
        own = labels[start : start + len(block)]
        nearest(block, own)
        return sums_of(block, own, len(centers))

    for more, rows_of_each in in_order(rows, work):
        sums += more
        counts += rows_of_each
    means = (sums / counts.clamp(min=1).unsqueeze(1)).float()
    return torch.where((counts > 0).unsqueeze(1), means, centers), counts


def fill_empty(rows: Rows, centers: Tensor, labels: Tensor, counts: Tensor) -> None:
    """Move the centers of empty clusters, in place, to the rows that are farthest from their own center.

    Args:
        rows: N vectors.
        centers: Shape (K, D), dtype float32.
        labels: Cluster of every row. Shape (N,), dtype int64.
        counts: Rows of each cluster. Shape (K,), dtype int64.
    """
    empty = torch.nonzero(counts == 0).flatten()
    distances = torch.empty(rows.n, device=rows.device)
    for start, block in rows.blocks():
        stop = start + len(block)
        apart = squared_distances(block, centers, labels[start:stop])
        apart[apart <= _SAME * torch.linalg.vecdot(block, block)] = 0  # rounding of the mean is no distance
        distances[start:stop] = apart
    by_distance = distances.cpu()
    farthest = torch.sort(by_distance, descending=True, stable=True).indices[: 4 * len(empty)]
    farthest = farthest[by_distance[farthest] > 0]
    if len(farthest):
        chosen = rows.take(distinct(rows.take(farthest), farthest)[: len(empty)])
        centers[empty[: len(chosen)]] = chosen


def distinct(vectors: Tensor, index: Tensor) -> Tensor:
    """Return the part of an index that is left when later copies of a vector are dropped; the order stays."""
    _, first = np.unique(vectors.cpu().numpy(), axis=0, return_index=True)
    return index[torch.from_numpy(np.sort(first))]


def lloyd(rows: Rows, centers: Tensor, iterations: int) -> tuple[Tensor, int]:
    """Run Lloyd's iterations until nothing changes any more.

    Args:
        rows: N vectors.
        centers: Where to start. Shape (K, D), dtype float32, on the device of the rows.
        iterations: Most iterations, >= 1.

    Returns:
        Centers, shape (K, D), dtype float32, and the number of iterations done.
    """
    before = torch.full((rows.n,), -1, dtype=torch.int64, device=rows.device)
    labels = torch.empty_like(before)
    for iteration in range(1, iterations + 1):
        centers, counts = step(rows, centers, labels)
        if torch.equal(labels, before):  # the same clusters have the same means
            return centers, iteration
        if not bool(counts.all()):
            fill_empty(rows, centers, labels, counts)
        before, labels = labels, before
    return centers, iterations
