"""Filled error memories, and how long it takes to read and write them; for `reloop2_speed.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import _harness as h
import torch
from torch import Tensor

from lightning_adapt.reloop2.functional import simhash_codes, softmax_readout
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.stores.ann import query_rows
from lightning_adapt.reloop2.stores.sketch import SketchStore

SKETCH, BRUTE, KNN, FAISS, BARE = "sketch", "brute force", "knn", "faiss", "bare faiss"
MEMORIES = (SKETCH, KNN, FAISS)
# queries of a run, by what is stored: enough to time, and few enough for a repeat of all rows in seconds
QUERIES = {
    SKETCH: {10**4: 16_384, 10**5: 16_384, 10**6: 16_384},
    BRUTE: {10**4: 2048, 10**5: 512, 10**6: 64},
    KNN: {10**4: 2048, 10**5: 512, 10**6: 64},
    FAISS: {10**5: 2048, 10**6: 512},
    BARE: {10**5: 2048, 10**6: 512},
}
DIM, K, BITS, TABLES, BATCH = 64, 100, 12, 64, 2048
WRITTEN, SINGLE = 20_480, 100
SCORES = 2**22  # similarities that brute force holds at once
METRIC = "microseconds"  # per key


class Row(NamedTuple):
    """What is measured: one way to read, with n samples written before."""

    kind: str
    n: int

    def __str__(self) -> str:
        return f"{self.kind}, {power(self.n)}"


def power(n: int) -> str:
    """Write a number of samples as in a row's name."""
    return f"N={n:.0e}".replace("e+0", "e")


def _settings(backend: str, n: int) -> dict[str, Any]:
    return {"backend": backend, "k": K, "n_bits": BITS, "n_tables": TABLES, "capacity": n}


