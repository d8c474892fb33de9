"""InStep: what a training step of anybody's may ask of SAA, and tell it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt.saa.functional import regroup
from lightning_adapt.saa.history import LossHistory
from lightning_adapt.saa.reports import StepReports
from lightning_adapt.saa.selection import Selection
from lightning_adapt.saa.streams import OWN_ORIENTATION

__all__ = ["InStep"]


class InStep:
    """The part of `SampleAdaptiveAugmentation` that training steps talk to.

    Args:
        reports: Where losses are noted.
        selection: What is known of the samples; None before the first run.
    """

    enabled: bool
    seed: int
    pieces: int

    def __init__(self, reports: StepReports, selection: Selection | None = None) -> None:
        self.selection = selection
        self._reports = reports
        self._in_step = False
        self._by_hand = False  # whether steps call `report`
        self._used = False  # whether anything asks for the flags
        self._composed: tuple[int, int] = (0, 0)  # this rank, and how many views were composed in this step

    @property
    def history(self) -> LossHistory | None:
        """What is recorded of each unlabelled sample; None before the first run."""
        return None if self.selection is None else self.selection.history

    @property
    def curve(self) -> list[list[float]]:
        """Of each selection: training batches so far, cut in nats, share of naive samples."""
        return [] if self.selection is None else self.selection.curve

    # -- for training steps ---------------------------------------------------------------------------------------
    def report(self, index: Tensor, loss: Tensor, confidence: Tensor | None = None) -> None:
        """Record a training step by hand, where `training_step` does not return the keys; ignored outside of one.

        Args:
            index: Rows of the unlabelled set. Shape (B,), integers.
            loss: Consistency losses before the mask. Shape (B,), floating point.
            confidence: Confidences of the pseudo-labels; needed with `require_confident`. Shape (B,).

        Raises:
            MisconfigurationException: If the shapes do not fit.
        """
        if self._in_step and self.selection is not None:
            self._by_hand = True
            self._reports.add(self.selection.batches, index, loss, confidence)

    def flagged(self, index: Tensor) -> Tensor:
        """Say which samples are naive.

        Args:
            index: Rows of the unlabelled set. Shape (B,), dtype int64.

        Returns:
            True where the strong view should be regrouped. Shape (B,), dtype bool, on the device of `index`.
        """
        self._used = True
        if self.selection is None or not self.enabled:
            return torch.zeros_like(index, dtype=torch.bool)
        return self.selection.flagged(index)

    def regroup(self, first: Tensor, second: Tensor, index: Tensor) -> Tensor:
        """Return the first strong views, those of naive samples regrouped with the second.

        Args:
            first: Strong views. Shape (B, C, H, W).
            second: Other strong views of the same images. Shape and dtype of `first`.
            index: Rows of the unlabelled set. Shape (B,), dtype int64.

        Returns:
            The views. Shape and dtype of `first`.
        """
        rank, done = self._composed
        self._composed = rank, done + len(first)
        batch = 0 if self.selection is None else self.selection.batches
        key = derive_key(self.seed, OWN_ORIENTATION, batch, rank)
        orientation = (uniform(done + torch.arange(len(first)), key) < 0.5).long()
        composed = regroup(first, second, orientation.to(first.device, non_blocking=True), self.pieces)
        return torch.where(self.flagged(index)[:, None, None, None], composed, first)
