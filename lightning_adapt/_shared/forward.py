"""Run a model for its outputs in the middle of training, and leave no trace of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module, trainer: Any = None) -> Iterator[None]:
    """Put a module in eval mode without gradients, in the Trainer's precision, and restore every training flag.

    `module.train()` afterwards would also switch on parts that the user had frozen in eval mode (a pretrained
    BatchNorm, say); here each submodule gets its own flag back, also after an exception.

    Args:
        module: Any module.
        trainer: Gives the precision context; None for the module's own precision.

    Yields:
        Nothing.

    Example:
        >>> model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with evaluating(model):
        ...     inside = model[0].training
        >>> inside, model[0].training, model[1].training
        (False, True, False)
    """
    flags = [(part, part.training) for part in module.modules()]
    precision = nullcontext() if trainer is None else trainer.precision_plugin.forward_context()
    module.eval()
    try:
        with torch.no_grad(), precision:
            yield
    finally:
        for part, flag in flags:
            part.training = flag
