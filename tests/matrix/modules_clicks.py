"""A click model full of torchmetrics, as other people write one: nothing in here knows of lightning_adapt.

Dict batches, a LightningDataModule with `setup(stage)`, a MetricCollection for each stage.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision

N_USERS, N_ITEMS = 12, 15


class ClickLog(Dataset[dict[str, Tensor]]):
    def __init__(self, n: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        user, item = torch.randint(N_USERS, (n,), generator=draw), torch.randint(N_ITEMS, (n,), generator=draw)
        taste = torch.randn(N_USERS, generator=torch.Generator().manual_seed(1))
        price = torch.rand(n, generator=draw)
        label = (taste[user] + torch.randn(n, generator=draw) * 0.5 > 0).float()
        self.columns = {"user_id": user, "item_id": item, "price": price, "label": label}

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {key: column[i] for key, column in self.columns.items()}


class ClickData(LightningDataModule):
    def __init__(self, batch_size: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train_set = ClickLog(40, seed=31)
        if stage in ("fit", "validate"):
            self.val_set = ClickLog(16, seed=32)
        if stage in ("test", "predict"):
            self.test_set = ClickLog(64, seed=33)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_set, batch_size=self.hparams.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val_set, batch_size=8)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test_set, batch_size=8)


class ClickModel(LightningModule):
    def __init__(self, dim: int = 4, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.user_emb = nn.Embedding(N_USERS, dim)
        self.item_emb = nn.Embedding(N_ITEMS, dim)
        self.mlp = nn.Sequential(nn.Linear(2 * dim + 1, 16), nn.ReLU(), nn.Linear(16, 1))
        metrics = MetricCollection({"auc": BinaryAUROC(), "acc": BinaryAccuracy(), "ap": BinaryAveragePrecision()})
        self.train_metrics = metrics.clone(prefix="train_")
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")
        self.train_loss = MeanMetric()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = [self.user_emb(batch["user_id"]), self.item_emb(batch["item_id"]), batch["price"].unsqueeze(-1)]
        return self.mlp(torch.cat(x, dim=-1)).squeeze(-1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch["label"])
        self.train_loss(loss)
        self.train_metrics.update(logits.sigmoid(), batch["label"].int())
        self.log("train_loss", self.train_loss, on_step=True, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.train_metrics.compute())
        self.train_metrics.reset()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.val_metrics.update(self(batch).sigmoid(), batch["label"].int())

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute(), prog_bar=True)
        self.val_metrics.reset()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.test_metrics.update(self(batch).sigmoid(), batch["label"].int())
        self.log_dict(self.test_metrics, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
