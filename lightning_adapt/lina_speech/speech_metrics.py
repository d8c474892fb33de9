"""Validation metrics: cross-entropy and accuracy per codebook, equal weight for every target, over all processes."""

# ruff: noqa: N803  # suffixes name the dimensions
# B batch, T audio steps, Q codebooks, V audio ids

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lightning_adapt.lina_speech.model.delay import BOA, EOA, PAD

__all__ = ["SpeechMetrics", "counted_targets", "target_losses"]


def counted_targets(targets_BTQ: Tensor) -> Tensor:
    """Say which targets count: codes and EOA. BOA is given, and PAD is padding.

    Args:
        targets_BTQ: Ids. Any shape, dtype int64.

    Returns:
        Same shape, dtype bool.
    """
    return (targets_BTQ != PAD) & (targets_BTQ != BOA)


def target_losses(logits_BTQV: Tensor, targets_BTQ: Tensor) -> Tensor:
    """Return the cross-entropy of each target, 0 where it does not count.

    Args:
        logits_BTQV: Scores. Shape (B, T, Q, V), any float dtype; computed in float32.
        targets_BTQ: Ids. Shape (B, T, Q), dtype int64.

    Returns:
        Losses in nats. Shape (B, T, Q), dtype float32.
    """
    targets = targets_BTQ.masked_fill(~counted_targets(targets_BTQ), -100)
    losses = F.cross_entropy(logits_BTQV.float().flatten(0, 2), targets.flatten(), ignore_index=-100, reduction="none")
    return losses.view_as(targets_BTQ)


class SpeechMetrics(Metric):
    """Sums over all targets of an evaluation; the result does not depend on batches or processes.

    Args:
        n_codebooks: Q.
        options: Arguments of `torchmetrics.Metric`.
    """

    full_state_update = False
    losses: Tensor
    correct: Tensor
    targets: Tensor
    ends: Tensor

    def __init__(self, n_codebooks: int, **options: Any) -> None:
        super().__init__(**options)
        for name in ("losses", "correct", "targets"):
            self.add_state(name, torch.zeros(n_codebooks, dtype=torch.float64), dist_reduce_fx="sum")
        # of codebook 0: ends there are, ends that were seen, frames, frames that were taken for an end
        self.add_state("ends", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits_BTQV: Tensor, targets_BTQ: Tensor, losses_BTQ: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits_BTQV: Scores. Shape (B, T, Q, V).
            targets_BTQ: Ids. Shape (B, T, Q), dtype int64.
            losses_BTQ: What `target_losses` gave for them, if that is known already.
        """
        losses = target_losses(logits_BTQV, targets_BTQ) if losses_BTQ is None else losses_BTQ
        counted, guesses = counted_targets(targets_BTQ), logits_BTQV.argmax(-1)
        self.losses += losses.double().sum((0, 1))
        self.correct += ((guesses == targets_BTQ) & counted).double().sum((0, 1))
        self.targets += counted.double().sum((0, 1))
        first, guessed_end = targets_BTQ[..., 0], guesses[..., 0] == EOA
        after_end = F.pad(first[:, :-1] == EOA, (1, 0))  # more than one EOA per utterance, with more than one codebook
        is_end, is_frame = (first == EOA) & ~after_end, counted[..., 0] & (first != EOA)
        counts = (is_end, is_end & guessed_end, is_frame, is_frame & guessed_end)
        self.ends += torch.stack([flags.sum() for flags in counts]).double()

    def compute(self) -> dict[str, Tensor]:
        """Return the means: "loss", "loss_q0".., "accuracy_q0".., "ends_found", "false_ends".

        "ends_found" is the share of utterances whose end is the most probable code there, "false_ends" the share of
        other frames at which an end is the most probable. NaN without a target.
        """
        found = {"loss": self.losses.sum() / self.targets.sum()}
        for name, sums in (("loss", self.losses), ("accuracy", self.correct)):
            found |= {f"{name}_q{book}": value for book, value in enumerate(sums / self.targets)}
        found["ends_found"], found["false_ends"] = self.ends[1] / self.ends[0], self.ends[3] / self.ends[2]
        return {name: value.float() for name, value in found.items()}
