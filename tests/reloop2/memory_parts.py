"""Feedback to write and keys to read, for the tests of memories."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adapt.reloop2.memory import ErrorMemory

BACKENDS = ["knn", "sketch", "faiss"]
SMALL: dict[str, Any] = {"k": 5, "capacity": 50, "n_bits": 5, "n_tables": 7, "half_life": 40, "support_n0": 0.5}


def small(backend: str, **changed: Any) -> ErrorMemory:
    return ErrorMemory(**{"backend": backend, **SMALL, **changed})


def rows(n: int, dim: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, clicks and base probabilities."""
    draws = torch.Generator().manual_seed(seed)
    keys = torch.randn(n, dim, generator=draws) @ torch.randn(dim, dim, generator=draws) + 1
    return keys, torch.rand(n, generator=draws).round(), torch.rand(n, generator=draws)


def same(first: Any, second: Any) -> bool:
    """Whether two readings are equal bit by bit."""
    return all(torch.equal(mine, its) for mine, its in zip(first, second, strict=True))
