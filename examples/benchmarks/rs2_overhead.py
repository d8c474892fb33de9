"""What RS2 costs per step and per round, against the plain DataLoader with the same batches per epoch.

Both sides have the same images, batch size, step and two persistent workers, and 50 batches an epoch (round): the plain
loader over a tenth of the images, RS2 over all of them. A repeat runs every row once; the medians are over repeats.

    python examples/benchmarks/rs2_overhead.py --out rs2_overhead.json --check
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import _harness as h
import torch
from _rs2_training import Classifier
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from lightning_adapt import RS2Callback, RS2Sampler, rs2_loader
from lightning_adapt._shared.collate import as_is
from lightning_adapt._shared.demo_training import CountedRows, quiet_trainer

# time per step against the plain loader, turnovers included; milliseconds added to the turnover of a round
THRESHOLDS: dict[str, dict[str, float]] = {
    "full": {"ratio": 1.05, "turnover": 10.0},
    "quick": {"ratio": 1.10, "turnover": 10.0},
}
N_IMAGES, BATCH, RATIO, BATCHES = 30_000, 60, 0.1, 50
ROUNDS = {"full": 8, "quick": 3}
SKIPPED = 2  # rounds not counted: the first starts the workers, at the end of it Lightning sets up what was logged
WORKERS = 2

LOOP, LOOP_RS2 = "loop, DataLoader", "loop, rs2_loader"
TRAINER, TRAINER_RS2 = "Trainer", "Trainer, RS2Callback"
BARE, BARE_RS2 = "no step, DataLoader", "no step, rs2_loader"
PLANS = {"planning a round, N=60,000": 60_000, "planning a round, N=1,281,167": 1_281_167}
PAIRS = ((TRAINER_RS2, TRAINER), (LOOP_RS2, LOOP), (BARE_RS2, BARE))
METRIC = "milliseconds"  # per step; planning: until a round's first row is known, the slowest of 11 rounds

Times = list[list[tuple[float, float]]]  # per round and step: seconds when it began and ended


def loader(images: CountedRows, device: str) -> DataLoader[Any]:
    """Return the ordinary loader of both sides."""
    return DataLoader(
        images,
        BATCH,
        shuffle=True,
        collate_fn=as_is,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )


def summary(times: Times) -> h.Run:
    """Return milliseconds per step, with and without the turnovers, and per turnover; the first rounds are left out."""
    times = times[SKIPPED - 1 :]
    steps = sum(len(part) for part in times[1:])
    turnovers = [1000 * (after[0][0] - before[-1][1]) for before, after in pairwise(times)]
    total = 1000 * (times[-1][-1][1] - times[0][-1][1])
    return {
        METRIC: total / steps,
        "between turnovers": (total - sum(turnovers)) / steps,
        "turnover": statistics.median(turnovers),
    }


class Stopwatch(Callback):
    """Notes when every training step of a Trainer begins and ends."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: Times = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ARG002
        self.times.append([])

    def on_train_batch_start(self, *_: Any) -> None:
        self.began = h.now(self.device)

    def on_train_batch_end(self, *_: Any) -> None:
        self.times[-1].append((self.began, h.now(self.device)))


class Bench:
    """The images, and how a row runs.

    Args:
        rounds: Rounds per run.
        device: "cpu" or "cuda".
    """

    def __init__(self, rounds: int, device: str) -> None:
        self.rounds, self.device = rounds, device
        draws = torch.Generator().manual_seed(0)
        images = torch.rand(N_IMAGES, 1, 28, 28, generator=draws)
        self.all = CountedRows(images, torch.randint(10, (N_IMAGES,), generator=draws))
        kept = BATCH * BATCHES
        self.tenth = CountedRows(self.all.images[:kept], self.all.labels[:kept])

    def loop(self, seed: int, *, rs2: bool, step: bool = True) -> h.Run:
        """Time a plain PyTorch loop."""
        torch.manual_seed(seed)
        work = _training_step(self.device) if step else (lambda _: None)
        batches = (
            rs2_loader(loader(self.all, self.device), RATIO, seed=seed) if rs2 else loader(self.tenth, self.device)
        )
        times: Times = []
        for number in range(self.rounds):
            if rs2:
                batches.sampler.set_epoch(number)  # type: ignore[attr-defined]
            times.append(list(self._round(batches, work)))
        return summary(times)

    def _round(self, batches: Any, work: Callable[[Any], None]) -> Iterator[tuple[float, float]]:
        for batch in batches:
            began = h.now(self.device)
            work(batch)
            yield began, h.now(self.device)

    def trainer(self, seed: int, *, rs2: bool) -> h.Run:
        """Time a Trainer with and without the callback."""
        torch.manual_seed(seed)
        watch = Stopwatch(self.device)
        callbacks = [RS2Callback(RATIO, seed=seed), watch] if rs2 else [watch]
        accelerator = "gpu" if self.device == "cuda" else "cpu"
        trainer = quiet_trainer(callbacks, accelerator=accelerator, max_epochs=self.rounds)
        trainer.fit(Classifier(10_000), loader(self.all if rs2 else self.tenth, self.device))
        return summary(watch.times)


