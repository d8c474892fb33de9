"""A clock that only the test moves, and a module that takes known times on it."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, Dataset

LOADING, TRAINING, VALIDATING = 0.125, 1.0, 16.0  # seconds a batch; exact in binary


class FakeClock:
    def __init__(self, start: float = 1000.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now


class Slow(Dataset):
    """Ones that take time to load."""

    def __init__(self, clock: FakeClock, n: int, seconds: float) -> None:
        self.clock, self.n, self.seconds = clock, n, seconds

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> torch.Tensor:
        self.clock.now += self.seconds
        return torch.ones(1)


class Timed(LightningModule):
    """4 train batches and 2 validation batches an epoch; validation number i logs values[i]."""

    def __init__(self, clock: FakeClock, values: list[float] | None = None, name: str = "val_accuracy") -> None:
        super().__init__()
        self.clock, self.values, self.name = clock, values or [], name
        self.net = nn.Linear(1, 1)
        nn.init.ones_(self.net.weight)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.clock.now += TRAINING
        return self.net(batch).square().mean()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.clock.now += VALIDATING

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            number = self.trainer.global_step // int(4 * self.trainer.val_check_interval) - 1
            self.log_value(self.values[number])

    def log_value(self, value: float) -> None:
        self.log(self.name, value)

    test_step = validation_step

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Slow(self.clock, 4, LOADING), 1)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Slow(self.clock, 2, 0), 1)

    test_dataloader = val_dataloader

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


class TimedTraining(Timed):
    """Logs the metric in training only: values[epoch], at the places named."""

    def __init__(self, clock: FakeClock, values: list[float], where: str) -> None:
        super().__init__(clock, values, "train_accuracy")
        self.where = where

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.where in ("step", "epoch"):
            value = torch.tensor(self.values[self.current_epoch])
            self.log(self.name, value, on_step=self.where == "step", on_epoch=self.where == "epoch")
        return loss

    def on_train_epoch_end(self) -> None:
        if self.where == "hook":
            self.log(self.name, self.values[self.current_epoch])

    def on_validation_epoch_end(self) -> None:
        self.log("something_else", 0.0)
