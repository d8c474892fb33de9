"""A language model and its data as other people write them: nothing in here knows of lightning_adapt."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.foreign import ForeignModule


class ForeignTexts(ForeignModule):
    """Predicts each answer token from the one before; batches as transformers makes them, with an "index"."""

    def __init__(self, estimate_steps: bool = False, record: str | None = None) -> None:
        super().__init__(estimate_steps, record)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net: nn.Module = nn.Sequential(nn.Embedding(400, 8), nn.Linear(8, 400))

    def loss_of(self, batch: Any) -> torch.Tensor:
        logits = self.net(batch["input_ids"])[:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.trainer.current_epoch, batch["index"].tolist()))
        loss = self.loss_of(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss_of(batch), sync_dist=True)

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.net(batch["input_ids"]).argmax(-1)
