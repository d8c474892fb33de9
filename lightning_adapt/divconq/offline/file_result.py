"""What a selection from a file gives back, the record it leaves, and what it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_adapt import __version__
from lightning_adapt._shared.doctor import installed
from lightning_adapt.divconq.offline.file_pool import Progress

__all__ = ["Clock", "FileSelection", "Results", "peak_mib", "versions"]

_MATTER = ("torch", "numpy", "scikit-learn", "faiss-cpu")  # packages that the choice may depend on


@dataclass(frozen=True)
class Results:
    """What was chosen; plain facts, no time and no path, so that the same selection gives the same.

    Attributes:
        rows: Chosen rows of the file, counted from 0, ascending. Shape (b,), int64.
        clusters: Cluster of each chosen row. Shape (b,), int64; None for methods without clusters.
        counts: Rows read, left out for an empty response, left out as copies, and chosen.
        settings: Budget, method, k, seed and copies, in words.
        vectors: What made the vectors, of which text; "none needed" for method "random".
        k: Clusters; 0 without any.
        engine: What computed k-means, with its version; "" without clusters.
        notes: What the user should know, a sentence each.
    """

    rows: Tensor
    clusters: Tensor | None
    counts: dict[str, int]
    settings: str
    vectors: str
    k: int
    engine: str
    notes: list[str]

    def facts(self) -> list[tuple[str, str]]:
        """Return counts and settings as pairs of a name and a text."""
        names = ("rows", "empty responses", "copies", "chosen")  # short: a line of the summary is to fit on a screen
        pairs = [(name, f"{count:,}") for name, count in zip(names, self.counts.values(), strict=True)]
        pairs += [("settings", self.settings), ("vectors", self.vectors)]
        if self.k:
            covered = 0 if self.clusters is None else len(set(self.clusters.tolist()))
            pairs += [("clusters", f"{self.k:,}, {covered:,} of them chosen from"), ("k-means by", self.engine)]
        return pairs


@dataclass(frozen=True)
class FileSelection:
    """A selection from a file, and where it was written.

    Attributes:
        results: What was chosen.
        out: The chosen rows.
        indices: Their numbers and all that led to them (JSON).
        report: The page; None without one.
        seconds: Time per step.
        peak_mib: Largest memory of this process so far, MiB; None where the system does not say.
    """

    results: Results
    out: Path
    indices: Path
    report: Path | None
    seconds: dict[str, float]
    peak_mib: float | None

    @property
    def rows(self) -> Tensor:
        """Chosen rows of the file, counted from 0, ascending. Shape (b,), int64."""
        return self.results.rows

    def summary(self) -> list[tuple[str, str]]:
        """Return counts, settings, time and memory as pairs of a name and a text."""
        steps = ", ".join(f"{step} {seconds:.{int(seconds < 10)}f} s" for step, seconds in self.seconds.items())
        memory = [] if self.peak_mib is None else [("peak memory", f"{self.peak_mib:,.0f} MiB")]
        return [*self.results.facts(), ("time", steps), *memory]


class Clock:
    """Times the steps of a selection, and tells the user when one begins.

    Args:
        progress: Called with (step, rows done, rows in all or None); None: nobody wants to know.

    Attributes:
        seconds: Time per step, in order.
    """

    def __init__(self, progress: Progress | None) -> None:
        self.progress: Progress = progress or _silent
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, what: str, *, announce: bool = True) -> Iterator[None]:
        """Time a step.

        Args:
            what: Its name, a word.
            announce: Tell the user now; False where the parts of the step do so.
        """
        if announce:
            self.progress(what, 0, None)
        began = time.perf_counter()
        yield
        self.seconds[what] = time.perf_counter() - began


def _silent(what: str, done: int, total: int | None) -> None:  # noqa: ARG001
    return None


def peak_mib() -> float | None:
    """Return the largest memory that this process has had, in MiB, pages of mapped files included.

    Returns:
        The number; None where the system does not say (Windows).
    """
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent had when it started this process
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:
        return None
    per_mib = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def versions() -> dict[str, str]:
    """Return the versions that a choice may depend on."""
    found = {package: installed(package) for package in _MATTER}
    return {"lightning_adapt": __version__, **{package: number for package, number in found.items() if number}}


def record(results: Results, data: Mapping[str, Any], settings: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return what goes into the file of indices.

    Args:
        results: What was chosen.
        data: Facts about the input.
        settings: Arguments of the selection.
        more: Further facts.

    Returns:
        Plain values.
    """
    clusters = None if results.clusters is None else results.clusters.tolist()
    return {
        "version": 1,
        "data": dict(data),
        "settings": dict(settings),
        **more,
        "versions": versions(),
        "counts": results.counts,
        "k": results.k,
        "engine": results.engine,
        "notes": results.notes,
        "rows": results.rows.tolist(),
        "clusters": clusters,
    }
