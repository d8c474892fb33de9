"""What SAADataModule is made of: the labelled and the unlabelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.loaders import LoaderConflictError
from lightning_adapt._shared.per_row import digest
from lightning_adapt._shared.targets import find_targets
from lightning_adapt.saa.data.images import ImageSource
from lightning_adapt.saa.data.split import balanced_rows

__all__ = ["Parts", "read_parts"]

Part = tuple[ImageSource, Tensor | None]  # the images, and which rows of them; None for all


@dataclass(frozen=True)
class Parts:
    """The labelled and the unlabelled set.

    Args:
        labeled: Labelled images.
        unlabeled: Unlabelled images.
        n_classes: Classes among the labels.
        shape: (C, H, W) of the unlabelled images; (0, 0, 0) where the user's transforms make the views.
    """

    labeled: Part
    unlabeled: Part
    n_classes: int
    shape: tuple[int, int, int]

    @property
    def n_labeled(self) -> int:
        """Number of labelled images."""
        return _size(self.labeled)

    @property
    def n_unlabeled(self) -> int:
        """Number of unlabelled images."""
        return _size(self.unlabeled)

    def described(self) -> dict[str, Any]:
        """Return what tells these sets from others, in plain values."""
        sizes = {"labeled": (self.n_labeled, self.labeled), "unlabeled": (self.n_unlabeled, self.unlabeled)}
        return {name: [n, digest(rows)] for name, (n, (_, rows)) in sizes.items()}


def read_parts(
    labeled: Any,
    unlabeled: Any | None,
    n_labels: int | None,
    *,
    include_labeled: bool,
    in_memory: bool,
    raw: bool,
    seed: int,
) -> Parts:
    """Read what the labelled and the unlabelled set are.

    Args:
        labeled: Data set of (image, label).
        unlabeled: Data set of images; None: those of `labeled`.
        n_labels: Take so many images of `labeled`; None: all.
        include_labeled: Whether the labelled images of one data set are among the unlabelled ones, too.
        in_memory: Read all images once.
        raw: Whether views are made of raw images of one size.
        seed: Seed of the labelled set.

    Returns:
        The parts.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If they do not fit each other.
    """
    if unlabeled is None and n_labels is None:
        remedy = "Pass the unlabelled images, or `n_labels` to cut one data set in two."
        raise ValueError(problem("unlabeled", "given where `n_labels` is not", None, remedy))
    for name, dataset in (("labeled", labeled), ("unlabeled", unlabeled)):
        if dataset is not None and not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(problem(name, "a map-style data set", dataset, "A stream cannot be drawn from at random."))
    source = ImageSource(labeled, "labeled", in_memory=in_memory)
    targets = _targets(labeled, source)
    chosen = None if n_labels is None else balanced_rows(targets, n_labels, seed)
    rest: Part = (ImageSource(unlabeled, "unlabeled", in_memory=in_memory), None)
    if unlabeled is None:
        kept = torch.ones(len(source), dtype=torch.bool)
        if chosen is not None and not include_labeled:
            kept[chosen] = False
        rest = (source, None if include_labeled else torch.nonzero(kept).flatten())
    if _size(rest) == 0:
        raise ValueError(problem("unlabeled", "of at least one image", 0, "Pass fewer `n_labels`, or more images."))
    for part in (source, rest[0]):
        part.load()
    n_classes = int((targets if chosen is None else targets[chosen]).max()) + 1
    shape = _common_shape((source, chosen), rest) if raw else (0, 0, 0)
    return Parts((source, chosen), rest, n_classes, shape)


def _targets(dataset: Any, source: ImageSource) -> Tensor:
    try:
        if _transforms_targets(dataset):
            raise LoaderConflictError("The labels of batches are not those that the data set keeps.")
        targets = find_targets(dataset, place=1).long()  # a TensorDataset may have more than labels behind its images
    except LoaderConflictError:  # no attribute says it: read the samples, which are few unless the set is to be cut
        targets = source.labels()
    if len(targets) == 0 or int(targets.min()) < 0:
        remedy = "Let it return (image, class) for a row, with classes numbered from 0."
        raise ValueError(problem("labeled", "a data set of (image, label)", dataset, remedy))
    return targets


def _transforms_targets(dataset: Any) -> bool:
    """Return whether a torchvision data set, also inside of others, gives other labels than it keeps."""
    if isinstance(dataset, Subset):
        return _transforms_targets(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return any(map(_transforms_targets, dataset.datasets))
    return getattr(dataset, "target_transform", None) is not None


def _common_shape(labeled: Part, unlabeled: Part) -> tuple[int, int, int]:
    first, second = (_first_shape(*part) for part in (labeled, unlabeled))
    if first != second:
        received = f"labelled {first}, unlabelled {second}"
        raise ValueError(problem("unlabeled", "of the shape (C, H, W) of the labelled images", received, "Resize one."))
    return first


def _first_shape(source: ImageSource, rows: Tensor | None) -> tuple[int, int, int]:
    channels, height, width = source.read([0 if rows is None else int(rows[0])])[0].shape[1:]
    return channels, height, width


def _size(part: Part) -> int:
    return len(part[0]) if part[1] is None else len(part[1])
