"""Pointwise operations as one table of 256 bytes per image and channel; each entry is what Pillow computes.

Legend: n images, C channels, H and W pixels, P = H W pixels in one row. Factors blend in float32 and truncate, as
`Image.blend` does; products and sums are separate steps, so that no device fuses them and rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["TABLES", "blend", "luma"]


def blend(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Return degenerate + factor (image - degenerate), cut to 0..255 and truncated.

    Args:
        degenerate: What factor 0 gives. Broadcastable to `images`, whole numbers 0..255, float32.
        images: What factor 1 gives. Whole numbers 0..255, float32.
        factors: Broadcastable to `images`, float32.

    Returns:
        The mixture. Shape of `images`, dtype uint8.
    """
    mixed = (images - degenerate).mul_(factors)
    return mixed.add_(degenerate).clamp_(0, 255).to(torch.uint8)


def luma(images: Tensor) -> Tensor:
    """Return the brightness of each pixel in Pillow's fixed-point weights (ITU-R 601-2, 16 bits).

    Args:
        images: Shape (n, C, H, W), C 1 or 3, dtype uint8.

    Returns:
        Shape (n, 1, H, W), dtype int32, 0..255.
    """
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = (images[:, channel : channel + 1].int() for channel in range(3))
    summed = red.mul_(19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(0x8000)
    return summed.bitwise_right_shift_(16)


def _entries(images: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.arange(256, dtype=dtype, device=images.device)


def _brightness(images: Tensor, values: Tensor) -> Tensor:
    entries = _entries(images, torch.float32).expand(len(values), -1)
    table = blend(torch.zeros((), device=images.device), entries, values.float()[:, None])
    return table[:, None].expand(-1, images.shape[1], -1)


def _contrast(images: Tensor, values: Tensor) -> Tensor:
    pixels = images.shape[-2] * images.shape[-1]
    total = luma(images).sum((1, 2, 3))  # int64
    mean = ((2 * total + pixels) // (2 * pixels)).float()  # the mean, rounded half up
    table = blend(mean[:, None], _entries(images, torch.float32), values.float()[:, None])
    return table[:, None].expand(-1, images.shape[1], -1)


def _solarize(images: Tensor, values: Tensor) -> Tensor:
    entries = _entries(images, torch.int16)
    table = torch.where(entries < values[:, None], entries, 255 - entries).to(torch.uint8)
    return table[:, None].expand(-1, images.shape[1], -1)


def _posterize(images: Tensor, values: Tensor) -> Tensor:
    dropped = 8 - values.int()[:, None]
    table = ((_entries(images, torch.int32) >> dropped) << dropped).to(torch.uint8)
    return table[:, None].expand(-1, images.shape[1], -1)


def _autocontrast(images: Tensor, _values: Tensor) -> Tensor:
    pixels = images.flatten(2)
    low, high = pixels.amin(2, keepdim=True).double(), pixels.amax(2, keepdim=True).double()
    scale = torch.full_like(low, 255.0) / (high - low)  # infinite for a channel of one value, replaced below
    entries = _entries(images, torch.float64)
    stretched = (entries * scale).add_(-low * scale).clamp_(0, 255)  # float64 and in this order, as Pillow
    return torch.where(high > low, stretched, entries).to(torch.uint8)


def _equalize(images: Tensor, _values: Tensor) -> Tensor:
    n, channels = images.shape[:2]
    pixels = images.flatten(2)
    first = torch.arange(n * channels, device=images.device).mul_(256).view(n, channels, 1)
    places = pixels.long().add_(first).view(-1)  # one row: the only scatter that has a deterministic form on CUDA
    counts = torch.zeros(n * channels * 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(0, places, torch.ones((), dtype=torch.int32, device=images.device).expand(len(places)))
    counts = counts.view(n, channels, 256)
    last = counts.gather(2, pixels.amax(2, keepdim=True).long())  # count of the brightest value there is
    step = (pixels.shape[2] - last) // 255
    reached = counts.cumsum(2, dtype=torch.int32).sub_(counts).add_(step // 2)
    # a quotient of whole numbers this small is exact below the next whole number, and faster than one of integers
    table = reached.double().div_(step.clamp(min=1)).clamp_(max=255)
    return torch.where(step > 0, table, _entries(images, torch.float64)).to(torch.uint8)


# name -> (images (n, C, H, W) uint8, values (n,) float64) -> tables (n, C, 256) uint8
TABLES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": _autocontrast,
    "Brightness": _brightness,
    "Contrast": _contrast,
    "Equalize": _equalize,
    "Posterize": _posterize,
    "Solarize": _solarize,
}
