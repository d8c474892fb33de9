"""What a selection may choose from: rows with their vectors, without copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, describe, problem
from lightning_adapt._shared.kmeans import Engine
from lightning_adapt._shared.kmeans_rows import Rows
from lightning_adapt.divconq.choosing.arguments import Dedup
from lightning_adapt.divconq.choosing.duplicates import exact_duplicates, near_duplicates_of_pool

__all__ = ["Candidates", "check_fits", "check_quality", "find_candidates"]

VECTOR_REMEDY = "Pass `vectors`, or use method='random' with dedup='none' or 'exact'."


@dataclass(frozen=True)
class Candidates:
    """A pool after its copies were found.

    Attributes:
        n: Rows, N.
        given: Vectors of all rows, finite; None where none were given.
        duplicates: Rows left out. Shape (N,), dtype bool.
    """

    n: int
    given: Rows | None
    duplicates: Tensor

    @property
    def usable(self) -> Tensor:
        """The rows that may be selected, ascending; shape (U,), dtype int64."""
        return (~self.duplicates).nonzero().squeeze(1)

    @property
    def vectors(self) -> Rows:
        """The vectors of all rows; raises ValueError where there are none."""
        if self.given is None:
            raise ValueError(problem("vectors", "given for a method with clusters", None, VECTOR_REMEDY))
        return self.given

    @property
    def usable_vectors(self) -> Rows:
        """The vectors of the rows that may be selected, not copied."""
        usable = self.usable
        return self.vectors if len(usable) == self.n else self.vectors.part(usable)


def find_candidates(
    vectors: Any,
    *,
    n: int | None = None,
    keys: Sequence[bytes] | None = None,
    dedup: Dedup = "exact",
    engine: Engine = "auto",
    seed: int = 42,
) -> Candidates:
    """Check what describes a pool and find its copies.

    Args:
        vectors: One vector per row, or None. Shape (N, D).
        n: Rows, needed without vectors.
        keys: One key per row, equal for copies; None: rows with equal vectors are copies.
        dedup: "none", "exact" or "near" (exact ones and cosine >= 0.95).
        engine: Engine of k-means, where near copies need it.
        seed: Seed of that.

    Returns:
        The pool.

    Raises:
        ValueError: If lengths do not fit together, a vector is not finite, or "near" has no vectors.
    """
    matrix = None if vectors is None else Rows(vectors, "cpu")
    if matrix is not None:
        matrix.check_finite()
    rows = n if n is not None else matrix.n if matrix is not None else len(keys) if keys is not None else None
    if rows is None:
        raise ValueError(problem("n", "given where there are no vectors", None, "Pass the number of rows."))
    check_integer("n", rows, "Pass the number of rows.", minimum=1)
    for argument, length in (
        ("vectors", rows if matrix is None else matrix.n),
        ("keys", rows if keys is None else len(keys)),
    ):
        if length != rows:
            raise ValueError(problem(argument, f"one per row, {rows} in all", length, "Describe the same rows."))
    duplicates = torch.zeros(rows, dtype=torch.bool)
    told_apart_by = matrix if keys is None else keys
    if dedup != "none" and told_apart_by is not None:
        duplicates = exact_duplicates(told_apart_by)
    if dedup == "near":
        if matrix is None:
            raise ValueError(problem("vectors", "given for dedup='near'", None, VECTOR_REMEDY))
        left = (~duplicates).nonzero().squeeze(1)
        duplicates[left] = near_duplicates_of_pool(matrix.part(left), engine=engine, seed=seed)
    return Candidates(rows, matrix, duplicates)


def check_fits(budget: int, pool: Candidates) -> None:
    """Raise if a pool has fewer rows than the budget once its copies are left out; the message has the numbers."""
    usable = pool.n - int(pool.duplicates.sum())
    if budget > usable:
        allowed = f"at most the {usable} rows left of {pool.n} without {pool.n - usable} copies"
        raise ValueError(problem("budget", allowed, budget, "Lower it, add data, or keep copies with dedup='none'."))


def check_quality(quality: Any, method: str, n: int) -> Tensor | None:
    """Return the quality of each row as float64, or raise where it is not finite or would have no effect."""
    if quality is None:
        return None
    if method != "kmq":
        raise ValueError(problem("quality", f"None for method={method!r}", "one", "Use method='kmq', which reads it."))
    return check_rows("quality", quality, n, "Leave these rows out, or give them a number.")


def check_rows(argument: str, values: Tensor, n: int, remedy: str) -> Tensor:
    """Return numbers given for every row as float64 on the CPU, or raise where one is missing or not finite."""
    numbers = torch.as_tensor(values).detach().double().cpu()
    if numbers.shape != (n,):
        raise ValueError(problem(argument, f"of shape ({n},), one number per row", tuple(numbers.shape), remedy))
    bad = (~torch.isfinite(numbers)).nonzero().squeeze(1)
    if len(bad):
        first = int(bad[0])
        received = f"{len(bad)} rows that are not, the first is row {first} with {describe(float(numbers[first]))}"
        raise ValueError(f"`{argument}` must be finite for every row, but got {received}. {remedy}")
    return numbers
