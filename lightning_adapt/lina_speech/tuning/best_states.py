"""Which states were best on held-out data: for each voice the best so far, the untuned base being the first; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["BestStates", "as_tensors", "mean_of"]

Values = dict[str, Tensor]


class BestStates:
    """Keeps, for each voice, the values with the smallest held-out loss, and counts how long nothing got better.

    The untuned base is the first candidate: a voice for which nothing was better keeps it, as None.

    Args:
        n_voices: Voices.

    Attributes:
        untuned: Held-out loss of the base for each voice, nats per target; NaN where a voice has no held-out data.
            Empty before the first validation.
        losses: The same of the best values so far.
        values: The best values of each voice; None for the base.
        waited: Validations with new steps behind them since one of the voices got better.
        curve: [optimizer steps, loss of each voice ...] of every validation.
    """

    def __init__(self, n_voices: int) -> None:
        self.n_voices = n_voices
        self.untuned: list[float] = []
        self.losses: list[float] = []
        self.values: list[Values | None] = [None] * n_voices
        self.waited = 0
        self.curve: list[list[float]] = []

    def begin(self, untuned: Sequence[float]) -> None:
        """Take the losses of the base, the first candidate.

        Args:
            untuned: Of each voice; NaN where it has no held-out data.
        """
        self.untuned, self.losses = list(untuned), list(untuned)

    def offer(self, step: int, losses: Sequence[float], values: Callable[[int], Values]) -> bool:
        """Look at the states of a validation.

        Args:
            step: Optimizer steps so far.
            losses: Held-out loss of each voice; NaN is never better.
            values: Returns the values of a voice, if they are wanted.

        Returns:
            Whether one of the voices got better.
        """
        moved = step > (self.curve[-1][0] if self.curve else 0)  # under accumulation, validations come between steps
        self.curve.append([float(step), *losses])
        better = [number for number, loss in enumerate(losses) if loss < self.losses[number]]
        for number in better:
            self.losses[number], self.values[number] = losses[number], values(number)
        self.waited = 0 if better else self.waited + moved
        return bool(better)

    def measured(self, number: int) -> bool:
        """Say whether there was held-out data of a voice."""
        return bool(self.untuned) and not math.isnan(self.untuned[number])

    def best_step(self, number: int) -> int | None:
        """Return the optimizer steps that led to the best values of a voice; None for the base."""
        if self.values[number] is None:
            return None
        return next((int(step) for step, *losses in self.curve if losses[number] == self.losses[number]), None)

    # -- saving -------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return all of it in plain values."""
        return {
            "untuned": list(self.untuned),
            "losses": list(self.losses),
            "values": [None if values is None else dict(values) for values in self.values],
            "waited": self.waited,
            "curve": [list(point) for point in self.curve],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.untuned, self.losses = list(state["untuned"]), list(state["losses"])
        self.values = [None if values is None else as_tensors(values) for values in state["values"]]
        self.waited, self.curve = int(state["waited"]), [list(point) for point in state["curve"]]


def as_tensors(values: Mapping[str, Any]) -> Values:
    """Return values that may have come through JSON as tensors on the CPU."""
    return {name: torch.as_tensor(value).cpu() for name, value in values.items()}


def mean_of(losses: Sequence[float]) -> float:
    """Return the mean over the voices that have a loss; NaN if none has."""
    known = [loss for loss in losses if not math.isnan(loss)]
    return sum(known) / len(known) if known else math.nan
