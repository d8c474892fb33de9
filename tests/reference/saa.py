"""SAA, FixMatch and FlexMatch written down again as loops over single samples, from the card; NumPy only."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np


def otsu(values: np.ndarray, n_bins: int = 256) -> float:
    """Try every cut between bins and keep the one with the largest variance between the two groups."""
    counts, edges = np.histogram(values, n_bins)
    centres = (edges[:-1] + edges[1:]) / 2
    best, cut = -1.0, math.nan
    for last in range(n_bins - 1):
        low, high = counts[: last + 1].sum(), counts[last + 1 :].sum()
        mean_low = (counts[: last + 1] * centres[: last + 1]).sum() / low
        mean_high = (counts[last + 1 :] * centres[last + 1 :]).sum() / high
        between = float(low) * float(high) * (mean_low - mean_high) ** 2
        if between > best * (1 + 1e-9):  # of equally good cuts the first
            best, cut = between, centres[last]
    return float(cut)


class Selection:
    """The history and the flags of every sample, one sample at a time."""

    def __init__(self, n: int, decay: float) -> None:
        self.losses: list[float | None] = [None] * n
        self.flags = [False] * n
        self.decay = decay

    def step(self, index: list[int], losses: list[float]) -> None:
        of_sample: dict[int, list[float]] = {}
        for i, loss in zip(index, losses, strict=True):
            if math.isfinite(loss):
                of_sample.setdefault(i, []).append(loss)
        for i, some in of_sample.items():
            mean = sum(some) / len(some)
            past = self.losses[i]
            self.losses[i] = mean if past is None else self.decay * past + (1 - self.decay) * mean

    def select(self, clip_quantile: float) -> float:
        recorded = sorted(loss for loss in self.losses if loss is not None)
        highest = recorded[max(math.ceil(clip_quantile * len(recorded)), 1) - 1]
        cut = otsu(np.minimum(np.array(recorded), highest))
        for i, loss in enumerate(self.losses):
            if loss is not None and loss != cut:
                self.flags[i] = loss < cut
        return cut


def regroup(first: np.ndarray, second: np.ndarray, orientation: int, pieces: int) -> np.ndarray:
    """Compose one image (C, H, W) pixel by pixel."""
    out = first.copy()
    height, width = first.shape[-2:]
    for y in range(height):
        for x in range(width):
            top, left = y < height // 2, x < width // 2
            if pieces == 2:
                pasted = left if orientation == 0 else top
            else:
                pasted = (top == left) if orientation == 0 else (top != left)
            if pasted:
                out[:, y, x] = second[:, y, x]
    return out


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def flexmatch_thresholds(selected: list[int], n_classes: int, threshold: float, warm: bool) -> list[float]:
    """tau * beta / (2 - beta) of each class, from the selected label of every unlabelled sample (-1: none)."""
    counts = Counter(selected)
    sigma = [counts[label] for label in range(n_classes)]
    most = max([*sigma, counts[-1]]) if warm else max(sigma)
    effects = [count / most if any(sigma) else 0.0 for count in sigma]
    return [threshold * effect / (2 - effect) for effect in effects]
