"""Measures one way to get a round's indices, in a process of its own: memory once used would hide the next peak."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import RandomSampler

from lightning_adapt import RS2Sampler

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
ROUND = 1  # not the first, so that the sampler has to look up a place inside a pass


def _rs2(n: int, k: int, seed: int, permutation: Any) -> RS2Sampler:
    sampler = RS2Sampler(n, k / n, permutation=permutation, seed=seed)
    sampler.set_epoch(ROUND)
    return sampler


def _consume(indices: Iterable[int], k: int) -> dict[str, float]:
    """Read k indices as the batch sampler of a DataLoader does, one Python int after another."""
    began = time.perf_counter()
    iterator = iter(indices)
    next(iterator)
    first = time.perf_counter() - began
    deque(islice(iterator, k - 1), maxlen=0)
    return {"first index": first}


def _tensor(n: int, k: int, seed: int, permutation: str) -> dict[str, float]:
    rows = _rs2(n, k, seed, permutation).epoch_rows(ROUND)
    if len(rows) != k:
        raise RuntimeError(f"The round has {len(rows)} rows, not the {k} to compare.")
    return {}


def _iterated(n: int, k: int, seed: int, permutation: str) -> dict[str, float]:
    return _consume(_rs2(n, k, seed, permutation), k)


def _randperm(n: int, k: int, seed: int, permutation: str) -> dict[str, float]:  # noqa: ARG001
    torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k]
    return {}


def _random_sampler(n: int, k: int, seed: int, permutation: str) -> dict[str, float]:  # noqa: ARG001
    return _consume(RandomSampler(range(n), generator=torch.Generator().manual_seed(seed)), k)


KINDS: dict[str, Callable[[int, int, int, str], dict[str, float]]] = {
    "RS2Sampler, tensor": _tensor,
    "RS2Sampler, iterated": _iterated,
    "torch.randperm": _randperm,
    "RandomSampler, iterated": _random_sampler,
}


def kib(field: str) -> int:
    """Return a field of this process's status, such as VmRSS, in KiB."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))


def with_peak(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return what the work reports, its seconds, and by how many MiB it raised the memory of this process."""
    try:
        CLEAR.write_text("5")  # the mark starts again from what is resident now
    except OSError:  # not allowed in some containers: what imports and warm-up reached then hides a part of the peak
        before = kib("VmHWM")
    else:
        before = kib("VmRSS")
    began = time.perf_counter()
    reported = work()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "MiB": (kib("VmHWM") - before) / 1024, **reported}


def measure(kind: str, n: int, k: int, seed: int, permutation: str, threads: int) -> dict[str, float]:
    """Measure one kind in this process, after a warm-up on few rows at nobody's cost."""
    torch.set_num_threads(threads)
    run = KINDS[kind]
    for rows, method in ((1000, "randperm"), (2000, "feistel")):
        run(rows, 100, 0, method)
    return with_peak(lambda: run(n, k, seed, permutation))


def measure_apart(**given: Any) -> dict[str, float]:
    """Return what `measure` gives in a new process; a server that has imported torch saves seconds for each.

    Raises:
        concurrent.futures.process.BrokenProcessPool: If the process ends early, as when the memory does not suffice.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_adapt.rs2.sampler"])
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        return processes.submit(measure, **given).result()