class Bench:
    """Filled memories, made when they are needed.

    Args:
        threads: Threads of torch and faiss.
        build: Makes an empty memory from the arguments of ErrorMemory; a test puts a control in its place.
    """

    def __init__(self, threads: int, build: Callable[..., Any] = ErrorMemory) -> None:
        self.build = build
        set_faiss_threads(threads)
        self.draws = torch.Generator().manual_seed(0)
        self.centres = torch.randn(500, DIM, generator=self.draws)
        self._memories: dict[tuple[str, int], Any] = {}

    def rows(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw keys, clicks and base predictions."""
        keys = self.centres[torch.randint(len(self.centres), (n,), generator=self.draws)]
        keys = keys + 0.7 * torch.randn(n, DIM, generator=self.draws)
        return keys, torch.rand(n, generator=self.draws).round(), torch.rand(n, generator=self.draws)

    def memory(self, backend: str, n: int) -> Any:
        """Return a memory of a backend (the first word) with n samples written, all of which it can hold."""
        if (backend, n) not in self._memories:
            memory = self.build(DIM, **_settings(backend.split()[0], n))
            memory.calibrate(self.rows(10_000)[0])
            for first in range(0, n, 10 * BATCH):
                memory.write(*self.rows(min(10 * BATCH, n - first)))
            self._memories[backend, n] = memory
        return self._memories[backend, n]


def timed(work: Callable[[], Any], keys: int) -> float:
    """Return microseconds per key of some work, after a warm-up."""
    work()
    began = h.spent("cpu")
    work()
    return 1e6 * (h.spent("cpu") - began) / keys


def in_batches(read: Callable[[Tensor], Any], queries: Tensor, rows: int = BATCH) -> None:
    """Read batch after batch."""
    for batch in torch.split(queries, rows):
        read(batch)


Work = Callable[[Bench, Row], h.Run]


# -- the rows ---------------------------------------------------------------------------------------------------------
def read_memory(bench: Bench, row: Row) -> h.Run:
    """Time whole reads, from keys to means: checks, whitening, search, readout."""
    memory = bench.memory(row.kind, row.n)
    queries = bench.rows(QUERIES[row.kind][row.n])[0]
    run = {METRIC: timed(lambda: in_batches(memory.read, queries), len(queries)), "bytes": memory.nbytes}
    single = queries[:SINGLE] if row.kind != KNN or row.n < 10**6 else queries[:10]
    run["one by one"] = timed(lambda: in_batches(memory.read, single, 1), len(single))
    if isinstance(memory.store, SketchStore):
        run |= sketch_parts(memory, queries, run[METRIC])
    return run


def sketch_parts(memory: Any, queries: Tensor, whole: float) -> h.Run:
    """Return which shares of a read go into hashing and into gathering the cells."""
    store, units = memory.store, memory.key_space(queries)
    batches = torch.split(units, BATCH)
    hashing = timed(lambda: [simhash_codes(batch, store.projections, TABLES) for batch in batches], len(units))
    first = torch.arange(TABLES) * 2**BITS
    places = [(simhash_codes(batch, store.projections, TABLES) + first).T.reshape(-1) for batch in batches]
    cells = store.cells.view(-1, 3)
    gathering = timed(lambda: [cells.index_select(0, rows) for rows in places], len(units))
    return {"share of hashing": hashing / whole, "share of gathers": gathering / whole}


def read_brute_force(bench: Bench, row: Row) -> h.Run:
    """Time a product with all keys, `topk` and the softmax readout, on what the exact memory holds."""
    memory = bench.memory(KNN, row.n)
    store = memory.store
    queries = memory.key_space(bench.rows(QUERIES[row.kind][row.n])[0])

    def read(batch: Tensor) -> Any:
        similarity, places = torch.topk(batch @ store.keys.T, K)
        valid = torch.ones_like(places, dtype=torch.bool)
        return softmax_readout(similarity, store.labels[places], store.base[places], 0.1, valid)

    rows = max(64, SCORES // row.n)
    single = queries[: SINGLE if row.n < 10**6 else 10]
    return {
        METRIC: timed(lambda: in_batches(read, queries, rows), len(queries)),
        "one by one": timed(lambda: in_batches(read, single, 1), len(single)),
        "bytes": store.nbytes,
    }


def read_bare_faiss(bench: Bench, row: Row) -> h.Run:
    """Time nothing but faiss, with the index of the faiss memory and as many probes."""
    import faiss

    memory = bench.memory(FAISS, row.n)
    queries = query_rows(memory.key_space(bench.rows(QUERIES[row.kind][row.n])[0]))
    options = faiss.SearchParametersIVF(nprobe=memory.store.probes)  # type: ignore[call-arg]
    index = memory.store.index

    def read() -> None:
        for first in range(0, len(queries), BATCH):
            index.search(queries[first : first + BATCH], K, params=options)

    return {METRIC: timed(read, len(queries))}


def write_memory(bench: Bench, row: Row) -> h.Run:
    """Time writes in batches, to a memory that is full already."""
    memory, data = bench.memory(row.kind, row.n), bench.rows(WRITTEN)

    def write() -> None:
        for part in zip(*(torch.split(values, BATCH) for values in data), strict=True):
            memory.write(*part)

    return {METRIC: timed(write, WRITTEN), "bytes": memory.nbytes}


READ: dict[str, Work] = {
    SKETCH: read_memory,
    BRUTE: read_brute_force,
    KNN: read_memory,
    FAISS: read_memory,
    BARE: read_bare_faiss,
}
WRITE: tuple[str, ...] = tuple(f"{backend} written to" for backend in MEMORIES)
WORK: dict[str, Work] = {**READ, **dict.fromkeys(WRITE, write_memory)}


def measure(bench: Bench, row: Row) -> h.Run:
    """Measure one row once."""
    return WORK[row.kind](bench, row)


def set_faiss_threads(threads: int) -> None:
    """Give faiss as many threads as torch."""
    import faiss

    faiss.omp_set_num_threads(threads)
