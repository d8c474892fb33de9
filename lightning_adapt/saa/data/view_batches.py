"""Views of a whole batch on its device; what they depend on is read before the batch leaves the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_adapt.saa.augment.views import Views
from lightning_adapt.saa.streams import WEAK, WEAK_LABELED

__all__ = ["Plan", "example_views", "is_ours", "make_views", "take_plan"]

_PLAIN_ROWS = 2**40  # places above those of any run, for rows that came without one


class Plan(NamedTuple):
    """What the host must know to make the views of a training batch.

    Attributes:
        labeled: Places of the labelled images in the endless order. Shape (B,), dtype int64, on the CPU.
        unlabeled: Places of the unlabelled images. Shape (mu B,), dtype int64, on the CPU.
        regrouped: Which unlabelled images get a regrouped strong view. Shape (mu B,), dtype bool, on the CPU.
    """

    labeled: Tensor
    unlabeled: Tensor
    regrouped: Tensor


def is_ours(batch: Any) -> bool:
    """Say whether a batch, or each part of it, is one of `RawRows` or `ViewedRows`: a subclass may have own loaders."""
    parts = [batch.get(name) for name in ("labeled", "unlabeled")] if isinstance(batch, dict) else [None]
    trains = all(isinstance(part, dict) and "draw" in part for part in parts)
    return trains or (isinstance(batch, dict) and "draw" in batch)


def take_plan(batch: Any, flags: Tensor | None, epoch: int) -> Plan | None:
    """Take the places of the images out of a batch that is still on the host, and note in it what gets regrouped.

    Args:
        batch: A batch that `is_ours`.
        flags: Naive samples, shape (N,), dtype bool, on the CPU; None for none.
        epoch: For rows that came without a place (drawn by another sampler): they get one per epoch.

    Returns:
        The plan of a training batch; None for an evaluation batch.
    """
    if "unlabeled" not in batch:
        batch.pop("draw")
        return None
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    if "regrouped" not in unlabeled:
        index = unlabeled["index"]
        unlabeled["regrouped"] = torch.zeros(len(index), dtype=torch.bool) if flags is None else flags[index]
    return Plan(_places(labeled, epoch), _places(unlabeled, epoch), unlabeled["regrouped"])


def _places(part: dict[str, Tensor], epoch: int) -> Tensor:
    draw, index = part.pop("draw"), part["index"]
    return torch.where(draw < 0, _PLAIN_ROWS * (1 + epoch) + index, draw)


def make_views(batch: Any, plan: Plan | None, views: Views) -> Any:
    """Return a batch with normalised images in place of raw ones: weak and strong views where it is a training batch.

    Args:
        batch: A batch of `RawRows` or a dict with one of each part, on the device.
        plan: What `take_plan` returned.
        views: What makes the views, on the same device.

    Returns:
        The batch.
    """
    if plan is None:
        return {"image": views.plain(batch.pop("image")), **batch}
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    images = unlabeled.pop("image")
    weak, strong = views.weak(images, plan.unlabeled, WEAK), views.strong(images, plan.unlabeled, plan.regrouped)
    image = views.weak(labeled.pop("image"), plan.labeled, WEAK_LABELED)
    return {"labeled": {"image": image, **labeled}, "unlabeled": {"weak": weak, "strong": strong, **unlabeled}}


def example_views(images: Tensor, views: Views) -> dict[str, Tensor]:
    """Return what the views of some images look like, for a figure.

    Args:
        images: Raw images. Shape (B, C, H, W), dtype uint8, on the CPU.
        views: What makes the views.

    Returns:
        "image", "weak", "strong" and "regrouped", in [0, 1]. Shapes (B, C, H, W), dtype float32.
    """
    views, places = views.to(images.device), _PLAIN_ROWS + torch.arange(len(images))
    naive = torch.ones(len(images), dtype=torch.bool)
    made = {
        "image": views.plain(images),
        "weak": views.weak(images, places, WEAK),
        "strong": views.strong(images, places, None),
        "regrouped": views.strong(images, places, naive),
    }
    black, white = (views.plain(torch.full_like(images[:1], value)) for value in (0, 255))
    return {name: (normalised - black) / (white - black) for name, normalised in made.items()}
