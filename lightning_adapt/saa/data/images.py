"""ImageSource: uint8 images and labels out of anybody's data set, a batch at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from lightning_adapt._shared.checks import problem

__all__ = ["ImageSource", "image_of", "label_of", "to_uint8"]

_REMEDY = "Pass PIL images, uint8 arrays (H, W, C), uint8 tensors (C, H, W) or float tensors (C, H, W) in [0, 1]."


class ImageSource:
    """Reads images of one size from a map-style data set; a TensorDataset, or a Subset of one, without a Python loop.

    Args:
        dataset: Gives (image, label, ...), a dict with "image" (and "label"), or an image alone. Images: PIL, uint8
            array (H, W) or (H, W, C), uint8 tensor (C, H, W), or float tensor (C, H, W) in [0, 1], rounded to 256
            levels.
        name: What the data set is to the user, for error texts.
        in_memory: Read everything once, at the first use.
    """

    def __init__(self, dataset: Any, name: str, *, in_memory: bool = False) -> None:
        self.dataset = dataset
        self.name = name
        self.in_memory = in_memory
        self._looked = False
        self._tensors: tuple[Tensor, Tensor] | None = None  # all images and labels, where they are in memory

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return some images and their labels.

        Args:
            rows: Rows of the data set.

        Returns:
            Images, shape (B, C, H, W), dtype uint8; labels, -1 where there is none, shape (B,), dtype int64.

        Raises:
            TypeError: If the data set gives no image.
            ValueError: If an image is out of range, or they differ in size.
        """
        chosen, whole = torch.as_tensor([int(row) for row in rows]), self._whole()
        if whole is not None:
            images, labels = whole
            return images[chosen], labels[chosen]
        samples = [self.dataset[int(row)] for row in rows]
        return self._stacked([image_of(sample) for sample in samples]), self._labels(samples)

    def labels(self) -> Tensor:
        """Return the labels of all images, -1 where there is none; reads every sample unless they are in memory."""
        whole = self._whole()
        if whole is not None:
            return whole[1]
        return self._labels(self.dataset[row] for row in range(len(self)))

    def load(self) -> None:
        """Read what is to be kept in memory now, and not in each worker."""
        self._whole()

    def _whole(self) -> tuple[Tensor, Tensor] | None:
        if not self._looked:  # once: to look costs a pass over a Subset's indices
            self._looked = True
            if self.in_memory:
                samples = [self.dataset[row] for row in range(len(self))]
                images = self._stacked([image_of(sample) for sample in samples])
                self._tensors = images, self._labels(samples)
            else:
                self._tensors = _of_tensor_dataset(self.dataset)
        return self._tensors

    def _labels(self, samples: Iterable[Any]) -> Tensor:
        return torch.tensor([label_of(sample, self.name) for sample in samples])

    def _stacked(self, images: list[Any]) -> Tensor:
        tensors = [to_uint8(image) for image in images]
        sizes = {tuple(tensor.shape) for tensor in tensors}
        if len(sizes) > 1:
            remedy = "Resize or crop in the data set, or pass `weak` and `strong` that give one size."
            raise ValueError(problem(self.name, "images of one size", sorted(sizes), remedy))
        return torch.stack(tensors)


def _of_tensor_dataset(dataset: Any) -> tuple[Tensor, Tensor] | None:
    if type(dataset) is Subset:
        whole, chosen = _of_tensor_dataset(dataset.dataset), torch.as_tensor(dataset.indices, dtype=torch.int64)
        return None if whole is None else (whole[0][chosen], whole[1][chosen])
    if type(dataset) is not TensorDataset:
        return None
    images, *others = dataset.tensors
    labels = others[0] if others else torch.full((len(images),), -1)
    if images.ndim != 4 or labels.ndim != 1 or labels.is_floating_point():
        return None  # sample by sample, which says what is wrong with one
    return to_uint8(images), labels.long()


def image_of(sample: Any) -> Any:
    """Return the image of a sample: its "image", its first part, or the sample itself."""
    if isinstance(sample, Mapping):
        if "image" not in sample:
            raise TypeError(problem("sample", 'a dict with a key "image"', list(sample), _REMEDY))
        return sample["image"]
    return sample[0] if isinstance(sample, (tuple, list)) else sample


def label_of(sample: Any, part: str = "labeled") -> int:
    """Return the label of a sample: its "label", its second part, or -1 for none, also for what is none if unlabelled.

    Args:
        sample: What a data set gives.
        part: "unlabeled" where labels are not used: file names and the like are no labels then.

    Returns:
        The class.

    Raises:
        TypeError: If there is something else in its place.
    """
    label = sample.get("label") if isinstance(sample, Mapping) else None
    if isinstance(sample, (tuple, list)) and len(sample) > 1:
        label = sample[1]
    if label is None:
        return -1
    if not hasattr(label, "__index__") or (isinstance(label, Tensor) and (label.is_floating_point() or label.ndim)):
        if part == "unlabeled":
            return -1
        raise TypeError(problem("label", "a whole number", label, "Number the classes from 0."))
    return int(label)


def to_uint8(image: Any) -> Tensor:
    """Return an image, or a whole batch of float or uint8 tensors, as uint8 of shape (..., C, H, W).

    Args:
        image: PIL image, uint8 array (H, W) or (H, W, C), uint8 or float tensor (..., C, H, W), floats in [0, 1].

    Returns:
        The image; palettes and alpha become RGB.

    Raises:
        TypeError: If it is none of these.
        ValueError: If floats are outside [0, 1], or there are neither 1 nor 3 channels.
    """
    pil = sys.modules.get("PIL.Image")  # what is not imported cannot have made the image
    if pil is not None and isinstance(image, pil.Image):
        if image.mode.startswith(("I", "F")):  # Pillow would cut what is above 255
            remedy = "Scale its values to 0..255 in the data set, and make it uint8 of mode 'L'."
            raise TypeError(problem("image", "of a mode of 8 bits a channel", image.mode, remedy))
        image = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if isinstance(image, np.ndarray):
        array = image[:, :, None] if image.ndim == 2 else image
        tensor = torch.from_numpy(np.ascontiguousarray(array)).movedim(-1, 0) if array.ndim == 3 else None
    else:
        tensor = image
    if (
        not isinstance(tensor, Tensor)
        or tensor.ndim < 3
        or not (tensor.dtype == torch.uint8 or tensor.is_floating_point())
    ):
        raise TypeError(problem("image", "an image", image, _REMEDY))
    if tensor.shape[-3] not in (1, 3):
        raise ValueError(problem("image", "of 1 or 3 channels", tuple(tensor.shape), _REMEDY))
    if tensor.dtype == torch.uint8:
        return tensor.contiguous()
    low, high = (float(value) for value in torch.aminmax(tensor))
    if not (low >= 0 and high <= 1):
        remedy = "Take the normalisation out of your transforms: it comes after the augmentation here."
        raise ValueError(problem("image", "floats in [0, 1]", f"values from {low:.3g} to {high:.3g}", remedy))
    return tensor.mul(255).round().to(torch.uint8)
