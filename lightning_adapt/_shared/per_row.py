"""Values given per row of a data set (classes, weights): checks, and a digest for fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem


def check_targets(targets: Sequence[int] | Tensor, n: int, exact: bool) -> Tensor:
    """Check class numbers and renumber them from 0.

    Args:
        targets: Class of each row. Shape (N,), whole numbers.
        n: Rows that must be described.
        exact: False if there may be more of them.

    Returns:
        Classes 0..C-1. Shape (N,), dtype int64, on the CPU.

    Raises:
        TypeError: If they are no whole numbers.
        ValueError: If the shape is wrong.
    """
    remedy = "Pass one class number per row, for example dataset.targets."
    try:
        checked = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(problem("targets", "whole numbers", targets, remedy)) from error
    if checked.is_floating_point() or checked.is_complex():
        raise TypeError(problem("targets", "whole numbers", checked.dtype, remedy))
    _check_length("targets", checked, n, exact, remedy)
    labels: Tensor = torch.unique(checked, return_inverse=True)[1]  # 0..C-1, whatever the numbers were
    return labels.cpu()


def check_weights(weights: Sequence[float] | Tensor, n: int, exact: bool) -> Tensor:
    """Check sampling weights.

    Args:
        weights: Weight of each row. Shape (N,), finite, >= 0.
        n: Rows that must be described.
        exact: False if there may be more of them.

    Returns:
        The weights. Shape (N,), dtype float64, on the CPU.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If the shape is wrong, or one is negative or not finite.
    """
    remedy = "Pass one number >= 0 per row."
    try:
        checked = torch.as_tensor(weights, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(problem("weights", "numbers", weights, remedy)) from error
    _check_length("weights", checked, n, exact, remedy)
    if not bool(torch.isfinite(checked).all()) or bool((checked < 0).any()):
        bad = checked[~torch.isfinite(checked) | (checked < 0)][0].item()
        raise ValueError(problem("weights", "finite and >= 0", bad, remedy))
    return checked


def _check_length(argument: str, values: Tensor, n: int, exact: bool, remedy: str) -> None:
    if values.ndim != 1 or (len(values) != n if exact else len(values) < n):
        raise ValueError(
            problem(argument, f"of shape ({n},)" if exact else f"of shape (>= {n},)", tuple(values.shape), remedy)
        )


def digest(values: Tensor | None) -> str | None:
    """Return 16 hexadecimal digits that stand for the values in a fingerprint; None for None."""
    return None if values is None else hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()[:16]
