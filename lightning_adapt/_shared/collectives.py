"""Collectives through `trainer.strategy`: rows of unequal length, and values from rank 0."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def gather_rows(trainer: Any, rows: Tensor) -> Tensor:
    """Return the rows of all ranks, in the order of the ranks, on every rank.

    Args:
        trainer: The Trainer.
        rows: Rows of this rank. Shape (R, ...), where R may differ between ranks and may be 0; equal dtype and other
            dimensions on all ranks.

    Returns:
        All rows. Shape (sum of R, ...), on the device of `rows`. With one rank, `rows` itself.

    Raises:
        ValueError: If `rows` has no first dimension.
    """
    if rows.ndim == 0:
        raise ValueError("`rows` must have a first dimension, but got a scalar. Use rows[None].")
    if trainer.world_size == 1:
        return rows
    device = rows.device
    rows = rows.to(trainer.strategy.root_device)
    lengths = trainer.strategy.all_gather(torch.tensor(len(rows), device=rows.device)).reshape(-1)
    longest = int(lengths.max())
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows.detach()
    gathered = trainer.strategy.all_gather(padded).reshape(trainer.world_size, longest, *rows.shape[1:])
    return torch.cat([part[: int(length)] for part, length in zip(gathered, lengths, strict=True)]).to(device)


def from_rank_zero(trainer: Any, value: T) -> T:
    """Return rank 0's value on every rank.

    Args:
        trainer: The Trainer.
        value: Anything that can be pickled; only rank 0's is read.

    Returns:
        The value of rank 0.
    """
    result: T = trainer.strategy.broadcast(value, src=0)
    return result
