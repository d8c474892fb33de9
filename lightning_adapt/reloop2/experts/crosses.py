"""Which pairs of id fields get a table of their own: all when they are few, otherwise those that a test picks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_adapt.reloop2.experts.effects import cross_of

__all__ = ["CrossSearch", "cross_score"]

_UNUSED = 0.02  # a blend weight below this: the cross does nothing, its table may go to another pair
_SCORE_BUCKETS = 4096


def cross_score(rows: Tensor, residual: Tensor, curvature: Tensor, prior_variance: float) -> float:
    """Return how much likelihood the levels of a group would gain, less what chance alone would.

    The score test for a variance component: half the sum over levels of (R^2 - V) / (V + 1 / prior_variance), where R
    sums the residuals y - p and V their variances p (1 - p). Its mean is 0 if the group adds nothing.

    Args:
        rows: Level of each row, 0..L-1. Shape (B,), int64.
        residual: y - p. Shape (B,).
        curvature: p (1 - p). Shape (B,).
        prior_variance: Variance of an effect.

    Returns:
        The score, in nats.
    """
    size = int(rows.max()) + 1 if len(rows) else 0
    sums = torch.zeros(2, size, dtype=torch.float64, device=rows.device)
    sums[0].index_add_(0, rows, residual.double())
    sums[1].index_add_(0, rows, curvature.double())
    total, variance = sums
    return float(((total.square() - variance) / (variance + 1 / prior_variance)).sum() / 2)


class CrossSearch(nn.Module):
    """Chooses the pairs of fields whose crosses get a table, from feedback alone.

    With at most `n_slots` candidates, each has its slot from the start. With more, the slots begin empty; after every
    `window` rows the pairs with the best scores take the slots that are empty or whose cross came to nothing.

    Args:
        n_fields: Id fields F.
        candidates: Pairs of fields that may be crossed, as numbers of fields.
        n_slots: Tables for crosses.
        prior_variance: Variance of an effect.
        window: Rows between two searches, and of the residuals that a search looks at.
    """

    def __init__(
        self,
        n_fields: int,
        candidates: Sequence[tuple[int, int]],
        n_slots: int,
        prior_variance: float,
        window: int = 4096,
    ) -> None:
        super().__init__()
        self.candidates = list(candidates)
        self.n_slots = min(n_slots, len(self.candidates))
        self.prior_variance, self.window = prior_variance, window
        self.fixed = len(self.candidates) <= n_slots
        kept = 0 if self.fixed else window
        self.pairs: Tensor
        self.ids: Tensor
        self.residuals: Tensor
        self.filled: Tensor
        with torch.inference_mode(False):
            start = self.candidates if self.fixed else [(-1, -1)] * self.n_slots
            self.register_buffer("pairs", torch.tensor(start, dtype=torch.int64).reshape(-1, 2))
            self.register_buffer("ids", torch.zeros(kept, n_fields, dtype=torch.int64))
            self.register_buffer("residuals", torch.zeros(kept, 2))
            self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def rows(self, ids: Tensor, n_buckets: int) -> Tensor:
        """Return the table rows of the crosses; those of an empty slot mean nothing.

        Args:
            ids: Shape (B, F), int64.
            n_buckets: Rows of a table.

        Returns:
            Shape (B, slots), int64.
        """
        return cross_of(ids[:, self.pairs[:, 0]], ids[:, self.pairs[:, 1]], n_buckets)

    @property
    def taken(self) -> Tensor:
        """Mask of the slots that hold a pair. Shape (slots,)."""
        return self.pairs[:, 0] >= 0

    def observe(self, ids: Tensor, residual: Tensor, curvature: Tensor, weights: Tensor) -> Tensor:
        """Keep the residuals of rows whose labels have arrived, and search when the window is full.

        Args:
            ids: Shape (B, F), int64.
            residual: y - p of what was served. Shape (B,).
            curvature: p (1 - p). Shape (B,).
            weights: Blend weight of each slot now. Shape (slots,).

        Returns:
            Mask of the slots that got another pair, whose tables are to be cleared. Shape (slots,).
        """
        changed = torch.zeros(self.n_slots, dtype=torch.bool, device=self.pairs.device)
        if self.fixed:
            return changed
        pair = torch.stack([residual, curvature], 1).to(self.residuals)
        while len(ids):
            start = int(self.filled)
            part = min(len(ids), self.window - start)
            self.ids[start : start + part] = ids[:part]
            self.residuals[start : start + part] = pair[:part]
            self.filled += part
            ids, pair = ids[part:], pair[part:]
            if int(self.filled) == self.window:
                changed |= self._search(weights.to(self.pairs.device).masked_fill(changed, 1.0))
                self.filled.zero_()
        return changed

    def _search(self, weights: Tensor) -> Tensor:
        changed = torch.zeros(self.n_slots, dtype=torch.bool, device=self.pairs.device)
        free = (~self.taken | (weights.to(self.pairs.device) < _UNUSED)).nonzero().flatten().tolist()
        held = {tuple(pair) for pair in self.pairs.tolist()}
        residual, curvature = self.residuals.unbind(1)
        scores = {
            (a, b): cross_score(
                cross_of(self.ids[:, a], self.ids[:, b], _SCORE_BUCKETS), residual, curvature, self.prior_variance
            )
            for a, b in self.candidates
            if (a, b) not in held
        }
        best = sorted((pair for pair, score in scores.items() if score > 0), key=lambda pair: -scores[pair])
        for slot, pair in zip(free, best, strict=False):
            self.pairs[slot] = torch.tensor(pair, device=self.pairs.device)
            changed[slot] = True
        return changed

    def held(self, fields: Sequence[str]) -> list[str]:
        """Return the crosses that have a slot, in words.

        Args:
            fields: Names of the fields.

        Returns:
            Names such as "user*genre", "" for an empty slot.
        """
        return [f"{fields[a]}*{fields[b]}" if a >= 0 else "" for a, b in self.pairs.tolist()]

    def reset(self) -> None:
        """Forget the residuals and, where a search chose them, the pairs."""
        self.filled.zero_()
        if not self.fixed:
            self.pairs.fill_(-1)
