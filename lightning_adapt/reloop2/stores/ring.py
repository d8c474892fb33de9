"""The exact memory: a ring of the newest samples, searched by brute force."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_adapt.reloop2.functional import MemoryReading, full_precision, softmax_readout
from lightning_adapt.reloop2.stores.store import Store

__all__ = ["RingStore"]

NEWER = 1e-4  # similarity that the newest sample is ahead of the oldest: of samples with one key, the newest are found
_GROWTH, _FIRST_ROWS = 16, 1024  # a full ring gets a sixteenth more rows: at most so much is allocated in vain
_SCORES, _ROWS = 2**22, 32  # similarities computed at once (16 MiB), but of at least so many keys
_GROUP = 8


class RingStore(Store):
    """Keep the newest samples and find the exact k nearest by cosine; section 3.2.2 of Zhu et al. with FIFO eviction.

    Takes 4 d + 8 bytes a sample, and while the ring fills up to a sixteenth more (at least 1,024 rows).

    Args:
        capacity: Samples kept.
        k: Neighbours that a reading rests on.
        tau: Temperature of Eq. 12.
    """

    keys: Tensor
    labels: Tensor
    base: Tensor

    def __init__(self, capacity: int, k: int, tau: float) -> None:
        super().__init__()
        self.capacity, self.k, self.tau = capacity, k, tau
        self.register_buffer("keys", torch.empty(0, 0, dtype=torch.float32))
        self.register_buffer("labels", torch.empty(0, dtype=torch.float32))
        self.register_buffer("base", torch.empty(0, dtype=torch.float32))

    @property
    def n_stored(self) -> int:
        """Samples held now."""
        return min(self.n_written, self.capacity)

    def write(self, keys: Tensor, labels: Tensor, base: Tensor) -> None:
        """Store samples; beyond the capacity each takes the place of the oldest."""
        skipped = max(0, len(keys) - self.capacity)
        first, end = self.n_written + skipped, self.n_written + len(keys)
        self._make_room(min(end, self.capacity), keys.shape[1])
        places = torch.arange(first, end, device=self.keys.device) % self.capacity
        for buffer, values in ((self.keys, keys), (self.labels, labels), (self.base, base)):
            buffer.index_copy_(0, places, values[skipped:])
        self.n_written = end

    def _make_room(self, rows: int, dim: int) -> None:
        """Allocate at least so many rows; only a ring that has not wrapped around yet is too small."""
        allocated = len(self.keys)
        if rows <= allocated:
            return
        wanted = min(self.capacity, max(rows, _FIRST_ROWS, allocated + allocated // _GROWTH))
        with torch.inference_mode(False):  # see fit_buffers
            kept = self.keys if allocated else self.keys.new_empty(0, dim)
            self.keys = torch.cat((kept, kept.new_zeros(wanted - allocated, dim)))
            self.labels = torch.cat((self.labels, self.labels.new_zeros(wanted - allocated)))
            self.base = torch.cat((self.base, self.base.new_zeros(wanted - allocated)))

    def read(self, keys: Tensor) -> MemoryReading:
        """Return the softmax readout of the k nearest samples; the support is how many there are."""
        similarity, places, valid = self.search(keys)
        label, base = softmax_readout(similarity, self.labels[places], self.base[places], self.tau, valid)
        return MemoryReading(label, base, valid.sum(1, dtype=torch.float32))

    def search(self, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the nearest samples.

        Args:
            keys: Unit vectors. Shape (B, d), float32.

        Returns:
            Similarity, place in the ring and whether there is such a neighbour. Shape (B, min(k, stored)) each.
        """
        stored, n = self.keys[: self.n_stored], self.n_stored
        # newness of each place, 0 for the oldest; a ring that has wrapped around begins in the middle
        ahead = torch.arange(n, device=stored.device, dtype=torch.float32).mul_(NEWER / n).roll(self.n_written % n)
        rows = min(len(keys), max(_ROWS, _SCORES // n))
        scores = stored.new_empty(rows, n)  # one for all parts: fresh pages cost as much as the product
        with full_precision(keys.device):
            found = [
                _largest(torch.addmm(ahead, part, stored.T, out=scores[: len(part)]), min(self.k, n))
                for part in torch.split(keys, rows)
            ]
        nearest, places = (torch.cat(values) for values in zip(*found, strict=True))
        return nearest - ahead[places], places, torch.ones_like(places, dtype=torch.bool)

    def in_order(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, labels and base predictions from the oldest to the newest; shapes (N, d), (N,), (N,)."""
        n = self.n_stored
        places = torch.arange(self.n_written - n, self.n_written, device=self.keys.device) % self.capacity
        return self.keys[places], self.labels[places], self.base[places]

    def merge_(self, other: Any) -> None:
        """Store what the other holds, as if it had been written after what is here."""
        if other.n_stored:
            self.write(*other.in_order())

    def reset(self) -> None:
        """Forget everything stored, and give the memory back."""
        self.n_written = 0
        with torch.inference_mode(False):
            self.keys = self.keys.new_empty(0, 0)
            self.labels, self.base = self.labels.new_empty(0), self.base.new_empty(0)

    def restore(self, plain: dict[str, int]) -> None:
        """Take over a state, after checking that the ring holds what it says."""
        rows = {len(self.keys), len(self.labels), len(self.base)}
        stored = min(plain["n_written"], self.capacity)
        if len(rows) != 1 or not stored <= min(rows) <= self.capacity:
            raise ValueError(f"The saved ring has {sorted(rows)} rows, which cannot hold {stored} samples.")
        super().restore(plain)


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest scores of each row and where they are, exactly, but without sorting all of them.

    The k largest lie in the k groups of columns with the largest maxima, and a maximum is much cheaper than a place in
    the order: group g is made of every column that is g modulo the number of groups.
    """
    rows, columns = scores.shape
    groups = columns // _GROUP
    if groups < 4 * k:
        return tuple(torch.topk(scores, k))  # type: ignore[return-value]
    grouped = torch.unflatten(scores[:, : groups * _GROUP], 1, (_GROUP, groups))
    best = torch.topk(grouped.amax(1), k).indices
    steps = torch.arange(_GROUP, device=scores.device) * groups
    rest = torch.arange(groups * _GROUP, columns, device=scores.device)
    candidates = torch.cat(((best.unsqueeze(2) + steps).flatten(1), rest.expand(rows, -1)), dim=1)
    top = torch.topk(scores.gather(1, candidates), k)
    return top.values, candidates.gather(1, top.indices)
