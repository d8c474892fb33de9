"""Planted noise: does the weight of garbage topics vanish after two updates, with which scorer and which vectors?

The pool is 600 rows of LIMA and 200 rows whose answers are random words, in four topics of their own; k=24, three
rounds, a budget of 240. The clusters start with even weights. All rows of a seed share pool, model and settings and
train through Trainer, InstructionDataModule, InstructionTuningModule and DiversitySelectionCallback. The default
scorer compares answers with their prompts; perplexity takes what the model finds hard for what it can learn from, and
pulls garbage in. The control are random scores, 200 times for each seed and without training: by chance alone a weight
may end low, but not on average.

    python examples/benchmarks/divconq_planted_noise.py --check --data DIR --out divconq_planted_noise.json
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import Any

import _harness as h
from _divconq_lima import Noise, chooser, read_lima
from _divconq_training import LOW, OURS, OURS_MINILM, PERPLEXITY, RANDOM_SCORES, Setting, random_scores, run

# weight of the garbage clusters after two updates: upper bounds, and a lower one for perplexity
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {OURS: 0.05, OURS_MINILM: 0.02, PERPLEXITY: 0.25},
    "quick": {OURS: 0.10, PERPLEXITY: 0.17},
}
SETTING = Setting(Noise(600, 200, 4), learning_rate=5e-4)
QUICK = Setting(
    Noise(300, 100, 2), held_out=40, budget=120, k=12, learning_rate=5e-4, pretraining_epochs=3, last_epochs=1
)
ROWS = (OURS, OURS_MINILM, PERPLEXITY, RANDOM_SCORES)


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    claims = []
    for row in (row for row in ROWS if row in bounds):
        weights = study.values(row, "weight")
        about = f"{row}: garbage weight after two updates"
        if row == PERPLEXITY:
            claims.append(h.at_least(f"{about}, mean of {len(weights)} seeds", weights, bounds[row]))
        else:
            worst = max(weights) if weights else None
            claims.append(h.at_most(f"{about}, worst of {len(weights)} seeds", worst, bounds[row]))
    return claims


def report(study: h.Study) -> None:
    """Print the weights after each update, and what was selected."""
    lines = []
    for row in (row for row in ROWS if row in study.methods):
        steps = list(zip(*study.values(row, "weights"), strict=True))
        shares = [100 * share for share in study.values(row, "garbage")]
        shown = [h.show(step, 3) for step in steps]
        low = 100 * statistics.fmean(one.get("low", one["weight"] <= LOW) for one in study.runs(row))
        shown += [f"{low:.0f}", h.show(shares, 1), str(max(study.values(row, "mixed")))]
        lines.append([row, *shown])
    columns = ["row", "weight at first", "after 1 update", "after 2", f"<= {LOW:g}, % of runs", "garbage selected, %"]
    columns += ["mixed clusters"]
    settings = study.head["settings"]
    pool = f"{settings['clean']} rows of LIMA, {settings['garbage']} of garbage"
    h.print_table(f"Weight of the garbage clusters: {pool}, {settings['budget']} selected", columns, lines)


def draw(study: h.Study) -> Any:
    """Draw the weight of the garbage clusters over the updates, a line for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(row for row in ROWS if row in study.methods):
        for seed, weights in enumerate(study.values(row, "weights")):
            label = row if seed == 0 else None
            axes.plot(range(len(weights)), weights, color=f"C{number}", marker="o", markersize=3, label=label)
    axes.set(xlabel="updates of the weights", ylabel="weight of the garbage clusters", yscale="log", xticks=(0, 1, 2))
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    parser = chooser()
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv, parents=[parser])
    setting = QUICK if options.quick else SETTING
    rows = tuple(THRESHOLDS["quick"]) if options.quick else ROWS
    try:
        pairs = read_lima(parser.parse_known_args(argv)[0].data)
        study = h.Study("divconq_planted_noise", "weight", setting.described(), options)
    except FileNotFoundError as missing:
        h.console.print(f"Not run: {missing}", markup=False, soft_wrap=True)
        return 0 if options.quick else 2
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2

    def measure(row: str, seed: int) -> h.Run:
        if row == RANDOM_SCORES:
            return random_scores(seed, setting, pairs)
        return run(row, seed, setting, pairs)

    with h.bench_settings(options.threads):
        h.run_missing(study, rows, options.seeds, measure)
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
