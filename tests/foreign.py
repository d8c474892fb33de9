"""Modules and data as other people write them: nothing in here knows of lightning_adapt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

N_ROWS = 107  # prime: nothing divides it by luck


def numbered_rows(n: int = N_ROWS) -> TensorDataset:
    """Rows (features, number of the row, class)."""
    features = torch.randn(n, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(features, torch.arange(n), (features.sum(1) > 0).long())


def loader(workers: int = 0, batch_size: int = 8, n: int = N_ROWS) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(5)
    return DataLoader(numbered_rows(n), batch_size, shuffle=True, num_workers=workers, generator=generator)


def rows_of(batch: Any) -> torch.Tensor:
    """The rows that a batch is made of, however it is made."""
    if not isinstance(batch, dict):
        return batch[1]
    return batch["unlabeled"]["index"] if "unlabeled" in batch else batch["index"]


class ForeignData(LightningDataModule):
    def __init__(self, workers: int = 0, batch_size: int = 8) -> None:
        super().__init__()
        self.workers, self.batch_size = workers, batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return loader(self.workers, self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(numbered_rows(16), 8)


class ForeignModule(LightningModule):
    """A small classifier; remembers which rows it was trained on, and writes them down at the end."""

    def __init__(self, estimate_steps: bool = False, record: str | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
        self.estimate_steps = estimate_steps
        self.record = record
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        features, rows, label = batch
        self.seen.append((self.trainer.current_epoch, rows.tolist()))
        loss = nn.functional.cross_entropy(self.net(features), label)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[2]), sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch[0]).argmax(-1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedule: Any = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        if self.estimate_steps:
            steps = int(self.trainer.estimated_stepping_batches)
            schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_train_end(self) -> None:
        if self.record:
            weights = [value.flatten().tolist() for value in self.net.state_dict().values()]
            path = Path(f"{self.record}-rank{self.global_rank}.json")
            path.write_text(json.dumps({"seen": self.seen, "weights": weights}))


def trainer(folder: Path, callbacks: list[Any] | None = None, trainer_class: Any = Trainer, **options: Any) -> Any:
    """A quiet Trainer on the CPU that keeps its files in a folder."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 4,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks or []),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return trainer_class(callbacks=callbacks, **{**defaults, **options})
