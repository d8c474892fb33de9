"""Modules of strangers that ask SAA for its flags, or have one logit for an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_adapt import SAADataModule, SampleAdaptiveAugmentation
from tests.compose.parts import Tabular
from tests.foreign_clicks import ForeignClicks
from tests.foreign_images import ForeignFixMatch, images


class OneLogit(ForeignFixMatch):
    """FixMatch of two classes with a single output; notes what it answered in `test`."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))
        self.tested: list[tuple[list[int], list[float]]] = []

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image).squeeze(-1)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        self.seen.append((self.trainer.current_epoch, unlabeled["index"].tolist()))
        entropy = nn.functional.binary_cross_entropy_with_logits
        label = (self.logits(unlabeled["weak"]).detach() > 0).float()
        each = entropy(self.logits(unlabeled["strong"]), label, reduction="none")
        loss = entropy(self.logits(labeled["image"]), labeled["label"].float()) + each.mean()
        return {"loss": loss, "sample_loss": each, "index": unlabeled["index"]}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = nn.functional.binary_cross_entropy_with_logits(self.logits(batch["image"]), batch["label"].float())
        self.log("val_loss", loss, sync_dist=True, batch_size=len(batch["label"]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.tested.append((batch["label"].tolist(), self.logits(batch["image"]).tolist()))


class Asking(Tabular):
    """A click model that jitters the rows which SAA calls learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.flagged: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        changed, flags = jittered(self, batch)
        self.flagged.append(int(flags.sum()))
        return super().training_step(changed, batch_idx)


class Traced(ForeignClicks):
    """The same without lists that Python keeps, for `torch.compile`; batches are noted by a callback."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        changed, _ = jittered(self, batch)
        losses = nn.functional.binary_cross_entropy_with_logits(self.net(changed), batch["label"], reduction="none")
        return {"loss": losses.mean(), "sample_loss": losses.detach(), "index": batch["index"]}


def jittered(module: Any, batch: Any) -> tuple[Any, torch.Tensor]:
    (saa,) = [one for one in module.trainer.callbacks if isinstance(one, SampleAdaptiveAugmentation)]
    flags = saa.flagged(batch["index"])
    changed = {name: torch.where(flags, 1.1 * values, values) for name, values in batch.items() if name[0] == "x"}
    return {**batch, **changed}, flags


def tested_images() -> SAADataModule:
    """Images with some to serve, in one-logit labels."""
    sizes: dict[str, Any] = {"batch_size": 4, "mu": 2, "steps_per_epoch": 4, "eval_batch_size": 8}
    return SAADataModule(images(), None, images(16), test=images(32), n_labels=4, **sizes)
