"""Images and a FixMatch module as other people write them: nothing in here knows of lightning_adapt."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from tests.foreign import N_ROWS, ForeignModule


def images(n: int = N_ROWS, channels: int = 1, size: int = 8) -> TensorDataset:
    """Noisy pictures of two classes: bright at the top, or at the bottom."""
    random = torch.Generator().manual_seed(n)
    labels = torch.arange(n) % 2
    bright = torch.zeros(n, channels, size, size)
    bright[labels == 0, :, : size // 2] = 0.6
    bright[labels == 1, :, size // 2 :] = 0.6
    noise = torch.rand(n, channels, size, size, generator=random)
    return TensorDataset(((bright + 0.4 * noise) * 255).to(torch.uint8), labels)


class ForeignFixMatch(ForeignModule):
    """A small FixMatch; remembers which unlabelled images it was trained on."""

    def __init__(self, estimate_steps: bool = False, record: str | None = None) -> None:
        super().__init__(estimate_steps, record)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 2))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        self.seen.append((self.trainer.current_epoch, unlabeled["index"].tolist()))
        supervised = nn.functional.cross_entropy(self.net(labeled["image"]), labeled["label"])
        confidence, label = self.net(unlabeled["weak"]).detach().softmax(-1).max(-1)
        each = nn.functional.cross_entropy(self.net(unlabeled["strong"]), label, reduction="none")
        loss = supervised + (each * (confidence > 0.6)).mean()
        self.log("train_loss", loss, batch_size=len(label))
        return {"loss": loss, "sample_loss": each, "index": unlabeled["index"], "confidence": confidence}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self.net(batch["image"]), batch["label"])
        self.log("val_loss", loss, sync_dist=True, batch_size=len(batch["label"]))

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch["image"]).argmax(-1)