def _training_step(device: str) -> Callable[[Any], None]:
    module = Classifier(10_000).to(device)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, nesterov=True)

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        module.training_step([part.to(device, non_blocking=True) for part in batch], 0).backward()
        optimizer.step()

    return step


def plan(n: int, seed: int) -> h.Run:
    """Time the sampler alone, over the 10 rounds of a pass and the first of the next."""
    sampler = RS2Sampler(n, RATIO, seed=seed)
    first, whole = [], []
    for number in range(11):
        sampler.set_epoch(number)
        began = h.now("cpu")
        rows = iter(sampler)
        next(rows)
        first.append(1000 * (h.now("cpu") - began))
        for _ in rows:
            pass
        whole.append(1000 * (h.now("cpu") - began))
    return {METRIC: max(first), "median of rounds": statistics.median(first), "all rows": statistics.median(whole)}


ROWS: dict[str, Callable[[Bench, int], h.Run]] = {
    TRAINER: lambda bench, seed: bench.trainer(seed, rs2=False),
    TRAINER_RS2: lambda bench, seed: bench.trainer(seed, rs2=True),
    LOOP: lambda bench, seed: bench.loop(seed, rs2=False),
    LOOP_RS2: lambda bench, seed: bench.loop(seed, rs2=True),
    BARE: lambda bench, seed: bench.loop(seed, rs2=False, step=False),
    BARE_RS2: lambda bench, seed: bench.loop(seed, rs2=True, step=False),
    **{name: lambda _, seed, n=n: plan(n, seed) for name, n in PLANS.items()},  # type: ignore[misc]
}
QUICK_ROWS = (TRAINER, TRAINER_RS2, BARE, BARE_RS2)


def ratio(study: h.Study, method: str, plain: str) -> float | None:
    """Return the median over repeats of the two rows' ratio in the same repeat."""
    ratios = study.ratios(method, plain)
    return statistics.median(ratios) if ratios else None


def extra_turnover(study: h.Study, method: str, plain: str) -> float | None:
    """Return the median over repeats of the milliseconds that a turnover takes longer."""
    differences = study.differences(method, plain, "turnover")
    return statistics.median(differences) if differences else None


def check(study: h.Study, thresholds: dict[str, float]) -> list[h.Claim]:
    """Return the claims about the rows that do work between batches."""
    claims = []
    for method, plain in PAIRS[:2]:
        if method in study.methods:
            text = f"{method} against {plain}: "
            claims.append(h.at_most(f"{text}time per step, ratio", ratio(study, method, plain), thresholds["ratio"]))
            extra = extra_turnover(study, method, plain)
            claims.append(h.at_most(f"{text}extra turnover, ms", extra, thresholds["turnover"]))
    return claims


def report(study: h.Study) -> None:
    """Print milliseconds, ratios and planning times."""
    keys = (METRIC, "between turnovers", "turnover")
    rows = [
        [name, *(h.show(study.values(name, key)) for key in keys)]
        for pair in PAIRS
        for name in pair[::-1]
        if name in study.methods
    ]
    h.print_table("milliseconds per step, and per turnover of a round", ["row", "per step", *keys[1:]], rows)
    rows = [
        [method, *(_number(value) for value in (ratio(study, method, plain), extra_turnover(study, method, plain)))]
        for method, plain in PAIRS
        if method in study.methods
    ]
    h.print_table(
        "against the row without RS2, medians over repeats", ["row", "ratio per step", "extra turnover, ms"], rows
    )
    keys = (METRIC, "median of rounds", "all rows")
    rows = [[name, *(h.show(study.values(name, key)) for key in keys)] for name in PLANS if name in study.methods]
    if rows:
        h.print_table(
            "sampler alone, milliseconds", ["row", "first row, slowest round", "first row, median", "all rows"], rows
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def draw(study: h.Study) -> Any:
    """Draw the ratio of every repeat."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    shown = [(method, plain) for method, plain in PAIRS if method in study.methods]
    for place, (method, plain) in enumerate(shown):
        ratios = study.ratios(method, plain)
        axes.plot(ratios, [place] * len(ratios), "o", alpha=0.5)
        axes.plot([statistics.median(ratios)], [place], "k|", markersize=18)
    axes.axvline(1, color="gray", linewidth=1)
    axes.set_yticks(range(len(shown)), [method for method, _ in shown])
    axes.set(
        xlabel="time per step against the plain loader (a dot per repeat, bar: median)", ylim=(-0.6, len(shown) - 0.4)
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    options = h.read_options(__doc__.splitlines()[0], full_seeds=40, quick_seeds=5, argv=argv)
    settings = {
        "rounds": ROUNDS[options.size],
        "batches": BATCHES,
        "batch": BATCH,
        "images": N_IMAGES,
        "workers": WORKERS,
    }
    try:
        study = h.Study("rs2_overhead", METRIC, settings, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    bench = Bench(ROUNDS[options.size], options.device)
    with h.bench_settings(options.threads):
        bench.trainer(0, rs2=True)  # imports and memory pools, at nobody's cost
        h.run_missing(study, QUICK_ROWS if options.quick else list(ROWS), options.seeds, partial(_measure, bench))
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, THRESHOLDS[options.size]), options)


def _measure(bench: Bench, method: str, seed: int) -> h.Run:
    return ROWS[method](bench, seed)


if __name__ == "__main__":
    sys.exit(main())
