"""Held-out losses of voices, summed over the batches of a validation, tuned and untuned; and seconds of audio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["HeardSeconds", "HeldOutSums"]

Reduce = Callable[[Tensor], Tensor]  # sums a tensor over all processes


class HeldOutSums:
    """Sums of losses and numbers of targets of each voice, of the states in use and of the base.

    Args:
        n_voices: Voices.
    """

    def __init__(self, n_voices: int) -> None:
        self.sums = torch.zeros(2, 2, n_voices, dtype=torch.float64)  # (tuned, untuned), (losses, targets), voice

    def add(self, rows: Tensor | None, found: Any, *, untuned: bool) -> None:
        """Add a batch.

        Args:
            rows: Voice of each row, shape (B,); None for the only voice.
            found: What `sequence_losses` returned.
            untuned: Whether it was the base's.

        Raises:
            ValueError: If it is not two tensors of shape (B,).
        """
        losses, counts = _checked_losses(found)
        if rows is None:
            rows = torch.zeros(len(losses), dtype=torch.int64)
        if len(rows) != len(losses):
            remedy = "Return one loss for each row of the batch."
            raise ValueError(problem("sequence_losses", f"of {len(rows)} rows", len(losses), remedy))
        values = torch.stack([part.detach().cpu().double() for part in (losses, counts)])  # each exactly
        self.sums[int(untuned)].index_add_(1, rows.cpu(), values)

    def means(self, reduce: Reduce) -> tuple[list[float], list[float]]:
        """Return the losses per target over all processes, tuned and untuned; NaN for a voice without data.

        Args:
            reduce: Sums over all processes.
        """
        tuned, untuned = (losses / counts for losses, counts in reduce(self.sums))  # 0 / 0 is NaN
        return tuned.tolist(), untuned.tolist()


class HeardSeconds:
    """Seconds of audio that each voice was tuned on: of the longest epoch, since the next ones are of the same audio.

    Args:
        n_voices: Voices.
    """

    def __init__(self, n_voices: int) -> None:
        self.here = torch.zeros(n_voices, dtype=torch.float64)  # of this process, not yet counted
        self.epoch = torch.zeros(n_voices, dtype=torch.float64)  # of all processes
        self.longest = torch.zeros(n_voices, dtype=torch.float64)
        self.known = False

    def add(self, rows: Tensor | None, seconds: Tensor | None) -> None:
        """Add a batch of this process; `seconds` of shape (B,), or None where they are not known."""
        if seconds is None:
            return
        self.known = True
        rows = torch.zeros(len(seconds), dtype=torch.int64) if rows is None else rows.cpu()
        self.here.index_add_(0, rows, seconds.detach().cpu().double())

    def collect(self, reduce: Reduce, *, end_of_epoch: bool) -> None:
        """Count what the processes have heard; all of them call it together.

        Args:
            reduce: Sums over all processes.
            end_of_epoch: Whether what comes next is heard again.
        """
        self.epoch = self.epoch + reduce(self.here)
        self.longest = torch.maximum(self.longest, self.epoch)
        self.here.zero_()
        if end_of_epoch:
            self.begin_epoch()

    def begin_epoch(self) -> None:
        """Take what comes next for heard again."""
        self.epoch = torch.zeros_like(self.epoch)

    def of(self, number: int) -> float | None:
        """Return the seconds of a voice; None where they are not known."""
        return float(self.longest[number]) if self.known else None

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted in plain values."""
        return {"epoch": self.epoch.tolist(), "longest": self.longest.tolist(), "known": self.known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.epoch, self.longest = (torch.tensor(state[name], dtype=torch.float64) for name in ("epoch", "longest"))
        self.known = bool(state["known"])


def _checked_losses(found: Any) -> tuple[Tensor, Tensor]:
    pair = isinstance(found, (tuple, list)) and len(found) == 2 and all(isinstance(part, Tensor) for part in found)
    if not pair or found[0].dim() != 1 or found[0].shape != found[1].shape:
        remedy = "Return the summed loss and the number of targets of each row."
        raise ValueError(problem("sequence_losses", "two tensors of shape (B,)", found, remedy))
    return found[0], found[1]
