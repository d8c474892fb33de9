"""A classifier that steps by hand, as other people write one: nothing in here knows of lightning_adapt.

Manual optimisation with accumulation, clipping and a schedule of its own; the module brings its own loaders.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Blobs(Dataset[Any]):
    """Points around three corners: (point, class)."""

    def __init__(self, n: int, seed: int) -> None:
        self.targets = torch.arange(n) % 3
        corners = torch.eye(3)[self.targets] * 3
        self.points = corners + torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.points[i], self.targets[i]


class StepsByHand(LightningModule):
    def __init__(self, accumulate: int = 2, clip: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 3))
        self.criterion = nn.CrossEntropyLoss(reduction="none")

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Blobs(40, seed=21), batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Blobs(12, seed=22), batch_size=4)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        x, y = batch
        loss = self.criterion(self.net(x), y)
        optimizer = self.optimizers()
        self.manual_backward(loss.mean() / self.hparams.accumulate)
        if (batch_idx + 1) % self.hparams.accumulate == 0 or self.trainer.is_last_batch:
            self.clip_gradients(optimizer, gradient_clip_val=self.hparams.clip, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
        if self.trainer.is_last_batch:
            self.lr_schedulers().step()
        self.log("train/loss", loss.mean(), on_epoch=True)
        return {"losses": loss.detach()}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val/acc", (self.net(x).argmax(-1) == y).float().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}
