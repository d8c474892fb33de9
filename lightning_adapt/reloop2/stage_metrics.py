"""What ErrorMemoryCallback logs: the corrected predictions and those of the base model, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError

from lightning_adapt._shared.checks import problem
from lightning_adapt.reloop2.compensator import Memory, Served
from lightning_adapt.reloop2.metrics import PrequentialMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["StageMetrics"]

_SHOWN = ("auc", "slot_auc", "logloss", "calibration")


class StageMetrics:
    """Metrics of one stage.

    Args:
        memory: Its task says which metrics there are.
        device: Where the predictions are.
    """

    def __init__(self, memory: Memory, device: torch.device) -> None:
        self.clicks = PrequentialMetrics().to(device) if memory.settings.task == "binary" else None
        self._used = False
        self.errors = {name: MeanSquaredError().to(device) for name in ("mse", "base_mse")}

    def update(self, served: Served, labels: Tensor, ids: Tensor | None) -> None:
        """Add a batch.

        Args:
            served: What was served.
            labels: Shape (B,).
            ids: Ids of the rows that grow with time, shape (B,); None: the order of arrival.

        Raises:
            ValueError: If labels of clicks are neither 0 nor 1.
        """
        self._used = True
        if self.clicks is not None:
            soft = labels[(labels != 0) & (labels != 1)]
            if len(soft):
                allowed = "a function that returns 0 or 1 where log_base=True"
                remedy = "Pass log_base=False: the memory takes labels between 0 and 1, AUC and calibration do not."
                raise ValueError(problem("label_fn", allowed, soft[0].item(), remedy))
            self.clicks.update(served.served, labels, base=served.base, index=ids)
        else:
            self.errors["mse"].update(served.served, labels)
            self.errors["base_mse"].update(served.base, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics over all ranks, by name; the base model's begin with "base_". Empty without labels."""
        if not self._used:  # no labels were found: nothing to say
            return {}
        if self.clicks is None:
            return {name: metric.compute() for name, metric in self.errors.items()}
        found = self.clicks.compute()
        names = [prefix + name for name in _SHOWN for prefix in ("", "base_")]
        return {name: found[name] for name in names if name in found}

    def figure(self) -> Figure | None:
        """Return AUC and log loss over ten equal stretches of the stage; None for regression or without rows.

        Raises:
            ModuleNotFoundError: If matplotlib is missing; names the extra.
        """
        return self.clicks.figure() if self.clicks is not None and self._used else None
