"""The RS2 section of the demo: RS2 beside a shorter run, limit_train_batches, a fixed subset and the full run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_adapt._shared.batch_sampler import as_is
from lightning_adapt._shared.datasets import digits, fashion_mnist, find_fashion_mnist
from lightning_adapt._shared.demo_parts import ImageClassifier
from lightning_adapt._shared.demo_training import CountedRows, Stopwatch, TrainingRun, one_thread, quiet_trainer
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report import Cell, Column, Kind, Picture, Row, Section
from lightning_adapt.rs2.callback import RS2Callback
from lightning_adapt.rs2.figures import coverage_figure
from lightning_adapt.rs2.sampler import RS2Sampler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_adapt.demo import DemoContext

__all__ = ["run"]

RATIO = 0.1
_Images = tuple[Tensor, Tensor]


class _Arm(NamedTuple):
    name: str
    kind: Kind
    line: str  # matplotlib's line style and marker


_ARMS = {
    "rs2": _Arm(f"RS2: a fresh {RATIO:.0%} each round", "ours", "-o"),
    "short": _Arm("shorter run, schedule squeezed", "control", "--s"),
    "limit": _Arm(f"limit_train_batches={RATIO}", "control", ":^"),
    "static": _Arm(f"one random {RATIO:.0%}, kept", "baseline", "-.D"),
    "full": _Arm("all data each epoch", "baseline", "-v"),
}
_COLUMNS = (
    Column("test accuracy", "%", 1),
    Column("training time", "CPU s", 1),
    Column("optimizer steps", "", 0),
    Column("data seen", "%", 0),
)
_USAGE = (
    (
        "In a script",
        "from lightning_adapt import RS2Callback\n\n"
        "trainer = L.Trainer(max_epochs=200, callbacks=[RS2Callback(ratio=0.1)])\n"
        "trainer.fit(model, datamodule=data)  # your model and your data, as they are",
    ),
    (
        "On top of your own LightningCLI and YAML",
        "lightning-adapt overlay rs2 > rs2.yaml\npython main.py fit --config mine.yaml --config rs2.yaml",
    ),
)


@dataclass(frozen=True)
class _Task:
    """Data and sizes of the section."""

    name: str
    train: _Images
    test: _Images
    batch_size: int
    rounds: int
    seeds: int

    @property
    def n_rows(self) -> int:
        return len(self.train[1])

    @property
    def steps_per_round(self) -> int:
        return round(RATIO * self.n_rows) // self.batch_size  # as RS2 rounds

    @property
    def short_steps(self) -> int:
        return self.steps_per_round * self.rounds

    @property
    def full_steps(self) -> int:
        return -(-self.n_rows // self.batch_size) * self.rounds


def run(context: DemoContext) -> Section:
    """Train every row on the same seeds, interleaved, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    require("figures", "The RS2 demo", "matplotlib")
    began = time.perf_counter()
    task = _digits_task(context.quick) if context.quick or find_fashion_mnist() is None else _fashion_task()
    context.start(total=task.short_steps * 4 * task.seeds + task.full_steps)
    runs: dict[str, list[TrainingRun]] = {arm: [] for arm in _ARMS}
    with one_thread():
        _fit(task, "short", 0, lambda: None, steps=3)  # the first training pays for set-up that is no row's own
        for seed in range(task.seeds):
            for arm in _ARMS:
                if arm == "full" and seed > 0:  # ten times the cost of the others
                    continue
                context.doing(f"{_ARMS[arm].name}, seed {seed}")
                runs[arm].append(_fit(task, arm, seed, context.advance))
    context.doing("RS2")
    return _section(task, runs, time.perf_counter() - began)


def _digits_task(quick: bool) -> _Task:
    train, test = digits()
    rounds = 10 if quick else 20
    name = f"scikit-learn digits ({len(train):,} images)"
    return _Task(name, *_standardised(train.tensors, test.tensors), 16, rounds, 2)


def _fashion_task() -> _Task:
    # a quarter of the images: the row that takes all of them in every epoch would take minutes
    train, test = fashion_mnist("train").tensors, fashion_mnist("test").tensors
    chosen = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(0))[:16_000]
    some = (train[0][chosen], train[1][chosen]), (test[0][:5_000], test[1][:5_000])
    return _Task("Fashion-MNIST (16,000 of its images)", *_standardised(*some), 128, 10, 2)


def _standardised(train: tuple[Tensor, ...], test: tuple[Tensor, ...]) -> tuple[_Images, _Images]:
    centre, spread = train[0].mean(), train[0].std()
    return ((train[0] - centre) / spread, train[1]), ((test[0] - centre) / spread, test[1])


