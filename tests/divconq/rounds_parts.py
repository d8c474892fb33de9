"""Small pools, scorers and fits for the tests of DiversitySelectionCallback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_adapt.divconq.callback import DiversitySelectionCallback
from tests.foreign import ForeignModule, numbered_rows, trainer

N = 60
GROUPS = 4


def vectors(n: int = N) -> torch.Tensor:
    """Points around four corners, 15 rows each in turn."""
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(4)) * 0.1
    corners = torch.tensor([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    return corners[torch.arange(n) % GROUPS] + noise


def by_group(examples: Any, module: nn.Module) -> torch.Tensor:
    """Rates a row by its group: rows of group 0 are the worst."""
    return (examples.rows % GROUPS).double()


def selection(budget: Any = 24, method: str = "km_random", **options: Any) -> DiversitySelectionCallback:
    made: dict[str, Any] = {"engine": "torch"}
    made |= {"scorer": by_group} if options.get("rounds", 1) > 1 else {}
    made |= {"k": GROUPS} if method in ("kmq", "km_random") else {}
    made |= {} if method == "random" else {"embedder": vectors()}
    return DiversitySelectionCallback(budget, method, **{**made, **options})


def row_loader(workers: int = 0, batch_size: int = 4, n: int = N, **options: Any) -> DataLoader[Any]:
    return DataLoader(numbered_rows(n), batch_size, num_workers=workers, **{"shuffle": True, **options})


class RowData(LightningDataModule):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def train_dataloader(self) -> DataLoader[Any]:
        return row_loader(**self.options)


class Asks(ForeignModule):
    """Plans its schedule from the Trainer's number of steps, and notes what it was told and how long epochs were."""

    def __init__(self, record: str | None = None, estimate_steps: bool = True) -> None:
        super().__init__(estimate_steps, record)
        self.planned: list[int] = []
        self.batches: list[int] = []

    def configure_optimizers(self) -> Any:
        if self.estimate_steps:
            self.planned.append(int(self.trainer.estimated_stepping_batches))
        return super().configure_optimizers()

    def on_train_epoch_start(self) -> None:
        self.batches.append(int(self.trainer.num_training_batches))


class WithLoader(Asks):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def train_dataloader(self) -> DataLoader[Any]:
        return row_loader(**self.options)


class Weights(Callback):
    """Notes the selection as each epoch starts; put it after the callback."""

    def __init__(self, chosen: DiversitySelectionCallback) -> None:
        self.chosen = chosen
        self.rows: dict[int, list[int]] = {}
        self.log_weights: dict[int, list[float]] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        rounds = self.chosen.selection
        self.rows[trainer.current_epoch] = rounds.rows.tolist()
        self.log_weights[trainer.current_epoch] = rounds.log_weights.tolist()


def seen_by_epoch(module: ForeignModule) -> dict[int, list[int]]:
    """The rows that a module was trained on, in order, for each epoch."""
    found: dict[int, list[int]] = {}
    for epoch, rows in module.seen:
        found.setdefault(epoch, []).extend(rows)
    return found


def fit(
    folder: Path, callbacks: list[Any], module: Any = None, data: Any = None, *, ckpt: Any = None, **options: Any
) -> Any:
    """Fit quietly; returns the module, which knows its trainer."""
    module = module or Asks()
    given: dict[str, Any] = {} if isinstance(module, WithLoader) else {"train_dataloaders": data}
    if data is None and given:
        given = {"train_dataloaders": row_loader()}
    if isinstance(data, LightningDataModule):
        given = {"datamodule": data}
    trainer(folder, callbacks, **options).fit(module, **given, ckpt_path=ckpt, weights_only=True)
    return module


class Texts(Dataset):
    """Rows of text in the messages format, of two topics."""

    def __init__(self, n: int = 40) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def conversation(self, row: int) -> Any:
        topic = ("apples and pears in the garden", "tensors and gradients in the network")[row % 2]
        return (("user", f"Tell me about {topic}, number {row}."), ("assistant", f"Here are {topic}: {row}."))

    def __getitem__(self, row: int) -> Any:
        features, number, label = numbered_rows(self.n)[row]
        return features, number, label
