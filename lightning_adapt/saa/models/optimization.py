"""FixMatch's optimizer: SGD without decay on normalisation layers, and the cosine schedule; torch only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from lightning_adapt._shared.run_length import RunLength

__all__ = ["cosine_7_16", "parameter_groups", "stretched"]

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those of normalisation layers, which do not.

    Biases decay, the classifier's too, as in the code of SAA and TorchSSL.

    Args:
        module: The network.
        weight_decay: Decay of the first group, >= 0.

    Returns:
        Two parameter groups for an optimizer, one if the other would be empty; each parameter once, in the order of
        `module.parameters()`.
    """
    norms = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, _NORMS)
        for parameter in layer.parameters(recurse=False)
    }
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [value for value in trained if id(value) not in norms], "weight_decay": weight_decay},
        {"params": [value for value in trained if id(value) in norms], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def cosine_7_16(step: int, total: float) -> float:
    """Return FixMatch's factor on the learning rate, cos(7 pi k / (16 K)).

    Args:
        step: Optimizer steps done, k >= 0.
        total: Optimizer steps of the run, K > 0.

    Returns:
        The factor: 1 at the start, 0.195 at the end and from there on.

    Example:
        >>> [round(cosine_7_16(step, 100), 3) for step in (0, 50, 100, 150)]
        [1.0, 0.773, 0.195, 0.195]
    """
    return math.cos(7 * math.pi * min(step, total) / (16 * total))


def stretched(total: Callable[[], float]) -> Callable[[int], float]:
    """Return the schedule for `LambdaLR` that asks for the length of the run when it is first needed.

    At step 0 the factor is 1 for every length. Asking no earlier leaves Lightning the time to restore the state of
    the loaders first; a length asked for in `configure_optimizers` would set them up before.

    Args:
        total: Returns the optimizer steps of the run, K > 0.

    Returns:
        A function of the steps done, k.
    """
    length = RunLength(total)
    return lambda step: 1.0 if step == 0 else cosine_7_16(step, length.at(step))
