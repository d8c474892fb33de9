"""Fashion-MNIST: what rounds guided by training losses gain over plain RS2 at equal steps, and where they do not.

Every row makes the same number of optimizer steps with the same batch size, network, initial weights and label noise
(per seed), optimizer and Trainer; the test labels are always clean. Noise moves that share of the training labels to
another class, drawn evenly. Defaults of the method were chosen by the accuracy on 10,000 training images held out,
after training on the others with seeds that are not used here. What the method itself costs (collecting the losses,
planning the rounds) is clocked inside the run and given as "selecting seconds".

    python examples/benchmarks/rs2_loss_guided.py --net cnn --out rs2_loss_guided_cnn.json --check
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import _harness as h
import torch
from _rs2_grid import load
from _rs2_rivals import infobatch
from _rs2_training import PEAK_RATE, WIDTHS, Bench, NumberedRows, Plan
from lightning.pytorch import LightningModule, Trainer
from rs2_time_to_accuracy import BATCH, COMPRESSED, RS2, compressed, rs2
from torch import Tensor

from lightning_adapt import RS2Callback
from lightning_adapt._shared.demo_training import CountedRows

# points of test accuracy of loss-guided rounds minus compressed full training
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"gain": 0.5, "lower end of the 95 % interval": 0.0, "with noise": -0.2, "extra cost": 0.03},
    "quick": {"gain": 0.1, "extra cost": 0.1},
}
ROUNDS = 20
RATIOS = {"full": (0.1, 0.05, 0.3), "quick": (0.1,)}
CHECKED_RATIO = 0.1
NOISES = (0.0, 0.2)
GUIDED, INFOBATCH = "RS2 loss-guided", "InfoBatch, equal steps"


class Clocked(h.ClockedHooks, RS2Callback):
    """RS2Callback that notes the seconds that it takes, the planning of its rounds included."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = h.spent(self.device)
        super().on_train_epoch_start(trainer, pl_module)
        if self.sampler is not None:
            self.sampler.draw(trainer.current_epoch, torch.zeros(1, dtype=torch.int64))  # plans the round; it is kept
        self.seconds += h.spent(self.device) - began


def guided(bench: Bench, seed: int) -> Plan:
    """Loss-guided rounds as a user adds them: the callback, and the losses in what the training step returns."""
    callback = Clocked(bench.ratio, mode="loss", loss_key="losses", seed=seed)
    callback.device = bench.device
    data = NumberedRows(bench.train.images, bench.train.labels)
    return Plan(data, {"max_epochs": bench.rounds}, callbacks=[callback], inside=lambda: callback.seconds)


ROWS: dict[str, Callable[[Bench, int], Plan]] = {
    COMPRESSED: compressed,
    INFOBATCH: infobatch,
    RS2: rs2,
    GUIDED: guided,
}


def cells(size: str) -> dict[str, tuple[float, float, str]]:
    """Return what to run: the name of each row, and its ratio, noise and kind; in a quick run what is checked there."""
    noises, rows = (NOISES, tuple(ROWS)) if size == "full" else ((0.0,), (COMPRESSED, GUIDED))
    return {label(*cell): cell for cell in product(RATIOS[size], noises, rows)}


def label(ratio: float, noise: float, row: str) -> str:
    """Return the name of a row in the result file."""
    return f"r={ratio:g}, {noise:.0%} noise, {row}"