def _fit(task: _Task, arm: str, seed: int, advance: Callable[[], None], steps: int | None = None) -> TrainingRun:
    """Train one row; all rows of a seed start from the same weights and take the same steps, except "full"."""
    rows = CountedRows(*task.train)
    data: Dataset[Any] = rows
    total = task.full_steps if arm == "full" else task.short_steps
    length: dict[str, Any] = {"max_epochs": task.rounds}
    callbacks: list[Callback] = []
    shuffle = torch.Generator().manual_seed(seed)
    if arm == "rs2":
        callbacks.append(RS2Callback(RATIO, seed=seed))
    elif arm == "short":
        length = {"max_epochs": -1, "max_steps": steps or total}
    elif arm == "limit":
        length["limit_train_batches"] = task.steps_per_round  # as 0.1 does, but rounded as RS2 rounds
    elif arm == "static":
        kept = task.steps_per_round * task.batch_size
        data = Subset(rows, torch.randperm(task.n_rows, generator=shuffle)[:kept].tolist())
    points = (8 if arm == "full" else 5) if seed == 0 else 1  # one curve per row is enough for the figure
    watch = Stopwatch(*task.test, {total * part // points for part in range(1, points)}, advance)
    loader = DataLoader(data, task.batch_size, shuffle=True, generator=shuffle, collate_fn=as_is)
    quiet_trainer([*callbacks, watch], **length).fit(_model(task, seed), loader)
    watch.run.seen = rows.seen.float().mean().item()
    return watch.run


def _model(task: _Task, seed: int) -> ImageClassifier:
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        return ImageClassifier(task.train[0].shape[-1], learning_rate=0.1)


def _section(task: _Task, runs: dict[str, list[TrainingRun]], seconds: float) -> Section:
    cells = {arm: _cells(some) for arm, some in runs.items()}
    sampler = RS2Sampler(task.n_rows, RATIO, round_to=task.batch_size, num_replicas=1, rank=0)
    return Section(
        method="rs2",
        title="RS2: repeated random subsets",
        problem="Training takes too long: you want most of the accuracy for a tenth of the time, in your own Trainer.",
        setting=f"{task.name}, a small CNN, {task.rounds} epochs (rounds), {task.seeds} seeds (all data each epoch: "
        "one seed); mean ± standard deviation over the seeds. Equal start, batch size and schedule shape in all rows.",
        table_caption="After training",
        columns=_COLUMNS,
        rows=tuple(Row(_ARMS[arm].name, _ARMS[arm].kind, numbers) for arm, numbers in cells.items()),
        verdict=_verdict(cells),
        usage=_USAGE,
        seconds=seconds,
        pictures=_pictures(task, runs, sampler),
    )


def _pictures(task: _Task, runs: dict[str, list[TrainingRun]], sampler: RS2Sampler) -> tuple[Picture, ...]:
    first = {_ARMS[arm].name: some[0] for arm, some in runs.items()}
    ends = "; ".join(f"{name}, {one.accuracy:.1f} % after {one.seconds:.1f} s" for name, one in first.items())
    independent = RS2Sampler(task.n_rows, RATIO, mode="independent", round_to=task.batch_size, num_replicas=1, rank=0)
    ours, other = sampler.coverage(task.rounds), independent.coverage(task.rounds)
    return (
        Picture(
            "accuracy",
            "Test accuracy against training time, seed 0. Evaluation is not counted.",
            f"Line plot of test accuracy against training seconds on a logarithmic axis. Ends of the lines: {ends}.",
            partial(_accuracy_figure, runs),
        ),
        Picture(
            "coverage",
            "Left: share of the data seen, for each way of drawing. Right: how often RS2 drew each row.",
            f"Two plots. After {task.rounds} rounds RS2 without replacement has seen {ours:.0%} of the rows, "
            f"independent draws have seen {other:.0%}. RS2 draws all rows about equally often.",
            partial(coverage_figure, sampler, task.rounds),
        ),
    )


def _cells(runs: list[TrainingRun]) -> tuple[Cell, ...]:
    return (
        _over_seeds([one.accuracy for one in runs]),
        _over_seeds([one.seconds for one in runs]),
        Cell(runs[0].steps),
        Cell(100 * mean(one.seen for one in runs)),
    )


def _over_seeds(values: list[float]) -> Cell:
    return Cell(mean(values), stdev(values) if len(values) > 1 else None)


def _verdict(cells: dict[str, tuple[Cell, ...]]) -> str:
    """Word the result from the numbers of the table, whichever way they fell out."""
    accuracy = {arm: row[0] for arm, row in cells.items()}
    ours, static, full = accuracy["rs2"], accuracy["static"], accuracy["full"]
    times = cells["full"][1].value / cells["rs2"][1].value
    text = (
        f"RS2 reached {ours.value:.1f} %, {_against(ours, static)} one random {RATIO:.0%} of the data kept for the "
        f"whole run ({static.value:.1f} %). {_identity(accuracy)} All data each epoch took {times:.1f} times as long "
        f"and reached {full.value:.1f} %, {_against(full, ours)} RS2."
    )
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _identity(accuracy: dict[str, Cell]) -> str:
    ours, short, static = accuracy["rs2"], accuracy["short"], accuracy["static"]
    numbers = (
        f"Plain training for as many steps, with the schedule squeezed, reached {short.value:.1f} % and "
        f"limit_train_batches={RATIO} {accuracy['limit'].value:.1f} %"
    )
    if not _equal(ours, short):
        return f"{numbers}: RS2 is {_against(ours, short)} shorter training here, where theory expects a tie."
    if ours.value > static.value and not _equal(ours, static):
        return f"{numbers}: the gain is over a fixed subset, not over shorter training."
    return f"{numbers}: no gain over shorter training either."


def _against(one: Cell, other: Cell) -> str:
    if _equal(one, other):
        return "no clear difference to"
    gap = one.value - other.value
    return f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"


def _equal(one: Cell, other: Cell) -> bool:
    """Return whether two means differ by less than both spreads together, or by less than a point."""
    return abs(one.value - other.value) <= max((one.sd or 0.0) + (other.sd or 0.0), 1.0)


def _accuracy_figure(runs: dict[str, list[TrainingRun]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for arm, some in runs.items():
        seconds, accuracy = zip(*some[0].curve, strict=True)
        width, above = (2.8, 3) if arm == "rs2" else (1.6, 2)
        axes.plot(seconds, accuracy, _ARMS[arm].line, label=_ARMS[arm].name, linewidth=width, zorder=above)
    axes.set(xscale="log", xlabel="training time (CPU s, logarithmic)", ylabel="test accuracy (%)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    return figure
