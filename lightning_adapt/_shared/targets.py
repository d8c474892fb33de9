"""Finds the class of each row of a data set without reading the samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.loaders import conflict


def find_targets(dataset: Any, *, place: int = -1) -> Tensor:
    """Find the class of each row of a data set without reading the samples.

    Looks for `targets`, `labels` or `y`, a tensor of a TensorDataset, through Subset and ConcatDataset, and for a
    `label` column of a datasets.Dataset.

    Args:
        dataset: A map-style data set.
        place: Which tensor of a TensorDataset; the last one unless its reader takes another.

    Returns:
        Classes. Shape (N,), an integer dtype.

    Raises:
        LoaderConflictError: If none are found.
    """
    found = _targets_or_none(dataset, place)
    if found is None or found.is_floating_point() or found.ndim != 1 or len(found) != len(dataset):
        conflict(
            "stratify=True",
            "a data set with one class number per row in `targets`, `labels` or `y`",
            type(dataset).__name__,
            "give it such an attribute, or use RS2Sampler(targets=...) in your loader",
        )
    return found  # type: ignore[return-value]


def _targets_or_none(dataset: Any, place: int) -> Tensor | None:
    if hasattr(dataset, "datasets"):  # ConcatDataset
        parts = [_targets_or_none(part, place) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat(parts)  # type: ignore[arg-type]
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # Subset
        whole = _targets_or_none(dataset.dataset, place)
        return None if whole is None else whole[torch.as_tensor(dataset.indices)]
    for name in ("targets", "labels", "y"):
        if getattr(dataset, name, None) is not None:
            return _tensor_or_none(getattr(dataset, name))
    if getattr(dataset, "tensors", None):  # TensorDataset
        return _tensor_or_none(dataset.tensors[place]) if place < len(dataset.tensors) else None
    if "label" in (getattr(dataset, "column_names", None) or ()):  # datasets.Dataset
        return _tensor_or_none(dataset["label"][:])
    return None


def _tensor_or_none(values: Any) -> Tensor | None:
    try:
        found = torch.as_tensor(values)
        return found if found.ndim else None  # a flag or a number of that name describes no rows
    except (TypeError, ValueError, RuntimeError):  # names, boxes, dicts: no class numbers
        return None
