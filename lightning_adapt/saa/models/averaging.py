"""EMA of the weights as FixMatch evaluates it: parameters averaged, buffers copied, decay ramped."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from typing_extensions import override

from lightning_adapt._shared.checks import check_number
from lightning_adapt._shared.state import reading_state

__all__ = ["RampedEMA", "ramped_average"]


def ramped_average(averaged: Tensor, current: Tensor, n_averaged: Tensor | int, *, decay: float) -> Tensor:
    """Return one step of the moving average, with decay min(1 - 1/(k+1), decay) after k steps.

    Until k / (k+1) reaches the decay, this is the plain mean of all weights so far. A fixed decay of 0.999 would
    still give the first weights a share of 37 % after 1,000 steps.

    Args:
        averaged: Average so far. Any shape, any float dtype.
        current: Weights of the network, same shape.
        n_averaged: Number of steps averaged so far, k >= 1.
        decay: Largest decay, in (0, 1).

    Returns:
        The new average, shape and dtype of `averaged`.
    """
    weight = torch.as_tensor(1.0 / (n_averaged + 1)).clamp(min=1.0 - decay).to(averaged)
    return torch.lerp(averaged, current.to(averaged), weight)


class RampedEMA(WeightAveraging):
    """Lightning's weight averaging with FixMatch's average: EMA with a ramp; BatchNorm's buffers are copied.

    Lightning's own `EMAWeightAveraging` has a fixed decay and takes no other average. As there, validation and the
    module after `fit` use the averaged weights, and a checkpoint holds them in `state_dict`.

    Args:
        decay: Largest decay per optimizer step, in (0, 1).
        device: Where the averaged weights live; None: where the module is when `fit` begins.

    Raises:
        TypeError: If the decay is no number.
        ValueError: If it is out of range.
    """

    def __init__(self, decay: float = 0.999, device: torch.device | str | int | None = None) -> None:
        decay = check_number("decay", decay, "(0, 1)", "Pass 0.999.")
        super().__init__(device=device, use_buffers=False, avg_fn=partial(ramped_average, decay=decay))

    @override
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # outside of fit the module already has the averaged weights, and Lightning would only say so each time
        if trainer.state.fn == "fit":
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    @override
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        # likewise: `state_dict` holds the averaged weights, which is what a test wants; Lightning would warn
        if trainer.state.fn == "fit":
            with reading_state("the averaged weights"):
                super().on_load_checkpoint(trainer, pl_module, checkpoint)
