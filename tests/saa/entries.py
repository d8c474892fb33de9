"""The registry entries of SAA: the smallest way to use each public name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lightning_adapt.saa.augment.rand_augment import BatchRandAugment
from lightning_adapt.saa.callback import SampleAdaptiveAugmentation
from lightning_adapt.saa.data.datamodule import SAADataModule
from lightning_adapt.saa.models.fixmatch import FixMatchModule
from lightning_adapt.saa.models.flexmatch import FlexMatchModule
from tests.foreign_clicks import noted
from tests.foreign_images import ForeignFixMatch, images
from tests.registry_parts import Entry, Setup


def data(workers: int = 0, batch_size: int = 8) -> SAADataModule:
    """32 unlabelled and 16 labelled images in each epoch; a quarter as many labels as that."""
    sizes: dict[str, Any] = {"batch_size": batch_size // 2, "mu": 2, "steps_per_epoch": 4, "eval_batch_size": 8}
    return SAADataModule(images(), None, images(16), n_labels=4, num_workers=workers, **sizes)


def selection(**options: Any) -> SampleAdaptiveAugmentation:
    """Flags half of the images from the first epoch on."""
    return SampleAdaptiveAugmentation(**{"threshold": "quantile:0.5", "warmup": 0, "min_coverage": 0.0, **options})


def trained(module: Callable[..., Any], *callbacks: Callable[[], Any]) -> Callable[..., Setup]:
    """A module on images, with callbacks of ours."""

    def build(workers: int = 0, batch_size: int = 8) -> Setup:
        made = data(workers, batch_size)
        return Setup({"datamodule": made}, [make() for make in callbacks], module, {"datamodule": made})

    return build


def without_callback() -> Setup:
    return trained(ForeignFixMatch)()


def augmented(augment: BatchRandAugment) -> torch.Tensor:
    bytes_ = torch.randint(0, 256, (20, 3, 9, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return torch.stack([augment(bytes_), augment(bytes_)])


def small(kind: type[FixMatchModule]) -> Callable[..., Any]:
    return noted(lambda: kind("cnn", n_classes=2, channels=1, threshold=0.6, ema_decay=0.9))


ENTRIES: dict[str, Entry] = {
    "SAADataModule": Entry(kind="data", build=trained(ForeignFixMatch), resume="exact", state=data),
    "SampleAdaptiveAugmentation": Entry(
        kind="training",
        build=trained(ForeignFixMatch, selection),
        resume="exact",
        without=without_callback,
        disabled={
            "enabled=False": trained(ForeignFixMatch, lambda: selection(enabled=False)),
            "warmup=1.0": trained(ForeignFixMatch, lambda: SampleAdaptiveAugmentation(warmup=1.0)),
        },
        state=SampleAdaptiveAugmentation,
    ),
    "FixMatchModule": Entry(kind="module", build=trained(small(FixMatchModule)), resume="loader"),
    "FlexMatchModule": Entry(kind="module", build=trained(small(FlexMatchModule)), resume="loader"),
    "BatchRandAugment": Entry(kind="object", make=lambda: BatchRandAugment(seed=1), use=augmented),
}
