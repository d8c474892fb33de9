"""Checks of what the augmentations are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

MAX_SIDE = 8192  # the 16.16 fixed-point coordinates of a sheared and rotated picture must fit 32 bits
_BYTES = "Pass raw images, 0..255, before any normalisation: `(image * 255).round().to(torch.uint8)`, say."


def check_images(images: Any) -> Tensor:
    """Check a batch of raw images.

    Args:
        images: What came; allowed is shape (B, C, H, W), C 1 or 3, dtype uint8, sides of 1..8192 pixels.

    Returns:
        The images.

    Raises:
        TypeError: If it is no tensor or not of bytes.
        ValueError: If the shape does not fit.
    """
    if not isinstance(images, Tensor):
        raise TypeError(problem("images", "a uint8 tensor of shape (B, C, H, W)", images, _BYTES))
    if images.dtype != torch.uint8:
        raise TypeError(problem("images", "of dtype uint8", images.dtype, _BYTES))
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        remedy = "Put the channels second: `images.permute(0, 3, 1, 2)`, or `images[:, None]` for gray ones."
        raise ValueError(problem("images", "of shape (B, 1, H, W) or (B, 3, H, W)", tuple(images.shape), remedy))
    if not all(1 <= side <= MAX_SIDE for side in images.shape[-2:]):
        allowed = f"of 1 to {MAX_SIDE} pixels a side"
        raise ValueError(problem("images", allowed, tuple(images.shape), "Crop or shrink the images first."))
    return images


def check_per_image(argument: str, values: Any, n: int, dtype: torch.dtype) -> Tensor:
    """Check one number per image that the host must know.

    Args:
        argument: Name of the argument.
        values: What came; allowed is a tensor of shape (B,) on the CPU.
        n: Number of images, B.
        dtype: The dtype it must have.

    Returns:
        The values.

    Raises:
        TypeError: If it is no tensor of that dtype.
        ValueError: If the shape differs, or it is not on the CPU.
    """
    name = str(dtype).removeprefix("torch.")
    kind = f"{'an' if name[0] == 'i' else 'a'} {name} tensor of shape ({n},) on the CPU"
    if not isinstance(values, Tensor):
        raise TypeError(problem(argument, kind, values, "Pass one value per image."))
    if values.dtype != dtype:
        raise TypeError(problem(argument, kind, values.dtype, f"Convert it with `.to({dtype})`."))
    if values.shape != (n,):
        raise ValueError(problem(argument, kind, tuple(values.shape), "Pass one value per image."))
    if values.device.type != "cpu":
        remedy = "Keep it on the CPU: it decides there which images get what, so that nothing waits for the device."
        raise ValueError(problem(argument, kind, values.device, remedy))
    return values


def check_draws(draws: Any, n: int) -> Tensor:
    """Check the draw numbers of a batch.

    Args:
        draws: What came; allowed is an int64 tensor of shape (B,) on the CPU, numbers >= 0.
        n: Number of images, B.

    Returns:
        The numbers.

    Raises:
        TypeError: If it is no int64 tensor.
        ValueError: If the shape differs, it is not on the CPU, or a number is negative.
    """
    numbers = check_per_image("draws", draws, n, torch.int64)
    if n and int(numbers.min()) < 0:
        raise ValueError(problem("draws", "numbers >= 0", int(numbers.min()), "Number the images from 0."))
    return numbers
