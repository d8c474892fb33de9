"""Checks of what is written to a memory and asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["check_keys", "check_values", "moved"]

_LONGEST = 1e12  # sums of squares, over 10^13 keys of this length or values of this size, still fit in float32


def check_keys(keys: Any, dim: int | None) -> Tensor:
    """Check the representations of some rows.

    Args:
        keys: What came. Shape (B, d), floating point, finite, no row longer than 1e12.
        dim: The d that is expected; None for any.

    Returns:
        The keys without a graph. Shape (B, d), dtype float32.

    Raises:
        TypeError: If they are no floating-point tensor.
        ValueError: If the shape is wrong, a number is not finite, or a row is too long to be added up with others.
    """
    remedy = "Pass the hidden layer of the base model, one row per prediction."
    if not isinstance(keys, Tensor) or not keys.is_floating_point():
        received = keys.dtype if isinstance(keys, Tensor) else keys
        raise TypeError(problem("keys", "a floating-point tensor", received, remedy))
    shape = f"({'B'}, {dim if dim is not None else 'd'})"
    if keys.ndim != 2 or not keys.shape[1] or (dim is not None and keys.shape[1] != dim):
        raise ValueError(problem("keys", f"of shape {shape}", tuple(keys.shape), remedy))
    checked = keys.detach().float()
    fits = torch.linalg.vector_norm(checked, dim=1) <= _LONGEST  # NaN does not
    if not bool(fits.all()):
        bad = keys[~fits][0].detach()
        if not bool(torch.isfinite(bad).all()):
            bad = bad[~torch.isfinite(bad)][0]
            raise ValueError(problem("keys", "finite", bad.item(), "Look for NaN in the base model or its inputs."))
        length = torch.linalg.vector_norm(bad.cpu().double()).item()
        remedy = "Look for unscaled numbers in the inputs of the base model."
        raise ValueError(problem("keys", f"rows of length {_LONGEST:g} at most", length, remedy))
    return checked


def check_values(argument: str, values: Any, rows: int, *, binary: bool) -> Tensor:
    """Check one number per row: labels or base predictions.

    Args:
        argument: Name of the argument.
        values: What came. Shape (B,), any real dtype.
        rows: The B that is expected.
        binary: Whether they must lie in [0, 1].

    Returns:
        The values without a graph. Shape (B,), dtype float32.

    Raises:
        TypeError: If they are no tensor of real numbers.
        ValueError: If the shape is wrong, or a number is not finite or out of range.
    """
    if not isinstance(values, Tensor) or values.is_complex():
        received = values.dtype if isinstance(values, Tensor) else values
        raise TypeError(problem(argument, "a tensor of real numbers", received, "Pass one number per row of `keys`."))
    if tuple(values.shape) != (rows,):
        remedy = "Pass one number per row of `keys`."
        raise ValueError(problem(argument, f"of shape ({rows},)", tuple(values.shape), remedy))
    checked = values.detach().float()
    inside = (checked >= 0) & (checked <= 1) if binary else checked.abs() <= _LONGEST
    if not bool(inside.all()):
        allowed, remedy = f"finite, and at most {_LONGEST:g} in size", "Look for NaN, or give the targets another unit."
        if binary:
            allowed, remedy = "in [0, 1]", "Pass clicks and probabilities, not logits, or use task='regression'."
        raise ValueError(problem(argument, allowed, checked[~inside][0].item(), remedy))
    return checked


def moved(given: Any, device: torch.device) -> Any:
    """Return tensors, alone or by name, on a device; what is no tensor comes back, to be refused where it is checked.

    Args:
        given: A tensor, a mapping of them, or anything else.
        device: Where they are wanted.

    Returns:
        The same there.
    """
    if isinstance(given, Mapping):
        return {name: moved(values, device) for name, values in given.items()}
    return given.to(device) if isinstance(given, Tensor) else given
