"""Real pictures, and the way between them and Pillow's."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from examples.benchmarks import _saa_pil as pil
from lightning_adapt._shared.datasets import fashion_mnist
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt.saa.augment.operations import OPS

# name -> (height, width, channels); gray 28 x 28 is Fashion-MNIST
SIZES = {
    "rgb 32": (32, 32, 3),
    "rgb odd": (31, 45, 3),
    "rgb tall": (97, 64, 3),
    "gray 28": (28, 28, 1),
    "gray odd": (33, 20, 1),
    "rgb tiny": (5, 7, 3),
    "rgb flat": (1, 9, 3),
}


@cache
def pictures(name: str, n: int = 24) -> torch.Tensor:
    """Crops of two photographs, or Fashion-MNIST; shape (n, C, H, W), uint8."""
    if name == "gray 28":
        return (fashion_mnist("test").tensors[0][:n] * 255).round().to(torch.uint8)
    height, width, channels = SIZES[name]
    places = np.random.default_rng(0)
    crops = []
    for number in range(n):
        photo = load_sample_image(("china.jpg", "flower.jpg")[number % 2])
        top, left = places.integers(photo.shape[0] - height), places.integers(photo.shape[1] - width)
        crops.append(photo[top : top + height, left : left + width, :channels])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def to_pil(image: torch.Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def from_pil(image: Image.Image) -> torch.Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def augmented(augment, image: torch.Tensor, draw: int, stream: int) -> Image.Image:
    """What Pillow makes of one image with what `augment` draws for it."""
    codes, values, square = augment.drawn(torch.tensor([draw]), stream)
    result = to_pil(image)
    for code, value in zip(codes[:, 0], values[:, 0], strict=True):
        result = pil.OPERATIONS[OPS[code]](result, value)
    width, height = result.size
    side, x, y = square[0] * (augment.cutout * width, width, height)
    return pil.cutout(result, side, x, y)


def moved(image: Image.Image, draw: int, stream: int, seed: int, padding: float, reflect: bool) -> Image.Image:
    """What Pillow makes of one image with the flip and the crop of a draw number."""
    width, height = image.size
    pads = int(height * padding), int(width * padding)
    flip, top, left = uniform(draw * 3 + torch.arange(3), derive_key(seed, stream)).tolist()
    places = int(top * (2 * pads[0] + 1)), int(left * (2 * pads[1] + 1))
    return pil.flip_crop(image, flip < 0.5, *places, pads, reflect)
