"""Operations that move pixels: affine maps in Pillow's fixed-point arithmetic, flips, crops and erased boxes.

Coordinates are worked out on the host in NumPy (a few numbers an image), pixels are gathered on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["AFFINE", "affine", "cutout", "flip_crop", "to_device"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Border = Literal["zero", "reflect"]
_ONE = 65_536.0  # 1 in 16.16 fixed point


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device without waiting for it."""
    return torch.from_numpy(values).to(device, non_blocking=True)


# -- affine maps: source x = a x + b y + c, source y = d x + e y + f ---------------------------------------------------
def _fixed(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> IntArray:
    centred = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)  # pixels are read at their centres
    columns = np.broadcast_arrays(*(np.floor(np.asarray(value) * _ONE + 0.5) for value in centred))
    return np.stack(columns, axis=-1).astype(np.int64)


def _rotate(degrees: FloatArray, height: int, width: int) -> IntArray:
    angle = -np.radians(degrees)
    cosine, sine = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15)
    x, y = width / 2, height / 2
    return _fixed(cosine, sine, x - (cosine * x + sine * y), -sine, cosine, y - (cosine * y - sine * x))


def _shear_x(share: FloatArray, _height: int, _width: int) -> IntArray:
    return _fixed(1.0, share, 0.0, 0.0, 1.0, 0.0)


def _shear_y(share: FloatArray, _height: int, _width: int) -> IntArray:
    return _fixed(1.0, 0.0, 0.0, share, 1.0, 0.0)


def _shifted(x: Any, y: Any) -> IntArray:
    # Pillow scales and shifts in floating point: whole pixels, rounded half up
    columns = np.broadcast_arrays(1.0, 0.0, np.floor(x + 0.5), 0.0, 1.0, np.floor(y + 0.5))
    return (np.stack(columns, axis=-1) * _ONE).astype(np.int64)


def _translate_x(share: FloatArray, _height: int, width: int) -> IntArray:
    return _shifted(share * width, np.zeros(1))


def _translate_y(share: FloatArray, height: int, _width: int) -> IntArray:
    return _shifted(np.zeros(1), share * height)


# name -> (values (n,), height, width) -> the six numbers of each map in 16.16 fixed point, (n, 6)
AFFINE: dict[str, Callable[[FloatArray, int, int], IntArray]] = {
    "Rotate": _rotate,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
}


def affine(images: Tensor, maps: Tensor) -> Tensor:
    """Move the pixels of each image by a map of its own: nearest pixel, black where there is none.

    Args:
        images: Shape (n, C, H, W), dtype uint8.
        maps: What a function of `AFFINE` gave. Shape (n, 6), dtype int32, on the device of `images`.

    Returns:
        The moved images. Shape and dtype of `images`.
    """
    height, width = images.shape[-2:]
    columns = torch.arange(width, dtype=torch.int32, device=images.device)
    rows = torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    a, b, c, d, e, f = maps[:, :, None, None].unbind(1)
    # whatever lies outside falls on a black border of one pixel: cheaper than asking of each pixel whether it does
    x = (((b * rows + c) + a * columns) >> 16).clamp_(-1, width).add_(1)
    y = (((e * rows + f) + d * columns) >> 16).clamp_(-1, height).add_(1)
    places = y.mul_(width + 2).add_(x).long()
    return _gathered(nn.functional.pad(images, (1, 1, 1, 1)), places)


def _gathered(images: Tensor, places: Tensor) -> Tensor:
    """Read the pixels (n, C, H, W) at places in 0..h w - 1, shape (n, H, W), of images (n, C, h, w)."""
    n, height, width = places.shape
    channels = images.shape[1]
    chosen = places.view(n, 1, height * width).expand(-1, channels, -1)
    return images.flatten(2).gather(2, chosen).view(n, channels, height, width)


# -- flip and crop -----------------------------------------------------------------------------------------------------
def flip_crop(
    images: Tensor, flips: npt.NDArray[np.bool_], offsets: IntArray, pads: tuple[int, int], border: Border
) -> Tensor:
    """Flip images left to right and cut each out of its padded self, in one gather.

    Args:
        images: Shape (B, C, H, W), dtype uint8.
        flips: Which images to flip, before they are padded. Shape (B,).
        offsets: Top and left of each cut in the padded image, 0..2 pad. Shape (B, 2).
        pads: Rows and columns of padding on each side.
        border: "zero" for black or "reflect" for a mirror at the outermost pixels.

    Returns:
        The images. Shape and dtype of `images`.
    """
    height, width = images.shape[-2:]
    rows, columns = (
        np.arange(side)[None, :] + offsets[:, axis, None] - pads[axis] for axis, side in enumerate((height, width))
    )
    columns = np.where(flips[:, None], width - 1 - columns, columns)  # the padding is the same on both sides
    if border == "reflect":
        rows, columns = _mirrored(rows, height), _mirrored(columns, width)
    else:
        images = nn.functional.pad(images, (1, 1, 1, 1))
        rows, columns = rows.clip(-1, height) + 1, columns.clip(-1, width) + 1
    starts = to_device(rows * images.shape[-1], images.device)
    return _gathered(images, starts[:, :, None] + to_device(columns, images.device)[:, None, :])


def _mirrored(at: IntArray, side: int) -> IntArray:
    return np.asarray((side - 1) - np.abs((side - 1) - np.abs(at)))


# -- erased boxes ------------------------------------------------------------------------------------------------------
def cutout(images: Tensor, draws: FloatArray, largest: float, fill: Tensor) -> Tensor:
    """Fill a square of random side and place in each image; what lies outside the image is lost.

    The side is v = `largest` * width * u; the square starts at int(max(0, centre - v / 2)) and reaches to its start
    + v, not centred anew where it was cut. That pixel is filled, too, as Pillow's `rectangle` does.

    Args:
        images: Shape (B, C, H, W), dtype uint8; changed in place.
        draws: Numbers in [0, 1) for side, column and row of the centre. Shape (B, 3).
        largest: Largest side as a share of the width.
        fill: The colour. Shape (C, 1, 1), dtype uint8, on the device of `images`.

    Returns:
        `images`.
    """
    height, width = images.shape[-2:]
    sides = draws[:, 0] * (largest * width)
    covered = []
    for axis, length in ((2, height), (1, width)):
        first = np.floor(np.maximum(0.0, draws[:, axis] * length - sides / 2))
        last = np.floor(first + sides)
        at = np.arange(length)
        inside = (at >= first[:, None]) & (at <= last[:, None])
        covered.append(to_device(inside.astype(np.uint8), images.device))
    # products of bytes: on a CPU far faster than truth values, and than `where` with a broadcast colour
    box = (covered[0][:, :, None] * covered[1][:, None, :])[:, None]
    return images.mul_(1 - box).add_(fill * box)
