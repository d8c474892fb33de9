"""A GAN that tells genuine rows from forged ones, as other people write one: nothing in here knows of lightning_adapt.

Manual optimisation, two optimizers that take turns, tuple batches, loaders that are passed to `fit` as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

WIDTH, NOISE = 6, 3


def genuine_rows(n: int = 40) -> TensorDataset:
    rows = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(11)) + 1
    return TensorDataset(rows, torch.ones(n))


def mixed_rows(n: int = 24) -> TensorDataset:
    """Genuine rows and others in turn, with their labels."""
    labels = (torch.arange(n) % 2).float()
    rows = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(12))
    return TensorDataset(rows + labels[:, None], labels)


def train_loader() -> DataLoader[Any]:
    return DataLoader(genuine_rows(), batch_size=4, shuffle=True)


def mixed_loader() -> DataLoader[Any]:
    return DataLoader(mixed_rows(), batch_size=8)


class GAN(LightningModule):
    def __init__(self, lr: float = 0.01, betas: tuple[float, float] = (0.5, 0.999)) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(NOISE, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, WIDTH))
        self.discriminator = nn.Sequential(nn.Linear(WIDTH, 12), nn.LeakyReLU(0.2), nn.Linear(12, 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def adversarial_loss(self, scores: Tensor, real: bool) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))

    def training_step(self, batch: Any) -> None:
        rows, _ = batch
        g_opt, d_opt = self.optimizers()
        z = torch.randn(len(rows), NOISE, device=self.device)

        self.toggle_optimizer(g_opt)
        g_loss = self.adversarial_loss(self.discriminator(self(z)), True)
        g_opt.zero_grad()
        self.manual_backward(g_loss)
        g_opt.step()
        self.untoggle_optimizer(g_opt)

        self.toggle_optimizer(d_opt)
        real_loss = self.adversarial_loss(self.discriminator(rows), True)
        fake_loss = self.adversarial_loss(self.discriminator(self(z).detach()), False)
        d_loss = (real_loss + fake_loss) / 2
        d_opt.zero_grad()
        self.manual_backward(d_loss)
        d_opt.step()
        self.untoggle_optimizer(d_opt)
        self.log_dict({"g_loss": g_loss, "d_loss": d_loss}, prog_bar=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        rows, labels = batch
        scores = self.discriminator(rows).squeeze(1)
        self.log("val_loss", F.binary_cross_entropy_with_logits(scores, labels))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        g_opt = torch.optim.Adam(self.generator.parameters(), lr=self.hparams.lr, betas=self.hparams.betas)
        d_opt = torch.optim.Adam(self.discriminator.parameters(), lr=self.hparams.lr, betas=self.hparams.betas)
        return [g_opt, d_opt], []
