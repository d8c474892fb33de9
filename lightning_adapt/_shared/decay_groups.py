"""Which parameters decay: the two groups that an optimizer with weight decay gets; torch only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["decay_groups"]


def decay_groups(
    module: nn.Module, weight_decay: float, exempt: Callable[[str, nn.Parameter], bool] = lambda *_: False
) -> list[dict[str, Any]]:
    """Split the trainable parameters into matrices, which decay, and all others, which do not.

    Others are norms and biases (one dimension or none), and what is exempt.

    Args:
        module: The module.
        weight_decay: Decay of the matrices, >= 0.
        exempt: Says of the name of a parameter and the parameter whether it is no matrix that should decay.

    Returns:
        One or two parameter groups for an optimizer; each parameter once, in the order of `module.parameters()`.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, value in module.named_parameters():
        if value.requires_grad:
            (others if value.ndim < 2 or exempt(name, value) else matrices).append(value)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
