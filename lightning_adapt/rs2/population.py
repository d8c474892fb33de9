"""What a loss-guided round is drawn from, and sums over it; plain PyTorch, no Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Population", "last_of_each", "owed_after", "spread"]


class Population(NamedTuple):
    """What a guided round is drawn from.

    Attributes:
        size: Rows to draw from, N.
        rows: Which rows of the data set they are, int64 of shape (N,); None: 0..N-1.
        targets: Class of each, to keep the classes in proportion; None: do not.
        k: Samples of a round.
        key: Seed of the draws.
        plain_pass: (pass, places) -> positions 0..N-1 that plain rounds draw there.
    """

    size: int
    rows: Tensor | None
    targets: Tensor | None
    k: int
    key: int
    plain_pass: Callable[[int, Tensor], Tensor]


def owed_after(rounds: int, population: Population) -> Tensor:
    """Return an even share of the visits of some plain rounds, less those that each row had."""
    drawn = rounds * population.k
    passes, rest = divmod(drawn, population.size)
    visits = torch.bincount(population.plain_pass(passes, torch.arange(rest)), minlength=population.size) + passes
    return drawn / population.size - visits


def last_of_each(rows: Tensor) -> Tensor:
    """Return where each row comes last: a plain round that crosses a pass may hold one twice."""
    order = torch.argsort(rows, stable=True)
    ordered = rows[order]
    return order[torch.cat([ordered[1:] != ordered[:-1], torch.ones(min(1, len(rows)), dtype=torch.bool)])]


def spread(values: Tensor, others: Tensor, population: Population) -> Tensor:
    """Return values of the population at their rows of the data set, among those of the other rows."""
    return values if population.rows is None else others.index_copy(0, population.rows, values)
