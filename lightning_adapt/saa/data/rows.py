"""What the loaders of SAADataModule read: raw images for views made on the device, or views made in the workers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.hashing import derive_key
from lightning_adapt.saa.data.images import ImageSource, image_of, label_of
from lightning_adapt.saa.functional import regroup
from lightning_adapt.saa.streams import ORIENTATION, STRONG, STRONG_AGAIN, WEAK, WEAK_LABELED

__all__ = ["RawRows", "Transforms", "ViewedRows", "evaluation_rows"]

Transform = Callable[[Any], Tensor]


class RawRows(Dataset[Any]):
    """Batches of raw images: "image" (uint8), "label", "index" and "draw"; a loader asks for a whole batch at once.

    Args:
        source: The images.
        rows: Which of them, in the order of "index"; None for all. Shape (N,), dtype int64.
    """

    def __init__(self, source: ImageSource, rows: Tensor | None = None) -> None:
        self.source = source
        self.rows = rows

    def __len__(self) -> int:
        return len(self.source) if self.rows is None else len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        images, labels = self.source.read(source_rows(rows, self.rows))
        return {"image": images, "label": labels, **_places(rows)}


class Transforms:
    """The user's own transforms of one image, each to a float tensor of shape (C, H, W).

    Args:
        weak: Random; for labelled and unlabelled images.
        strong: Random; called twice for a naive image.
        plain: Not random; for validation, test and predict.
    """

    def __init__(self, weak: Transform, strong: Transform, plain: Transform | None) -> None:
        self.weak, self.strong, self.plain = weak, strong, plain


class ViewedRows(Dataset[Any]):
    """Batches of views made by the user's transforms, in whatever process reads them.

    The random numbers of a view come from the image's place in the order, whichever worker makes it, so that a resumed
    run gets the same views; the process's own generators are left as they were.

    Args:
        dataset: The user's data set.
        part: "labeled", "unlabeled" or "plain".
        transforms: The user's transforms.
        rows: As in `RawRows`.
        flags: Unlabelled images to regroup, in shared memory: what is written there arrives. Shape (N,), dtype bool.
        pieces: Pieces of a regrouped view.
        seed: Seed of the views.
    """

    def __init__(
        self,
        dataset: Any,
        part: str,
        transforms: Transforms,
        *,
        rows: Tensor | None = None,
        flags: Tensor | None = None,
        pieces: int = 2,
        seed: int = 0,
    ) -> None:
        self.dataset, self.part, self.transforms = dataset, part, transforms
        self.rows, self.flags, self.pieces, self.seed = rows, flags, pieces, seed

    def __len__(self) -> int:
        return len(self.dataset) if self.rows is None else len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        views = [self._views(row, source) for row, source in zip(rows, source_rows(rows, self.rows), strict=True)]
        names = views[0]
        return {**{name: _stack(name, [view[name] for view in views]) for name in names}, **_places(rows)}

    def _views(self, row: int, source: int) -> dict[str, Tensor]:
        sample, draw = self.dataset[source], getattr(row, "draw", None)
        image, label = image_of(sample), torch.tensor(label_of(sample, self.part))
        if self.part == "plain":
            return {"image": _called(self.transforms.plain, "plain", image), "label": label}
        if self.part == "labeled":
            with self._random(WEAK_LABELED, draw):
                return {"image": _called(self.transforms.weak, "weak", image), "label": label}
        with self._random(WEAK, draw):
            weak = _called(self.transforms.weak, "weak", image)
        strong, naive = self._strong(image, draw, self.flags is not None and bool(self.flags[row]))
        return {"weak": weak, "strong": strong, "regrouped": torch.tensor(naive), "label": label}

    def _strong(self, image: Any, draw: int | None, naive: bool) -> tuple[Tensor, bool]:
        with self._random(STRONG, draw):
            first = _called(self.transforms.strong, "strong", image)
        if not naive:
            return first, False
        with self._random(STRONG_AGAIN, draw):
            second = _called(self.transforms.strong, "strong", image)
        with self._random(ORIENTATION, draw):
            orientation = torch.randint(2, (1,))
        return regroup(first[None], second[None], orientation, self.pieces)[0], True

    @contextmanager
    def _random(self, stream: int, draw: int | None) -> Iterator[None]:
        """Seed the generators that transforms use from an image's place; without a place they go on as they are."""
        if draw is None:
            yield
            return
        ours = get_worker_info() is not None  # nobody else draws from the generators of a worker
        states = None if ours else (torch.get_rng_state(), random.getstate(), np.random.get_state())  # noqa: NPY002
        key = derive_key(self.seed, stream, draw)
        torch.default_generator.manual_seed(key >> 1)  # torch.manual_seed would reach for the accelerators too
        random.seed(key)
        np.random.seed(key & 0xFFFFFFFF)  # noqa: NPY002
        try:
            yield
        finally:
            if states is not None:
                torch.set_rng_state(states[0])
                random.setstate(states[1])
                np.random.set_state(states[2])  # noqa: NPY002


def evaluation_rows(dataset: Any, name: str, transforms: Transforms | None, *, in_memory: bool) -> RawRows | ViewedRows:
    """Return what an evaluation loader reads.

    Args:
        dataset: The user's data set.
        name: What it is to the user, for error texts.
        transforms: The user's transforms, if they make the views.
        in_memory: Read all images now.

    Returns:
        The rows.
    """
    if transforms is not None:
        return ViewedRows(dataset, "plain", transforms)
    source = ImageSource(dataset, name, in_memory=in_memory)
    source.load()
    return RawRows(source)


def source_rows(rows: Sequence[int], chosen: Tensor | None) -> list[int]:
    """Return the rows of the user's data set behind rows of a part of it."""
    numbers = [int(row) for row in rows]
    return numbers if chosen is None else chosen[numbers].tolist()


def _places(rows: Sequence[int]) -> dict[str, Tensor]:
    draws = [getattr(row, "draw", -1) for row in rows]
    return {"index": torch.tensor([int(row) for row in rows]), "draw": torch.tensor(draws)}


def _called(transform: Transform | None, name: str, image: Any) -> Tensor:
    view = None if transform is None else transform(image)
    if not isinstance(view, Tensor) or view.ndim != 3 or not view.is_floating_point():
        remedy = "End it with ToTensor (torchvision v2: ToImage, ToDtype(torch.float32, scale=True))."
        raise TypeError(problem(name, "a transform that returns a float tensor (C, H, W)", view, remedy))
    return view


def _stack(name: str, views: list[Tensor]) -> Tensor:
    sizes = {tuple(view.shape) for view in views}
    if len(sizes) > 1:
        remedy = "Resize or crop to one size in it."
        raise ValueError(problem(name, "a transform to one size", sorted(sizes), remedy))
    return torch.stack(views)
