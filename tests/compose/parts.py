"""Modules and data of strangers, and callbacks of ours at small sizes: what the stacks are made of."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader

from lightning_adapt import (
    DiversitySelectionCallback,
    ErrorMemory,
    ErrorMemoryCallback,
    InitialStateTuning,
    RS2Callback,
)
from tests.foreign_clicks import Clicks, ForeignClicks, click_stream
from tests.foreign_gla import ChainData, ForeignGLA
from tests.saa.entries import data as images

N = 48  # rows of clicks and of chains, in batches of 4


# -- somebody's modules and data ---------------------------------------------------------------------------------------
class Tabular(ForeignClicks):
    """A click model that returns the loss of each row, too."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append((self.trainer.current_epoch, batch["index"].tolist()))
        losses = nn.functional.binary_cross_entropy_with_logits(self.net(batch), batch["label"], reduction="none")
        self.log("train_loss", losses.mean(), batch_size=len(losses))
        return {"loss": losses.mean(), "sample_loss": losses.detach(), "index": batch["index"]}


class Letters(ForeignGLA):
    """A language model that notes its rows, and returns the loss of each."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append((self.trainer.current_epoch, batch["index"].tolist()))
        losses, counts = self.sequence_losses(batch)
        return {"loss": losses.sum() / counts.sum(), "sample_loss": (losses / counts).detach()}


def clicks(workers: int = 0, batch_size: int = 4) -> dict[str, Any]:
    train = DataLoader(Clicks(N), batch_size, shuffle=True, num_workers=workers)
    return {"train_dataloaders": train, "val_dataloaders": click_stream(8, 16)}


class ClickData(LightningDataModule):
    """The same rows of clicks in a DataModule."""

    def __init__(self, workers: int = 0, batch_size: int = 4) -> None:
        super().__init__()
        self.loaders = clicks(workers, batch_size)

    def train_dataloader(self) -> Any:
        return self.loaders["train_dataloaders"]

    def val_dataloader(self) -> Any:
        return self.loaders["val_dataloaders"]


def chains(workers: int = 0, batch_size: int = 4) -> dict[str, Any]:
    return {"datamodule": ChainData(workers, batch_size, n=N)}


def pictures(workers: int = 0, batch_size: int = 8) -> dict[str, Any]:
    return {"datamodule": images(workers, batch_size)}


def vectors(n: int = N) -> torch.Tensor:
    return torch.stack([Clicks(n).columns[f"x{number}"] for number in range(6)], 1)


def by_row(examples: Any, module: nn.Module) -> torch.Tensor:
    """Rates rows: the higher its number, the better a row is."""
    return examples.rows.double()


# -- callbacks of ours -------------------------------------------------------------------------------------------------
def rs2(ratio: float = 0.5, **options: Any) -> RS2Callback:
    return RS2Callback(ratio, **{"validate": "round", **options})


def guided(**options: Any) -> RS2Callback:
    return rs2(mode="loss", warm_rounds=1, **options)


def memory() -> ErrorMemoryCallback:
    return ErrorMemoryCallback(ErrorMemory(whiten=False, k=5))


def chosen(budget: int = 24, **options: Any) -> DiversitySelectionCallback:
    made: dict[str, Any] = {"k": 3, "engine": "torch", "embedder": vectors(), "lr_horizon": "ignore"}
    made |= {"scorer": by_row} if options.get("rounds", 1) > 1 else {}
    return DiversitySelectionCallback(budget, **{**made, **options})


def tuning(**options: Any) -> InitialStateTuning:
    return InitialStateTuning("ada", **{"patience": None, **options})
