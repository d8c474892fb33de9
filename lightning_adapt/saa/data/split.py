"""Choose which few images of a data set keep their labels; the same ones at every resume."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.hashing import generator
from lightning_adapt.saa.streams import LABELED_ROWS

__all__ = ["balanced_rows"]


def balanced_rows(targets: Tensor, n_labels: int, seed: int) -> Tensor:
    """Draw labelled images, equally many of each class; what does not divide goes to classes drawn at random.

    Args:
        targets: Class of each image. Shape (N,), integers.
        n_labels: Images to draw in all, at least one of each class.
        seed: Seed of the draw.

    Returns:
        Rows of the data set in ascending order. Shape (n_labels,), dtype int64.

    Raises:
        TypeError: If `n_labels` is no whole number.
        ValueError: If there are too few images, or fewer labels than classes.
    """
    classes, sizes = torch.unique(targets, return_counts=True)
    remedy = "Pass a multiple of the number of classes: 40 for 4 images of each of 10."
    n_labels = check_integer("n_labels", n_labels, remedy, minimum=len(classes), maximum=len(targets))
    random = generator(seed, LABELED_ROWS, n_labels)
    quota = torch.full_like(sizes, n_labels // len(classes))
    quota[torch.randperm(len(classes), generator=random)[: n_labels % len(classes)]] += 1
    short = quota > sizes
    if bool(short.any()):
        which = classes[short][0].item()
        allowed = f"such that class {which} has as many images as it needs"
        raise ValueError(problem("n_labels", allowed, n_labels, f"It has {int(sizes[short][0])}. {remedy}"))
    chosen = []
    for label, count in zip(classes.tolist(), quota.tolist(), strict=True):
        rows = torch.nonzero(targets == label).flatten()
        chosen.append(rows[torch.randperm(len(rows), generator=random)[:count]])
    return torch.cat(chosen).sort().values
