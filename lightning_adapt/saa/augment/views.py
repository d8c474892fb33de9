"""Views: the weak and strong views that FixMatch and SAA train on, from raw batches on their device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_choice, check_flag, check_integer, check_number, problem
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt.saa.augment.geometry import flip_crop, to_device
from lightning_adapt.saa.augment.inputs import check_draws, check_images, check_per_image
from lightning_adapt.saa.augment.rand_augment import BatchRandAugment
from lightning_adapt.saa.functional import check_pieces, regroup
from lightning_adapt.saa.streams import ORIENTATION, STRONG, STRONG_AGAIN, STRONG_GEOMETRY

__all__ = ["Views"]


class Views(nn.Module):
    """Makes normalised views of raw images, all of them a function of (seed, stream, draw number of the image).

    Preset "saa" augments first, then flips and crops once, with black borders, as SAA and TorchSSL do. Preset "usb"
    flips and crops first, with mirrored borders, then augments, as USB does. Both work on bytes until they normalise.

    Args:
        preset: "saa" or "usb".
        mean: Mean of each channel, images in [0, 1]; its length is the number of channels, 1 or 3.
        std: Standard deviation of each channel, > 0.
        n_ops: Operations of RandAugment per strong view.
        cutout: Largest side of Cutout's square as a share of the width; 0 for none.
        flip: Flip half of the views left to right.
        padding: Border to crop from, on each side, as a share of that side, in [0, 0.5]; cut to whole pixels.
        pieces: Pieces of a regrouped view, 2 or 4.
        seed: Seed, >= 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> views = Views(mean=[0.5], std=[0.25])
        >>> views.weak(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), stream=0).unique()
        tensor([-2.])
    """

    def __init__(
        self,
        preset: Literal["saa", "usb"] = "saa",
        *,
        mean: Sequence[float],
        std: Sequence[float],
        n_ops: int = 3,
        cutout: float = 0.5,
        flip: bool = True,
        padding: float = 0.125,
        pieces: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.preset = check_choice("preset", preset, ("saa", "usb"), "Pass 'saa'.")
        self.augment = BatchRandAugment(n_ops, cutout=cutout, seed=seed)
        self.flip = check_flag("flip", flip, "Pass False for digits and the like, whose mirror image is another class.")
        self.padding = check_number("padding", padding, "[0, 0.5]", "Pass 0.125: 4 pixels at 32.")
        self.pieces = check_pieces(pieces)
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**63 - 1)
        means, stds = _check_statistics(mean, std)
        self.channels = len(means)
        # in bytes, so that normalising is one subtraction and one division
        self.register_buffer("_mean", _per_channel(means), persistent=False)
        self.register_buffer("_std", _per_channel(stds), persistent=False)

    def plain(self, images: Tensor) -> Tensor:
        """Return images that are only normalised.

        Args:
            images: Raw images. Shape (B, C, H, W), dtype uint8.

        Returns:
            (image / 255 - mean) / std. Shape of `images`, dtype float32.

        Raises:
            TypeError: If the images are not uint8.
            ValueError: If their shape is wrong.
        """
        return self._normalized(self._checked(images))

    def weak(self, images: Tensor, draws: Tensor, stream: int) -> Tensor:
        """Return weak views: flipped with probability 0.5, cropped from the padded image, normalised.

        Args:
            images: Raw images. Shape (B, C, H, W), dtype uint8.
            draws: Draw number of each image, >= 0. Shape (B,), dtype int64, on the CPU.
            stream: Views with different streams are independent.

        Returns:
            The views. Shape of `images`, dtype float32.

        Raises:
            TypeError: If a tensor has the wrong dtype.
            ValueError: If a shape is wrong, or `draws` is negative or not on the CPU.
        """
        self._checked(images)
        check_draws(draws, len(images))
        return self._normalized(self._moved(images, draws, stream))

    def strong(self, images: Tensor, draws: Tensor, flagged: Tensor | None = None) -> Tensor:
        """Return strong views; those of flagged images are regrouped from two, the others do not depend on flags.

        Args:
            images: Raw images. Shape (B, C, H, W), dtype uint8.
            draws: Draw number of each image, >= 0. Shape (B,), dtype int64, on the CPU.
            flagged: Images that get a regrouped view. Shape (B,), dtype bool, on the CPU. None: none.

        Returns:
            The views. Shape of `images`, dtype float32.

        Raises:
            TypeError: If a tensor has the wrong dtype.
            ValueError: If a shape is wrong, or `draws` or `flagged` is not on the CPU.
        """
        self._checked(images)
        check_draws(draws, len(images))
        if flagged is not None:
            check_per_image("flagged", flagged, len(images), torch.bool)
        if self.preset == "usb":
            moved = self._moved(images, draws, STRONG_GEOMETRY)
            return self._normalized(self._augmented(moved, draws, flagged))
        return self._normalized(self._moved(self._augmented(images, draws, flagged), draws, STRONG_GEOMETRY))

    def _augmented(self, images: Tensor, draws: Tensor, flagged: Tensor | None) -> Tensor:
        rows = flagged.nonzero().flatten() if flagged is not None else None  # on the host
        if rows is None or len(rows) == 0:
            augmented: Tensor = self.augment(images, draws, STRONG)
            return augmented
        again = draws[rows]
        orientation = (uniform(again, derive_key(self.seed, ORIENTATION)) < 0.5).long()
        where = to_device(rows.numpy(), images.device)
        # both passes as one batch: much of what a call costs does not depend on the number of images
        drawn = self.augment.drawn(draws, STRONG).followed_by(self.augment.drawn(again, STRONG_AGAIN))
        both = self.augment.apply_drawn(torch.cat([images, images.index_select(0, where)]), drawn)
        first, second = both[: len(images)], both[len(images) :]
        orientation = to_device(orientation.numpy(), images.device)
        return first.index_copy_(0, where, regroup(first.index_select(0, where), second, orientation, self.pieces))

    def _moved(self, images: Tensor, draws: Tensor, stream: int) -> Tensor:
        height, width = images.shape[-2:]
        pads = int(height * self.padding), int(width * self.padding)
        numbers = uniform(draws[:, None] * 3 + torch.arange(3), derive_key(self.seed, stream)).numpy()
        flips = numbers[:, 0] < 0.5 if self.flip else np.zeros(len(draws), dtype=bool)
        offsets = (numbers[:, 1:] * (2 * np.array(pads) + 1)).astype(np.int64)
        return flip_crop(images, flips, offsets, pads, "zero" if self.preset == "saa" else "reflect")

    def _normalized(self, images: Tensor) -> Tensor:
        mean, std = (self.get_buffer(name).to(images.device, non_blocking=True) for name in ("_mean", "_std"))
        normalized: Tensor = images.float().sub_(mean).div_(std)
        return normalized

    def _checked(self, images: Any) -> Tensor:
        checked = check_images(images)
        if checked.shape[1] != self.channels:
            allowed = f"of {self.channels} channels, as `mean` and `std` are"
            raise ValueError(problem("images", allowed, tuple(checked.shape), "Pass one mean and std per channel."))
        return checked

    def extra_repr(self) -> str:
        """Return the arguments that decide what the views are."""
        return f"preset={self.preset!r}, flip={self.flip}, padding={self.padding}, pieces={self.pieces}"


def _check_statistics(mean: Any, std: Any) -> tuple[list[float], list[float]]:
    means, stds = [float(value) for value in mean], [float(value) for value in std]
    if len(means) not in (1, 3) or not all(math.isfinite(value) for value in means):
        raise ValueError(problem("mean", "1 or 3 finite numbers", mean, "Pass one per channel, for images in [0, 1]."))
    if len(stds) != len(means) or not all(0 < value < math.inf for value in stds):
        raise ValueError(problem("std", f"{len(means)} numbers > 0", std, "Pass one per channel, as in `mean`."))
    return means, stds


def _per_channel(values: list[float]) -> Tensor:
    return (torch.tensor(values, dtype=torch.float64) * 255).float().view(-1, 1, 1)
