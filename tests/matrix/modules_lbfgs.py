"""Logistic regression by LBFGS, as other people write it: nothing in here knows of lightning_adapt.

The optimizer runs `training_step` several times for one batch; batches are lists, a penalty is added by hand.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def applicants(n: int, seed: int) -> TensorDataset:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x @ torch.tensor([2.0, -1.0, 0.0, 1.0, 0.5]) > 0).float())


class ApplicantData(LightningDataModule):
    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(applicants(40, 111), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(applicants(16, 112), 8)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(applicants(32, 113), 8)


class LogisticRegression(LightningModule):
    def __init__(self, l2: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.linear = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).squeeze(-1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self(x), y)
        self.log("train_ce_loss", loss)
        return loss + self.hparams.l2 * self.linear.weight.pow(2).sum()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_ce_loss", nn.functional.binary_cross_entropy_with_logits(self(x), y))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)
