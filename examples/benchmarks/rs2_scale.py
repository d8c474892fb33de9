"""What a round of a million indices costs in time and memory when the data set has up to a billion rows.

RS2Sampler against `torch.randperm` and torch's RandomSampler, which build the whole permutation first. "tensor" is
`epoch_rows`, "iterated" what a DataLoader asks for: a million Python ints, one by one. Every measurement has a process
of its own; a repeat runs every row once. Needs Linux, for the peak memory, and works on the CPU only.

    python examples/benchmarks/rs2_scale.py --out rs2_scale.json --check
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import _fresh_process as process
import _harness as h

# at N = 1e9: seconds and MiB for a million indices; then time and memory as shares of what the rival takes
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"seconds": 0.5, "MiB": 150, "time ratio": 1 / 50, "memory ratio": 1 / 5},
    "quick": {"seconds": 1.0, "MiB": 200, "time ratio": 0.7, "memory ratio": 0.5},
}
K = 1_000_000
TENSOR, ITERATED, RANDPERM, RANDOM_SAMPLER = process.KINDS
PAIRS = ((TENSOR, RANDPERM), (ITERATED, RANDOM_SAMPLER))
SIZES = {
    "full": {
        TENSOR: (10**6, 10**7, 10**8, 10**9),
        ITERATED: (10**6, 10**7, 10**8, 10**9),
        RANDPERM: (10**6, 10**7, 10**8),
        RANDOM_SAMPLER: (10**6, 10**7, 10**8),
    },
    "quick": {TENSOR: (10**9,), ITERATED: (10**9,), RANDPERM: (10**7,), RANDOM_SAMPLER: (10**7,)},
}
LARGEST = {"full": 10**9, "quick": 10**9}  # N of the claims in seconds and MiB
# N of method and rival in the claims in ratios; a quick rival is a hundredth as large, and still to be beaten
COMPARED = {"full": (10**8, 10**8), "quick": (10**9, 10**7)}
RANDPERM_1E9 = (RANDPERM, 10**9)  # 7.6 GiB and minutes: only on request; RandomSampler would need 43 GiB
PERMUTATION = "auto"
METRIC = "seconds"


class Row(NamedTuple):
    """What is measured: one of `_fresh_process.KINDS`, over n rows."""

    kind: str
    n: int

    def __str__(self) -> str:
        return f"{self.kind}, N={_power(self.n)}"


def _power(n: int) -> str:
    return f"{n:.0e}".replace("e+0", "e")


def rows(size: str, *, with_randperm_1e9: bool) -> dict[str, Row]:
    """Return the rows to run, by name: sizes outside, kinds inside, so that compared rows run one after another."""
    chosen = [Row(kind, n) for kind, sizes in SIZES[size].items() for n in sizes]
    if with_randperm_1e9:
        chosen.append(Row(*RANDPERM_1E9))
    return {str(row): row for row in sorted(chosen, key=lambda row: row.n)}


def measure(chosen: dict[str, Row], threads: int, method: str, seed: int) -> h.Run:
    """Measure one row in a fresh process."""
    kind, n = chosen[method]
    return process.measure_apart(kind=kind, n=n, k=K, seed=seed, permutation=PERMUTATION, threads=threads)


def median(study: h.Study, row: Row, key: str = METRIC) -> float | None:
    """Return the median over repeats; None when the row, or this key of it, was not measured."""
    values = [run[key] for run in study.runs(str(row)) if key in run]
    return statistics.median(values) if values else None


def ratio(study: h.Study, method: Row, rival: Row, key: str = METRIC) -> float | None:
    """Return the median over repeats of method over rival in the same repeat."""
    ratios = study.ratios(str(method), str(rival), key)
    return statistics.median(ratios) if ratios else None


def check(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claims: what the largest data set costs, and shares of what the rivals cost."""
    bounds, (ours, theirs) = THRESHOLDS[size], COMPARED[size]
    claims: list[h.Claim] = []
    for kind, _ in PAIRS:
        row = Row(kind, LARGEST[size])
        for key in (METRIC, "MiB"):
            text = f"{row}: {key} for {_power(K)} indices"
            claims.append(h.at_most(text, median(study, row, key), bounds[key]))
    for kind, rival in PAIRS:
        pair = Row(kind, ours), Row(rival, theirs)
        for key, name in ((METRIC, "time ratio"), ("MiB", "memory ratio")):
            text = f"{pair[0]} against {pair[1]}: {name}"
            claims.append(h.at_most(text, ratio(study, *pair, key), bounds[name]))
    return claims


def report(study: h.Study, size: str) -> None:
    """Print seconds, memory, the first index and the ratios; what nobody ran is said to be so."""
    sizes = sorted({n for of_kind in SIZES[size].values() for n in of_kind})
    columns = ["row", *(f"N={_power(n)}" for n in sizes)]
    for key, title in (
        (METRIC, f"seconds until {_power(K)} indices are there"),
        ("MiB", "peak memory above that before, MiB"),
        ("first index", "seconds until the first index is there"),
    ):
        kinds = [kind for kind in process.KINDS if key != "first index" or kind in (ITERATED, RANDOM_SAMPLER)]
        table = [[kind, *(_number(median(study, Row(kind, n), key)) for n in sizes)] for kind in kinds]
        h.print_table(f"{title}, medians over repeats", columns, table)
    table = []
    for (kind, rival), n in ((pair, n) for pair in (*PAIRS, (ITERATED, RANDPERM)) for n in sizes):
        if study.paired(str(Row(kind, n)), str(Row(rival, n))):
            both = Row(kind, n), Row(rival, n)
            table.append([f"{both[0]} / {rival}", *(_number(ratio(study, *both, key)) for key in (METRIC, "MiB"))])
    if table:
        h.print_table("against the rival at the same N, medians over repeats", ["rows", "time", "memory"], table)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


def draw(study: h.Study, size: str) -> Any:
    """Draw time and memory against the number of rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels = zip(figure.subplots(1, 2), ((METRIC, "seconds"), ("MiB", "peak memory, MiB")), strict=True)
    for axes, (key, label) in panels:
        for kind, marker in zip(process.KINDS, "os^v", strict=True):
            of_kind = {n: median(study, Row(kind, n), key) for n in {*SIZES[size][kind], RANDPERM_1E9[1]}}
            points = sorted((n, value) for n, value in of_kind.items() if value is not None)
            axes.loglog(*zip(*points, strict=True), marker=marker, label=kind) if points else None
        axes.set(xlabel="rows of the data set, N", ylabel=f"{label} for {_power(K)} indices")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--with-randperm-1e9", action="store_true")
    given, rest = own.parse_known_args(argv)
    description = f"{__doc__.splitlines()[0]} --with-randperm-1e9 adds torch.randperm(1e9): 7.6 GiB, minutes a repeat."
    options = h.read_options(description, full_seeds=5, quick_seeds=3, argv=rest)
    if options.device != "cpu" or not process.STATUS.is_file():
        h.console.print("This benchmark measures the CPU, on Linux only. Leave out --device.", markup=False)
        return 2
    settings = {"indices": K, "permutation": PERMUTATION, "compared": COMPARED[options.size]}
    try:
        study = h.Study("rs2_scale", METRIC, settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    chosen = rows(options.size, with_randperm_1e9=given.with_randperm_1e9)
    h.run_missing(study, list(chosen), options.seeds, partial(measure, chosen, options.threads))
    report(study, options.size)
    h.save_figure(lambda: draw(study, options.size), options)
    return h.verdict(check(study, options.size), options)


if __name__ == "__main__":
    sys.exit(main())
