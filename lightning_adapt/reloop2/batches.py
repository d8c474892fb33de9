"""What is read off a user's batches and loaders: labels, ids, and which prediction they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt.reloop2.compensator import Served

__all__ = ["check_callable", "default_ids", "default_labels", "match_labels"]

LABEL_KEYS = ("label", "labels", "target", "targets", "y", "click")
ID_KEYS = ("index", "sample_id")


def match_labels(served: list[Served], labels: Tensor | None) -> Served | None:
    """Return the pass through the output module that belongs to the labels of a batch.

    Args:
        served: What was served in the batch.
        labels: Labels of the batch, shape (B,); None if there are none.

    Returns:
        The last pass, with labels the last that has as many rows; None if the output module did not run.

    Raises:
        ValueError: If no pass has that many rows.
    """
    fitting = [part for part in served if labels is None or len(part.base) == len(labels)]
    if served and not fitting and labels is not None:
        sizes = [len(part.base) for part in served]
        remedy = "Return one label per row that passes through the output module."
        raise ValueError(problem("label_fn", f"a function that returns {sizes} labels", len(labels), remedy))
    return fitting[-1] if fitting else None


def default_labels(batch: Any) -> Tensor | None:
    """Return the labels of a batch: by their usual names in a dict, the last entry of a tuple or list.

    Args:
        batch: What the loader gave.

    Returns:
        Shape (B,), float32; None if there are none.
    """
    found = None
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in LABEL_KEYS if isinstance(batch.get(name), Tensor)), None)
    elif isinstance(batch, (tuple, list)) and len(batch) > 1 and isinstance(batch[-1], Tensor):
        found = batch[-1]
    if found is None or found.ndim == 0 or found.numel() != len(found):
        return None
    labels: Tensor = found.detach().reshape(-1).float()
    return labels


def default_ids(batch: Any) -> Tensor | None:
    """Return the ids of a batch's rows, by their usual names in a dict.

    Args:
        batch: What the loader gave.

    Returns:
        Shape (B,), int64; None if there are none.
    """
    if not isinstance(batch, Mapping):
        return None
    found = next((batch[name] for name in ID_KEYS if isinstance(batch.get(name), Tensor)), None)
    if found is None or found.is_floating_point():
        return None
    ids: Tensor = found.detach().reshape(-1)
    return ids


def check_callable(argument: str, value: Any) -> Any:
    """Return a function of a batch, or None, as it came; raise a TypeError that names the argument otherwise."""
    if value is not None and not callable(value):
        raise TypeError(problem(argument, "a function of a batch, or None", value, "Pass a function."))
    return value
