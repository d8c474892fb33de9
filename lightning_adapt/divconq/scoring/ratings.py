"""Single numbers from whatever a function, a column or a model gives."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch

__all__ = ["as_number"]


def as_number(value: Any) -> float | None:
    """Return a value as a float.

    Args:
        value: A number of Python or NumPy, or a tensor or array with one element.

    Returns:
        The number, NaN and infinity included; None for anything else, numbers written as text included.

    Example:
        >>> as_number(torch.tensor([2])), as_number("2")
        (2.0, None)
    """
    if isinstance(value, (torch.Tensor, np.ndarray)) and len(value.reshape(-1)) == 1:
        value = value.item()
    return float(value) if isinstance(value, (Real, np.bool_)) else None
