"""Which utterances are validated on: by a hash of seed and id, so that other rows or another order change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lightning_adapt._shared.checks import problem

__all__ = ["split_order", "split_sizes"]


def split_order(ids: Sequence[str], seed: int) -> list[int]:
    """Return rows in a random order that depends on seed and ids alone; validation takes from the front.

    Args:
        ids: A name for each row, all different.
        seed: Seed of the order.

    Returns:
        A permutation of the rows.
    """

    def place(row: int) -> bytes:
        return hashlib.blake2b(f"{seed} {ids[row]}".encode(errors="surrogateescape"), digest_size=16).digest()

    return sorted(range(len(ids)), key=place)


def split_sizes(count: int, share: float) -> int:
    """Return how many of some rows are validated on: the share, but at least one, and at least one is left.

    Args:
        count: Number of rows.
        share: In (0, 1).

    Returns:
        Number of rows to validate on.

    Raises:
        ValueError: If there is only one row.
    """
    if count < 2:
        remedy = "One recording cannot be divided: pass val=None, or a manifest for it."
        raise ValueError(problem("val", "a share of at least two usable recordings", share, remedy))
    return min(max(1, round(share * count)), count - 1)
