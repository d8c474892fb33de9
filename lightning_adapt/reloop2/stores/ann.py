"""The approximate memory: the ring of the newest samples, searched through an inverted file of faiss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_adapt._shared.imports import require
from lightning_adapt.reloop2.stores.ring import NEWER, RingStore

__all__ = ["AnnStore", "query_rows"]

FIRST_BUILD = 4096  # rows below which the exact search of the ring is at least as fast
PROBED = 1 / 16  # share of the lists that a search looks into
_ITERATIONS, _POINTS = 10, 64  # of k-means, and training rows per list: a stall of well under a second at 100,000 rows


class AnnStore(RingStore):
    """Keep the newest samples, and find nearly the k nearest: faiss IndexIVFFlat over about sqrt(N) lists.

    The ring stays the truth; what this class adds to the state are the centroids and the list of each row, from which
    the index is rebuilt as it was. Rows have their own ids, which count all samples written: evicted ones, which
    faiss cannot remove cheaply, are left out of the search by their id, so that exactly the newest `capacity` samples
    are searched. A further component of each vector makes newer ones win ties, as in the ring. New lists are learnt
    whenever as many rows have been replaced as the ring holds, or it has become four times as full. The search runs
    on the CPU. Takes two to three times the bytes of the ring.

    Args:
        capacity: Samples kept.
        k: Neighbours that a reading rests on.
        tau: Temperature of Eq. 12.

    Raises:
        ModuleNotFoundError: If faiss-cpu is not installed.
    """

    centroids: Tensor
    lists: Tensor

    def __init__(self, capacity: int, k: int, tau: float) -> None:
        require("recsys", 'backend="faiss"', "faiss-cpu")
        super().__init__(capacity, k, tau)
        self.built_at = self.built_rows = 0  # samples written, and held, when the lists were learnt
        self._index: Any = None  # made of the buffers when it is needed
        self.register_buffer("centroids", torch.empty(0, 0, dtype=torch.float32))
        self.register_buffer("lists", torch.empty(0, dtype=torch.int64))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}  # copies and pickles make their own

    # -- the index ----------------------------------------------------------------------------------------------------
    def write(self, keys: Tensor, labels: Tensor, base: Tensor) -> None:
        """Store samples, and learn the lists anew when it is time."""
        before, index = self.n_written, self.index if self.built_rows else None  # of what is held so far
        super().write(keys, labels, base)
        grown = self.n_stored >= 4 * max(self.built_rows, FIRST_BUILD / 4)
        if grown or (self.built_rows and self.n_written - self.built_at >= self.capacity):
            self._build()
        elif index is not None:
            self._add(index, before)

    def _build(self) -> None:
        """Learn the lists from what is held, and file all of it."""
        n_lists = round(math.sqrt(self.n_stored))
        rows = self.in_order()[0].cpu().numpy()
        means = _faiss().Kmeans(
            rows.shape[1],
            n_lists,
            niter=_ITERATIONS,
            spherical=True,
            max_points_per_centroid=_POINTS,
            min_points_per_centroid=1,
        )
        means.train(rows)
        with torch.inference_mode(False):  # see fit_buffers
            self.centroids = torch.from_numpy(means.centroids.copy()).to(self.keys.device)
            self.lists = torch.zeros(len(self.keys), dtype=torch.int64, device=self.keys.device)
        self.built_at, self.built_rows = self.n_written, self.n_stored
        self._index = self._empty_index()
        self._add(self._index, self.n_written - self.n_stored)

    def _empty_index(self) -> Any:
        faiss = _faiss()
        n_lists, dim = self.centroids.shape
        quantizer = faiss.IndexFlatIP(dim + 1)
        quantizer.add(_widened(self.centroids, 0.0))
        index = faiss.IndexIVFFlat(quantizer, dim + 1, n_lists, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
        return index

    def _ahead(self, ids: Tensor) -> Tensor:
        """Return what samples are ahead of older ones by; see NEWER."""
        return (ids - self.built_at).float() * (NEWER / self.capacity)

    def _add(self, index: Any, first: int) -> None:
        """File the samples from a number on; each goes to the list of the nearest centroid."""
        if len(self.lists) < len(self.keys):
            with torch.inference_mode(False):
                self.lists = torch.cat((self.lists, self.lists.new_zeros(len(self.keys) - len(self.lists))))
        ids = torch.arange(first, self.n_written, device=self.keys.device)
        rows = _widened(self.keys[ids % self.capacity], 0.0)
        lists = torch.from_numpy(index.quantizer.search(rows, 1)[1][:, 0])
        self.lists.index_copy_(0, ids % self.capacity, lists.to(self.lists))
        self._file(index, ids)

    def _file(self, index: Any, ids: Tensor) -> None:
        """Add samples to the lists that are known to be theirs; faiss has no wrapper for that."""
        places = ids % self.capacity
        rows = _widened(self.keys[places], self._ahead(ids))
        numbers, lists = (values.cpu().contiguous().numpy() for values in (ids, self.lists[places]))
        pointer = _faiss().swig_ptr
        index.add_core(len(rows), pointer(rows), pointer(numbers), pointer(lists))

    @property
    def index(self) -> Any:
        """The faiss index; ids count the samples written. Only there once there are enough."""
        if self._index is None:
            self._index = self._empty_index()
            self._file(self._index, torch.arange(self.n_written - self.n_stored, self.n_written).to(self.lists))
        return self._index

    @property
    def probes(self) -> int:
        """Lists that a search looks into."""
        return max(1, math.ceil(len(self.centroids) * PROBED))

    def search(self, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find samples near some keys, among all that are held; exactly as long as there are few.

        Args:
            keys: Unit vectors. Shape (B, d), float32.

        Returns:
            Similarity, place in the ring and whether there is such a neighbour. Shape (B, k) each.
        """
        if not self.built_rows:
            return super().search(keys)
        faiss = _faiss()
        # ids ascend in every list, so that faiss finds the range by bisection and never sees the others
        held = faiss.IDSelectorRange(self.n_written - self.n_stored, self.n_written, True)
        options = faiss.SearchParametersIVF(sel=held, nprobe=self.probes)
        found = self.index.search(query_rows(keys), self.k, params=options)
        similarity, ids = (torch.from_numpy(part).to(keys.device) for part in found)
        valid = ids >= 0
        return similarity - self._ahead(ids), torch.where(valid, ids % self.capacity, 0), valid

    def reset(self) -> None:
        """Forget everything stored, and the lists."""
        super().reset()
        self._index, self.built_at, self.built_rows = None, 0, 0
        with torch.inference_mode(False):
            self.centroids, self.lists = self.centroids.new_empty(0, 0), self.lists.new_empty(0)

    @property
    def nbytes(self) -> int:
        """Bytes of the ring, the lists and the index."""
        filed = 0 if self._index is None else self._index.ntotal
        return super().nbytes + filed * (4 * self.keys.shape[1] + 12)

    # -- state --------------------------------------------------------------------------------------------------------
    def plain_state(self) -> dict[str, int]:
        """Return the counters."""
        return {**super().plain_state(), "built_at": self.built_at, "built_rows": self.built_rows}

    def restore(self, plain: dict[str, int]) -> None:
        """Take over a state, after checking that lists and rows belong together."""
        super().restore(plain)
        rows = len(self.keys) if plain["built_rows"] else 0
        n_lists = len(self.centroids)
        if len(self.lists) != rows or bool(((self.lists < 0) | (self.lists >= n_lists)).any()):
            raise ValueError(f"The saved index files {len(self.lists)} rows in {n_lists} lists, but holds {rows} rows.")
        self.built_at, self.built_rows, self._index = plain["built_at"], plain["built_rows"], None


def _faiss() -> Any:
    import faiss

    return faiss


def query_rows(keys: Tensor) -> npt.NDArray[np.float32]:
    """Return keys as the index of an AnnStore wants them.

    Args:
        keys: Unit vectors. Shape (B, d), float32.

    Returns:
        With a further component of 1. Shape (B, d + 1).
    """
    return _widened(keys, 1.0)


def _widened(rows: Tensor, last: Tensor | float) -> npt.NDArray[np.float32]:
    wide = rows.new_empty(len(rows), rows.shape[1] + 1)
    wide[:, :-1], wide[:, -1] = rows, last
    array: npt.NDArray[np.float32] = wide.cpu().numpy()
    return array
