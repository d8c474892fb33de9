"""Held-out loss of a tiny model trained on a selection from a pool that is 60 % garbage, against simpler selections.

The pool is 300 rows of LIMA and 450 rows whose answers are random words, in nine topics of their own; 240 rows are
selected, and the loss is that of the answers of 180 other rows of LIMA, in nats per token. All rows of a seed share
pool, model, settings and the number of steps: three rounds train on 80, 160 and 240 rows, one epoch each and the last
one three, which is 960 rows or 120 steps; those with the whole budget from the start train four epochs on it. "Clean
rows alone" selects at random from what is no garbage: the most that a selection could gain by leaving garbage out.

    python examples/benchmarks/divconq_loss.py --check --data DIR --out divconq_loss.json
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import _harness as h
from _divconq_lima import Noise, chooser, read_lima
from _divconq_training import (
    EQUAL,
    ORACLE,
    OURS,
    OURS_MINILM,
    PERPLEXITY,
    PROPORTIONAL,
    QUALITY,
    UNIFORM,
    Setting,
    run,
)

# nats per token that the iterative selection is below another row, mean of the paired differences
THRESHOLDS: dict[str, dict[str, float]] = {"full": {UNIFORM: 0.05, EQUAL: 0.02}, "quick": {UNIFORM: 0.01}}
SETTING = Setting(Noise(300, 450, 9))
QUICK = Setting(Noise(200, 300, 6), held_out=60, budget=120, k=12, pretraining_epochs=4)
ROWS = (OURS, OURS_MINILM, UNIFORM, EQUAL, PROPORTIONAL, QUALITY, PERPLEXITY, ORACLE)


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    claims = []
    for row, bound in bounds.items():
        gains = study.differences(row, OURS)
        claims.append(h.at_least(f"loss of {row} minus that of {OURS}, {len(gains)} seeds", gains, bound))
    return claims


def report(study: h.Study) -> None:
    """Print losses, paired differences and what was selected."""
    lines = []
    for row in (row for row in ROWS if row in study.methods):
        gains = study.differences(row, OURS)
        low, high = h.interval(gains)
        spread = "" if len(gains) < 2 or row == OURS else f"{low:+.3f} to {high:+.3f}"
        shares = [100 * share for share in study.values(row, "garbage")]
        shown = [h.show(study.values(row), 3), "" if row == OURS else h.show(gains, 3), spread, h.show(shares, 1)]
        steps = "/".join(str(steps) for steps in sorted(set(study.values(row, "steps"))))
        lines.append([row, *shown, steps, h.show(study.values(row, "seconds"), 0)])
    columns = ["row", "held-out loss", f"minus {OURS}", "95 % interval", "garbage selected, %", "steps", "seconds"]
    settings = study.head["settings"]
    pool = f"{settings['clean']} rows of LIMA, {settings['garbage']} of garbage"
    h.print_table(f"{pool}, {settings['budget']} selected, {settings['held_out']} held out", columns, lines)


def draw(study: h.Study) -> Any:
    """Draw the paired differences to the iterative selection with their 95 % intervals."""
    from matplotlib.figure import Figure

    rows = [row for row in ROWS if row != OURS and len(study.differences(row, OURS)) > 1]
    figure = Figure(figsize=(7.5, 1.2 + 0.33 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        gains = study.differences(row, OURS)
        mean, (low, high) = statistics.fmean(gains), h.interval(gains)
        axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color="C0", fmt="o", capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set(xlabel=f"held-out loss over that of '{OURS}', nats per token, mean and 95 % interval, paired by seed")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    parser = chooser()
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv, parents=[parser])
    setting = QUICK if options.quick else SETTING
    rows = (OURS, *THRESHOLDS["quick"]) if options.quick else ROWS
    try:
        pairs = read_lima(parser.parse_known_args(argv)[0].data)
        study = h.Study("divconq_loss", "loss", setting.described(), options)
    except FileNotFoundError as missing:
        h.console.print(f"Not run: {missing}", markup=False, soft_wrap=True)
        return 0 if options.quick else 2
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    with h.bench_settings(options.threads):
        h.run_missing(study, rows, options.seeds, lambda row, seed: run(row, seed, setting, pairs))
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
