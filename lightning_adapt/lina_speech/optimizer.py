"""What decays in Lina-Speech, and its learning rate: linear warm-up, then half a cosine wave; torch only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.decay_groups import decay_groups as shared_groups
from lightning_adapt._shared.run_length import RunLength

__all__ = ["check_betas", "decay_groups", "rate_factor", "warmed_up_cosine"]

_NOT_DECAYED = ("embed", "initial_state", "h0")


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into matrices, which decay, and all others, which do not.

    Others are norms and biases (one dimension or none), embeddings (a rare code or character would shrink with every
    step that does not see it, and a tied head is an embedding, too) and states that a recurrence starts from. The
    authors decay everything.

    Args:
        module: The module.
        weight_decay: Decay of the matrices, >= 0.

    Returns:
        One or two parameter groups for an optimizer; each parameter once, in the order of `module.parameters()`.
    """
    tables = {id(value) for part in module.modules() if isinstance(part, nn.Embedding) for value in part.parameters()}

    def exempt(name: str, value: nn.Parameter) -> bool:
        return id(value) in tables or any(word in name.lower() for word in _NOT_DECAYED)

    return shared_groups(module, weight_decay, exempt)


def rate_factor(step: int, total: float, *, warmup_steps: int, minimum: float = 0.0) -> float:
    """Return the factor on the learning rate.

    (k + 1) / (W + 1) in the warm-up, then m + (1 - m) (1 + cos(pi (k - W) / (K - W))) / 2. The first step has a rate
    above 0, other than in `transformers`, so that a run of one step trains.

    Args:
        step: Optimizer steps done, k >= 0.
        total: Optimizer steps of the run, K; infinity for a run without end, which keeps the rate after the warm-up.
        warmup_steps: W >= 0; no more than half of the run counts.
        minimum: Factor at the end, m in [0, 1].

    Returns:
        The factor, in [0, 1].

    Example:
        >>> [round(rate_factor(step, 10, warmup_steps=2), 3) for step in (0, 1, 2, 6, 10)]
        [0.333, 0.667, 1.0, 0.5, 0.0]
    """
    rising = warmup_steps if math.isinf(total) else min(warmup_steps, int(total) // 2)
    if step < rising:
        return (step + 1) / (rising + 1)
    if math.isinf(total):
        return 1.0
    done = min(1.0, (step - rising) / max(1.0, total - rising))
    return minimum + (1.0 - minimum) * 0.5 * (1.0 + math.cos(math.pi * done))


def warmed_up_cosine(total: Callable[[], float], *, warmup_steps: int, minimum: float = 0.0) -> Callable[[int], float]:
    """Return the schedule for `LambdaLR` that asks for the length of the run when it is first needed.

    Asking at step 0 already would load the train data before Lightning has restored where a resumed run stands.

    Args:
        total: Returns the optimizer steps of the run, K.
        warmup_steps: As in `rate_factor`.
        minimum: Likewise.

    Returns:
        A function of the steps done, k.
    """
    length = RunLength(total)

    def factor(step: int) -> float:
        if step == 0:  # in a run shorter than two warm-ups a little lower than `rate_factor` says, for this one step
            return 1.0 / (warmup_steps + 1)
        return rate_factor(step, length.at(step), warmup_steps=warmup_steps, minimum=minimum)

    return factor


def check_betas(value: Any) -> tuple[float, float]:
    """Check the two averaging factors of AdamW.

    Args:
        value: What the user passed.

    Returns:
        Two floats.

    Raises:
        TypeError: If they are not two numbers.
        ValueError: If one is outside [0, 1).
    """
    allowed, remedy = "two numbers in [0, 1)", "Pass (0.9, 0.999)."
    try:
        first, second = (float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise TypeError(problem("betas", allowed, value, remedy)) from error
    if not (0 <= first < 1 and 0 <= second < 1):
        raise ValueError(problem("betas", allowed, value, remedy))
    return first, second
