"""Residual effects: what each level of each id field (user, item, a cross) adds to the base model, kept online."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ResidualEffects", "bucket_of", "cross_of"]

_MULTIPLIER = -7046029254386353131  # odd part of 2^64 / golden ratio, as a signed number: multiplicative hashing
_MOST_ROWS = 1024  # of one Newton step; from where the sigmoid is flat, thousands of rows would overshoot by far,
_LONGEST_STEP = 3.0  # and so would a step that nothing holds back
_RESCALE_AT = 2.0**40  # far from the end of float32, and the small weights of the distant past still count


def bucket_of(ids: Tensor, n_buckets: int) -> Tensor:
    """Return the table row of each id: the id itself where it fits, a hash of it otherwise.

    Args:
        ids: Ids of any size, negative ones included. Any shape, dtype int64.
        n_buckets: Rows of a table, a power of two.

    Returns:
        Rows in 0..n_buckets-1, shape of `ids`.
    """
    mixed = ids * _MULTIPLIER  # wraps at 2^64
    hashed = ((mixed ^ (mixed >> 29)) * _MULTIPLIER >> 24) & (n_buckets - 1)
    return torch.where((ids >= 0) & (ids < n_buckets), ids, hashed)


def cross_of(first: Tensor, second: Tensor, n_buckets: int) -> Tensor:
    """Return the table row of each pair of ids, by hashing.

    Args:
        first: Ids of one field. Any shape, dtype int64.
        second: Ids of the other, same shape.
        n_buckets: Rows of a table, a power of two.

    Returns:
        Rows in 0..n_buckets-1, shape of `first`.
    """
    mixed = (first * _MULTIPLIER) ^ (second + 1)
    mixed = (mixed ^ (mixed >> 31)) * _MULTIPLIER
    return ((mixed ^ (mixed >> 29)) * _MULTIPLIER >> 24) & (n_buckets - 1)


class ResidualEffects(nn.Module):
    """One table of effects per group of ids, learnt by one pass over the feedback, at a cost that does not grow.

    An effect m of a level is what its rows lack in the base model's logit: a Gaussian prior of mean 0 and variance
    `prior_variance`, and a Newton step per batch, m += sum(y - p) / (D + 1 / prior_variance), where D is the sum of
    p (1 - p) over the level's rows and p the prediction with all effects so far. D halves every `half_life` rows, so
    old evidence makes way for drift. Groups take their turn one after another within a batch (Gauss-Seidel), so that
    two groups never both explain the same residual. Not in the paper.

    Args:
        n_groups: Tables G.
        n_buckets: Rows of each table, a power of two.
        prior_variance: Variance of an effect before any feedback, in squared units of the logit (regression: relative
            to the residual variance).
        half_life: Rows after which evidence counts half.
    """

    def __init__(self, n_groups: int, n_buckets: int, prior_variance: float, half_life: float) -> None:
        super().__init__()
        self.n_buckets, self.prior_variance, self.half_life = n_buckets, prior_variance, half_life
        self.mean: Tensor
        self.evidence: Tensor
        self.weight: Tensor
        self.scratch: Tensor
        with torch.inference_mode(False):
            self.register_buffer("mean", torch.zeros(n_groups, n_buckets))
            self.register_buffer("evidence", torch.zeros(n_groups, n_buckets))  # D, times `weight`
            self.register_buffer("scratch", torch.zeros(n_buckets), persistent=False)
            self.register_buffer("weight", torch.ones((), dtype=torch.float64))  # of a row written now; grows instead
        # of decaying the tables, so that a batch costs what its rows cost

    def read(self, rows: Tensor) -> Tensor:
        """Return the effects of the rows' levels.

        Args:
            rows: Table row of each group. Shape (B, G), int64.

        Returns:
            Effects, shape (B, G), float32.
        """
        return self.mean[self._groups(), rows]

    def write(self, rows: Tensor, offset: Tensor, scales: Tensor, labels: Tensor, *, binary: bool = True) -> None:
        """Learn from labels that have arrived.

        Args:
            rows: Table row of each group. Shape (B, G), int64.
            offset: What the prediction is without effects: a logit, or a value in regression. Shape (B,).
            scales: How much of each group's effect the prediction uses; a group at NaN is left out. Shape (G,).
            labels: Shape (B,).
            binary: Labels behind a logit; otherwise values with squared error, where each row has curvature 1.
        """
        offset, labels, scales = (part.to(self.mean) for part in (offset, labels, scales))
        parts = (torch.split(part, _MOST_ROWS) for part in (rows, offset, labels))
        for some_rows, some_offset, some_labels in zip(*parts, strict=True):
            self._write(some_rows, some_offset, scales, some_labels, binary=binary)

    def _write(self, rows: Tensor, offset: Tensor, scales: Tensor, labels: Tensor, *, binary: bool) -> None:
        used = (~scales.isnan()).nonzero().flatten().tolist()
        total = offset + self.read(rows) @ scales.nan_to_num()
        weight = float(self.weight)
        for group in used:
            level = rows[:, group]
            prediction = torch.sigmoid(total) if binary else total
            slope = labels - prediction
            curvature = prediction * (1 - prediction) if binary else torch.ones_like(total)
            self.evidence[group].index_add_(0, level, curvature * weight)
            step = self._sum_by_level(level, slope) / (self.evidence[group, level] / weight + 1 / self.prior_variance)
            if binary:
                step = step.clamp(-_LONGEST_STEP, _LONGEST_STEP)
            self.mean[group, level] += step  # rows of one level carry one step: the last one written is any of them
            total += scales[group] * step
        self._age(len(labels))

    def clear(self, groups: Tensor) -> None:
        """Forget some groups.

        Args:
            groups: Their numbers, int64, or a mask of shape (G,).
        """
        self.mean[groups] = 0
        self.evidence[groups] = 0

    def reset(self) -> None:
        """Forget everything."""
        self.mean.zero_()
        self.evidence.zero_()
        self.weight.fill_(1)

    def merge_(self, other: ResidualEffects) -> None:
        """Take in what another shard learnt from other rows.

        Args:
            other: Effects of the same groups; stays as it is.
        """
        prior = 1 / self.prior_variance
        mine = self.evidence / self.weight.to(self.mean)
        theirs = (other.evidence / other.weight.to(other.mean)).to(mine)
        # an effect is (evidence-weighted sum) / (evidence + prior): sums and evidence add, the prior counts once
        total = self.mean * (mine + prior) + other.mean.to(mine) * (theirs + prior)
        self.mean.copy_(total / (mine + theirs + prior))
        self.evidence.copy_((mine + theirs) * self.weight.to(self.mean))

    def _groups(self) -> Tensor:
        return torch.arange(len(self.mean), device=self.mean.device)

    def _sum_by_level(self, level: Tensor, values: Tensor) -> Tensor:
        sums = self.scratch.index_add_(0, level, values)[level]
        self.scratch[level] = 0  # only what was touched: a batch costs what its rows cost
        return sums

    def _age(self, n_rows: int) -> None:
        self.weight *= 2.0 ** min(n_rows / self.half_life, 100.0)  # beyond that nothing old is left anyway
        if float(self.weight) > _RESCALE_AT:
            self.evidence /= self.weight.to(self.evidence)
            self.weight.fill_(1)
