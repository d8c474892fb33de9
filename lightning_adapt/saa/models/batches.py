"""Reads the parts of a semi-supervised batch, or says which one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["check_logits", "part_of", "tensors_of"]

_TRAINING = (
    'Train with SAADataModule, or with loaders={"labeled": ..., "unlabeled": ...} whose batches are dicts: '
    '"image", "label" of the labelled part; "weak", "strong", "index" of the unlabelled part.'
)


def part_of(batch: Any, name: str) -> Mapping[str, Any]:
    """Return the labelled or the unlabelled part of a training batch.

    Args:
        batch: The batch.
        name: "labeled" or "unlabeled".

    Returns:
        That part.

    Raises:
        MisconfigurationException: If it is not there, or is no dict.
    """
    part = batch.get(name) if isinstance(batch, Mapping) else None
    if not isinstance(part, Mapping):
        received: Any = batch if part is None else part
        received = f"only {sorted(map(str, batch))}" if isinstance(received, Mapping) else type(received).__name__
        raise MisconfigurationException(problem(f"batch['{name}']", "a dict of tensors", received, _TRAINING))
    return part


def tensors_of(part: Any, keys: tuple[str, ...], where: str = "batch", remedy: str = _TRAINING) -> tuple[Tensor, ...]:
    """Return tensors of a batch or of a part of it.

    Args:
        part: A dict.
        keys: Their names.
        where: How the dict is reached, for the error text.
        remedy: What the user should do if one is missing.

    Returns:
        The tensors, in the order of `keys`.

    Raises:
        MisconfigurationException: If one is missing or is no tensor, or if `part` is no dict.
    """
    found = part if isinstance(part, Mapping) else {}
    for key in keys:
        if not isinstance(found.get(key), Tensor):
            received = f"only {sorted(map(str, found))}" if found else type(part).__name__
            received = type(found[key]).__name__ if key in found else received
            raise MisconfigurationException(problem(f"{where}['{key}']", "a tensor", received, remedy))
    return tuple(found[key] for key in keys)


def check_logits(logits: Any, rows: int, n_classes: int) -> Tensor:
    """Check what a backbone returned.

    Args:
        logits: The output.
        rows: Images that went in, B.
        n_classes: Number of classes, C.

    Returns:
        The logits.

    Raises:
        MisconfigurationException: If they are no tensor of shape (B, C).
    """
    if isinstance(logits, Tensor) and tuple(logits.shape) == (rows, n_classes):
        return logits
    received = tuple(logits.shape) if isinstance(logits, Tensor) else logits
    remedy = "Give the backbone as many outputs as there are classes, or pass its number as n_classes."
    allowed = f"a module that returns logits of shape ({rows}, {n_classes})"
    raise MisconfigurationException(problem("backbone", allowed, received, remedy))
