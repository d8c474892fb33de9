"""A network with two heads that is built late and averaged, as other people write one: no word of lightning_adapt.

Layers are made in `configure_model`, batches are named tuples, Lightning's EMAWeightAveraging runs beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Visit(NamedTuple):
    features: Tensor
    seconds: Tensor
    bought: Tensor


class Visits(Dataset[Visit]):
    def __init__(self, n: int, seed: int) -> None:
        self.x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Visit:
        x = self.x[i]
        return Visit(x, x[:2].sum().exp(), (x[3:].sum() > 0).float())


def loader(n: int, seed: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(Visits(n, seed), **options)


class TwoHeads(LightningModule):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.trunk: nn.Module | None = None

    def configure_model(self) -> None:
        if self.trunk is not None:
            return
        width = self.hparams.width
        self.trunk = nn.Sequential(nn.Linear(6, width), nn.GELU(), nn.LayerNorm(width))
        self.heads = nn.ModuleDict({"bought": nn.Linear(width, 1), "seconds": nn.Linear(width, 1)})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(features)
        return {name: head(hidden).squeeze(-1) for name, head in self.heads.items()}

    def losses(self, batch: Visit) -> dict[str, Tensor]:
        out = self(batch.features)
        bought = nn.functional.binary_cross_entropy_with_logits(out["bought"], batch.bought)
        return {"bought": bought, "seconds": nn.functional.smooth_l1_loss(out["seconds"], batch.seconds.log())}

    def training_step(self, batch: Visit, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        return sum(losses.values())  # type: ignore[return-value]

    def validation_step(self, batch: Visit, batch_idx: int) -> None:
        self.log_dict({f"val/{name}": value for name, value in self.losses(batch).items()})

    def test_step(self, batch: Visit, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        steps = int(self.trainer.estimated_stepping_batches)
        one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=steps)
        return [optimizer], [{"scheduler": one_cycle, "interval": "step"}]
