"""What a model knows of held-out speech: its loss, where that was best, with other texts, and of counters beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt.lina_speech.ngrams import Bigram, bigram_loss, unigram_loss

__all__ = [
    "BestWeights",
    "LossCurve",
    "counted_losses",
    "held_out_loss",
    "trained_parameters",
    "with_exchanged_texts",
]


class LossCurve(Callback):
    """Notes the training loss, averaged over some steps.

    Args:
        every: Batches that a point is the mean of.
        advance: Called after every batch.
    """

    def __init__(self, every: int, advance: Callable[[], None] = lambda: None) -> None:
        self.every = every
        self.advance = advance
        self.points: list[tuple[int, float]] = []  # optimizer steps, nats per target
        self._since: list[float] = []

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._since.append(float(outputs["loss"]))
        if len(self._since) == self.every:
            self._note(trainer.global_step)
        self.advance()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._since:
            self._note(trainer.global_step)

    def _note(self, step: int) -> None:
        self.points.append((step, sum(self._since) / len(self._since)))
        self._since = []


class BestWeights(Callback):
    """Gives a module the trained weights of its best validation at the end, those before training being the first.

    Args:
        loss: Validation loss before training.
    """

    def __init__(self, loss: float) -> None:
        self.loss = loss
        self._kept: Mapping[str, Tensor] = {}

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics["val_loss"])
        if loss < self.loss:
            self.loss = loss
            self._keep(pl_module)

    def _keep(self, module: LightningModule) -> None:
        self._kept = {name: value.detach().clone() for name, value in trained_parameters(module).items()}

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with torch.no_grad():
            for name, value in trained_parameters(pl_module).items():
                value.copy_(self._kept[name])


def trained_parameters(module: LightningModule) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of a module that are trained, by name."""
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def held_out_loss(module: LightningModule, batches: Iterable[Any]) -> float:
    """Return the validation loss of a module.

    Args:
        module: A `LinaSpeechModule`.
        batches: A list of batches, as a validation loader gives them.

    Returns:
        Mean loss, nats per target.
    """
    loader: Any = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list alone is several loaders
    (found,) = quiet_trainer([]).validate(module, dataloaders=loader, verbose=False)
    return float(found["val_loss"])


def with_exchanged_texts(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give every utterance the text of its neighbour in the batch: what the text is worth to a model.

    Args:
        batches: Batches, as a loader gives them.

    Yields:
        The same batches with other texts.
    """
    for batch in batches:
        yield {**batch, **{name: batch[name].roll(1, 0) for name in ("text", "text_lengths")}}


def counted_losses(data: Any) -> tuple[float, Bigram]:
    """Return the losses of the unigram and of the bigram of the training codes on the validation set.

    Args:
        data: A `TextSpeechDataModule` that is set up; its first codebook counts.

    Returns:
        Loss of the unigram, nats per target, and the bigram with its loss.
    """
    train, val = _codes(data.train_set), _codes(data.val_set)
    n_codes = data.codec.codebook_size
    return unigram_loss(train, val, n_codes), bigram_loss(train, val, n_codes)


def _codes(rows: Any) -> list[Tensor]:
    return [torch.as_tensor(rows[row]["codes"])[0] for row in range(len(rows))]
