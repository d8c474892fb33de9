"""The 14 operations of FixMatch's RandAugment pool on whole batches, each image with an operation of its own.

A layer gives every image one operation. Images are sorted by operation on the host, so that each kind is one slice:
all pointwise ones are one gather through tables, all affine ones one gather of pixels, and nothing asks the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_adapt.saa.augment.geometry import AFFINE, FloatArray, IntArray, affine, to_device
from lightning_adapt.saa.augment.tables import TABLES, blend, luma

__all__ = ["ALLOWED", "OPS", "RANGES", "run_layers"]

# in this order each kind is one slice: tables, colours, neighbourhoods, affine maps, nothing
OPS: tuple[str, ...] = (*TABLES, "Color", "Sharpness", *AFFINE, "Identity")
_TABLES_END, _COLOR, _SHARPNESS, _AFFINE_FROM, _AFFINE_END = (
    len(TABLES),
    OPS.index("Color"),
    OPS.index("Sharpness"),
    OPS.index("Rotate"),
    OPS.index("Identity"),
)

_FACTOR = (0.05, 0.95)
_SHARE = (-0.3, 0.3)
# the value is uniform between these; (0, 0) for operations without one
RANGES: dict[str, tuple[float, float]] = {
    "AutoContrast": (0.0, 0.0),
    "Brightness": _FACTOR,
    "Contrast": _FACTOR,
    "Equalize": (0.0, 0.0),
    "Posterize": (4.0, 8.0),
    "Solarize": (0.0, 256.0),
    "Color": _FACTOR,
    "Sharpness": _FACTOR,
    "Rotate": (-30.0, 30.0),
    "ShearX": _SHARE,
    "ShearY": _SHARE,
    "TranslateX": _SHARE,
    "TranslateY": _SHARE,
    "Identity": (0.0, 0.0),
}
# what a caller may ask for
ALLOWED: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("Brightness", "Contrast", "Color", "Sharpness"), (0.0, 10.0)),
    **dict.fromkeys(("ShearX", "ShearY", "TranslateX", "TranslateY"), (-1.0, 1.0)),
    "Posterize": (1.0, 8.0),
    "Solarize": (0.0, 256.0),
    "Rotate": (-90.0, 90.0),
}


class _Layer(NamedTuple):
    bounds: IntArray  # where the slice of each operation starts; one more entry for the end
    order: IntArray  # which image of the layer before comes at each place
    values: FloatArray
    maps: IntArray


def run_layers(images: Tensor, codes: IntArray, values: FloatArray) -> Tensor:
    """Apply operations one after another, each image its own.

    Args:
        images: Shape (B, C, H, W), C 1 or 3, dtype uint8; left alone.
        codes: Positions in `OPS`. Shape (layers, B).
        values: Their values, units as in `RANGES`. Shape (layers, B).

    Returns:
        New images. Shape and dtype of `images`.
    """
    plan, back = _plan(codes, values, images.shape[-2], images.shape[-1])
    if not plan:
        return images.clone()
    device = images.device
    # one copy of each kind for all layers
    orders = to_device(np.stack([*(layer.order for layer in plan), back]), device)
    amounts = to_device(np.stack([layer.values for layer in plan]), device)
    maps = to_device(np.concatenate([layer.maps for layer in plan]).astype(np.int32), device)
    starts = np.cumsum([0, *(len(layer.maps) for layer in plan)])
    images = images.contiguous()
    for number, layer in enumerate(plan):
        images = images.index_select(0, orders[number])
        _run_layer(images, layer.bounds, amounts[number], maps[starts[number] : starts[number + 1]])
    return images.index_select(0, orders[-1])


def _plan(codes: IntArray, values: FloatArray, height: int, width: int) -> tuple[list[_Layer], IntArray]:
    plan, place = [], np.arange(codes.shape[1])  # place: where each image is now
    for code, value in zip(codes, values, strict=True):
        by_operation = np.argsort(code, kind="stable")
        bounds = np.searchsorted(code[by_operation], np.arange(len(OPS) + 1))
        amounts = value[by_operation]
        maps = [
            AFFINE[OPS[at]](amounts[bounds[at] : bounds[at + 1]], height, width)
            for at in range(_AFFINE_FROM, _AFFINE_END)
            if bounds[at] < bounds[at + 1]
        ]
        plan.append(
            _Layer(bounds, place[by_operation], amounts, np.concatenate(maps) if maps else np.zeros((0, 6), np.int64))
        )
        place = np.argsort(by_operation)
    return plan, place


def _run_layer(images: Tensor, bounds: IntArray, values: Tensor, maps: Tensor) -> None:
    """Apply a layer in place to images that are sorted by operation."""
    pieces = [
        TABLES[name](images[bounds[at] : bounds[at + 1]], values[bounds[at] : bounds[at + 1]])
        for at, name in enumerate(TABLES)
        if bounds[at] < bounds[at + 1]
    ]
    if pieces:
        part = images[: bounds[_TABLES_END]]
        part.copy_(torch.cat(pieces).gather(2, part.flatten(2).long()).view(part.shape))
    for at, operation in ((_COLOR, _color), (_SHARPNESS, _sharpness)):
        part = images[bounds[at] : bounds[at + 1]]
        if len(part):
            operation(part, values[bounds[at] : bounds[at + 1]].float()[:, None, None, None])
    part = images[bounds[_AFFINE_FROM] : bounds[_AFFINE_END]]
    if len(part):
        part.copy_(affine(part, maps))


def _color(images: Tensor, factors: Tensor) -> None:
    if images.shape[1] == 3:  # gray pictures have no colour to lose
        images.copy_(blend(luma(images).float(), images.float(), factors))


def _sharpness(images: Tensor, factors: Tensor) -> None:
    if min(images.shape[-2:]) < 3:  # all of it is border, which smoothing leaves alone
        return
    width = images.shape[-1]
    pixels = images.view(*images.shape[:2], -1)  # in one row, where sums of neighbours need no stride
    inner, sides = pixels[..., width + 1 : -width - 1], images[..., :: width - 1]
    kept = sides.clone()
    wide = pixels.short()
    rows = (wide[..., :-2] + wide[..., 1:-1]).add_(wide[..., 2:])
    summed = (rows[..., : -2 * width] + rows[..., width:-width]).add_(rows[..., 2 * width :])
    summed.add_(wide[..., width + 1 : -width - 1], alpha=4)
    # weights 1 and 5 over 13, rounded: no sum over 13 lies so close to a half that float32 could err
    smooth = summed.float().div_(13.0).add_(0.5).floor_()
    inner.copy_(blend(smooth, inner.float(), factors.flatten(2)))
    sides.copy_(kept)  # a row's ends are no neighbours of the next row's
