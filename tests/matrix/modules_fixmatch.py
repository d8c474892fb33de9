"""A FixMatch over two loaders, as other people write one: nothing in here knows of lightning_adapt.

A dict of train loaders (`lb` is started again while `ulb` runs), views made by the data set, an average of the weights
in the module itself, names as in USB.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SIDE = 6


def pictures(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bright at the top, or at the bottom."""
    labels = torch.arange(n) % 2
    images = torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 0.5
    images[labels == 0, :, : SIDE // 2] += 0.5
    images[labels == 1, :, SIDE // 2 :] += 0.5
    return images, labels


class Labeled(Dataset[dict[str, Tensor]]):
    def __init__(self, n: int, seed: int) -> None:
        self.images, self.labels = pictures(n, seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x_lb": self.images[i], "y_lb": self.labels[i]}


class Unlabeled(Dataset[dict[str, Tensor]]):
    """Weak and strong views of unlabelled images; what is random follows from the image, to keep it short."""

    def __init__(self, n: int, seed: int) -> None:
        self.images, _ = pictures(n, seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        image, noise = self.images[i], torch.Generator().manual_seed(i)
        strong = [image + 0.3 * torch.randn(image.shape, generator=noise) for _ in range(2)]
        return {"idx_ulb": torch.tensor(i), "x_ulb_w": image, "x_ulb_s_0": strong[0], "x_ulb_s_1": strong[1].flip(-1)}


class SemiSupervisedData(LightningDataModule):
    def train_dataloader(self) -> dict[str, DataLoader[Any]]:
        return {
            "lb": DataLoader(Labeled(8, 51), batch_size=4, shuffle=True, drop_last=True),
            "ulb": DataLoader(Unlabeled(40, 52), batch_size=4, shuffle=True, drop_last=True),
        }

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Labeled(16, 53), batch_size=8)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()


class FixMatch(LightningModule):
    def __init__(self, p_cutoff: float = 0.6, lambda_u: float = 1.0, ema_m: float = 0.9) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
        self.ema_model = copy.deepcopy(self.model).requires_grad_(False)

    def training_step(self, batch: dict[str, dict[str, Tensor]], batch_idx: int) -> dict[str, Tensor]:
        lb, ulb = batch["lb"], batch["ulb"]
        sup_loss = F.cross_entropy(self.model(lb["x_lb"]), lb["y_lb"])
        with torch.no_grad():
            max_probs, pseudo_label = self.model(ulb["x_ulb_w"]).softmax(dim=-1).max(dim=-1)
        unsup = F.cross_entropy(self.model(ulb["x_ulb_s_0"]), pseudo_label, reduction="none")
        mask = max_probs.ge(self.hparams.p_cutoff).to(max_probs.dtype)
        loss = sup_loss + self.hparams.lambda_u * (unsup * mask).mean()
        self.log_dict({"train/sup_loss": sup_loss, "train/util_ratio": mask.mean()}, batch_size=len(mask))
        return {"loss": loss, "unsup_loss": unsup, "idx_ulb": ulb["idx_ulb"]}

    def on_before_zero_grad(self, optimizer: Any) -> None:
        m = self.hparams.ema_m
        for averaged, p in zip(self.ema_model.parameters(), self.model.parameters(), strict=True):
            averaged.mul_(m).add_(p.detach(), alpha=1 - m)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        right = self.ema_model(batch["x_lb"]).argmax(-1) == batch["y_lb"]
        self.log("eval/top-1-acc", right.float().mean(), batch_size=len(right))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