def noisy(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return labels of which a share was moved to another of the ten classes, each as likely."""
    draws = torch.Generator().manual_seed(9000 + seed)
    moved = torch.randperm(len(labels), generator=draws)[: round(share * len(labels))]
    result = labels.clone()
    result[moved] = (labels[moved] + torch.randint(1, 10, (len(moved),), generator=draws)) % 10
    return result


def differences(study: h.Study, ratio: float, noise: float, row: str, other: str) -> list[float]:
    """Return row minus other, points, paired by seed."""
    return study.differences(label(ratio, noise, row), label(ratio, noise, other))


def check(study: h.Study, bounds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the runs of a study."""
    clean = differences(study, CHECKED_RATIO, 0.0, GUIDED, COMPRESSED)
    with_noise = differences(study, CHECKED_RATIO, 0.2, GUIDED, COMPRESSED)
    what = f"{GUIDED} minus {COMPRESSED}, r={CHECKED_RATIO:g}, points"
    claims = [h.at_least(what, clean, bounds["gain"])]
    if "lower end of the 95 % interval" in bounds:
        text, low = f"lower end of the 95 % interval of it, {len(clean)} seeds", [h.interval(clean)[0]]
        claims.append(h.at_least(text, low, bounds["lower end of the 95 % interval"]))
    if "with noise" in bounds:
        claims.append(h.at_least(f"{what}, 20 % label noise", with_noise, bounds["with noise"]))
    text = f"seconds of {GUIDED} itself, as a share of those of training, median"
    return [*claims, h.at_most(text, cost(study), bounds["extra cost"])]


def cost(study: h.Study) -> float | None:
    """Return the median share of the training seconds that loss-guided rounds take, over seeds and noises."""
    runs = [run for noise in NOISES for run in study.runs(label(CHECKED_RATIO, noise, GUIDED))]
    shares = [run["selecting seconds"] / run["training seconds"] for run in runs]
    return statistics.median(shares) if shares else None


def report(study: h.Study, ratios: Sequence[float]) -> None:
    """Print accuracy and paired differences."""
    rows = []
    for ratio, noise, row in product(ratios, NOISES, ROWS):
        name = label(ratio, noise, row)
        if name not in study.methods:
            continue
        shown = [h.show(study.values(name)), str(len(study.runs(name))), h.show(study.values(name, "seconds"), 1)]
        gains = differences(study, ratio, noise, row, COMPRESSED)
        low, high = h.interval(gains)
        shown += ["", ""] if row == COMPRESSED else [h.show(gains), f"{low:+.2f} to {high:+.2f}"]
        rows.append([name, *shown])
    columns = ["row", "accuracy, %", "seeds", "seconds", "minus compressed full", "95 % interval"]
    h.print_table(f"Fashion-MNIST, {study.head['settings']['net']}, equal steps", columns, rows)


def draw(study: h.Study, ratios: Sequence[float]) -> Any:
    """Draw the gain over compressed full training with its 95 % interval, one panel per noise."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(NOISES), sharey=True)
    for axes, noise in zip(panels, NOISES, strict=True):
        for number, row in enumerate((INFOBATCH, RS2, GUIDED)):
            for place, ratio in enumerate(sorted(ratios)):
                gains = differences(study, ratio, noise, row, COMPRESSED)
                if len(gains) < 2:
                    continue
                mean, (low, high) = statistics.fmean(gains), h.interval(gains)
                where = place + 0.2 * (number - 1)
                axes.errorbar(where, mean, [[mean - low], [high - mean]], fmt="o", color=f"C{number}", capsize=3)
            axes.plot([], [], "o", color=f"C{number}", label=row)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=f"{noise:.0%} of the labels wrong", xlabel="share of the data per round")
        axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in sorted(ratios)])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("points over compressed full")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def benches(net: str, options: h.Options) -> Callable[[int, float, float], Bench]:
    """Return what makes the bench of a seed, ratio and noise; the images are shared."""
    train, test = load("train"), load("test")

    def make(seed: int, ratio: float, noise: float) -> Bench:
        data = CountedRows(train.images, noisy(train.labels, noise, seed))
        return Bench(data, test, ratio=ratio, batch=BATCH, rounds=ROUNDS, points=4, options=options, net=net)

    return make


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    chooser = argparse.ArgumentParser(add_help=False)
    chooser.add_argument("--net", choices=list(WIDTHS), default="cnn", help="network; each has its own result file")
    options = h.read_options(__doc__.splitlines()[0], full_seeds=5, quick_seeds=2, argv=argv, parents=[chooser])
    net = chooser.parse_known_args(argv)[0].net
    settings = {
        "net": net,
        "width": WIDTHS[net],
        "rounds": ROUNDS,
        "batch": BATCH,
        "peak rate": PEAK_RATE,
    }
    try:
        study = h.Study("rs2_loss_guided", "accuracy", settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    make = benches(net, options)
    planned = cells(options.size)

    def measure(method: str, seed: int) -> h.Run:
        ratio, noise, row = planned[method]
        bench = make(seed, ratio, noise)
        return bench.run(seed, ROWS[row](bench, seed), bench.steps)

    with h.bench_settings(options.threads):
        first = make(0, CHECKED_RATIO, 0.0)
        first.fit(0, Plan(first.train, {"max_steps": 5, "max_epochs": -1}), 5)  # pays for imports and memory pools
        for ratio in RATIOS[options.size]:  # what is checked comes first
            h.run_missing(study, [name for name, cell in planned.items() if cell[0] == ratio], options.seeds, measure)
    report(study, RATIOS[options.size])
    h.save_figure(lambda: draw(study, RATIOS[options.size]), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


if __name__ == "__main__":
    sys.exit(main())
