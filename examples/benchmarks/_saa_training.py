"""What the SAA benchmarks train: Fashion-MNIST with 100 labels, and the rows of the comparison."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import _harness as h
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from lightning_adapt import FixMatchModule, FlexMatchModule, SAADataModule, SampleAdaptiveAugmentation
from lightning_adapt._shared.datasets import fashion_mnist
from lightning_adapt._shared.demo_training import accuracy_percent, quiet_trainer
from lightning_adapt._shared.hashing import generator
from lightning_adapt.saa.functional import consistency_loss

BATCH, MU, EPOCH = 32, 4, 100
MODULE: dict[str, Any] = {"backbone": "cnn", "n_classes": 10, "channels": 1, "ema_decay": 0.99}

SUPERVISED, FIXMATCH, SAA = "supervised only", "FixMatch", "FixMatch + SAA"
FLEXMATCH, FLEXMATCH_SAA = "FlexMatch", "FlexMatch + SAA"
FOUR_PIECES = f"{SAA}, 4 pieces"
CAREFUL = f"{SAA}, otsu-log, confident only"
ALWAYS, RANDOM = "FixMatch, every view regrouped", f"{SAA}'s flags, shuffled"


@dataclass(frozen=True)
class Setting:
    """What all rows of a comparison share.

    Attributes:
        steps: Optimizer steps.
        n_labels: Labelled images.
        n_unlabeled: Unlabelled images, the labelled ones among them.
        device: "cpu" or "cuda".
        held_out: Evaluate on 10,000 training images that are not trained on, to choose between variants.
    """

    steps: int = 1_200
    n_labels: int = 100
    n_unlabeled: int = 10_000
    device: str = "cpu"
    held_out: bool = False

    def described(self) -> dict[str, Any]:
        """Return what results depend on."""
        return {**asdict(self), "batch": BATCH, "mu": MU, "steps per epoch": EPOCH}


# base: what the claims are about; the others look for a setting in which SAA helps
SETTINGS = {
    "base": Setting(),
    "long": Setting(steps=4_800),
    "40-labels": Setting(n_labels=40),
    "few-unlabeled": Setting(steps=2_400, n_unlabeled=2_000),
}


class SupervisedOnly(FixMatchModule):
    """The same network and optimizer on the weak views of the labelled images alone."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ARG002
        labeled = batch["labeled"]
        return {"loss": consistency_loss(self(labeled["image"]), labeled["label"]).mean()}


class Flags(Callback):
    """A control in place of SAA: fixed flags, whatever the losses are; `share` of the images, drawn at random."""

    def __init__(self, share: float, seed: int) -> None:
        self.share, self.seed = share, seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        data.use_flags(torch.rand(data.n_unlabeled, generator=generator(self.seed, 77)) < self.share)


class RandomFlags(SampleAdaptiveAugmentation):
    """The control that tells diverse views from adaptive ones: as many flags as SAA sets, on random images."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        selections = len(self.curve)
        super().on_train_epoch_end(trainer, pl_module)
        if self.history is not None and len(self.curve) > selections:
            order = torch.randperm(self.history.n, generator=generator(self.seed, selections))
            self.history.flags.copy_(self.history.flags[order])


@lru_cache(maxsize=2)
def images(split: str) -> TensorDataset:
    """Return Fashion-MNIST as bytes."""
    pixels, labels = fashion_mnist(split).tensors
    return TensorDataset(pixels.mul(255).round().to(torch.uint8), labels)


def data_of(setting: Setting, seed: int, **options: Any) -> tuple[SAADataModule, tuple[Tensor, Tensor]]:
    """Return the data of a seed: another unlabelled set, labelled set and order for each; and what to evaluate on.

    Options are arguments of `SAADataModule`.
    """
    order = torch.randperm(60_000, generator=generator(seed, 1))
    unlabeled = Subset(images("train"), order[: setting.n_unlabeled].tolist())
    made = SAADataModule(
        unlabeled, n_labels=setting.n_labels, batch_size=BATCH, mu=MU, steps_per_epoch=EPOCH, seed=seed, **options
    )
    made.setup()
    pixels, labels = images("test").tensors
    if setting.held_out:
        pixels, labels = images("train")[order[50_000:]]
    return made, (made.views.plain(pixels), labels)


Row = Callable[[int], tuple[type[FixMatchModule], list[Callback]]]


def saa(module: type[FixMatchModule] = FixMatchModule, **options: Any) -> Row:
    """Return a row with SAA under these arguments."""
    return lambda seed: (module, [SampleAdaptiveAugmentation(seed=seed, **options)])


ROWS: dict[str, Row] = {
    SUPERVISED: lambda _: (SupervisedOnly, []),
    FIXMATCH: lambda _: (FixMatchModule, []),
    SAA: saa(),
    f"{SAA}, otsu-log": saa(threshold="otsu-log"),
    f"{SAA}, confident only": saa(require_confident=True),
    CAREFUL: saa(threshold="otsu-log", require_confident=True),
    f"{SAA}, quantile 0.5": saa(threshold="quantile:0.5"),
    FOUR_PIECES: saa(),
    f"{SAA}, every 25 steps": saa(update_every=25),
    RANDOM: lambda seed: (FixMatchModule, [RandomFlags(seed=seed)]),
    ALWAYS: lambda seed: (FixMatchModule, [Flags(1.0, seed)]),
    FLEXMATCH: lambda _: (FlexMatchModule, []),
    FLEXMATCH_SAA: saa(FlexMatchModule),
}

ELSEWHERE = (SUPERVISED, FIXMATCH, SAA, CAREFUL, ALWAYS)  # rows of the other settings


def sizes_of(name: str, options: h.Options) -> tuple[Setting, tuple[str, ...]]:
    """Return a setting, shortened for a quick run, and the rows that are run in it when all are asked for."""
    setting = replace(SETTINGS[name], device=options.device)
    if options.quick:
        setting = replace(setting, steps=600)
    return setting, tuple(ROWS) if name == "base" else ELSEWHERE


def run(row: str, seed: int, setting: Setting, **module_options: Any) -> h.Run:
    """Train one row; all rows of a seed start from the same weights and see the same images in the same order."""
    made, (pixels, labels) = data_of(setting, seed, pieces=4 if row == FOUR_PIECES else 2)
    kind, callbacks = ROWS[row](seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = kind(**{**MODULE, **module_options})
    options: dict[str, Any] = {"max_steps": setting.steps, "max_epochs": -1}
    trainer = quiet_trainer(callbacks, accelerator="cuda" if setting.device == "cuda" else "cpu", **options)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    began = h.spent(setting.device)
    trainer.fit(module, datamodule=made)
    seconds = h.spent(setting.device) - began
    module.to(pixels.device)
    result = {"accuracy": accuracy_percent(module, pixels, labels), "seconds": seconds}
    saa_callback = next((one for one in callbacks if isinstance(one, SampleAdaptiveAugmentation)), None)
    if saa_callback is not None and saa_callback.history is not None:
        result["naive share"] = 100 * saa_callback.history.naive_share
    mask = trainer.callback_metrics.get("train_mask_rate")
    return result if mask is None else {**result, "mask rate": 100 * float(mask)}
