"""The learning rate of initial-state tuning; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_adapt.lina_speech.optimizer import warmed_up_cosine
from lightning_adapt.lina_speech.tuning.options import TuningOptions

__all__ = ["rate_factor_of"]

_LAST = 0.1  # of the learning rate, for full rank


def rate_factor_of(options: TuningOptions, trainer: Any) -> Callable[[int], float] | None:
    """Return the factor of the learning rate by the steps so far: for full rank half a cosine wave down to a tenth.

    Args:
        options: What was asked for; with `max_steps` that is the length of the run.
        trainer: The Trainer, which knows the length otherwise; in a run without end the rate stays.

    Returns:
        The function; None for a constant rate.
    """
    if options.rank != "full":
        return None

    def length() -> float:
        return float(trainer.estimated_stepping_batches if options.max_steps is None else options.max_steps)

    return warmed_up_cosine(length, warmup_steps=0, minimum=_LAST)
