"""Quality q(x) of every row of a pool, read or computed once before the first selection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from lightning_adapt._shared.checks import check_integer, problem

__all__ = ["Quality"]


class Quality(ABC):
    """Gives every row of a pool a number, higher is better; only the order and the spread inside a cluster count.

    Work goes in fixed batches: batch j belongs to part j % world, so that values do not depend on the number of parts.
    A subclass defines `rate`.

    Args:
        batch_size: Rows per batch.

    Attributes:
        needs_texts: Whether `rate` reads texts, so that pools without any are refused.
    """

    name = "quality"
    needs_texts = False

    def __init__(self, batch_size: int = 256) -> None:
        self.batch_size = check_integer("batch_size", batch_size, "Leave it out for the default.", minimum=1)

    def __call__(
        self,
        texts: Any,
        dataset: Any = None,
        *,
        part: tuple[int, int] = (0, 1),
        progress: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Rate the rows of a pool.

        Args:
            texts: The pool's texts (`texts_of(dataset)`); None where only `dataset` is read.
            dataset: The pool itself, for columns.
            part: (rank, world): which share of the batches to do.
            progress: Called with the number of rows done after each batch.

        Returns:
            Quality of the rows `self.rows(N, part)`. Shape (N,) for the whole pool, dtype float64.

        Raises:
            ValueError: If a value is NaN or infinite, or the number of values is wrong; the message names the row.
        """
        count = len(texts) if texts is not None else len(dataset)
        done = torch.empty(0, dtype=torch.float64)
        found = [done]
        for rows in self.rows(count, part).split(self.batch_size):  # type: ignore[no-untyped-call]  # torch's own
            if not len(rows):
                continue
            values = self.rate(texts, dataset, rows)
            _check_finite(values, rows, self.name)
            found.append(values)
            if progress is not None:
                progress(len(rows))
        return torch.cat(found)

    def rows(self, count: int, part: tuple[int, int] = (0, 1)) -> torch.Tensor:
        """Return the rows of a part, in the order in which `__call__` gives their values.

        Args:
            count: Rows N of the pool.
            part: (rank, world).

        Returns:
            Row numbers, ascending. Shape (n,), dtype int64.
        """
        rank, world = part
        rows = torch.arange(count)
        return rows[(rows // self.batch_size) % world == rank]

    @abstractmethod
    def rate(self, texts: Any, dataset: Any, rows: torch.Tensor) -> torch.Tensor:
        """Rate a batch of rows.

        Args:
            texts: The pool's texts, or None.
            dataset: The pool, or None.
            rows: Row numbers. Shape (n,), dtype int64.

        Returns:
            One number per row. Shape (n,), dtype float64, on the CPU.
        """


def _check_finite(values: torch.Tensor, rows: torch.Tensor, name: str) -> None:
    if values.shape != rows.shape:
        raise ValueError(problem("quality", f"one number for each of {len(rows)} rows", tuple(values.shape), "Fix it."))
    bad = ~values.isfinite()
    if bad.any():
        remedy = f"{name}: {int(bad.sum())} of {len(rows)} values looked at, the first in row {int(rows[bad][0])}."
        raise ValueError(problem("quality", "finite for every row", float(values[bad][0]), remedy))
