"""Vectors that are read in blocks of float32, wherever they lie and whatever their dtype, and exact arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

Vectors = Tensor | npt.NDArray[Any]

_BLOCK_NUMBERS = {"cpu": 2**21}  # 8 MiB: stays in the last cache between the two uses of a block
_BLOCK_NUMBERS_ELSEWHERE = 2**26  # 256 MiB: few and large kernels on a GPU
_LARGEST_SQUARE = 1e37  # squared length of a vector; that of a difference is up to four times as large
_SHARE_OF_FREE_MEMORY = 0.6  # vectors on the CPU move to the GPU once if they fit into this share of what is free


class Rows:
    """(N, D) vectors, read in blocks of float32 on one device.

    A tensor or array of float32 is never copied as a whole. Other dtypes, memory maps and vectors with gaps between
    the numbers are converted block by block. Vectors on the CPU that are worked on by a GPU move there once if they
    fit, else block by block at every pass.

    Args:
        vectors: The vectors, or rows made of them before, whose checks are not repeated. Shape (N, D) with N, D >= 1,
            any float dtype; a `numpy.memmap` is not read as a whole.
        device: Where to work; None for the device of the vectors.
        name: Name of the argument in error texts.

    Raises:
        TypeError: If the vectors are neither a tensor nor an array of floats.
        ValueError: If they are not two-dimensional, or empty.
    """

    def __init__(self, vectors: Any, device: str | torch.device | None = None, *, name: str = "vectors") -> None:
        self.name = name
        given = vectors if isinstance(vectors, Rows) else None
        self.source: Vectors = _checked(vectors, name) if given is None else given.source
        self.index: Tensor | None = None if given is None else given.index  # rows that take part; None for all
        self.known_finite: bool = given is not None and given.known_finite  # known to be
        own = self.source.device if isinstance(self.source, Tensor) else torch.device("cpu")
        home = own if given is None else given.device
        self.device: torch.device = home if device is None else torch.device(device)
        self.n, self.d = len(self.source if self.index is None else self.index), int(self.source.shape[1])
        numbers = _BLOCK_NUMBERS.get(self.device.type, _BLOCK_NUMBERS_ELSEWHERE)
        self.block_rows = max(1024, numbers // self.d)
        if self.device.type == "cuda" and own.type != "cuda" and self._fits():
            self.source, self.index = self._moved(), None

    def part(self, index: Tensor) -> Rows:
        """Return some rows as rows of their own, without a copy of their vectors: they are looked up block by block.

        Args:
            index: Row numbers. Shape (M,), M >= 1, dtype int64, on the CPU.

        Returns:
            M rows.
        """
        some = copy.copy(self)
        some.index, some.n = index if self.index is None else self.index[index], len(index)
        return some

    def _fits(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.n * self.d * 4 < _SHARE_OF_FREE_MEMORY * free

    def _moved(self) -> Tensor:
        there = torch.empty(self.n, self.d, device=self.device)
        for start, block in self.blocks():
            there[start : start + len(block)] = block
        return there

    def _part(self, rows: slice | Tensor) -> Tensor:
        index: Any = rows if self.index is None else self.index[rows]
        if isinstance(index, Tensor):
            index = index.to(self.source.device) if isinstance(self.source, Tensor) else index.numpy()
        if isinstance(self.source, Tensor):
            return self.source[index].to(device=self.device, dtype=torch.float32).contiguous()
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, and `check_finite` names it
            part = np.ascontiguousarray(self.source[index], dtype=np.float32)
        part = part if part.flags.writeable else part.copy()  # a tensor must not share memory that is read only
        return torch.from_numpy(part).to(self.device)

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield the first row and the vectors of each block.

        Args:
            size: Rows of a block; None for as many as the caches of the device like.

        Yields:
            The first row, and contiguous float32 of shape (B, D) on the device, which may be a view of the input.
        """
        size = size or self.block_rows
        for start in range(0, self.n, size):
            yield start, self._part(slice(start, start + size))

    def take(self, index: Tensor) -> Tensor:
        """Return some rows.

        Args:
            index: Row numbers. Shape (M,), dtype int64, on the CPU.

        Returns:
            The vectors. Shape (M, D), dtype float32, on the device; never a view of the input.
        """
        return self._part(index)

    def whole(self) -> npt.NDArray[np.float32]:
        """Return all vectors as one contiguous float32 array; a copy only where they are not one already."""
        if self.index is not None:
            return self._part(slice(None)).numpy(force=True)
        vectors = self.source
        if isinstance(vectors, Tensor):
            vectors = vectors.to(device="cpu", dtype=torch.float32).numpy()
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def check_finite(self) -> None:
        """Check every number, once.

        Raises:
            ValueError: If a row holds NaN or inf, also where float32 cannot hold its numbers, or if rows are so long
                that squared distances between them would overflow.
        """
        # one dot product is all that good vectors cost; rows are looked at only where it is large, or no number
        self.known_finite = self.known_finite or all(_harmless(block) for _, block in self.blocks())
        if self.known_finite:
            return
        bad = torch.cat(
            [start + torch.nonzero(~torch.isfinite(block).all(1)).flatten() for start, block in self.blocks()]
        )
        if len(bad):
            found = f"{len(bad)} of {self.n} rows with NaN or inf, the first is row {int(bad[0])}"
            remedy = "Repair or leave out these rows; an empty text often has no usable vector."
            raise ValueError(f"`{self.name}` must be finite in every row (as float32), but got {found}. {remedy}")
        longest = max(float(torch.linalg.vector_norm(block.double(), dim=1).max()) for _, block in self.blocks())
        if longest**2 > _LARGEST_SQUARE:
            remedy = "Divide the vectors by their length, or by their largest number."
            allowed = "short enough for their squared distances to be float32"
            raise ValueError(problem(self.name, allowed, f"a length of {longest:.3g}", remedy))
        self.known_finite = True


def _harmless(block: Tensor) -> bool:
    flat = block.view(-1)
    return bool(torch.dot(flat, flat) <= _LARGEST_SQUARE)  # NaN is not


def _checked(vectors: Any, name: str) -> Vectors:
    remedy = "Pass one row per example, such as embeddings of shape (examples, dimensions)."
    is_float = isinstance(vectors, Tensor) and vectors.is_floating_point()
    if not is_float and not (isinstance(vectors, np.ndarray) and np.issubdtype(vectors.dtype, np.floating)):
        received: Any = getattr(vectors, "dtype", None) or type(vectors)
        raise TypeError(problem(name, "a tensor or array of floats", received, remedy))
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(problem(name, "two-dimensional and not empty", tuple(vectors.shape), remedy))
    return vectors.detach() if isinstance(vectors, Tensor) else vectors


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Multiply float32 in float32: no TF32, no bfloat16, no autocast, no gradients; all is put back afterwards."""
    # torch >= 2.9 has a setting per backend, which may contradict the older common one: both are set and put back
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    saved = [(backend, backend.fp32_precision) for backend in backends if hasattr(backend, "fp32_precision")]
    try:
        common: str | None = torch.get_float32_matmul_precision()
    except RuntimeError:  # only the newer setting was touched
        common = None
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        if common is not None:
            torch.set_float32_matmul_precision(common)
        for backend, precision in saved:
            backend.fp32_precision = precision
