"""Fashion-MNIST: what RS2 reaches at a tenth of the steps, beside the rivals and the controls that could explain it.

Every row but "full" makes the same number of optimizer steps with the same batch size, network, initial weights (per
seed), optimizer and Trainer. The seconds are those of `Trainer.fit` without the evaluations, plus the selection.

    python examples/benchmarks/rs2_time_to_accuracy.py --out rs2.json --check
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import _harness as h
import torch
from _rs2_training import PEAK_RATE, WIDTH, Bench, Plan, load
from torch import Tensor, nn

from lightning_adapt import RS2Callback

# points of test accuracy; full: what the project promises, quick: that sign and order are right in a short run
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"over static random": 2.0, "over margin": 10.0, "over EL2N": 10.0, "from compressed full": 1.0},
    "quick": {"over static random": 0.5, "over margin": 3.0, "from compressed full": 1.5},
}
RATIO, BATCH = 0.1, 128
ROUNDS = {"full": 20, "quick": 8}
POINTS = {"full": 20, "quick": 4}  # of the accuracy curve
TARGETS = {"full": (80, 85, 88, 89, 90), "quick": (75, 80, 85)}  # per cent

FULL, RS2 = "full", "RS2 without replacement"
COMPRESSED, CUT = "full, schedule compressed", "full, cut, not compressed"
STATIC, MARGIN, EL2N = "static random subset", "margin, most uncertain", "EL2N, hardest"


def rs2(bench: Bench, seed: int, **arguments: Any) -> Plan:
    """RS2 as a user adds it: the callback, on the ordinary loader over all data."""
    callback = RS2Callback(bench.ratio, seed=seed, **arguments)
    return Plan(bench.train, {"max_epochs": bench.rounds}, callbacks=[callback])


def full(bench: Bench, seed: int) -> Plan:  # noqa: ARG001
    """The reference: as many epochs as the others have rounds, and a curve fine enough to read crossings from."""
    return Plan(bench.train, {"max_epochs": bench.rounds}, finer=5)


def compressed(bench: Bench, seed: int) -> Plan:  # noqa: ARG001
    """The identity control: shuffled training for as many steps as RS2, the schedule squeezed into them."""
    return Plan(bench.train, {"max_steps": bench.steps, "max_epochs": -1})


def cut(bench: Bench, seed: int) -> Plan:  # noqa: ARG001
    """The full run stopped at the same step: its schedule has not come down yet."""
    return Plan(bench.train, {"max_steps": bench.steps, "max_epochs": -1}, bench.epoch_steps * bench.rounds)


def limited(bench: Bench, seed: int) -> Plan:  # noqa: ARG001
    """What a user does without us: the first tenth of each epoch's shuffle."""
    return Plan(bench.train, {"max_epochs": bench.rounds, "limit_train_batches": bench.kept // bench.batch})


def static_random(bench: Bench, seed: int) -> Plan:
    """One random subset of K rows for all rounds."""
    began = h.now(bench.device)
    rows = torch.randperm(len(bench.train), generator=torch.Generator().manual_seed(seed))[: bench.kept]
    return bench.subset(rows, h.now(bench.device) - began)


def uncertainty(probabilities: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """Return minus the margin p1 - p2, so that the most uncertain score highest; shape (N,)."""
    best = probabilities.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def el2n(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return ||p - y||2; shape (N,)."""
    return (probabilities - nn.functional.one_hot(targets, probabilities.shape[1])).norm(dim=1)


ROWS: dict[str, Callable[[Bench, int], Plan]] = {
    FULL: full,
    COMPRESSED: compressed,
    CUT: cut,
    "limit_train_batches=0.1": limited,
    STATIC: static_random,
    MARGIN: lambda bench, seed: bench.scored(seed, uncertainty, nets=1),
    EL2N: lambda bench, seed: bench.scored(seed, el2n, nets=3),
    RS2: rs2,
    "RS2 independent": partial(rs2, mode="independent"),
    "RS2 bootstrap": partial(rs2, mode="bootstrap"),
    "RS2 without, stratified": partial(rs2, stratify=True),
}
QUICK_ROWS = (COMPRESSED, STATIC, MARGIN, RS2)


def check(study: h.Study, thresholds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    rivals = {"over static random": STATIC, "over margin": MARGIN, "over EL2N": EL2N}
    claims = [
        h.at_least(f"{RS2} minus {rivals[name]}, points", study.differences(RS2, rivals[name]), bound)
        for name, bound in thresholds.items()
        if name in rivals
    ]
    apart = h.mean_sd(study.differences(RS2, COMPRESSED))[0]
    text = f"distance of {RS2} from {COMPRESSED}, points"
    return [*claims, h.at_most(text, None if apart is None else abs(apart), thresholds["from compressed full"])]


def seconds_to(run: h.Run, target: float) -> float | None:
    """Return when a run first measured a test accuracy, the selection charged; None means never."""
    return next((seconds for _, seconds, accuracy in run["curve"] if accuracy >= target), None)


def reached(study: h.Study, method: str, target: float) -> str:
    """Write the mean seconds to a target, and how many seeds reached it where not all did."""
    runs = study.runs(method)
    times = [seconds for run in runs if (seconds := seconds_to(run, target)) is not None]
    if not times:
        return "never"
    return h.show(times, 1) + ("" if len(times) == len(runs) else f" ({len(times)}/{len(runs)})")


def report(study: h.Study, targets: Sequence[float]) -> None:
    """Print the results, the seconds to each target and the paired differences."""
    digits = {
        "accuracy": 2,
        "steps": 0,
        "training seconds": 1,
        "selecting seconds": 1,
        "seconds": 1,
        "share of data seen": 2,
    }
    rows = [[name, *(h.show(study.values(name, key), n) for key, n in digits.items())] for name in study.methods]
    h.print_table("Fashion-MNIST, test accuracy in per cent", ["row", *digits], rows)
    rows = [[name, *(reached(study, name, target) for target in targets)] for name in study.methods]
    h.print_table("seconds to a test accuracy, selection charged", ["row", *(f"{t} %" for t in targets)], rows)
    rows = [[other, h.show(study.differences(RS2, other))] for other in study.methods if other != RS2]
    h.print_table(f"{RS2} minus row, paired by seed", ["row", "points"], rows)


def draw(study: h.Study) -> Any:
    """Draw accuracy against seconds (mean over seeds), selection charged."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, method in enumerate(study.methods):
        points = zip(*(run["curve"] for run in study.runs(method)), strict=True)
        means = [[statistics.fmean(values) for values in zip(*point, strict=True)] for point in points]
        bold = method in (RS2, COMPRESSED, FULL)
        axes.plot(
            [seconds for _, seconds, _ in means],
            [accuracy for *_, accuracy in means],
            label=method,
            color=f"C{number}" if number < 10 else "black",
            linewidth=2.2 if bold else 1.1,
            linestyle="--" if method == COMPRESSED else "-",
        )
    axes.set(xscale="log", xlabel="seconds, selection charged, evaluations not", ylabel="test accuracy, %")
    axes.set_ylim(bottom=60)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv)
    rounds, points = ROUNDS[options.size], POINTS[options.size]
    settings = {"rounds": rounds, "points": points, "ratio": RATIO, "batch": BATCH}
    settings |= {"width": WIDTH, "peak rate": PEAK_RATE}
    try:
        study = h.Study("rs2_time_to_accuracy", "accuracy", settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    train, test = load("train"), load("test")
    bench = Bench(train, test, ratio=RATIO, batch=BATCH, rounds=rounds, points=points, options=options)

    def measure(method: str, seed: int) -> h.Run:
        plan = ROWS[method](bench, seed)
        return bench.run(seed, plan, bench.epoch_steps * bench.rounds if method == FULL else bench.steps)

    with h.bench_settings(options.threads):
        # the first fit of a process pays for imports and memory pools; no row should
        bench.fit(0, Plan(train, {"max_steps": 5, "max_epochs": -1}), 5)
        h.run_missing(study, QUICK_ROWS if options.quick else list(ROWS), options.seeds, measure)
    report(study, TARGETS[options.size])
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
