"""Copies in a pool: exact ones by key or vector, near ones by cosine; the first of each stays. Not in the paper."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_fraction, problem
from lightning_adapt._shared.kmeans import Engine, kmeans
from lightning_adapt._shared.kmeans_rows import Rows, Vectors
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = ["exact_duplicates", "near_duplicates"]

_BLOCK = 4096  # rows compared at once: 64 MiB of cosines
_ALL_PAIRS = 50_000  # above, near duplicates are looked for inside coarse cells only
_CELL = 10_000  # rows of such a cell on average
_ROUNDING = 1e-6  # of a cosine of long vectors in float32


def exact_duplicates(keys: Sequence[bytes] | Vectors | Rows) -> Tensor:
    """Return which rows are copies of an earlier one.

    Args:
        keys: One key per row, such as a hash of its text; or vectors of shape (N, D), which are copies where all
            numbers are equal. A vector of zeros says nothing about its text and is no copy.

    Returns:
        True for every copy but the first. Shape (N,), dtype bool.

    Raises:
        TypeError: If it is neither a sequence of bytes nor vectors.

    Example:
        >>> exact_duplicates([b"a", b"b", b"a"]).tolist()
        [False, False, True]
    """
    if isinstance(keys, (Tensor, np.ndarray, Rows)):
        return _repeated(_vector_keys(Rows(keys, "cpu")))
    given: Any = keys  # texts iterate, too
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(problem("keys", "a sequence of bytes, or vectors", keys, "Hash the texts, or encode them."))
    return _repeated(keys)


def _repeated(keys: Iterable[bytes | None]) -> Tensor:
    seen: set[bytes] = set()
    flags = []
    for key in keys:
        flags.append(key in seen)
        if key is not None:
            seen.add(key)
    return torch.tensor(flags, dtype=torch.bool)


def _vector_keys(rows: Rows) -> Iterable[bytes | None]:
    for _, block in rows.blocks(_BLOCK):
        zero = (block == 0).all(1).tolist()
        for row, nothing in zip((block + 0.0).numpy(), zero, strict=True):  # -0.0 + 0.0 is 0.0: one spelling of zero
            yield None if nothing else hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def near_duplicates(vectors: Vectors | Rows, threshold: float = 0.95, *, labels: Tensor | None = None) -> Tensor:
    """Return which rows are nearly the same as an earlier row that is kept.

    A row goes if its cosine with a kept row before it reaches the threshold, but for a rounding of 1e-6; rows that are
    alike only through a third one both stay. (The authors compare squared distances below 0.9, which is a cosine above
    0.55: far harsher.)

    Args:
        vectors: One vector per row, of any length; vectors of zeros are like nothing. Shape (N, D), floating point.
        threshold: Cosine in (0, 1]; 1 finds copies of any length.
        labels: Cell of each row: only rows of the same cell are compared. None: all pairs, in time N^2. Shape (N,).

    Returns:
        True for every row that goes. Shape (N,), dtype bool.

    Raises:
        ValueError: If `threshold` is outside (0, 1] or the shapes do not fit.

    Example:
        >>> near_duplicates(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])).tolist()
        [False, True, False]
    """
    check_fraction("threshold", threshold, "Pass 0.95.")
    rows = Rows(vectors, "cpu")
    if labels is None:
        return _near(rows, threshold)
    check_tensor("labels", labels, "whole")
    if labels.shape != (rows.n,):
        raise ValueError(problem("labels", f"of shape ({rows.n},)", tuple(labels.shape), "One cell per row."))
    gone = torch.zeros(rows.n, dtype=torch.bool)
    order = torch.argsort(labels, stable=True)  # by cell, in the order of the rows inside one
    sizes = torch.unique_consecutive(labels[order], return_counts=True)[1]
    for cell in torch.split(order, sizes.tolist()):
        if len(cell) > 1:
            gone[cell] = _near(rows.part(cell), threshold)
    return gone


def _near(rows: Rows, threshold: float) -> Tensor:
    least = threshold - _ROUNDING
    gone = torch.zeros(rows.n, dtype=torch.bool)
    kept: list[Tensor] = []
    for first, block in rows.blocks(_BLOCK):
        unit = torch.nn.functional.normalize(block, eps=1e-30)
        far = torch.ones(len(unit), dtype=torch.bool)
        for others in kept:
            far &= (unit @ others.T).amax(1) < least
        inside = (unit @ unit.T >= least).tril(-1)
        # only rows with an earlier neighbour depend on what became of others
        for row in (inside.any(1) & far).nonzero().squeeze(1).tolist():
            far[row] = not bool((inside[row] & far).any())
        gone[first : first + len(block)] = ~far
        if bool(far.any()):
            kept.append(unit[far])
    return gone


def near_duplicates_of_pool(
    vectors: Vectors | Rows, threshold: float = 0.95, *, engine: Engine = "auto", seed: int = 42
) -> Tensor:
    """Return `near_duplicates`, above 50,000 rows inside k-means cells of about 10,000 rows only.

    All pairs of a million rows would take hours. Nearly equal rows share a cell but for those at a border.

    Args:
        vectors: As in `near_duplicates`, finite.
        threshold: As in `near_duplicates`.
        engine: Engine of k-means.
        seed: Seed of k-means.

    Returns:
        True for every row that goes. Shape (N,), dtype bool.
    """
    rows = Rows(vectors, "cpu")
    if rows.n <= _ALL_PAIRS:
        return near_duplicates(rows, threshold)
    cells = kmeans(rows, -(-rows.n // _CELL), engine=engine, iterations=10, seed=seed)
    return near_duplicates(rows, threshold, labels=cells.labels)
