"""A small log and a module that notes which rows it gets."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule

from lightning_adapt.reloop2.data.datamodule import PrequentialDataModule

N_ROWS = 107


def frame(rows: int = N_ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows in a shuffled order; `truth` is the place in time."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "user": random.integers(0, 20, rows).astype(str),
            "item": random.integers(0, 15, rows),
            "price": random.normal(3, 2, rows),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows) * 60, unit="s"),
            "click": random.integers(0, 2, rows),
            "truth": np.arange(rows),
        }
    )
    return table.iloc[random.permutation(rows)].reset_index(drop=True)


def data(table=None, **options) -> PrequentialDataModule:
    defaults = {"time": "when", "label": "click", "fields": ["user", "item"], "numeric": ["price"], "batch_size": 8}
    return PrequentialDataModule(frame() if table is None else table, **{**defaults, "test_batch_size": 10, **options})


def flat(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


class Recorder(LightningModule):
    """Notes the rows that it gets, and depends on their order."""

    def __init__(self, record: str | None = None, estimate: bool = False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.record, self.estimate, self.seen, self.streamed = record, estimate, [], []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["index"].tolist())
        target = (batch["index"].float() * torch.arange(1, len(batch["index"]) + 1)).mean()
        return (self.weight - target).square()

    def validation_step(self, batch, batch_idx):
        self.log("val", batch["label"].mean(), batch_size=1)

    def test_step(self, batch, batch_idx):
        self.streamed.append(batch["index"].tolist())

    def predict_step(self, batch, batch_idx):
        return batch["index"]

    def configure_optimizers(self):
        if self.estimate:  # loaders are then made before the checkpoint is read (Lightning #20550)
            _ = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def on_train_end(self):
        self._write(self.seen)

    def on_test_end(self):
        self._write(self.streamed)

    def _write(self, rows):
        if self.record:
            Path(f"{self.record}-{self.global_rank}.json").write_text(json.dumps(rows))
