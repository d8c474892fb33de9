"""Diversify and Conquer written down again as loops over single rows and clusters; NumPy only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

FLOOR = 1e-12


def ideal_shares(budget: int, weights: Sequence[float], available: Sequence[int]) -> list[Fraction]:
    """Pour the budget into clusters in proportion to their weights; what overflows one is poured into the others."""
    shares = [Fraction(0)] * len(weights)
    for worth in (weights, [room if weight == 0 else 0 for weight, room in zip(weights, available, strict=True)]):
        exact = [Fraction(w) if room else Fraction(0) for w, room in zip(worth, available, strict=True)]
        open_ones = {j for j, weight in enumerate(exact) if weight}
        left = min(Fraction(budget) - sum(shares), Fraction(sum(available[j] for j in open_ones)))
        while left and open_ones:
            total = sum(exact[j] for j in open_ones)
            full = {j for j in open_ones if left * exact[j] / total >= available[j]}
            if not full:
                for j in open_ones:
                    shares[j] = left * exact[j] / total
                break
            for j in full:
                shares[j] = Fraction(available[j])
            left -= sum(available[j] for j in full)
            open_ones -= full
    return shares


def pair_probabilities(weights: Sequence[float]) -> dict[tuple[int, int], float]:
    """Probability that two draws, one after the other without replacement, give each pair."""
    total = sum(weights)
    found: dict[tuple[int, int], float] = {}
    for i, j in itertools.permutations(range(len(weights)), 2):
        pair = (min(i, j), max(i, j))
        found[pair] = found.get(pair, 0.0) + weights[i] / total * weights[j] / (total - weights[i])
    return found


def standardised(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / sd if sd > 0 else 0.0 for value in values]


def row_weights(quality: Sequence[float], labels: Sequence[int], tau: float) -> list[float]:
    weights = [0.0] * len(quality)
    for cluster in set(labels):
        members = [row for row, label in enumerate(labels) if label == cluster]
        for row, z in zip(members, standardised([quality[row] for row in members]), strict=True):
            weights[row] = z / tau
    return weights


def cluster_scores(clusters: Sequence[int], scores: Sequence[float], k: int, shrink: float) -> list[float]:
    scored = [(cluster, score) for cluster, score in zip(clusters, scores, strict=True) if not math.isnan(score)]
    if not scored:
        return [0.0] * k
    overall = math.fsum(score for _, score in scored) / len(scored)
    result = []
    for cluster in range(k):
        own = [score for label, score in scored if label == cluster]
        weight = len(own) + shrink
        result.append((math.fsum(own) + shrink * overall) / weight if own else overall)
    return result


def reweighted(weights: Sequence[float], scores: Sequence[float], update: str, tau: float = 1.0) -> np.ndarray:
    """Weights of the next round, in plain float64 probabilities; weights of 0 are dropped clusters."""
    w, s = np.array(weights, dtype=np.float64), np.array(scores, dtype=np.float64)
    alive = w > 0
    if update == "exp":
        new = w.copy()
        new[alive] = w[alive] * np.exp(np.array(standardised(s[alive].tolist())) / tau)
    elif update == "softmax":
        new = np.where(alive, np.exp((s - s[alive].max()) / tau), 0.0)
    else:
        factors = s.copy()
        if s[alive].max() <= 0:
            factors = s - s[alive].min()
        largest = factors[alive].max()
        factors = np.ones_like(s) if largest <= 0 else np.maximum(factors / largest, 1e-3)
        new = np.where(alive, w * factors, 0.0)
    new = new / new.sum()
    new = np.where(alive, np.maximum(new, FLOOR), 0.0)
    return new / new.sum()


def near_copies(vectors: np.ndarray, threshold: float) -> list[bool]:
    kept: list[np.ndarray] = []
    flags = []
    for vector in vectors.astype(np.float64):
        length = np.linalg.norm(vector)
        unit = vector / length if length else vector
        flags.append(any(float(unit @ other) >= threshold for other in kept))
        if not flags[-1]:
            kept.append(unit)
    return flags


def farthest(vectors: np.ndarray, count: int, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        gaps = [
            -1.0 if row in chosen else min(float(((vector - vectors[c]) ** 2).sum()) for c in chosen)
            for row, vector in enumerate(vectors)
        ]
        chosen.append(int(np.argmax(gaps)))
    return chosen
