"""Loaders that decide by themselves what comes next, as other people write them: no word of lightning_adapt.

A stream without rows, and a weighted sampler against a rare class; one small module for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler


def transfers(n: int, seed: int) -> TensorDataset:
    """One in five is fraud."""
    y = (torch.arange(n) % 5 == 0).float()
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) + y[:, None]
    return TensorDataset(x, y)


class Stream(IterableDataset[Any]):
    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed

    def __iter__(self) -> Iterator[Any]:
        yield from transfers(self.n, self.seed)


def stream_loader(n: int, seed: int) -> DataLoader[Any]:
    return DataLoader(Stream(n, seed), batch_size=4)


def weighted_loader() -> DataLoader[Any]:
    rows = transfers(40, 91)
    weights = torch.where(rows.tensors[1] > 0, 4.0, 1.0)
    return DataLoader(rows, batch_size=4, sampler=WeightedRandomSampler(weights.tolist(), num_samples=40))


def plain_loader(n: int, seed: int) -> DataLoader[Any]:
    return DataLoader(transfers(n, seed), batch_size=8)


class FraudModel(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", nn.functional.binary_cross_entropy_with_logits(self.model(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(self.parameters(), lr=0.01)
