"""What k-means costs in time, memory and inertia: our function with faiss and with torch, faiss alone, scikit-learn.

200,000 x 384 vectors, 256 clusters, 10 iterations of Lloyd from the same start, every row assigned at the end (which
is one more pass for all). Full: two threads, by the clock, so leave the machine alone meanwhile. Quick: one thread,
processor time. Ratios are taken within a repeat, and medians are over repeats. Peak memory comes from new processes
and needs Linux. With --device cuda, torch works there, from vectors on the CPU, against faiss on the CPU.

    python examples/benchmarks/divconq_kmeans.py --out divconq_kmeans.json --check
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import _divconq_kmeans_rivals as r
import _fresh_process as process
import _harness as h
from torch import Tensor

# times and inertia as shares of the rival's, memory as a share of the vectors; quick is looser: one thread suits
# scikit-learn best, few rows hide what it does before the first iteration, and CI is never quiet
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"faiss": 1.05, "torch": 1.25, "scikit-learn": 1.0, "inertia": 1.005, "memory": 1.3},
    "quick": {"faiss": 1.10, "torch": 1.40, "scikit-learn": 1.4, "inertia": 1.005, "memory": 1.3},
}
SIZES = {"full": r.Size(200_000, 384, 256, 10), "quick": r.Size(12_000, 384, 256, 10)}
# the memory is the same after one iteration as after ten, but for few rows it is mostly that of the code
MEMORY_SIZES = {"full": SIZES["full"], "quick": r.Size(60_000, 384, 256, 1)}
METHODS = {"cpu": (r.TORCH, r.FAISS, r.FAISS_ALONE, r.SKLEARN), "cuda": (r.CUDA, r.FAISS_ALONE)}
MEMORY_OF = {"cpu": (r.TORCH, r.FAISS), "cuda": (r.CUDA,)}
MEMORY_REPEATS = 3
METRIC = "seconds"


def memory_row(method: str) -> str:
    """Return the name of the row that holds the peak memory of a method."""
    return f"{method}, new process"


@cache
def _vectors(size: r.Size) -> Tensor:
    return r.vectors_of(size)


def measure(size: r.Size, device: str, method: str, seed: int) -> h.Run:
    """Cluster once and return seconds, inertia, iterations and the engine."""
    vectors = _vectors(size)
    start = r.start_of(vectors, size.k, seed)
    began = h.spent(device)
    found = r.RUNS[method](vectors, start, size.iterations)
    seconds = h.spent(device) - began
    inertia = r.inertia(vectors, found)
    return {METRIC: seconds, "inertia": inertia, "iterations": found.iterations, "engine": found.engine}


def measure_memory(size: r.Size, threads: int, row: str, seed: int) -> h.Run:  # noqa: ARG001 - no chance in it
    """Measure the peak memory of one row in a new process."""
    method = next(method for method in r.RUNS if memory_row(method) == row)
    return r.memory_apart(method, size, threads)


def median(values: Sequence[float]) -> float | None:
    """Return the median; None without values."""
    return statistics.median(values) if values else None


def check(study: h.Study, options: h.Options) -> list[h.Claim]:
    """Return the claims."""
    bounds, size = THRESHOLDS[options.size], SIZES[options.size]
    ours = r.CUDA if options.device == "cuda" else r.TORCH
    pairs = [("torch", ours, r.FAISS_ALONE)]
    if options.device == "cpu":
        pairs += [("faiss", r.FAISS, r.FAISS_ALONE), ("scikit-learn", r.TORCH, r.SKLEARN)]
    claims = [
        h.at_most(f"{method} against {rival}: time", median(study.ratios(method, rival)), bounds[key])
        for key, method, rival in pairs
    ]
    for method in METHODS[options.device]:
        if method.startswith("ours"):
            ratios = study.ratios(method, r.FAISS_ALONE, "inertia")
            text = f"{method} against {r.FAISS_ALONE}: inertia, worst repeat"
            claims.append(h.at_most(text, max(ratios, default=None), bounds["inertia"]))
            claims.append(h.at_least(f"{method}: iterations", study.values(method, "iterations"), size.iterations))
    for method in MEMORY_OF[options.device]:
        shares = study.values(memory_row(method), "share")
        text = f"{method}: peak memory beside the vectors, as a share of them"
        claims.append(h.at_most(text, max(shares, default=None), bounds["memory"]))
    return claims


def report(study: h.Study, options: h.Options) -> None:
    """Print times, ratios, inertia and memory."""
    size, table = SIZES[options.size], []
    for method in METHODS[options.device]:
        row = [f"{method} ({study.runs(method)[0]['engine']})" if study.values(method) else method]
        row.append(_number(median(study.values(method)), ".3f"))
        row.append(_number(median(study.ratios(method, r.FAISS_ALONE)), ".3f"))
        row.append(_number(median(study.ratios(method, r.FAISS_ALONE, "inertia")), ".6f"))
        row.append(_number(max(study.values(memory_row(method), "MiB"), default=None), ".0f"))
        table.append(row)
    kind = "processor time" if options.threads == 1 and options.device == "cpu" else "clock"
    title = f"{size.n:,} x {size.d}, k = {size.k}, {size.iterations} iterations; {options.threads} threads, {kind}"
    columns = ["row", "seconds", f"/ {r.FAISS_ALONE}", "inertia, ratio", "peak MiB beside the vectors"]
    h.print_table(f"{title}; medians over repeats", columns, table)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def draw(study: h.Study, options: h.Options) -> Any:
    """Draw the seconds, repeat by repeat, row by row."""
    from matplotlib.figure import Figure

    names = [name for name in METHODS[options.device] if study.values(name)]
    figure = Figure(figsize=(8, 0.5 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        values, color = study.values(name), "tab:blue" if name.startswith("ours") else "tab:gray"
        axes.barh(place, statistics.median(values), color=color, alpha=0.6)
        axes.scatter(values, [place] * len(values), s=8, color="black", zorder=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="seconds; bar: median over repeats")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    threads = "1" if "--quick" in given else "2"  # a --threads of the user comes later, and wins
    options = h.read_options(__doc__.splitlines()[0], 15, 9, argv=["--threads", threads, *given])
    if not process.STATUS.is_file():
        h.console.print("This benchmark measures memory on Linux only.", markup=False)
        return 2
    size, of_memory = SIZES[options.size], MEMORY_SIZES[options.size]
    packages = {name: version(name) for name in ("faiss-cpu", "scikit-learn")}
    try:
        study = h.Study("divconq_kmeans", METRIC, {"shape": size, "memory": of_memory, **packages}, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    methods, device = METHODS[options.device], options.device
    with h.bench_settings(options.threads), r.limit_threads(options.threads):
        if any(not study.has(method, seed) for method in methods for seed in options.seeds):
            for method in methods:  # imports and thread pools, at nobody's cost
                measure(r.Size(3000, size.d, 8, 2), device, method, 0)
        h.run_missing(study, methods, options.seeds, partial(measure, size, device))
    rows = [memory_row(method) for method in MEMORY_OF[device]]
    repeats = options.seeds[: 1 if options.quick else MEMORY_REPEATS]
    h.run_missing(study, rows, repeats, partial(measure_memory, of_memory, options.threads))
    report(study, options)
    h.save_figure(lambda: draw(study, options), options)
    return h.verdict(check(study, options), options)


if __name__ == "__main__":
    sys.exit(main())
