"""Greedy k-center: again and again the row farthest from all chosen ones, computed for many rows at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.kmeans_rows import Rows, Vectors

__all__ = ["farthest_rows"]

_BLOCK = 8192  # rows measured at once
_CANDIDATES = 1024  # farthest rows looked at between two passes over all rows


def farthest_rows(vectors: Vectors | Rows, count: int, *, first: int = 0) -> Tensor:
    """Choose rows greedily, each the one farthest from those chosen before (Gonzalez 1985).

    The k-Center of Yu et al., 2024, arXiv 2409.11378, whose code has no such file. The plain loop passes over all rows
    for each choice. Here one pass serves many choices: among the 1,024 farthest rows the loop runs alone, as long as
    its choice is farther than every row outside, whose distances can only shrink.

    Args:
        vectors: Vectors, finite. Shape (N, D), floating point.
        count: Rows to choose, 1 <= count <= N.
        first: The row to begin with.

    Returns:
        Rows in the order chosen; of equally far ones the first. Shape (count,), dtype int64.

    Raises:
        ValueError: If `count` or `first` is out of range.

    Example:
        >>> farthest_rows(torch.tensor([[0.0], [1.0], [9.0], [5.0]]), 3).tolist()
        [0, 2, 3]
    """
    rows = Rows(vectors, "cpu")
    check_integer("count", count, "Choose at most all rows.", minimum=1, maximum=rows.n)
    check_integer("first", first, "Pass a row of the vectors.", maximum=rows.n - 1)
    mean = _mean(rows)  # distances stay without it, and their rounding shrinks
    squares = torch.full((rows.n,), math.inf)  # squared distance to the nearest chosen row; -1: chosen
    chosen = [first]
    _measure(rows, mean, squares, chosen)
    while len(chosen) < count:
        if float(squares.max()) <= 0:  # only copies of chosen rows are left
            rest = (squares >= 0).nonzero().squeeze(1)
            return torch.cat([torch.tensor(chosen), rest[: count - len(chosen)]])
        new = _next_rows(rows, mean, squares, count - len(chosen))
        _measure(rows, mean, squares, new)
        chosen += new
    return torch.tensor(chosen)


def _mean(rows: Rows) -> Tensor:
    total = torch.zeros(rows.d, dtype=torch.float64)
    for _, block in rows.blocks(_BLOCK):
        total += block.sum(0, dtype=torch.float64)
    return (total / rows.n).float()


def _next_rows(rows: Rows, mean: Tensor, squares: Tensor, count: int) -> list[int]:
    size = min(_CANDIDATES, len(squares))
    far = torch.topk(squares, size)
    farthest = int((squares == far.values[0]).nonzero()[0])  # topk may give another one of equals
    if far.values[-1] == far.values[0]:
        return [farthest]
    index = far.indices.sort().values
    outside = float(far.values[-1]) if size < len(squares) else 0.0
    vectors = rows.take(index) - mean
    norms, left = vectors.square().sum(1), squares[index]
    new: list[int] = []
    while len(new) < count:
        place = int((left == left.max()).int().argmax())
        if new and float(left[place]) <= outside:
            break
        new.append(int(index[place]))
        left = torch.minimum(left, (norms + norms[place] - 2 * (vectors @ vectors[place])).clamp(min=0))
        left[place] = -1
    return new


def _measure(rows: Rows, mean: Tensor, squares: Tensor, new: list[int]) -> None:
    centers = rows.take(torch.tensor(new)) - mean
    norms = centers.square().sum(1)
    for begin, block in rows.blocks(_BLOCK):
        vectors = block - mean
        apart = torch.addmm(norms, vectors, centers.T, alpha=-2).amin(1) + vectors.square().sum(1)
        part = squares[begin : begin + len(block)]
        torch.minimum(part, apart.clamp(min=0), out=part)
    squares[new] = -1
