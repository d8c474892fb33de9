"""The RS2 section of the demo: RS2 beside a shorter run, limit_train_batches, a fixed subset and the full run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_adapt._shared.collate import as_is
from lightning_adapt._shared.datasets import digits, fashion_mnist, find_fashion_mnist
from lightning_adapt._shared.demo_frame import Arm, Context, Gap, compare, nbsp, one_thread, over_seeds, table_rows
from lightning_adapt._shared.demo_parts import ImageClassifier
from lightning_adapt._shared.demo_training import CountedRows, Stopwatch, TrainingRun, quiet_trainer
from lightning_adapt._shared.report_parts import Cell, Column, Finding, Picture, Score, Section, Usage
from lightning_adapt.rs2.callback import RS2Callback
from lightning_adapt.rs2.figures import coverage_figure
from lightning_adapt.rs2.sampler import RS2Sampler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["USAGE", "run"]

RATIO = 0.1
_Images = tuple[Tensor, Tensor]


_ARMS = {
    "rs2": Arm(f"RS2: a fresh {RATIO:.0%} each round", "ours"),
    "short": Arm("shorter run, schedule squeezed", "control"),
    "limit": Arm(f"limit_train_batches={RATIO}", "control"),
    "static": Arm(f"one random {RATIO:.0%}, kept", "baseline"),
    "full": Arm("all data each epoch", "baseline"),
}
_LINES = {"rs2": "-o", "short": "--s", "limit": ":^", "static": "-.D", "full": "-v"}  # matplotlib's style and marker
_COLUMNS = (
    Column("test accuracy", "%", 1, "higher"),
    Column("training time", "CPU s", 1, "lower"),
    Column("optimizer steps", "", 0),
    Column("data seen", "%", 0),
)
USAGE = Usage(
    command="lightning-adapt overlay rs2 > rs2.yaml\npython main.py fit --config mine.yaml --config rs2.yaml",
    python="""from lightning_adapt import RS2Callback

trainer = L.Trainer(
    max_epochs=200, callbacks=[RS2Callback(ratio=0.1)]
)
trainer.fit(model, datamodule=data)  # as they are""",
    yaml="""trainer:
  callbacks+:
  - class_path: lightning_adapt.RS2Callback
    init_args:
      ratio: 0.1""",
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


