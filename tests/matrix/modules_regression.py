"""A regression with several validation loaders, as other people write one: nothing in here knows of lightning_adapt.

The module brings all loaders, `validation_step` asks which one it is, and the rate falls when the first one is flat.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def houses(n: int, seed: int, shift: float = 0.0) -> TensorDataset:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]) + shift
    return TensorDataset(x, y)


class HousePrices(LightningModule):
    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.body = nn.Sequential(nn.Linear(5, 12), nn.Tanh())
        self.head = nn.Linear(12, 1)
        self.example_input_array = torch.zeros(1, 5)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(houses(40, 41), self.batch_size, shuffle=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [DataLoader(houses(8, 42), 8), DataLoader(houses(12, 43, shift=1.0), 8)]

    def test_dataloader(self) -> list[DataLoader[Any]]:
        return [DataLoader(houses(16, 44, shift=2.0), 8), DataLoader(houses(24, 45, shift=2.0), 8)]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = (self(x).squeeze(1) - y).pow(2).mean()
        self.log("loss/train", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        name = ("old", "new")[dataloader_idx]
        self.log(f"mae/{name}", (self(x).squeeze(1) - y).abs().mean(), add_dataloader_idx=False)

    def test_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, batch_idx, dataloader_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "mae/old"}}
