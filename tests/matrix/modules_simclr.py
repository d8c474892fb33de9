"""Contrastive learning with a collate_fn that makes the views, as other people write it: no word of lightning_adapt.

A batch is a tuple (two views of all images, their rows); the loss of a view depends on the whole batch; the rate warms
up by hand in `optimizer_step`.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Shapes(Dataset[tuple[Tensor, int]]):
    """Images (C, H, W) and their rows."""

    def __init__(self, n: int, seed: int) -> None:
        self.images = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.images[i], i


class TwoViews:
    """Two noisy copies of each image; a collate_fn."""

    def __call__(self, samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor([row for _, row in samples])
        noise = torch.Generator().manual_seed(int(rows.sum()))
        images = torch.stack([image for image, _ in samples])
        views = [images + 0.1 * torch.randn(images.shape, generator=noise) for _ in range(2)]
        return torch.stack(views), rows


class ShapeData(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Shapes(40, 71), batch_size=4, shuffle=True, collate_fn=TwoViews(), drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Shapes(8, 72), batch_size=4, collate_fn=TwoViews())

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()


class SimCLR(LightningModule):
    def __init__(self, temperature: float = 0.5, warmup_steps: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU())
        self.projector = nn.Linear(16, 8)

    def info_nce(self, views: Tensor) -> Tensor:
        """Of each image, the mean over its two views. Shape (B,)."""
        z = F.normalize(self.projector(self.encoder(views.flatten(0, 1))), dim=-1)
        scores = z @ z.T / self.hparams.temperature
        scores = scores.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.cross_entropy(scores, partner, reduction="none").view(2, -1).mean(0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.info_nce(batch[0]).mean()
        self.log("nce", loss, batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_nce", self.info_nce(batch[0]).mean(), batch_size=len(batch[1]))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)
        share = min(1.0, (self.trainer.global_step + 1) / self.hparams.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = share * 0.05

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0125, momentum=0.9)
