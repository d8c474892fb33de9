"""Small loaders, a module and a Trainer for the RS2 tests."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Rows(Dataset):
    """A data set whose samples are their row numbers; notes what was read."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.targets = [row % 4 for row in range(n)]

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.tensor([float(row)])

    def __len__(self) -> int:
        return self.n


def rows_of(loader: Any) -> list[list[int]]:
    """The rows of each batch that a loader over `Rows` hands out."""
    return [batch.reshape(-1).long().tolist() for batch in loader]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def row_loader(n: int = 80, batch_size: int = 4, **options: Any) -> DataLoader:
    options.setdefault("shuffle", "sampler" not in options and "batch_sampler" not in options)
    return DataLoader(Rows(n), batch_size=batch_size, **options)


def pair_loader(n: int = 80, batch_size: int = 4, **options: Any) -> DataLoader:
    inputs = torch.arange(n, dtype=torch.float32)[:, None]
    return DataLoader(TensorDataset(inputs, torch.arange(n) % 3), batch_size=batch_size, **options)


class Module(LightningModule):
    """A linear model that records the rows it trains on and when it is validated."""

    def __init__(self, plateau: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.plateau = plateau
        self.rounds: list[list[list[int]]] = []
        self.validated_after: list[int] = []
        self.validation_losses = iter(range(1000))

    def on_train_epoch_start(self) -> None:
        self.rounds.append([])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.rounds[-1].append(batch.reshape(-1).long().tolist())
        loss = self.net(batch / 100).square().mean()
        self.log(
            "train_loss",
            loss.detach() * 0 + self.current_epoch,
            batch_size=len(batch),
            on_epoch=True,
            on_step=False,
            sync_dist=True,
        )
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if not self.trainer.sanity_checking and batch_idx == 0:
            self.validated_after.append(self.current_epoch)
        self.log(
            "val_loss", float(self.current_epoch), batch_size=len(batch), sync_dist=True
        )  # gets worse, so that patience runs out

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        if self.plateau is None:
            return optimizer
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, **self.plateau}}


class TrainOnly(Module):
    """The same without validation."""

    validation_step = LightningModule.validation_step


def small_trainer(*callbacks: Any, **options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **options,
    }
    return Trainer(callbacks=list(callbacks), **settings)
