"""How views are made: the options of the built-in ones, and the user's own transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_choice, problem
from lightning_adapt.saa.augment.views import Views
from lightning_adapt.saa.data.rows import Transforms
from lightning_adapt.saa.data.sources import Parts

__all__ = ["ViewOptions", "check_transforms"]

_FOR_COLOURS = 10_000  # images that the mean and the standard deviation are taken from
_OF_OUR_VIEWS = ("preset", "mean", "std", "n_ops", "cutout", "flip", "padding")
_AT_ONCE = 256  # of them in memory: they may be large


@dataclass(frozen=True)
class ViewOptions:
    """How views are made; see `SAADataModule`."""

    preset: str = "saa"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    n_ops: int = 3
    cutout: float = 0.5
    flip: bool = True
    padding: float = 0.125
    pieces: int = 2
    seed: int = 0

    def check(self, *, own_transforms: bool, in_memory: bool) -> None:
        """Raise at once for what would fail at the first batch, or be of no use.

        Args:
            own_transforms: Whether the user's transforms make the views.
            in_memory: The argument of that name.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If one is out of range, or has no effect.
        """
        check_choice("views", self.preset, ("saa", "usb"), "Pass 'saa'.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(problem("std", "given together with `mean`", self.std, "Pass both, or neither."))
        self._views(self.mean or (0.5,), self.std or (0.5,))
        if not own_transforms:
            return
        unused = {name: getattr(self, name) for name in _OF_OUR_VIEWS}
        changed = {name: value for name, value in unused.items() if value != getattr(ViewOptions, name)}
        for name, value in {**changed, **({"in_memory": True} if in_memory else {})}.items():
            remedy = "Your own transforms make the views: do it in them."
            raise ValueError(problem(name, "left out beside `weak` and `strong`", value, remedy))

    def views(self, parts: Parts) -> Views:
        """Return what makes the views, with the colours of the unlabelled images where none were given.

        Args:
            parts: The data.

        Returns:
            The views.
        """
        if self.mean is not None and self.std is not None:
            return self._views(self.mean, self.std)
        return self._views(*_colours(parts))

    def _views(self, mean: Sequence[float], std: Sequence[float]) -> Views:
        preset: Literal["saa", "usb"] = self.preset  # type: ignore[assignment]  # checked by the DataModule
        return Views(
            preset,
            mean=mean,
            std=std,
            n_ops=self.n_ops,
            cutout=self.cutout,
            flip=self.flip,
            padding=self.padding,
            pieces=self.pieces,
            seed=self.seed,
        )


def check_transforms(
    weak: Callable[[Any], Tensor] | None,
    strong: Callable[[Any], Tensor] | None,
    plain: Callable[[Any], Tensor] | None,
    *,
    needs_plain: bool,
) -> Transforms | None:
    """Check the user's own transforms.

    Args:
        weak: For weak views.
        strong: For strong views.
        plain: For evaluation.
        needs_plain: Whether there is a data set to evaluate on.

    Returns:
        The transforms; None where none was given.

    Raises:
        TypeError: If one is no function.
        ValueError: If only some of those needed were given.
    """
    given = {"weak": weak, "strong": strong, "plain": plain}
    for name, transform in given.items():
        if transform is not None and not callable(transform):
            raise TypeError(problem(name, "a function of one image", transform, "Pass a torchvision transform."))
    if all(transform is None for transform in given.values()):
        return None
    for name, transform in given.items():
        if transform is None and (name != "plain" or needs_plain):
            remedy = "Views are made either all on the device or all by your own transforms."
            raise ValueError(problem(name, "given together with the other transforms", None, remedy))
    if weak is None or strong is None:
        raise ValueError(problem("plain", "given with `weak` and `strong` only", plain, "Pass these, too."))
    return Transforms(weak, strong, plain)


def _colours(parts: Parts) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of the unlabelled images, in [0, 1]."""
    source, rows = parts.unlabeled
    n = min(parts.n_unlabeled, _FOR_COLOURS)
    places = torch.arange(n) * parts.n_unlabeled // n  # evenly spread: data may be sorted
    chosen = places if rows is None else rows[places]
    mean, square = torch.zeros(1), torch.zeros(1)
    for some in torch.split(chosen, _AT_ONCE):
        images = source.read(some.tolist())[0].double().div(255)
        mean = mean + images.mean((0, 2, 3)) * len(some) / n
        square = square + images.square().mean((0, 2, 3)) * len(some) / n
    std = (square - mean.square()).clamp(min=0).sqrt()
    return mean.tolist(), std.clamp(min=1 / 255).tolist()
