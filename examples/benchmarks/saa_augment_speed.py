"""How fast weak and strong views are made: ours on whole batches against Pillow and torchvision image by image.

A row is a batch of crops of photographs that becomes normalised float views: flip, crop with mirrored borders, for
strong views three operations of RandAugment and Cutout as well. One thread each, processor time; and ours on two
threads against Pillow in two processes, by the clock (ours with OMP_WAIT_POLICY=passive: without it, threads that wait
for each other spin, and on a busy machine that costs a multiple of the work). Ratios are taken within a repeat, and
medians are over repeats.

    python examples/benchmarks/saa_augment_speed.py --out saa_augment_speed.json --check
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import _harness as h
import _saa_augmenters as a

# how many times as fast as Pillow: one core each, two cores each
THRESHOLDS: dict[str, dict[str, float]] = {"full": {"one": 2.0, "two": 1.5}, "quick": {"one": 2.0, "two": 1.5}}
ONE = (a.Row(a.PILLOW, a.BOTH, a.SMALL), a.Row(a.OURS, a.BOTH, a.SMALL))
TWO = (a.Row(a.TWO_PROCESSES, a.BOTH, a.SMALL), a.Row(a.TWO_THREADS, a.BOTH, a.SMALL))
BUILD: Any = a.Views  # a test puts a control here


def times_faster(study: h.Study, slow: a.Row, fast: a.Row) -> float | None:
    """Return the median over repeats of the time of one row over that of another in the same repeat."""
    ratios = study.ratios(str(slow), str(fast))
    return statistics.median(ratios) if ratios else None


def rival_of(row: a.Row) -> a.Row | None:
    """Return Pillow's row of the same work; None where it has none."""
    if row.who == a.TWO_THREADS:
        return TWO[0]
    what = a.BOTH if row.what in (a.SAA, a.REGROUPED) else row.what
    rival = a.Row(a.PILLOW, what, row.shape)
    return rival if row.who not in (a.PILLOW, a.TWO_PROCESSES) and str(rival) in a.ROWS else None


def check(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claims."""
    claims = []
    for key, (slow, fast) in (("one", ONE), ("two", TWO)):
        value = times_faster(study, slow, fast)
        text = f"{fast} against {slow.who}: times as fast"
        claims.append(h.at_least(text, [] if value is None else [value], THRESHOLDS[size][key]))
    return claims


def report(study: h.Study) -> None:
    """Print times, rates and how many times as fast as Pillow."""
    table = []
    for name, row in a.ROWS.items():
        values, rival = study.values(name), rival_of(row)
        if not values:
            table.append([name, "not measured", "-", "-"])
            continue
        took, faster = statistics.median(values), times_faster(study, rival, row) if rival else None
        table.append([name, f"{took:.1f}", f"{1e6 / took:,.0f}", "-" if faster is None else f"{faster:.2f}"])
    title = "weak + strong is two views of each image; medians over repeats"
    h.print_table(title, ["row", a.METRIC, "images a second", "times as fast as Pillow"], table)


def draw(study: h.Study) -> Any:
    """Draw images a second, row by row."""
    from matplotlib.figure import Figure

    names = [name for name in a.ROWS if study.values(name)]
    rates = [1e6 / statistics.median(study.values(name)) for name in names]
    figure = Figure(figsize=(8, 0.3 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, rates, color=["tab:blue" if name.startswith(a.OURS) else "tab:gray" for name in names])
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="images a second", xlim=(0, 1.15 * max(rates)))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=31, quick_seeds=9, argv=argv)
    if options.device != "cpu" or options.threads != 1:
        h.console.print("This benchmark measures one and two cores. Leave out --device and --threads.", markup=False)
        return 2
    settings = {"shapes": a.SHAPES, "n_ops": a.N_OPS, **{name: version(name) for name in ("pillow", "torchvision")}}
    try:
        study = h.Study("saa_augment_speed", a.METRIC, settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    bench = a.Bench(BUILD)
    try:
        with h.bench_settings(options.threads):
            h.run_missing(study, a.measured_rows(), options.seeds, lambda name, _: bench.measure(a.ROWS[name]))
    finally:
        bench.close()
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, options.size), options)


if __name__ == "__main__":
    sys.exit(main())
