"""BatchRandAugment: RandAugment with FixMatch's pool and Cutout, for a whole batch at once, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_adapt._shared.checks import check_integer, check_share, problem
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt._shared.state import read_version, with_version
from lightning_adapt.saa.augment.geometry import FloatArray, IntArray, cutout
from lightning_adapt.saa.augment.inputs import check_draws, check_images, check_per_image
from lightning_adapt.saa.augment.operations import ALLOWED, OPS, RANGES, run_layers
from lightning_adapt.saa.augment.tables import luma

__all__ = ["OPS", "BatchRandAugment", "Drawn"]

_STATE_VERSION = 1
_LOWEST = np.array([RANGES[name][0] for name in OPS])
_SPANS = np.array([RANGES[name][1] - RANGES[name][0] for name in OPS])
_POSTERIZE = OPS.index("Posterize")  # the one operation whose value is a whole number


class Drawn(NamedTuple):
    """What a batch gets.

    Attributes:
        codes: Positions in `OPS`, first operation first. Shape (n_ops, B), dtype int64.
        values: Their values. Shape (n_ops, B), dtype float64.
        square: Cutout's numbers in [0, 1): side over the largest side, column of the centre over the width, its row
            over the height. Shape (B, 3), dtype float64.
    """

    codes: IntArray
    values: FloatArray
    square: FloatArray

    def followed_by(self, other: Drawn) -> Drawn:
        """Return what a batch gets that consists of this one and then another one."""
        parts = ((self.codes, other.codes, 1), (self.values, other.values, 1), (self.square, other.square, 0))
        return Drawn(*(np.concatenate([ours, theirs], axis) for ours, theirs, axis in parts))


class BatchRandAugment(nn.Module):
    """Augments each image of a raw batch with operations of its own, then erases a square: FixMatch's strong view.

    The pool has 14 operations; `n_ops` are drawn uniformly with replacement and always applied, each with a value that
    is uniform in its range (factors 0.05..0.95; rotation -30..30 degrees; shear and shift -0.3..0.3; posterize 4..8
    bits, cut to whole ones; solarize 0..256). Then Cutout, always. Each operation gives the bytes that Pillow gives.

    What an image gets depends on the seed, the stream and the image's draw number alone: neither on the batch it is in
    nor on the device. Numbers are drawn on the host, and nothing waits for the device.

    Args:
        n_ops: Operations per image, >= 0.
        ops: Names to draw from, out of `OPS`; a name given twice is drawn twice as often.
        cutout: Largest side of the erased square as a share of the width, in [0, 1]; 0 erases nothing.
        fill: Its colour, red, green, blue in 0..255; gray images get its brightness.
        seed: Seed, >= 0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> augment = BatchRandAugment(n_ops=2, seed=1)
        >>> images = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
        >>> augment(images, torch.arange(4)).shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(
        self,
        n_ops: int = 3,
        *,
        ops: Sequence[str] = OPS,
        cutout: float = 0.5,
        fill: Sequence[int] = (125, 123, 114),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.n_ops = check_integer("n_ops", n_ops, "Pass 3, as FixMatch does.")
        self.ops = _check_ops(ops)
        self.cutout = check_share("cutout", cutout, "Pass 0.5, as FixMatch does, or 0 for no Cutout.")
        self.fill = _check_fill(fill)
        self.seed = check_integer("seed", seed, "Pass any whole number that is not negative.", maximum=2**63 - 1)
        self._codes = np.array([OPS.index(name) for name in self.ops])
        self._seen = 0  # images numbered by this module itself, those of all ranks
        color = torch.tensor(self.fill, dtype=torch.uint8).view(1, 3, 1, 1)
        # not in state dicts: they follow from the arguments
        self.register_buffer("_color", color[0], persistent=False)
        self.register_buffer("_gray", luma(color)[0].to(torch.uint8), persistent=False)

    def forward(self, images: Tensor, draws: Tensor | None = None, stream: int = 2) -> Tensor:
        """Return augmented images.

        Args:
            images: Raw images. Shape (B, C, H, W), C 1 or 3, dtype uint8, on any device; left alone.
            draws: A number >= 0 per image; the same number gives the same augmentation. Shape (B,), dtype int64, on the
                CPU. None: the module numbers the images it sees (each rank its own ones, if all have batches of one
                size), and keeps the count in its state.
            stream: Views of one image with different streams are independent.

        Returns:
            New images. Shape, dtype and device of `images`.

        Raises:
            TypeError: If a tensor has the wrong dtype.
            ValueError: If a shape is wrong, `draws` is not on the CPU, or a number is negative.
        """
        check_images(images)
        numbers = self._count(len(images)) if draws is None else check_draws(draws, len(images))
        return self.apply_drawn(images, self.drawn(numbers, stream))

    def apply_drawn(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Return images augmented by what was drawn for them.

        Args:
            images: Raw images. Shape (B, C, H, W), C 1 or 3, dtype uint8; left alone.
            drawn: What `drawn` returned for B draw numbers.

        Returns:
            New images. Shape, dtype and device of `images`.
        """
        augmented = run_layers(images, drawn.codes, drawn.values)
        if self.cutout == 0:
            return augmented
        fill = self.get_buffer("_color" if images.shape[1] == 3 else "_gray")
        return cutout(augmented, drawn.square, self.cutout, fill.to(images.device, non_blocking=True))

    def apply_op(self, images: Tensor, name: str, magnitude: Tensor | None = None) -> Tensor:
        """Return images after one operation with given values: no random numbers, no Cutout.

        Args:
            images: Raw images. Shape (B, C, H, W), C 1 or 3, dtype uint8; left alone.
            name: One of `OPS`.
            magnitude: Its value for each image: a factor (1 changes nothing), degrees, a share of the side, bits to
                keep, or the threshold. Shape (B,), any real dtype, on the CPU. None: for operations without one.

        Returns:
            New images. Shape, dtype and device of `images`.

        Raises:
            TypeError: If a tensor has the wrong dtype.
            ValueError: If the name is unknown, a shape is wrong, or a value is outside what Pillow accepts.
        """
        check_images(images)
        _check_ops((name,))
        values = _check_magnitude(name, magnitude, len(images))
        codes = np.full((1, len(images)), OPS.index(name))
        return run_layers(images, codes, values.numpy()[None])

    def drawn(self, draws: Tensor, stream: int = 2) -> Drawn:
        """Return what `forward` does to the images with these draw numbers.

        Args:
            draws: Numbers >= 0. Shape (B,), dtype int64, on the CPU.
            stream: The stream, >= 0.

        Returns:
            Operations, values and squares.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If a number is negative, or `draws` is not on the CPU.
        """
        check_draws(draws, len(draws))
        stream = check_integer("stream", stream, "Pass a whole number that is not negative.")
        places = 2 * self.n_ops + 3
        positions = draws[:, None] * places + torch.arange(places)
        numbers = uniform(positions, derive_key(self.seed, stream)).numpy()
        chosen, within, square = np.split(numbers, [self.n_ops, 2 * self.n_ops], axis=1)
        codes = self._codes[(chosen * len(self._codes)).astype(np.int64)].T
        values = _LOWEST[codes] + _SPANS[codes] * within.T
        return Drawn(codes, np.where(codes == _POSTERIZE, np.floor(values), values), square)

    def _count(self, n: int) -> Tensor:
        together = dist.is_available() and dist.is_initialized()
        ranks, rank = (dist.get_world_size(), dist.get_rank()) if together else (1, 0)
        first, self._seen = self._seen, self._seen + n * ranks
        return first + rank + ranks * torch.arange(n)

    def get_extra_state(self) -> dict[str, Any]:
        """Return how many images the module numbered itself, as plain values."""
        return with_version({"seen": self._seen}, _STATE_VERSION)

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take over a count that `get_extra_state` returned."""
        read_version(state, _STATE_VERSION, type(self).__name__)
        self._seen = int(state["seen"])

    def extra_repr(self) -> str:
        """Return the arguments that decide what is drawn."""
        return f"n_ops={self.n_ops}, n_names={len(self.ops)}, cutout={self.cutout}, fill={self.fill}, seed={self.seed}"


def _check_ops(ops: Any) -> tuple[str, ...]:
    names = (ops,) if isinstance(ops, str) else tuple(ops)
    if not names or not all(isinstance(name, str) and name in OPS for name in names):
        raise ValueError(problem("ops", "names out of " + ", ".join(OPS), ops, "Leave it out for all of them."))
    return names


def _check_fill(fill: Any) -> tuple[int, ...]:
    colors = tuple(fill) if isinstance(fill, Sequence) and not isinstance(fill, str) else ()
    if len(colors) != 3:
        raise ValueError(problem("fill", "three whole numbers: red, green, blue", fill, "Pass (125, 123, 114)."))
    return tuple(check_integer("fill", color, "Pass numbers from 0 to 255.", maximum=255) for color in colors)


def _check_magnitude(name: str, magnitude: Tensor | None, n: int) -> Tensor:
    if name not in ALLOWED or magnitude is None:
        if name in ALLOWED or magnitude is not None:
            takes = "a tensor" if name in ALLOWED else "None"
            raise ValueError(problem("magnitude", f"{takes} for {name}", magnitude, "See `RANGES` for the usual ones."))
        return torch.zeros(n, dtype=torch.float64)
    if not isinstance(magnitude, Tensor):
        raise TypeError(problem("magnitude", "a tensor", magnitude, "Pass one value per image."))
    values = check_per_image("magnitude", magnitude.double(), n, torch.float64)
    low, high = ALLOWED[name]
    wrong = ~((values >= low) & (values <= high))
    if name == "Posterize":
        wrong |= values != values.floor()
    if bool(wrong.any()):
        whole = "whole and " if name == "Posterize" else ""
        allowed = f"{whole}from {low:g} to {high:g} for {name}"
        raise ValueError(problem("magnitude", allowed, float(values[wrong][0]), "Pass values in that range."))
    return values
