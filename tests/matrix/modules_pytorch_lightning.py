"""A module and data of the package `pytorch_lightning`, as other people write them: no word of lightning_adapt."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def patients(n: int, seed: int) -> TensorDataset:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x.sum(1, keepdim=True) > 0).float())


class PatientData(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(patients(40, 61), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(patients(16, 62), batch_size=8)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(patients(32, 63), batch_size=8)


class Readmission(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(4, 8)
        self.l2 = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.l2(torch.relu(self.l1(x))))

    def training_step(self, batch: Any, batch_nb: int) -> dict[str, Tensor]:
        x, y = batch
        loss = nn.functional.binary_cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_nb: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.binary_cross_entropy(self(x), y))

    def test_step(self, batch: Any, batch_nb: int) -> None:
        self.validation_step(batch, batch_nb)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.02)
