"""Where k-means starts: rows drawn as k-means++ does (Arthur and Vassilvitskii 2007), from a sample, on the CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_adapt._shared.hashing import derive_key, generator, uniform
from lightning_adapt._shared.kmeans_rows import Rows, exact_float32
from lightning_adapt._shared.kmeans_torch import distinct

LARGEST_SPREAD_K = 4096  # beyond it, spreading costs more than a few iterations and gains next to nothing
_SAMPLE_PER_CENTER, _SAMPLE_AT_LEAST = 16, 4096
_ROUNDS = 512  # rounds of drawing; one center a round up to k = 512, several at once beyond
_NEAR = 1e-5  # rounding of a squared distance, as a share of the squared length


def start_rows(rows: Rows, k: int, seed: int, repeat: int) -> Tensor:
    """Draw the rows where the clusters start, equal for every engine and device.

    Rows are spread as by k-means++ over a uniform sample of max(4096, 16 k) rows: on clusters that lie apart the
    inertia is far lower than from uniform rows, for less than the cost of an iteration. Above k = 4096 uniform rows.

    Args:
        rows: N vectors.
        k: Clusters, 1 <= k <= N.
        seed: Any whole number.
        repeat: Number of the attempt.

    Returns:
        Row numbers. Shape (k,), dtype int64, on the CPU; distinct.
    """
    order = torch.randperm(rows.n, generator=generator(seed, repeat))
    if k == 1 or k == rows.n:
        return order[:k]
    if k > LARGEST_SPREAD_K:
        return _distinct_first(rows, order, k)
    sample = order[: max(_SAMPLE_AT_LEAST, _SAMPLE_PER_CENTER * k)].sort().values  # sorted: disks like it
    with exact_float32(torch.device("cpu")):
        return sample[_spread(rows.take(sample).cpu(), k, derive_key(seed, repeat, 1))]


def _distinct_first(rows: Rows, order: Tensor, k: int) -> Tensor:
    found = distinct(rows.take(order[:k]), order[:k])
    if len(found) < k:
        more = order[: 4 * k]
        found = distinct(rows.take(more), more)[:k]
    chosen = torch.zeros(rows.n, dtype=torch.bool)
    chosen[found] = True
    return torch.cat([found, order[~chosen[order]][: k - len(found)]])


def _spread(vectors: Tensor, k: int, key: int) -> Tensor:
    """Draw k of (M, D) rows, each with a probability that grows with its squared distance to those drawn before.

    The vectors are centered in place.
    """
    vectors -= vectors.mean(0)
    lengths = torch.linalg.vecdot(vectors, vectors)
    at_once = math.ceil(k / _ROUNDS)
    tries = 2 + int(math.log(k)) if at_once == 1 else at_once  # the best of a few draws, as in scikit-learn
    chosen = torch.empty(0, dtype=torch.int64)
    weights, distances = torch.ones_like(lengths), torch.full_like(lengths, torch.inf)
    free = torch.ones(len(vectors), dtype=torch.bool)
    while len(chosen) < k:
        drawn = _draw(weights, free, tries if len(chosen) else at_once, derive_key(key, len(chosen)))
        apart = lengths.unsqueeze(1) + lengths[drawn] - 2 * (vectors @ vectors[drawn].t())
        apart[apart <= _NEAR * lengths.unsqueeze(1)] = 0  # copies of a row are not drawn again
        apart = torch.minimum(apart, distances.unsqueeze(1))
        if at_once == 1:
            best = int(apart.sum(0, dtype=torch.float64).argmin())
            drawn, apart = drawn[best : best + 1], apart[:, best : best + 1]
        weights = distances = apart.amin(1)
        free[drawn] = False
        chosen = torch.cat([chosen, drawn])
    return chosen[:k]


def _draw(weights: Tensor, free: Tensor, count: int, key: int) -> Tensor:
    """Draw distinct free rows by their weights; rows of weight 0 only where nothing else is left."""
    noise = uniform(torch.arange(len(weights)), key)
    arrivals = -torch.log1p(-noise) / weights.double()  # the first of exponential clocks; weight 0 never rings
    arrivals[weights == 0] = torch.finfo(torch.float64).max
    arrivals[~free] = torch.inf
    return torch.topk(arrivals, min(count, int(free.sum())), largest=False).indices
