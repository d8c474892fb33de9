"""StepReports: what training steps say of their unlabelled samples, kept where it is until a period ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_adapt._shared.checks import describe, problem
from lightning_adapt._shared.collectives import gather_rows

__all__ = ["StepReports", "check_keys"]

Report = tuple[Tensor, Tensor, Tensor]  # index, losses, confidence


def check_keys(**keys: Any) -> None:
    """Raise a TypeError for a key that is no text, by the name of its argument."""
    for argument, key in keys.items():
        if not isinstance(key, str) or not key:
            raise TypeError(problem(argument, "a key of the dict that `training_step` returns", key, "Pass text."))


class StepReports:
    """Collects (index, loss, confidence) of each step on its device, so that no step waits for them.

    Args:
        loss_key: Key of the losses in what `training_step` returns, shape (B,).
        index_key: Key of the rows of the unlabelled set there, shape (B,), int64.
        confidence_key: Key of the confidences there, shape (B,); None: not needed.
    """

    def __init__(self, loss_key: str, index_key: str, confidence_key: str | None) -> None:
        self.loss_key, self.index_key, self.confidence_key = loss_key, index_key, confidence_key
        self._places: list[Tensor] = []  # (step, index), int64
        self._values: list[Tensor] = []  # (loss, confidence), float32

    def add(self, step: int, index: Any, losses: Any, confidence: Any = None) -> None:
        """Note one step.

        Args:
            step: Number of the training batch, the same on all ranks.
            index: Rows of the unlabelled set. Shape (B,), integers.
            losses: Consistency losses. Shape (B,), floating point.
            confidence: Confidences of the pseudo-labels. Shape (B,); None: unknown.

        Raises:
            MisconfigurationException: If the shapes are not (B,), or confidences are needed and missing.
        """
        losses, index = torch.as_tensor(losses).detach(), torch.as_tensor(index).detach()
        if losses.ndim != 1 or index.shape != losses.shape or index.is_floating_point():
            shapes = f"{tuple(losses.shape)} for an index of shape {tuple(index.shape)} and dtype {index.dtype}"
            remedy = "Use reduction='none', before the mask, and the rows as whole numbers."
            raise MisconfigurationException(problem(self.loss_key, "one number per unlabelled sample", shapes, remedy))
        if confidence is None and self.confidence_key is not None:
            raise MisconfigurationException(self._missing("confidence_key", self.confidence_key, "nothing"))
        sure = torch.zeros_like(losses) if confidence is None else torch.as_tensor(confidence).detach()
        if sure.shape != losses.shape:
            received = f"{tuple(sure.shape)} for losses of shape {tuple(losses.shape)}"
            raise MisconfigurationException(problem("confidence", "one number per loss", received, "Use max p."))
        # stacking copies: a compiled step uses the memory of its outputs again
        steps = torch.full_like(index, step, dtype=torch.int64)
        self._places.append(torch.stack([steps, index.to(torch.int64)], 1))
        self._values.append(torch.stack([losses.float(), sure.to(losses.device).float()], 1))

    def read(self, step: int, outputs: Any) -> None:
        """Note what a training step returned; a skipped step returns nothing.

        Args:
            step: As in `add`.
            outputs: What `on_train_batch_end` was given.

        Raises:
            MisconfigurationException: If a key is missing, or as in `add`.
        """
        if outputs is None or (isinstance(outputs, Mapping) and not outputs):
            return
        keys = {"loss_key": self.loss_key, "index_key": self.index_key, "confidence_key": self.confidence_key}
        for argument, key in keys.items():
            if key is not None and not (isinstance(outputs, Mapping) and key in outputs):
                received = list(outputs) if isinstance(outputs, Mapping) else describe(outputs)
                raise MisconfigurationException(self._missing(argument, key, received))
        confidence = None if self.confidence_key is None else outputs[self.confidence_key]
        self.add(step, outputs[self.index_key], outputs[self.loss_key], confidence)

    def take(self, trainer: Any) -> Iterator[Report]:
        """Return the steps of all ranks in their order, and forget them; every rank must call it.

        Args:
            trainer: The Trainer.

        Yields:
            Index, losses and confidences of one step, all ranks together, on the CPU. Shapes (B,).
        """
        places = torch.cat(self._places or [torch.empty(0, 2, dtype=torch.int64)])
        values = torch.cat(self._values or [torch.empty(0, 2)])
        self._places, self._values = [], []
        places, values = gather_rows(trainer, places).cpu(), gather_rows(trainer, values).cpu()
        order = torch.argsort(places[:, 0], stable=True)
        counts = torch.unique_consecutive(places[order, 0], return_counts=True)[1].tolist()
        steps = zip(torch.split(places[order], counts), torch.split(values[order], counts), strict=True)
        for here, numbers in steps:
            yield here[:, 1], numbers[:, 0], numbers[:, 1]

    @staticmethod
    def _missing(argument: str, key: str, received: Any) -> str:
        meaning = {
            "loss_key": "the consistency loss of each unlabelled sample (reduction='none', before the mask)",
            "index_key": "their rows in the unlabelled data set",
            "confidence_key": "the confidence of each pseudo-label",
        }[argument]
        remedy = (
            f"Return {{'loss': loss, {key!r}: ...}} with {meaning}, or call `report` on the callback in every step."
        )
        return problem(argument, f"a key of what `training_step` returns ({key!r})", received, remedy)
