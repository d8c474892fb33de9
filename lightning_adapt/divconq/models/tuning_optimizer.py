"""The learning-rate schedules of fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable

from lightning_adapt._shared.run_length import RunLength

__all__ = ["SCHEDULES", "schedule_factor", "warmed_up"]

SCHEDULES = ("linear", "cosine", "constant")


def schedule_factor(step: int, total: float, *, warmup: float, schedule: str) -> float:
    """Return the factor on the learning rate, as the schedules of `transformers` define it.

    Args:
        step: Optimizer steps done, k >= 0.
        total: Optimizer steps of the run, K > 0; not needed by "constant" without warm-up.
        warmup: Share of the run in which the rate rises linearly from 0, in [0, 1); rounded up to whole steps.
        schedule: "linear" (to 0), "cosine" (half a wave, to 0) or "constant" after the warm-up.

    Returns:
        The factor, in [0, 1].

    Example:
        >>> [round(schedule_factor(step, 10, warmup=0.2, schedule="linear"), 3) for step in (0, 1, 2, 6, 10)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    rising = math.ceil(warmup * total) if warmup else 0
    if step < rising:
        return step / rising
    if schedule == "constant":
        return 1.0
    done = min(1.0, (step - rising) / max(1.0, total - rising))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def warmed_up(total: Callable[[], float], *, warmup: float, schedule: str) -> Callable[[int], float]:
    """Return the schedule for `LambdaLR` that asks for the length of the run when it is first needed.

    At step 0 the factor does not depend on it. Asking no earlier leaves Lightning the time to restore the state of the
    loaders first, and callbacks the time to say how long the run will be.

    Args:
        total: Returns the optimizer steps of the run, K > 0.
        warmup: As in `schedule_factor`.
        schedule: Likewise.

    Returns:
        A function of the steps done, k.
    """
    length = RunLength(total)

    def factor(step: int) -> float:
        if step == 0:
            return 0.0 if warmup else 1.0
        if schedule == "constant" and not warmup:
            return 1.0
        return schedule_factor(step, length.at(step), warmup=warmup, schedule=schedule)

    return factor
