"""Fashion-MNIST: what RS2 reaches at a tenth of the steps, beside the rivals and the controls that could explain it.

Every row but "full" makes the same number of optimizer steps with the same batch size, network, initial weights (per
seed), optimizer and Trainer. The seconds are those of `Trainer.fit` without the evaluations, plus the selection.
Other ratios, a small ResNet and CIFAR-10 are further cells with fewer rows, each with a result file of its own.

    python examples/benchmarks/rs2_time_to_accuracy.py --out rs2.json --check
    python examples/benchmarks/rs2_time_to_accuracy.py --grid resnet-r0.1 --out rs2_resnet.json --check
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import _harness as h
import torch
from _rs2_grid import DEFAULT, GRID, Cell, grid_parser, load, load_cifar10, read_cell
from _rs2_rivals import FORGETTING_EPOCHS, RIVALS
from _rs2_training import PEAK_RATE, WIDTHS, Bench, Plan

from lightning_adapt import RS2Callback
from lightning_adapt._shared.demo_training import CountedRows

# points of test accuracy; full: what the project promises, quick: that sign and order are right in a short run of the
# default cell; the others by the name of their cell, full run only
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"over static random": 2.0, "over margin": 10.0, "over EL2N": 10.0, "from compressed full": 1.0},
    "quick": {"over static random": 0.5, "over margin": 3.0, "from compressed full": 1.5},
    "cnn-r0.01": {"from compressed full": 1.5},
    "cnn-r0.05": {"over static random": 1.0, "from compressed full": 1.0},
    "cnn-r0.3": {"over static random": 0.0, "from compressed full": 1.0},
    "resnet-r0.1": {"over static random": 1.0, "from compressed full": 1.0},
    "cifar10-resnet-r0.1": {"over static random": 1.0, "from compressed full": 1.5},
}
BATCH = 128
ROUNDS = {"full": 20, "quick": 8}
POINTS = {"full": 20, "quick": 4}  # of the accuracy curve
QUICK_TARGETS = (75, 80, 85)  # per cent

FULL, RS2, LIMITED = "full", "RS2 without replacement", "limit_train_batches"
COMPRESSED, CUT = "full, schedule compressed", "full, cut, not compressed"
STATIC, MARGIN, EL2N = "static random subset", "margin, most uncertain", "EL2N, hardest"
NOTES = {
    "forgetting, most forgotten": f"forgets within {FORGETTING_EPOCHS} epochs of a scorer, which are charged",
    "InfoBatch, equal steps": "spends what it does not train on on further passes; its first pass is whole",
    "margin, rescored every round": "a forward pass over all rows before each round, charged as selecting",
}


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
    began = h.spent(bench.device)
    rows = torch.randperm(len(bench.train), generator=torch.Generator().manual_seed(seed))[: bench.kept]
    return bench.subset(rows, h.spent(bench.device) - began)


ROWS: dict[str, Callable[[Bench, int], Plan]] = {
    FULL: full,
    COMPRESSED: compressed,
    CUT: cut,
    LIMITED: limited,
    STATIC: static_random,
    **RIVALS,
    RS2: rs2,
    "RS2 independent": partial(rs2, mode="independent"),
    "RS2 bootstrap": partial(rs2, mode="bootstrap"),
    "RS2 without, stratified": partial(rs2, stratify=True),
}
CELL_ROWS = (FULL, COMPRESSED, LIMITED, STATIC, MARGIN, RS2)  # of every cell but the default
QUICK_ROWS = (COMPRESSED, STATIC, MARGIN, RS2)


def rows_of(grid: str, quick: bool) -> dict[str, str]:
    """Return what to run: the label that a row has in this cell, and its name in `ROWS`."""
    names = QUICK_ROWS if quick else tuple(ROWS) if grid == DEFAULT else CELL_ROWS
    labels = {LIMITED: f"{LIMITED}={GRID[grid].ratio:g}"}
    return {labels.get(name, name): name for name in names if name != FULL or GRID[grid].full}


def check(study: h.Study, thresholds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    rivals = {"over static random": STATIC, "over margin": MARGIN, "over EL2N": EL2N}
    claims = [
        h.at_least(f"{RS2} minus {rivals[name]}, points", study.differences(RS2, rivals[name]), bound)
        for name, bound in thresholds.items()
        if name in rivals
    ]
    if "from compressed full" not in thresholds:
        return claims
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


def report(study: h.Study, grid: str, targets: Sequence[float]) -> None:
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
    h.print_table(f"{grid}: {GRID[grid].data}, test accuracy in per cent at equal steps", ["row", *digits], rows)
    rows = [[name, *(reached(study, name, target) for target in targets)] for name in study.methods]
    h.print_table("seconds to a test accuracy, selection charged", ["row", *(f"{t} %" for t in targets)], rows)
    rows = [[other, h.show(study.differences(RS2, other))] for other in study.methods if other != RS2]
    h.print_table(f"{RS2} minus row, paired by seed", ["row", "points"], rows)
    notes = [f"{name}: {NOTES[name]}." for name in study.methods if name in NOTES]
    if FULL not in study.methods:
        notes.append(f"No row {FULL!r}: it does not depend on the ratio; see --grid {DEFAULT}, full size.")
    for note in notes:
        h.console.print(note, markup=False, soft_wrap=True)


def draw(study: h.Study, bottom: float) -> Any:
    """Draw accuracy above a bottom against seconds (mean over seeds), selection charged."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.subplots()
    for number, method in enumerate(study.methods):
        points = zip(*(run["curve"] for run in study.runs(method)), strict=True)
        means = [[statistics.fmean(values) for values in zip(*point, strict=True)] for point in points]
        bold = method in (RS2, COMPRESSED, FULL)
        axes.plot(
            [seconds for _, seconds, _ in means],
            [accuracy for *_, accuracy in means],
            label=method,
            color=colormaps["tab20"](number % 20),
            linewidth=2.2 if bold else 1.1,
            linestyle="--" if method == COMPRESSED else "-",
        )
    axes.set(xscale="log", xlabel="seconds, selection charged, evaluations not", ylabel="test accuracy, %")
    axes.set_ylim(bottom=bottom)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def read_data(cell: Cell, folder: Path, download: bool) -> tuple[CountedRows, CountedRows]:
    """Return train and test rows of a cell's data set."""
    if cell.data == "cifar10":
        return load_cifar10("train", folder, download=download), load_cifar10("test", folder, download=download)
    return load("train"), load("test")


