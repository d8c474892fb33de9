"""FixMatch's augmentations on one image at a time with Pillow: what the batched ones are held to, and timed against.

Written from the operations' definitions; imports nothing of the package. Values and boxes are arguments, so that the
same draws can be given to both sides; `Pipeline` draws its own, as a data set's transform does in a worker.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

FILL = (125, 123, 114)


def _mapped(image: Image.Image, *numbers: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, numbers)


# name -> (image, value) -> image
OPERATIONS: dict[str, Callable[[Image.Image, Any], Image.Image]] = {
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "Color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "Contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Identity": lambda image, _: image,
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Rotate": lambda image, degrees: image.rotate(degrees),
    "Sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "ShearX": lambda image, share: _mapped(image, 1, share, 0, 0, 1, 0),
    "ShearY": lambda image, share: _mapped(image, 1, 0, 0, share, 1, 0),
    "Solarize": lambda image, threshold: ImageOps.solarize(image, threshold),
    "TranslateX": lambda image, share: _mapped(image, 1, 0, share * image.size[0], 0, 1, 0),
    "TranslateY": lambda image, share: _mapped(image, 1, 0, 0, 0, 1, share * image.size[1]),
}
_NAMES = tuple(OPERATIONS)
LIMITS = {
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (0.05, 0.95)),
    **dict.fromkeys(("ShearX", "ShearY", "TranslateX", "TranslateY"), (-0.3, 0.3)),
    **dict.fromkeys(("AutoContrast", "Equalize", "Identity"), (0.0, 0.0)),
    "Posterize": (4, 8),
    "Rotate": (-30, 30),
    "Solarize": (0, 256),
}


def cutout(image: Image.Image, side: float, x: float, y: float) -> Image.Image:
    """Fill a square of a side, in pixels, around a centre; its far edges are its near ones plus the side."""
    if side <= 0:
        return image
    width, height = image.size
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    box = (left, top, min(width, left + side), min(height, top + side))
    image = image.copy()
    color = FILL if image.mode == "RGB" else Image.new("RGB", (1, 1), FILL).convert("L").getpixel((0, 0))
    ImageDraw.Draw(image).rectangle(box, color)
    return image


@cache
def _mirrored(side: int, pad: int) -> np.ndarray:
    return np.pad(np.arange(side), pad, mode="reflect")


def flip_crop(image: Image.Image, flip: bool, top: int, left: int, pads: tuple[int, int], reflect: bool) -> Image.Image:
    """Flip, pad rows and columns on both sides, and cut out a piece of the old size."""
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = image.size
    if not reflect:  # what lies outside is black
        return image.crop((left - pads[1], top - pads[0], left - pads[1] + width, top - pads[0] + height))
    # by index: four times as fast as padding each picture, which would make the rival look slow
    rows = _mirrored(height, pads[0])[top : top + height]
    columns = _mirrored(width, pads[1])[left : left + width]
    return Image.fromarray(np.asarray(image)[rows[:, None], columns])


def normalized(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return (image / 255 - mean) / std as float32, channels first."""
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    shape = (-1, 1, 1)
    return (pixels / 255 - np.reshape(np.float32(mean), shape)) / np.reshape(np.float32(std), shape)


class Pipeline:
    """Weak and strong views of images one by one, every number drawn anew; borders are mirrored.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        n_ops: Operations of a strong view.
        seed: Seed of the random numbers.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], n_ops: int = 3, seed: int = 0) -> None:
        self.mean, self.std, self.n_ops = mean, std, n_ops
        self.random = random.Random(seed)

    def moved(self, image: Image.Image) -> Image.Image:
        pads = image.size[1] // 8, image.size[0] // 8
        top, left = (self.random.randint(0, 2 * pad) for pad in pads)
        return flip_crop(image, self.random.random() < 0.5, top, left, pads, reflect=True)

    def augmented(self, image: Image.Image) -> Image.Image:
        for name in self.random.choices(_NAMES, k=self.n_ops):
            image = OPERATIONS[name](image, self.random.uniform(*LIMITS[name]))
        width, height = image.size
        side = self.random.uniform(0, 0.5) * width
        return cutout(image, side, self.random.uniform(0, width), self.random.uniform(0, height))

    def weak(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self._stacked([self.moved(image) for image in images])

    def strong(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self._stacked([self.augmented(self.moved(image)) for image in images])

    def _stacked(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(normalized(image, self.mean, self.std)) for image in images])
