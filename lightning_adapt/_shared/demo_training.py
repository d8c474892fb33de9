"""What demos share when they train a row of a table: counted data, a stopwatch beside the Trainer, a quiet Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from lightning_adapt._shared.forward import evaluating

_EVALUATION_BATCH = 500


class CountedRows(Dataset[Any]):
    """Images in memory that note which rows were asked for; use it with `collate_fn=as_is`.

    Args:
        images: Shape (N, 1, S, S).
        labels: Shape (N,), dtype int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.seen = torch.zeros(len(labels), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Return a whole batch by one indexing operation; a DataLoader calls it when it is there."""
        self.seen[rows] = True
        return self.images[rows], self.labels[rows]


@dataclass
class TrainingRun:
    """What one training gave.

    Args:
        accuracy: Test accuracy at the end, in percent.
        seconds: Processor time of training alone, without evaluation; with one thread it is what a clock shows on a
            machine that does nothing else.
        steps: Optimizer steps.
        seen: Share of the rows that were drawn at least once.
        curve: Pairs (training seconds, test accuracy in percent).
    """

    accuracy: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    seen: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)


class Stopwatch(Callback):
    """Takes the time of training alone and, outside of it, the test accuracy at chosen steps and at the end.

    Args:
        images: Test images.
        labels: Their classes.
        at_steps: Optimizer steps after which to evaluate; the end is added.
        advance: Called after every training batch; moves a progress bar.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, at_steps: set[int], advance: Callable[[], None] = lambda: None
    ) -> None:
        self.images, self.labels, self.at_steps, self.advance = images, labels, at_steps, advance
        self.run = TrainingRun()
        self._since = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.process_time()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in self.at_steps:
            self._evaluate(pl_module)
            self._since = time.process_time()
        self.advance()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluate(pl_module)
        self.run.steps = trainer.global_step
        self.run.accuracy = self.run.curve[-1][1]

    def _evaluate(self, model: LightningModule) -> None:
        self.run.seconds += time.process_time() - self._since
        self.run.curve.append((self.run.seconds, accuracy_percent(model, self.images, self.labels)))


def accuracy_percent(model: LightningModule, images: Tensor, labels: Tensor) -> float:
    """Return the test accuracy of a model; its training flags come back as they were.

    Args:
        model: Gives logits of shape (B, C).
        images: Shape (N, 1, S, S).
        labels: Shape (N,).

    Returns:
        Percent of the images classified rightly.
    """
    starts = range(0, len(labels), _EVALUATION_BATCH)
    parts = [slice(start, start + _EVALUATION_BATCH) for start in starts]
    with evaluating(model):
        right = sum(int((model(images[part]).argmax(-1) == labels[part]).sum()) for part in parts)
    return 100 * right / len(labels)


def quiet_trainer(callbacks: list[Callback], **arguments: Any) -> Trainer:
    """Return a CPU Trainer that logs, saves and prints nothing.

    Args:
        callbacks: Callbacks.
        arguments: Further arguments of the Trainer; they win over ours.

    Returns:
        The Trainer.
    """
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(callbacks=callbacks, **{"accelerator": "cpu", "devices": 1, "logger": False, **quiet, **arguments})
