"""What reading an error memory costs, by backend and by how much is stored, against brute force and against bare faiss.

Keys have 64 features and cluster. A repeat reads with every row once; ratios are taken within a repeat, and the medians
are over repeats. Brute force is a matrix product and `topk` over the same unit vectors, without a memory around it.

    python examples/benchmarks/reloop2_speed.py --out reloop2_speed.json --check
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import _harness as h
import _reloop2_callback as c
import _reloop2_memories as m

# how many times faster than brute force, by stored keys; reads a second; time after many writes over that after few;
# time over bare faiss; time of a test batch with the sketch over that without; bytes over what cells take, and those
# of a sample over 4 d
SAME = {"cells": 1.05, "least cells": 0.95, "beside the key": 32}
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {**SAME, "N=1e5": 8, "N=1e6": 50, "reads": 50_000, "flat": 1.20, "faiss": 1.30, "callback": 1.10},
    "quick": {**SAME, "N=1e5": 4, "reads": 25_000, "flat": 1.40, "faiss": 1.60, "callback": 1.25},
}
SIZES = {"full": (10**4, 10**5, 10**6), "quick": (10**4, 10**5)}
WRITTEN_AT = 10**5
BUILD: Any = m.ErrorMemory  # a test puts a control here


def rows(size: str) -> dict[str, m.Row]:
    """Return what to run, by name: sizes outside, kinds inside, so that compared rows run one after another."""
    found = [m.Row(kind, n) for n in SIZES[size] for kind in m.READ if n in m.QUERIES[kind]]
    found += [m.Row(kind, WRITTEN_AT) for kind in m.WRITE]
    return {str(row): row for row in found}


# -- what comes out ---------------------------------------------------------------------------------------------------
def median(study: h.Study, row: str, key: str = m.METRIC) -> float | None:
    """Return the median over repeats; None when the row, or this key of it, was not measured."""
    values = [run[key] for run in study.runs(row) if key in run]
    return statistics.median(values) if values else None


def ratio(study: h.Study, row: m.Row, other: m.Row, key: str = m.METRIC) -> float | None:
    """Return the median over repeats of row over other in the same repeat."""
    ratios = study.ratios(str(row), str(other), key)
    return statistics.median(ratios) if ratios else None


def at_least(text: str, value: float | None, bound: float) -> h.Claim:
    """Claim that one value reaches a bound."""
    return h.at_least(text, [] if value is None else [value], bound)


def check(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claims about time, and those about memory."""
    bounds, sizes = THRESHOLDS[size], SIZES[size]
    claims = []
    for n in (n for n in sizes if m.power(n) in bounds):
        text = f"sketch against brute force, {m.power(n)}: times faster"
        claims.append(at_least(text, ratio(study, m.Row(m.BRUTE, n), m.Row(m.SKETCH, n)), bounds[m.power(n)]))
    slowest = [median(study, str(m.Row(m.SKETCH, n))) for n in sizes]
    reads = None if None in slowest else 1e6 / max(value for value in slowest if value is not None)
    claims.append(at_least("sketch: batched reads a second", reads, bounds["reads"]))
    text = f"sketch: time after {m.power(sizes[-1])} writes over that after {m.power(sizes[0])}"
    claims.append(h.at_most(text, ratio(study, m.Row(m.SKETCH, sizes[-1]), m.Row(m.SKETCH, sizes[0])), bounds["flat"]))
    for n in (n for n in sizes if n in m.QUERIES[m.FAISS]):
        text = f"faiss memory over bare faiss, {m.power(n)}: time"
        claims.append(h.at_most(text, ratio(study, m.Row(m.FAISS, n), m.Row(m.BARE, n)), bounds["faiss"]))
    text = "callback with a sketch: time of a test batch of a DCNv2 over that without"
    claims.append(h.at_most(text, callback_ratio(study, c.SKETCH), bounds["callback"]))
    return claims + check_bytes(study, size)


def callback_ratio(study: h.Study, row: str) -> float | None:
    """Return the median over repeats of a test batch with a callback over one without."""
    ratios = study.ratios(row, c.NONE)
    return statistics.median(ratios) if ratios else None


