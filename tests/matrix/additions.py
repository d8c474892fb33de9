"""What somebody adds to a foreign module for a method that needs more than a Trainer hands out: a few lines each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_adapt import RS2Sampler
from tests.matrix import (
    modules_averaged,
    modules_bert,
    modules_clicks,
    modules_fixmatch,
    modules_gru,
    modules_lbfgs,
    modules_llama,
    modules_pytorch_lightning,
    modules_regression,
    modules_sampled,
    modules_simclr,
)

__all__ = ["ADDITIONS"]


def with_losses(kind: Any, losses: Callable[[Any, Any], Tensor]) -> Callable[[], Any]:
    """The module whose `training_step` returns one key more: the loss of each sample of the batch."""

    class WithLosses(kind):
        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
            returned = super().training_step(batch, batch_idx)
            loss = returned["loss"] if isinstance(returned, dict) else returned
            with torch.no_grad():
                return {"loss": loss, "sample_loss": losses(self, batch)}

    return WithLosses


def _of_clicks(module: Any, batch: Any) -> Tensor:
    return F.binary_cross_entropy_with_logits(module(batch), batch["label"], reduction="none")


def _of_sentences(module: Any, batch: Any) -> Tensor:
    logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return F.binary_cross_entropy_with_logits(logits, batch["labels"], reduction="none")


def _of_answers(module: Any, batch: Any) -> Tensor:
    logits, labels = module.model(**batch).logits[:, :-1], batch["labels"][:, 1:]
    each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
    return each.sum(1) / (labels != -100).sum(1)


def _of_tunes(module: Any, batch: Any) -> Tensor:
    return module.losses(batch).sum(1) / (batch[1] - 1)


def _of_visits(module: Any, batch: Any) -> Tensor:
    return F.binary_cross_entropy_with_logits(module(batch.features)["bought"], batch.bought, reduction="none")


def _of_applicants(module: Any, batch: Any) -> Tensor:
    return F.binary_cross_entropy_with_logits(module(batch[0]), batch[1], reduction="none")


def _of_houses(module: Any, batch: Any) -> Tensor:
    return (module(batch[0]).squeeze(1) - batch[1]).pow(2)


def _of_patients(module: Any, batch: Any) -> Tensor:
    return F.binary_cross_entropy(module(batch[0]), batch[1], reduction="none").squeeze(1)


class FixMatchWithFlags(modules_fixmatch.FixMatch):
    """One line in `training_step`: the strong views of flagged images are composed of both; `saa` is the callback."""

    saa: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        ulb = batch["ulb"]
        strong = self.saa.regroup(ulb["x_ulb_s_0"], ulb["x_ulb_s_1"], ulb["idx_ulb"])
        return super().training_step({**batch, "ulb": {**ulb, "x_ulb_s_0": strong}}, batch_idx)


class FixMatchOnOurs(modules_fixmatch.FixMatch):
    """Keys of batches renamed: the SAADataModule in place of its own data."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        lb, ulb = batch["labeled"], batch["unlabeled"]
        theirs = {"idx_ulb": ulb["index"], "x_ulb_w": ulb["weak"], "x_ulb_s_0": ulb["strong"]}
        returned = super().training_step({"lb": self._theirs(lb), "ulb": theirs}, batch_idx)
        return {"loss": returned["loss"], "sample_loss": returned["unsup_loss"], "index": returned["idx_ulb"]}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(self._theirs(batch), batch_idx)

    @staticmethod
    def _theirs(batch: Any) -> dict[str, Tensor]:
        return {"x_lb": batch["image"], "y_lb": batch["label"]}


class SimCLRWithFlags(modules_simclr.SimCLR):
    """Two lines: the second view of flagged images is composed of both, and losses and rows are returned."""

    saa: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        (first, second), rows = batch
        views = torch.stack([first, self.saa.regroup(second, first, rows)])
        losses = self.info_nce(views)
        return {"loss": losses.mean(), "sample_loss": losses.detach(), "index": rows}


class MelodyWithStates(modules_gru.MelodyModel):
    """Three methods: the hidden states that the layers of the GRU start from, as matrices of one row."""

    beginning: Mapping[str, Tensor] | None = None

    def initial_state_shapes(self) -> dict[str, tuple[int, int, int]]:
        return {f"rnn.{layer}": (1, 1, self.hparams.hidden) for layer in range(self.hparams.layers)}

    def use_initial_states(self, states: Mapping[str, Tensor] | None) -> None:
        self.beginning = states

    def sequence_losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self.losses(batch).sum(1), batch[1] - 1

    def initial_hidden(self, batch_size: int) -> Tensor:
        if not self.beginning:
            return super().initial_hidden(batch_size)
        rows = [self.beginning[name].flatten(1).expand(batch_size, -1) for name in self.initial_state_shapes()]
        return torch.stack(rows)


def _weighted_rounds() -> dict[str, Any]:
    """The loaders of the weighted sampler with one of ours in its place."""
    rows = modules_sampled.transfers(40, 91)
    weights = torch.where(rows.tensors[1] > 0, 4.0, 1.0)
    sampler = RS2Sampler(rows, 0.3, mode="independent", weights=weights, round_to=4)
    train = DataLoader(rows, batch_size=4, sampler=sampler)
    return {"train_dataloaders": train, "val_dataloaders": modules_sampled.plain_loader(16, 92)}


LOSSES = "rs2 loss"
ADDITIONS: dict[str, dict[str, Callable[[], Any]]] = {
    "clicks": {LOSSES: with_losses(modules_clicks.ClickModel, _of_clicks)},
    "bert": {LOSSES: with_losses(modules_bert.RudenessClassifier, _of_sentences)},
    "llama": {LOSSES: with_losses(modules_llama.LlamaTuning, _of_answers)},
    "regression": {LOSSES: with_losses(modules_regression.HousePrices, _of_houses)},
    "fixmatch": {"saa": FixMatchWithFlags, "saa data": FixMatchOnOurs},
    "simclr": {
        LOSSES: with_losses(modules_simclr.SimCLR, lambda module, batch: module.info_nce(batch[0])),
        "saa": SimCLRWithFlags,
    },
    "gru": {LOSSES: with_losses(modules_gru.MelodyModel, _of_tunes), "tuning": MelodyWithStates},
    "lbfgs": {LOSSES: with_losses(modules_lbfgs.LogisticRegression, _of_applicants)},
    "averaged": {LOSSES: with_losses(modules_averaged.TwoHeads, _of_visits)},
    "weighted": {"rs2 data": _weighted_rounds},
    "pytorch_lightning": {LOSSES: with_losses(modules_pytorch_lightning.Readmission, _of_patients)},
}
