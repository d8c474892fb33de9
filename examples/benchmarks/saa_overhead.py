"""What SAA costs per training step of FixMatch: all of it, and the bookkeeping alone.

Fashion-MNIST, the small CNN, 64 labelled and 448 unlabelled images a step, as in the paper. A repeat fits every row for
one epoch of a tenth of the default length, so that selections are ten times as frequent. Every sample has a loss before
that, and 77 % are flagged from the first step on and again at the selection, as many as Otsu's cut flags in training.
Whole runs in one warm process are compared, from the start of training to its end. On a busy machine two equal ones
differ by 10 %, so what is checked is closer: the extra time within one run in which the flags count in every second
step, and the bookkeeping as clocked inside the callback.

    python examples/benchmarks/saa_overhead.py --out saa_overhead.json --check
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import _harness as h
from _saa_fits import ALWAYS, BATCH, BOOKS, FIXMATCH, FLAGGED, METRIC, MU, SAA, TURNS, Bench, Row, alone

# shares of the time of a training step
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"SAA": 0.10, "bookkeeping": 0.01},
    "quick": {"SAA": 0.15, "bookkeeping": 0.02},
}
STEPS = {"full": 25, "quick": 13}  # of a fit; the first of those by turns is not counted
SIZES = {"full": (10_000, 60_000), "quick": (10_000,)}
ALONE = {"full": (10_000, 60_000, 600_000), "quick": (10_000, 600_000)}  # samples of a history without training
KINDS = {"full": (TURNS, FIXMATCH, BOOKS, SAA, ALWAYS), "quick": (TURNS,)}
CLOCKED = (TURNS, BOOKS, SAA)  # rows that have a history


def alone_name(n: int) -> str:
    """Return the name of the row of a history without training."""
    return f"history alone, N={n:,}"


def rows_of(size: str) -> dict[str, Callable[[Bench, int], h.Run]]:
    """Return what is measured: the fits by size of the unlabelled set, then the histories."""
    fits = [Row(kind, n) for n in SIZES[size] for kind in KINDS[size]]
    return {
        **{str(row): lambda bench, seed, row=row: bench.fit(row, seed) for row in fits},  # type: ignore[misc]
        **{alone_name(n): lambda _, seed, n=n: alone(n, seed) for n in ALONE[size]},  # type: ignore[misc]
    }


def extras(study: h.Study, row: Row) -> list[float]:
    """Return what a row took longer than FixMatch in each repeat, as a share of its time."""
    if row.kind == TURNS:
        return study.values(str(row), "extra")
    return [ratio - 1 for ratio in study.ratios(str(row), str(Row(FIXMATCH, row.n)))]


def extra(study: h.Study, row: Row) -> float | None:
    """Return the median over repeats of what a row takes longer than FixMatch, as a share of its time."""
    values = extras(study, row)
    return statistics.median(values) if values else None


def bookkeeping(study: h.Study, row: Row) -> float | None:
    """Return the median over repeats of the callback's own time, as a share of the rest of the step."""
    runs = [run for run in study.runs(str(row)) if "bookkeeping" in run]
    shares = [run["bookkeeping"] / (run[METRIC] - run["bookkeeping"]) for run in runs]
    return statistics.median(shares) if shares else None


def check(study: h.Study, size: str, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    claims = []
    for n in SIZES[size]:
        text = f"{Row(TURNS, n)}: extra time of such steps, share of a step of {FIXMATCH}, median"
        claims.append(h.at_most(text, extra(study, Row(TURNS, n)), bounds["SAA"]))
        for row in (Row(kind, n) for kind in KINDS[size] if kind in CLOCKED):
            text = f"{row}: bookkeeping, share of the rest of a step, median"
            claims.append(h.at_most(text, bookkeeping(study, row), bounds["bookkeeping"]))
    return claims


def report(study: h.Study, size: str) -> None:
    """Print the fits, and the histories alone."""
    rows = []
    for row in (Row(kind, n) for n in SIZES[size] for kind in KINDS[size]):
        runs = study.runs(str(row))
        if runs:
            books = [run["bookkeeping"] for run in runs if "bookkeeping" in run]
            shares = (None if row.kind == FIXMATCH else extra(study, row), bookkeeping(study, row))
            shown = [_percent(share) for share in shares]
            rows.append([str(row), h.show(study.values(str(row))), shown[0], h.show(books, 3), shown[1]])
    columns = ["row", "ms per step", "more than FixMatch", "bookkeeping, ms", "share"]
    h.print_table(f"a training step, {BATCH} + {BATCH * MU} images; shares are medians over repeats", columns, rows)
    rows = [
        [name, h.show(study.values(name, "microseconds per step"), 0), h.show(study.values(name))]
        for name in map(alone_name, ALONE[size])
        if name in study.methods
    ]
    h.print_table("history alone", ["row", "microseconds per step", "ms per selection (Otsu)"], rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:+.2%}"


def draw(study: h.Study, size: str) -> Any:
    """Draw what every repeat took longer than FixMatch."""
    from matplotlib.figure import Figure

    rows = [Row(kind, n) for n in SIZES[size] for kind in KINDS[size] if kind != FIXMATCH]
    shown = [(str(row), [100 * share for share in extras(study, row)]) for row in rows]
    figure = Figure(figsize=(7.5, 1.3 + 0.35 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, (_, percent) in enumerate(shown):
        axes.plot(percent, [place] * len(percent), "o", alpha=0.5)
        axes.plot([statistics.median(percent)] if percent else [], [place] if percent else [], "k|", markersize=18)
    axes.axvline(0, color="gray", linewidth=1)
    axes.axvline(100 * THRESHOLDS[size]["SAA"], color="gray", linewidth=1, linestyle="dotted")
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.set(xlabel="% more per training step than FixMatch (a dot per repeat, bar: median, dotted: bound)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=15, quick_seeds=5, argv=argv)
    size = options.size
    settings = {"batch": BATCH, "mu": MU, "epoch": STEPS[size], "flagged": FLAGGED}
    try:
        study = h.Study("saa_overhead", METRIC, settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    bench, rows = Bench(STEPS[size], options.device), rows_of(size)
    with h.bench_settings(options.threads):
        bench.fit(Row(TURNS, SIZES[size][0]), 0)  # imports and memory pools, at nobody's cost
        h.run_missing(study, list(rows), options.seeds, lambda name, seed: rows[name](bench, seed))
    report(study, size)
    h.save_figure(lambda: draw(study, size), options)
    return h.verdict(check(study, size, THRESHOLDS[size]), options)


if __name__ == "__main__":
    sys.exit(main())