def check_bytes(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claims about memory."""
    bounds, sizes = THRESHOLDS[size], SIZES[size]
    taken = median(study, str(m.Row(m.SKETCH, sizes[-1])), "bytes")
    cells = None if taken is None else taken / (2**m.BITS * m.TABLES * 12)
    claims = [
        h.at_most(f"sketch, {m.power(sizes[-1])} writes: bytes over 2^L K 12", cells, bounds["cells"]),
        at_least(f"sketch, {m.power(sizes[-1])} writes: bytes over 2^L K 12", cells, bounds["least cells"]),
    ]
    for row in [*(m.Row(m.KNN, n) for n in sizes), m.Row(m.WRITE[1], WRITTEN_AT)]:  # the last has been written over
        taken = median(study, str(row), "bytes")
        extra = None if taken is None else taken / row.n - 4 * m.DIM
        claims.append(h.at_most(f"{row}: bytes a sample above 4 d", extra, bounds["beside the key"]))
    return claims


def report(study: h.Study, size: str) -> None:
    """Print times, rates, parts and bytes."""
    table = []
    for name, row in rows(size).items():
        took, single, taken = (median(study, name, key) for key in (m.METRIC, "one by one", "bytes"))
        against = ratio(study, m.Row(m.BRUTE, row.n), row) if row.kind in m.MEMORIES else None
        rate = None if took is None else 1e6 / took
        mebibytes = None if taken is None else taken / 2**20
        table.append([name, *(_number(value) for value in (took, rate, against, single, mebibytes))])
    columns = ["row", "microseconds a key", "keys a second", "times brute force", "one by one", "MiB"]
    title = f"d={m.DIM}, k={m.K}, L={m.BITS}, K={m.TABLES}; batches of {m.BATCH}; medians over repeats"
    h.print_table(title, columns, table)
    keys = ("share of hashing", "share of gathers")
    sketches = [str(m.Row(m.SKETCH, n)) for n in SIZES[size]]
    shares = [[name, *(_number(median(study, name, key)) for key in keys)] for name in sketches]
    h.print_table("where the time of a sketch read goes", ["row", *keys], shares)
    served = [row for row in c.ROWS if row in study.methods]
    table = [[row, *(_number(value) for value in (median(study, row), callback_ratio(study, row)))] for row in served]
    title = f"DCNv2, {c.FIELDS} fields of {c.EMBEDDING}, test batches of {c.BATCH}; medians over repeats"
    h.print_table(title, ["row", "microseconds a row", "over no callback"], table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def draw(study: h.Study, size: str) -> Any:
    """Draw reads a second against what is stored."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for kind, marker in zip(m.QUERIES, "osd^x", strict=True):
        points = [(n, median(study, str(m.Row(kind, n)))) for n in SIZES[size]]
        shown = [(n, 1e6 / value) for n, value in points if value is not None]
        axes.loglog(*zip(*shown, strict=True), marker=marker, label=kind) if shown else None
    axes.set(xlabel="samples written, N", ylabel="reads a second")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=15, quick_seeds=5, argv=argv)
    if options.device != "cpu":
        h.console.print("This benchmark measures the CPU. Leave out --device.", markup=False)
        return 2
    settings = {"dim": m.DIM, "k": m.K, "bits": m.BITS, "tables": m.TABLES, "batch": m.BATCH}
    try:
        study = h.Study("reloop2_speed", m.METRIC, settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    bench, chosen = m.Bench(options.threads, BUILD), rows(options.size)
    served = c.CallbackBench(options.size)
    with h.bench_settings(options.threads):
        h.run_missing(study, list(chosen), options.seeds, lambda method, _: m.measure(bench, chosen[method]))
        # after the others, so that compared rows stay close together in time
        h.run_missing(
            study, c.QUICK_ROWS if options.quick else c.ROWS, options.seeds, lambda row, _: served.measure(row)
        )
    report(study, options.size)
    h.save_figure(lambda: draw(study, options.size), options)
    return h.verdict(check(study, options.size), options)


if __name__ == "__main__":
    sys.exit(main())
