"""RS2 in plain Python loops, written from the definitions; slow on purpose and never imported by the package."""

from __future__ import annotations

import numpy as np
import torch

WORD = 2**64


def splitmix_finaliser(state: int) -> int:
    """One output of splitmix64 (Vigna's public C code) for a state before its increment."""
    z = (state + 0x9E3779B97F4A7C15) % WORD
    z = ((z ^ (z // 2**30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z // 2**27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z // 2**31)


def key_of(seed: int, *parts: int) -> int:
    """A key from a seed and an ordered list of numbers: hash, then fold in one number and hash again."""
    key = splitmix_finaliser(seed)
    for part in parts:
        key = splitmix_finaliser(key ^ part)
    return key


def feistel(position: int, n: int, seed: int, cycle: int, rounds: int = 8) -> int:
    """Image of one position under an alternating Feistel network with cycle walking."""
    width = 2
    while 2**width < n:
        width += 1
    high_width = width // 2
    low_width = width - high_width
    key = key_of(seed, cycle)
    value = position
    while True:
        high, low = divmod(value, 2**low_width)
        for number in range(rounds):
            round_key = key_of(key, number)
            if number % 2 == 0:
                high ^= splitmix_finaliser((low + round_key) % WORD) % 2**high_width
            else:
                low ^= splitmix_finaliser((high + round_key) % WORD) % 2**low_width
        value = high * 2**low_width + low
        if value < n:
            return value


def randperm(n: int, seed: int, cycle: int) -> list[int]:
    """The stored permutation of a pass: torch's shuffle from a generator of its own."""
    own = torch.Generator()
    own.manual_seed(key_of(seed, cycle) // 2)
    return torch.randperm(n, generator=own).tolist()


def stream_round(passes: list[list[int]], round_index: int, k: int) -> list[int]:
    """The k samples of a round of an endless stream that reads one shuffled pass after the other."""
    n = len(passes[0])
    return [passes[p // n][p % n] for p in range(round_index * k, (round_index + 1) * k)]


def shard(samples: list[int], rank: int, replicas: int) -> list[int]:
    """What one rank takes of a round: every replicas-th sample."""
    return [sample for place, sample in enumerate(samples) if place % replicas == rank]


def visits(rounds: list[list[int]], n: int) -> list[int]:
    """How often each row was drawn."""
    counts = [0] * n
    for drawn in rounds:
        for row in drawn:
            counts[row] += 1
    return counts


def official_rounds(n: int, k: int, rounds: int, seed: int) -> list[np.ndarray]:
    """The wrap-around of the authors' code: the rest of a wrapped round is the head of the SAME permutation."""
    random = np.random.default_rng(seed)
    order, start, drawn = random.permutation(n), 0, []
    for _ in range(rounds):
        end = (start + k) % (n + 1)
        if start < end:
            drawn.append(order[start:end])
        else:
            drawn.append(np.concatenate([order[start:], order[:end]]))
            order = random.permutation(n)
        start = end
    return drawn


def sequential_weighted_sample(weights: list[float], k: int, random: np.random.Generator) -> list[int]:
    """Draw k distinct rows one after another, each with probability proportional to the weights that are left."""
    left, drawn = dict(enumerate(weights)), []
    for _ in range(k):
        threshold, reached = random.random() * sum(left.values()), 0.0
        for row, weight in left.items():
            reached += weight
            if weight > 0 and reached >= threshold:
                drawn.append(row)
                break
        del left[drawn[-1]]
    return drawn


def coverage(rounds: int, n: int, k: int, mode: str) -> float:
    """Expected share of distinct rows after some rounds, multiplied out step by step."""
    missed = 1.0
    if mode == "without":
        return min(rounds * k, n) / n
    for _ in range(rounds if mode == "independent" else rounds * k):
        missed *= 1 - (k if mode == "independent" else 1) / n
    return 1 - missed


def largest_window_error(labels: list[int], label: int, k: int) -> float:
    """Largest distance between the rows of a class in any window of k and its fair share."""
    share = labels.count(label) / len(labels) * k
    inside = sum(entry == label for entry in labels[:k])
    worst = abs(inside - share)
    for first in range(1, len(labels) - k + 1):
        inside += (labels[first + k - 1] == label) - (labels[first - 1] == label)
        worst = max(worst, abs(inside - share))
    return worst


def smallest_ratio(n: int, global_batch: int) -> float:
    """Smallest ratio, in steps of a millionth, whose round fills one global batch."""
    millionths = 0
    while millionths * n < 10**6 * global_batch:
        millionths += 1
    return millionths / 10**6


def loss_weights(
    losses: list[float], power: float, loss_cap: float, uniform_mix: float, labels: list[int] | None = None
) -> np.ndarray:
    """Share of the visits of each row, one row after the other; NaN is a row without a loss."""
    known = sorted(loss for loss in losses if loss == loss)
    n, labels = len(losses), labels or [0] * len(losses)
    raw = [1.0] * n
    if known:
        place = (len(known) - 1) * loss_cap  # of the quantile, between two of the sorted losses
        low, high = known[int(place)], known[min(int(place) + 1, len(known) - 1)]
        cap = low + (high - low) * (place - int(place))
        mean = sum(min(loss, cap) ** power for loss in known) / len(known)
        raw = [min(loss, cap) ** power if loss == loss else mean for loss in losses]
    shares = np.zeros(n)
    for label in set(labels):
        rows = [row for row in range(n) if labels[row] == label]
        total = sum(raw[row] for row in rows)
        for row in rows:
            inside = raw[row] / total if total > 0 else 1 / len(rows)
            shares[row] = (1 - uniform_mix) * inside * len(rows) / n + uniform_mix / n
    return shares


def shared_out(weights: list[float], k: int) -> list[float]:
    """k visits in proportion to the weights, at most one each: the largest weight is served first."""
    visits, left, total = [0.0] * len(weights), float(k), sum(weights)
    order = sorted(range(len(weights)), key=lambda row: -weights[row])
    for place, row in enumerate(order):
        fair = left * weights[row] / total if total > 1e-12 else left / (len(order) - place)
        visits[row] = min(1.0, fair)
        left, total = left - visits[row], total - weights[row]
    return visits


def most_owed(
    owed: list[float], weights: list[float], k: int, seed: int, round_index: int
) -> tuple[list[int], list[float]]:
    """The rows of a round in their order, and the debts after it, from the definition."""
    due = [debt + visits for debt, visits in zip(owed, shared_out(weights, k), strict=True)]
    key = key_of(seed, round_index, 3)
    rank = [debt + splitmix_finaliser((row + key) % WORD) // 2**11 / 2**53 for row, debt in enumerate(due)]
    drawn = sorted(range(len(owed)), key=lambda row: -rank[row])[:k]
    own = torch.Generator()
    own.manual_seed(key_of(seed, round_index, 4) // 2)
    order = [drawn[place] for place in torch.randperm(k, generator=own).tolist()]
    return order, [debt - (row in drawn) for row, debt in enumerate(due)]
