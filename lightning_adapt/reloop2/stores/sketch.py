"""The sketch: K arrays of 2^L buckets with three running sums each; constant memory, and a cost that does not grow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adapt.reloop2.functional import (
    MemoryReading,
    simhash_codes,
    simhash_projections,
    sketch_read,
    sketch_write,
)
from lightning_adapt.reloop2.stores.store import Store

__all__ = ["SketchStore"]

_HALVINGS = 16.0  # half-lives between two rescalings; float32 holds the weights 1 to 2^16 beside each other
_ROWS = 4096  # keys hashed at once: the bits are 4 K L bytes each


class SketchStore(Store):
    """Add samples up in hashed buckets; the sketch of section 3.2.2 of Zhu et al. with exponential decay.

    The cells take 2^L * K * 12 bytes, whatever is written. The projections of the hash are not stored: the seed gives
    them. Differs from the paper in: a sample followed by j others counts 2^(-j / half_life). Instead of shrinking the
    cells at every write, new samples weigh more and more, and every 16 half-lives all cells are scaled back once.

    Args:
        n_bits: Bits per array, L.
        n_tables: Arrays, K.
        half_life: Samples after which one counts half, >= 1; None: no decay, as in the paper.
        seed: Seed of the projections.
    """

    cells: Tensor
    projections: Tensor

    def __init__(self, n_bits: int, n_tables: int, half_life: float | None, seed: int) -> None:
        super().__init__()
        self.n_bits, self.n_tables, self.half_life, self.seed = n_bits, n_tables, half_life, seed
        self.age = 0  # samples since the last rescaling
        self.register_buffer("cells", torch.zeros(n_tables, 2**n_bits, 3, dtype=torch.float32))
        self.register_buffer("projections", torch.empty(0, n_tables * n_bits, dtype=torch.float32), persistent=False)

    def write(self, keys: Tensor, labels: Tensor, base: Tensor) -> None:
        """Add samples to their bucket in every array."""
        rows = _ROWS if self.half_life is None else min(_ROWS, int(self.half_life * _HALVINGS))
        for part in zip(*(torch.split(values, rows) for values in (keys, labels, base)), strict=True):
            self._write(*part)
        self.n_written += len(keys)

    def _write(self, keys: Tensor, labels: Tensor, base: Tensor) -> None:
        weight: float | Tensor = 1.0
        if self.half_life is not None:
            if self.age > self.half_life * _HALVINGS:
                self._rescale()
            steps = torch.arange(1, len(keys) + 1, device=keys.device) + self.age
            weight = torch.exp2(steps / self.half_life)
            self.age += len(keys)
        sketch_write(self.cells, self._codes(keys), labels, base, weight)

    def _rescale(self) -> None:
        """Let the sample written last count 1 again."""
        self.cells.mul_(1 / self.newest_weight)
        self.age = 0

    @property
    def newest_weight(self) -> float:
        """What the sample written last counts in `cells`; all sums there are to be divided by it."""
        return 1.0 if self.half_life is None else 2.0 ** (self.age / self.half_life)

    def _codes(self, keys: Tensor) -> Tensor:
        if len(self.projections) != keys.shape[1]:
            with torch.inference_mode(False):
                drawn = simhash_projections(keys.shape[1], self.n_tables, self.n_bits, self.seed)
                self.projections = drawn.to(self.cells.device)
        return simhash_codes(keys, self.projections, self.n_tables)

    def read(self, keys: Tensor) -> MemoryReading:
        """Return the mean of the arrays' bucket means; the support is the mean decayed count of a bucket."""
        parts = [sketch_read(self.cells, self._codes(part), self.newest_weight) for part in torch.split(keys, _ROWS)]
        return MemoryReading(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def merge_(self, other: Any) -> None:
        """Add the other's sums, each sample as much as it counts there now."""
        self.cells.add_(other.cells.to(self.cells.device), alpha=self.newest_weight / other.newest_weight)
        self.n_written += other.n_written

    def reset(self) -> None:
        """Forget everything stored."""
        self.cells.zero_()
        self.n_written = self.age = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the cells."""
        return self.cells.numel() * self.cells.element_size()

    @property
    def fixed_nbytes(self) -> int:
        """Bytes of the projections, which no state holds; 0 before the first key."""
        return self.projections.numel() * self.projections.element_size()

    def plain_state(self) -> dict[str, int]:
        """Return the counters."""
        return {**super().plain_state(), "age": self.age}

    def restore(self, plain: dict[str, int]) -> None:
        """Take over a state."""
        shape = (self.n_tables, 2**self.n_bits, 3)
        if tuple(self.cells.shape) != shape:
            raise ValueError(f"The saved sketch has cells of shape {tuple(self.cells.shape)} instead of {shape}.")
        super().restore(plain)
        self.age = plain["age"]