def bounds_of(grid: str, options: h.Options) -> dict[str, float]:
    """Return the thresholds of a cell.

    Raises:
        ValueError: If a check is asked for where nothing is claimed.
    """
    bounds = THRESHOLDS.get(options.size if grid == DEFAULT else "" if options.quick else grid, {})
    if options.check and not bounds:
        raise ValueError(f"--quick --check has claims for --grid {DEFAULT} only, but got {grid}. Leave one out.")
    return bounds


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=3, quick_seeds=1, argv=argv, parents=[grid_parser()])
    chosen = read_cell(argv)
    grid, cell = chosen.grid, GRID[chosen.grid]
    rounds, points = ROUNDS[options.size], POINTS[options.size]
    settings = {"grid": grid, "net": cell.net, "ratio": cell.ratio, "rounds": rounds, "points": points, "batch": BATCH}
    settings |= {"width": WIDTHS[cell.net], "peak rate": PEAK_RATE}
    try:
        bounds = bounds_of(grid, options)
        study = h.Study("rs2_time_to_accuracy", "accuracy", settings, options)
        train, test = read_data(cell, chosen.data, chosen.download)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as problem:
        h.console.print(str(problem), markup=False, soft_wrap=True)
        return 2
    bench = Bench(
        train, test, ratio=cell.ratio, batch=BATCH, rounds=rounds, points=points, options=options, net=cell.net
    )
    rows = rows_of(grid, options.quick)

    def measure(method: str, seed: int) -> h.Run:
        plan = ROWS[rows[method]](bench, seed)
        return bench.run(seed, plan, bench.epoch_steps * bench.rounds if method == FULL else bench.steps)

    with h.bench_settings(options.threads):
        # the first fit of a process pays for imports and memory pools; no row should
        bench.fit(0, Plan(train, {"max_steps": 5, "max_epochs": -1}), 5)
        h.run_missing(study, list(rows), options.seeds, measure)
    targets = QUICK_TARGETS if options.quick else cell.targets
    report(study, grid, targets)
    h.save_figure(lambda: draw(study, min(targets) - 20), options)
    return h.verdict(check(study, bounds), options)


if __name__ == "__main__":
    sys.exit(main())
