"""Batches as SAADataModule makes them, of small made-up images, and what the tests of the modules share."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, StackDataset

from tests.foreign import trainer

N_LABELED, N_UNLABELED, N_CLASSES, SIDE = 12, 48, 3, 8


def images(rows: int, seed: int, channels: int = 1, noise: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Class 0 is bright on the left, class 1 at the top, class 2 in the middle."""
    random = torch.Generator().manual_seed(seed)
    label = torch.arange(rows) % N_CLASSES
    pattern = torch.zeros(N_CLASSES, SIDE, SIDE)
    pattern[0, :, :3], pattern[1, :3, :], pattern[2, 2:6, 2:6] = 1, 1, 1
    image = pattern[label][:, None] + noise * torch.randn(rows, channels, SIDE, SIDE, generator=random)
    return image, label


def rows_of(n: int, seed: int, channels: int = 1) -> Dataset[Any]:
    image, label = images(n, seed, channels)
    return StackDataset(image=image, label=label, index=torch.arange(n))


def unlabeled_rows(n: int, seed: int, channels: int = 1, known: bool = True) -> Dataset[Any]:
    image, label = images(n, seed, channels)
    strong = image * 0.8 + 0.3 * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed + 1))
    truth = label if known else torch.full_like(label, -1)
    return StackDataset(weak=image, strong=strong, index=torch.arange(n), label=truth)


class Batches(LightningDataModule):
    """4 steps in each epoch, in an order that a resumed run repeats because there is only one."""

    def __init__(self, *, labeled: int = 3, unlabeled: int = 12, channels: int = 1, known: bool = True) -> None:
        super().__init__()
        self.sizes, self.image_channels, self.known = (labeled, unlabeled), channels, known
        self.n_unlabeled = N_UNLABELED

    def train_dataloader(self) -> CombinedLoader:
        labeled = DataLoader(rows_of(N_LABELED, 1, self.image_channels), batch_size=self.sizes[0])
        rows = unlabeled_rows(N_UNLABELED, 3, self.image_channels, self.known)
        unlabeled = DataLoader(rows, batch_size=self.sizes[1])
        return CombinedLoader({"labeled": labeled, "unlabeled": unlabeled}, "min_size")

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows_of(20, 5, self.image_channels), batch_size=8)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


def small_net(channels: int = 1, n_classes: int = N_CLASSES) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, n_classes),
    )


def training_batch(step: int = 0, labeled: int = 4, unlabeled: int = 10) -> dict[str, dict[str, torch.Tensor]]:
    """The batch of a step, rows drawn with replacement; a function of the step alone."""
    image, label = images(labeled, 3 * step)
    weak, truth = images(unlabeled, 3 * step + 1)
    strong = images(unlabeled, 3 * step + 2)[0]
    index = torch.randint(N_UNLABELED, (unlabeled,), generator=torch.Generator().manual_seed(step))
    index[-1] = index[0]  # in every batch one row comes twice
    return {
        "labeled": {"image": image, "label": label, "index": torch.arange(labeled)},
        "unlabeled": {"weak": weak, "strong": strong, "index": index, "label": truth},
    }


class StepBatches(Batches):
    """Replaces each training batch by that of the step, as plain loaders begin again in the middle of an epoch."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return training_batch(self.trainer.global_step) if self.trainer.training else batch


def alone(module: Any) -> dict[str, torch.Tensor]:
    """Let a module run a training step without a Trainer; return where it logs to."""
    logged: dict[str, torch.Tensor] = {}
    module.log_dict = lambda values, **_: logged.update(values)
    return logged


def fit(folder: Any, module: Any, data: Any = None, callbacks: Any = (), ckpt_path: Any = None, **options: Any) -> Any:
    training = trainer(folder, list(callbacks), **{"max_epochs": 2, **options})
    training.fit(module, datamodule=data or Batches(), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return training


def same_state(first: Any, second: Any) -> bool:
    """Whether two nested states hold the same bits."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same_state(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same_state, first, second))
    return bool(first == second)