def run(context: Context) -> Section:
    """Train every row on the same seeds, interleaved, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    task = _digits_task(context.quick) if context.quick or find_fashion_mnist() is None else _fashion_task()
    context.start(task.short_steps * 4 * task.seeds + task.full_steps)
    with one_thread():
        _fit(task, "short", 0, lambda: None, steps=3)  # the first training pays for set-up that is no row's own
    fit = partial(_fit, task, advance=context.advance)
    seeds = range(task.seeds)
    runs = compare(context, _ARMS, seeds, lambda _, arm, seed: fit(arm, seed), once=["full"])  # ten times the cost
    return Section(
        method="rs2",
        title="RS2: repeated random subsets",
        problem="Training takes too long: you want most of the accuracy for a tenth of the time, in your own Trainer.",
        findings=(_finding(task, runs),),
        usage=USAGE,
    )


def _digits_task(quick: bool) -> _Task:
    train, test = digits()
    rounds = 10 if quick else 20
    name = f"scikit-learn digits ({len(train):,} images)"
    return _Task(name, *_standardised(train.tensors, test.tensors), 16, rounds, 2)


def _fashion_task() -> _Task:
    # some of the images: the row that takes all of them in every epoch would take minutes
    train, test = fashion_mnist("train").tensors, fashion_mnist("test").tensors
    chosen = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(0))[:6_400]
    some = (train[0][chosen], train[1][chosen]), (test[0][:4_000], test[1][:4_000])
    return _Task("Fashion-MNIST (6,400 of its images)", *_standardised(*some), 64, 10, 3)


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


def _finding(task: _Task, runs: dict[str, list[TrainingRun]]) -> Finding:
    accuracy = {arm: [one.accuracy for one in some] for arm, some in runs.items()}
    seconds = {arm: mean(one.seconds for one in some) for arm, some in runs.items()}
    return Finding(
        caption="After training",
        columns=_COLUMNS,
        rows=table_rows(_ARMS, lambda arm: _cells(runs[arm])),
        setting=f"{task.name}, a small CNN, {task.rounds} epochs (rounds), {task.seeds} seeds (all data each epoch: "
        "one seed); mean ± standard deviation over the seeds. Equal start, batch size and schedule shape in all rows.",
        gained=nbsp(_gained(accuracy, seconds)),
        not_gained=nbsp(_not_gained(accuracy)),
        score=_score(accuracy),
        pictures=_pictures(task, runs),
    )


def _pictures(task: _Task, runs: dict[str, list[TrainingRun]]) -> tuple[Picture, ...]:
    sampler = RS2Sampler(task.n_rows, RATIO, round_to=task.batch_size, num_replicas=1, rank=0)
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
        over_seeds([one.accuracy for one in runs]),
        over_seeds([one.seconds for one in runs]),
        Cell(runs[0].steps),
        Cell(100 * mean(one.seen for one in runs)),
    )


# -- words, from the numbers of the table, whichever way they fell out ------------------------------------------------
def _gap(accuracy: Mapping[str, list[float]], other: str) -> Gap:
    return Gap.between(accuracy["rs2"], accuracy[other], 1, "points")


def _gained(accuracy: Mapping[str, list[float]], seconds: Mapping[str, float]) -> str:
    static = _gap(accuracy, "static").against(f"one random {RATIO:.0%} kept for the whole run")
    return (
        f"{mean(accuracy['rs2']):.1f} % accuracy in {seconds['rs2']:.1f} s of training, where all data each epoch took "
        f"{seconds['full'] / seconds['rs2']:.1f} times as long; that is {static} at {mean(accuracy['static']):.1f} %."
    )


def _not_gained(accuracy: Mapping[str, list[float]]) -> str:
    ours, short, limit, full = (mean(accuracy[arm]) for arm in ("rs2", "short", "limit", "full"))
    shorter = _gap(accuracy, "short")
    tie = "" if shorter.result == "level" else ", where theory expects a tie"
    return (
        f"All data each epoch reached {full:.1f} %, {_above(full - ours)} RS2; and RS2 is "
        f"{shorter.against('a shorter run')}{tie}: as many plain steps reached {short:.1f} % with the schedule "
        f"squeezed and {limit:.1f} % with limit_train_batches={RATIO}."
    )


def _above(points: float) -> str:
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def _score(accuracy: Mapping[str, list[float]]) -> Score:
    static, shorter = _gap(accuracy, "static"), _gap(accuracy, "short")
    ours, full = mean(accuracy["rs2"]), mean(accuracy["full"])
    beside = {"better": "better than", "level": "no better than", "worse": "worse than"}[shorter.result]
    return Score(
        measure=f"test accuracy after {RATIO:.0%} of the steps, %",
        baseline=_ARMS["static"].name,
        without=f"{mean(accuracy['static']):.1f}",
        ours=f"{ours:.1f}",
        change=str(static),
        result=static.result,
        but=f"{_above(ours - full)} all data; {beside} a shorter run",
    )


def _accuracy_figure(runs: dict[str, list[TrainingRun]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for arm, some in runs.items():
        seconds, accuracy = zip(*some[0].curve, strict=True)
        width, above = (2.8, 3) if arm == "rs2" else (1.6, 2)
        axes.plot(seconds, accuracy, _LINES[arm], label=_ARMS[arm].name, linewidth=width, zorder=above)
    axes.set(xscale="log", xlabel="training time (CPU s, logarithmic)", ylabel="test accuracy (%)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(visible=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right")
    return figure
