"""What an AdaptiveErrorMemory knows of a row: effects of its ids and of their crosses, and errors near its keys."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_adapt.reloop2.experts.crosses import CrossSearch
from lightning_adapt.reloop2.experts.effects import ResidualEffects, bucket_of
from lightning_adapt.reloop2.experts.layout import INTERCEPT, Layout
from lightning_adapt.reloop2.memory import ErrorMemory

__all__ = ["SignalBank"]

_LEAST_VARIANCE = 0.02  # p (1 - p) of a neighbourhood: below, a small error would be a huge step of the logit


class SignalBank(nn.Module):
    """The memories behind the signals, G effects and K key spaces; how far to trust them is not decided here.

    What is known of a row is a vector of G + 2 K + 1 numbers: the effects, two numbers for each key space (its error in
    the unit of the prediction, and in that of the logit), and the generation of the crosses at that time.

    Args:
        layout: Names of the parts.
        max_crosses: Slots for crosses.
        prior_variance: Variance of an effect before any feedback.
        half_life: Rows after which evidence counts half.
        n_buckets: Rows of each effect table.
        memory: Keyword arguments of the key spaces' `ErrorMemory`.
        regression: Values with squared error instead of labels behind a logit.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        max_crosses: int,
        prior_variance: float,
        half_life: float,
        n_buckets: int,
        memory: Mapping[str, object],
        regression: bool,
    ) -> None:
        super().__init__()
        self.layout, self.n_buckets, self.regression = layout, n_buckets, regression
        self.search = CrossSearch(len(layout.fields), layout.pairs, max_crosses, prior_variance)
        self.n_effects = int(layout.intercept) + len(layout.singles) + self.search.n_slots
        self.effects = ResidualEffects(self.n_effects, n_buckets, prior_variance, half_life)
        self.memories = nn.ModuleList(ErrorMemory(**memory) for _ in layout.keys)  # type: ignore[arg-type]
        self.generation: Tensor
        self.born: Tensor
        self.register_buffer("generation", torch.zeros((), dtype=torch.int64))  # searches that changed a slot
        self.register_buffer("born", torch.zeros(self.n_effects, dtype=torch.int64))  # generation of each effect

    @property
    def names(self) -> list[str]:
        """Names of the effects and key spaces; "" for a cross slot that is empty."""
        layout = self.layout
        singles = [layout.fields[number] for number in layout.singles]
        return [INTERCEPT] * layout.intercept + singles + self.search.held(layout.fields) + list(layout.keys)

    def read(self, keys: Mapping[str, Tensor]) -> Tensor:
        """Return what is known of some rows now.

        Args:
            keys: Id fields and key spaces.

        Returns:
            Shape (B, G + 2 K + 1), float32.
        """
        effects = self.effects.read(self._rows(keys)) * self._active()
        pairs = zip(self.layout.keys, self.memories, strict=True)
        parts = [effects, *(self._look(memory, keys[name]) for name, memory in pairs)]  # type: ignore[arg-type]
        return torch.cat([*parts, self.generation.to(effects).expand(len(effects), 1)], 1)

    def valid(self, known: Tensor) -> Tensor:
        """Return what was known with those effects blanked whose slot got another cross since.

        Args:
            known: From an earlier `read`.

        Returns:
            Shape of `known`.
        """
        same = known[:, -1:] >= self.born
        return torch.cat([known[:, : self.n_effects] * same, known[:, self.n_effects :]], 1)

    def features(self, known: Tensor, start: Tensor) -> Tensor:
        """Return the input of the blend: 1, the base model, the effects, the key spaces.

        Args:
            known: From `read`.
            start: The base model's logit, or value in regression. Shape (B,).

        Returns:
            Shape (B, 2 + G + K).
        """
        own = [torch.ones_like(start)[:, None], start[:, None]]
        return torch.cat([*own, known[:, : self.n_effects], known[:, self.n_effects + 1 : -1 : 2]], 1)

    def errors(self, known: Tensor) -> Tensor:
        """Return the key spaces' errors in the unit of the prediction. Shape (B, K).

        Args:
            known: From `read`.
        """
        return known[:, self.n_effects : -1 : 2]

    def learn(
        self, keys: Mapping[str, Tensor], labels: Tensor, base: Tensor, features: Tensor, weights: Tensor
    ) -> None:
        """Learn from labels that have arrived.

        Args:
            keys: Id fields and key spaces of the rows.
            labels: Shape (B,).
            base: What the base model gave. Shape (B,).
            features: Input of the blend for these rows. Shape (B, 2 + G + K).
            weights: The blend's weights. Shape (2 + G + K,).
        """
        fixed, last = weights.clone(), 2 + self.n_effects
        fixed[2:last] = 0  # what the rest of the blend leaves over is what the effects have to explain
        scales = torch.where(self._active(), weights[2:last], torch.nan)
        offset = features.to(fixed) @ fixed
        self.effects.write(self._rows(keys), offset, scales, labels, binary=not self.regression)
        for name, memory in zip(self.layout.keys, self.memories, strict=True):
            if not memory.is_calibrated:
                memory.calibrate(keys[name])  # type: ignore[operator]
            memory.write(keys[name], labels, base)  # type: ignore[operator]

    def look_for_crosses(
        self, keys: Mapping[str, Tensor], residual: Tensor, curvature: Tensor, weights: Tensor
    ) -> Tensor:
        """Give the search the residuals of the blend, and make room for crosses that it found.

        Args:
            keys: Id fields of the rows.
            residual: y - p. Shape (B,).
            curvature: Its variance. Shape (B,).
            weights: The blend's weights. Shape (2 + G + K,).

        Returns:
            Mask of the effects that begin anew. Shape (G,), bool.
        """
        first = self.n_effects - self.search.n_slots
        found = self.search.observe(self.layout.ids(keys), residual, curvature, weights[2 + first : 2 + self.n_effects])
        changed = torch.cat([found.new_zeros(first), found])
        if bool(found.any()):
            self.effects.clear(changed)
            self.generation += 1
            self.born[changed] = self.generation
        return changed

    def reset(self) -> None:
        """Forget all feedback; what the key spaces are whitened by stays."""
        for part in (self.effects, self.search, *self.memories):
            part.reset()
        self.generation.zero_()
        self.born.zero_()

    def merge_(self, other: SignalBank) -> None:
        """Take in what another shard learnt from other rows.

        Args:
            other: A bank of the same signals; stays as it is.
        """
        self.effects.merge_(other.effects)
        for mine, theirs in zip(self.memories, other.memories, strict=True):
            mine.merge_(theirs)  # type: ignore[operator]

    def _rows(self, keys: Mapping[str, Tensor]) -> Tensor:
        ids = self.layout.ids(keys)
        parts = [bucket_of(ids[:, list(self.layout.singles)], self.n_buckets), self.search.rows(ids, self.n_buckets)]
        return torch.cat([ids.new_zeros(len(ids), int(self.layout.intercept)), *parts], 1)

    def _active(self) -> Tensor:
        """Mask of the effects at work: all but the empty slots. Shape (G,), bool."""
        taken = self.search.taken
        return torch.cat([taken.new_ones(self.n_effects - len(taken)), taken])

    def _look(self, memory: ErrorMemory, key: Tensor) -> Tensor:
        reading = memory.read(key)
        error = (reading.label - reading.base) * (reading.support / (reading.support + 1))
        if self.regression:
            return torch.stack([error, error], 1)
        return torch.stack([error, error / (reading.base * (1 - reading.base)).clamp_min(_LEAST_VARIANCE)], 1)
