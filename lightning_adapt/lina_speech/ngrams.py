"""Cross-entropy of speech codes under a unigram and a bigram of the training codes: what a text-blind counter knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["WEIGHTS", "Bigram", "bigram_loss", "targets_of", "unigram", "unigram_loss"]

WEIGHTS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # of the bigram in the mixture


class Bigram(NamedTuple):
    """What the best mixture of bigram and unigram reaches.

    Attributes:
        loss: Nats per target.
        weight: Of the bigram, chosen on the very targets it is measured on, in favour of this baseline.
    """

    loss: float
    weight: float


def targets_of(codes: Sequence[Tensor], n_codes: int) -> list[Tensor]:
    """Return the targets of a language model of one codebook: the codes of each utterance, then an end.

    Args:
        codes: One row of codes per utterance. Shapes (N,), dtype int64, in [0, n_codes).
        n_codes: Codes of the codebook; the end is this number.

    Returns:
        The same with the end. Shapes (N + 1,).
    """
    return [torch.cat([row, row.new_tensor([n_codes])]) for row in codes]


def unigram(train: Sequence[Tensor], n_codes: int) -> Tensor:
    """Return the probability of each target by its frequency in training, with one added to every count.

    Args:
        train: Codes of the training utterances. Shapes (N,).
        n_codes: Codes of the codebook.

    Returns:
        Probabilities of the codes and of the end. Shape (n_codes + 1,), dtype float64.
    """
    counts = torch.bincount(torch.cat(targets_of(train, n_codes)), minlength=n_codes + 1).double() + 1
    return counts / counts.sum()


def unigram_loss(train: Sequence[Tensor], val: Sequence[Tensor], n_codes: int) -> float:
    """Return the cross-entropy of the validation targets under the unigram of the training targets.

    Args:
        train: Codes of the training utterances. Shapes (N,).
        val: Codes of the validation utterances. Shapes (N,).
        n_codes: Codes of the codebook.

    Returns:
        Nats per target, the ends of utterances among them.
    """
    return float(-unigram(train, n_codes).log()[torch.cat(targets_of(val, n_codes))].mean())


def bigram_loss(
    train: Sequence[Tensor], val: Sequence[Tensor], n_codes: int, weights: Sequence[float] = WEIGHTS
) -> Bigram:
    """Return the cross-entropy under a bigram that is mixed with the unigram (Jelinek and Mercer, 1980).

    p(b | a) = w c(a, b) / c(a) + (1 - w) p(b), with p(b) the add-one unigram; it is p(b) where `a` never came. The
    code before the first one is a begin mark of its own.

    Args:
        train: Codes of the training utterances. Shapes (N,).
        val: Codes of the validation utterances. Shapes (N,).
        n_codes: Codes of the codebook.
        weights: Values of w to choose from, in (0, 1).

    Returns:
        The smallest loss in nats per target, and its weight.
    """
    size, p_single = n_codes + 1, unigram(train, n_codes)
    before, after = _pairs(train, n_codes)
    # the begin mark stands where the end would, which nothing comes after
    counts = torch.bincount(before * size + after, minlength=size * size).view(size, size).double()
    seen = counts.sum(1)
    before, after = _pairs(val, n_codes)
    p_pair, known = counts[before, after] / seen[before].clamp(min=1), seen[before] > 0
    losses = []
    for weight in weights:
        mixed = weight * p_pair + (1 - weight) * p_single[after]
        losses.append(float(-torch.where(known, mixed, p_single[after]).log().mean()))
    best = min(range(len(losses)), key=losses.__getitem__)
    return Bigram(losses[best], weights[best])


def _pairs(codes: Sequence[Tensor], n_codes: int) -> tuple[Tensor, Tensor]:
    rows = targets_of(codes, n_codes)
    return torch.cat([torch.cat([row[-1:], row[:-1]]) for row in rows]), torch.cat(rows)
