"""Fashion-MNIST with 100 labels: supervised only, FixMatch, FixMatch + SAA in variants, FlexMatch, and controls.

All rows of a seed share the labelled set, the unlabelled set (10,000 images, another draw for each seed), the initial
weights, the order and the augmentations; the accuracy is that of the averaged weights after the last step, on the
10,000 test images, which nothing was chosen by. The controls tell what a gain comes from: a more diverse view for a
as many random images as SAA flags, and for all.

    python examples/benchmarks/saa_fashion_mnist.py --check --out saa_fashion_mnist.json  # the three rows checked
    python examples/benchmarks/saa_fashion_mnist.py --check --rows all --out saa_fashion_mnist.json
    python examples/benchmarks/saa_fashion_mnist.py --setting long --rows all --out saa_fashion_mnist_long.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import _harness as h
from _saa_training import (
    ALWAYS,
    FIXMATCH,
    FLEXMATCH,
    FLEXMATCH_SAA,
    MODULE,
    RANDOM,
    ROWS,
    SAA,
    SETTINGS,
    SUPERVISED,
    run,
    sizes_of,
)

# points of test accuracy
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"FixMatch": 1.5, "lower end of the 95 % interval": 0.0, "SAA": -1.5},
    "quick": {"FixMatch": 0.25, "SAA": -4.0},
}
CHECKED = (SUPERVISED, FIXMATCH, SAA)


def baseline_of(row: str) -> str:
    """Return what a row is compared with."""
    return FLEXMATCH if row == FLEXMATCH_SAA else FIXMATCH


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    gain, change = study.differences(FIXMATCH, SUPERVISED), study.differences(SAA, FIXMATCH)
    claims = [h.at_least(f"{FIXMATCH} minus {SUPERVISED}, points, {len(gain)} seeds", gain, bounds["FixMatch"])]
    if "lower end of the 95 % interval" in bounds:
        low = h.interval(gain)[0]
        claims.append(
            h.Claim("lower end of the 95 % interval of it > 0", low, low > bounds["lower end of the 95 % interval"])
        )
    return [*claims, h.at_least(f"{SAA} minus {FIXMATCH}, points, {len(change)} seeds", change, bounds["SAA"])]


def report(study: h.Study) -> None:
    """Print accuracy and paired differences."""
    rows = []
    for row in (row for row in ROWS if row in study.methods):
        gains = study.differences(row, baseline_of(row))
        low, high = h.interval(gains)
        shown = [h.show(study.values(row)), str(len(study.runs(row))), h.show(study.values(row, "seconds"), 0)]
        flagged = [one["naive share"] for one in study.runs(row) if "naive share" in one]
        shown += [h.show(flagged, 0), h.show(gains), "" if len(gains) < 2 else f"{low:+.2f} to {high:+.2f}"]
        rows.append([row, *(shown if row != baseline_of(row) else [*shown[:3], "", "", ""])])
    columns = ["row", "accuracy, %", "seeds", "seconds", "naive, %", "minus its base method", "95 % interval"]
    settings = study.head["settings"]
    sizes = f"{settings['n_labels']} labels, {settings['n_unlabeled']:,} unlabelled, {settings['steps']:,} steps"
    h.print_table(f"Fashion-MNIST, {sizes}", columns, rows)


def draw(study: h.Study) -> Any:
    """Draw the paired differences to the base method with their 95 % intervals."""
    from matplotlib.figure import Figure

    rows = [row for row in ROWS if row != baseline_of(row) and len(study.differences(row, baseline_of(row))) > 1]
    figure = Figure(figsize=(8.5, 1.2 + 0.33 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        gains = study.differences(row, baseline_of(row))
        mean, (low, high) = statistics.fmean(gains), h.interval(gains)
        style = {"color": "C7" if row in (SUPERVISED, ALWAYS, RANDOM) else "C0", "fmt": "o", "capsize": 3}
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], **style)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row} (to {FLEXMATCH})" if row == FLEXMATCH_SAA else row for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="points of test accuracy over the base method, mean and 95 % interval, paired by seed")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    chooser = argparse.ArgumentParser(add_help=False)
    chooser.add_argument("--rows", choices=("checked", "all"), default="checked", help="the three rows checked, or all")
    help_text = "base: what is checked; others have a result file each"
    chooser.add_argument("--setting", choices=tuple(SETTINGS), default="base", help=help_text)
    options = h.read_options(__doc__.splitlines()[0], full_seeds=5, quick_seeds=1, argv=argv, parents=[chooser])
    chosen, _ = chooser.parse_known_args(argv)
    setting, rows = sizes_of(chosen.setting, options)
    rows = CHECKED if chosen.rows == "checked" else rows
    try:
        study = h.Study("saa_fashion_mnist", "accuracy", {**setting.described(), **MODULE}, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    with h.bench_settings(options.threads):
        h.run_missing(study, CHECKED, options.seeds, lambda row, seed: run(row, seed, setting))
        h.run_missing(study, rows, options.seeds, lambda row, seed: run(row, seed, setting))
    report(study)
    h.save_figure(lambda: draw(study), options)
    claims = check(study, THRESHOLDS[options.size]) if chosen.setting == "base" else []
    return h.verdict(claims, options)


if __name__ == "__main__":
    sys.exit(main())
