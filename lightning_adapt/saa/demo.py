"""The SAA section of the demo: digits with four labels a class, with the labels alone, by FixMatch, and with SAA."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import TensorDataset
from typing_extensions import override

from lightning_adapt._shared.datasets import digits
from lightning_adapt._shared.demo_frame import Arm, Context, Gap, compare, nbsp, one_thread, over_seeds, table_rows
from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt._shared.report_parts import Cell, Column, Finding, Picture, Score, Section, Usage
from lightning_adapt.saa.callback import SampleAdaptiveAugmentation
from lightning_adapt.saa.data.datamodule import SAADataModule
from lightning_adapt.saa.figures import selection_figure, views_figure
from lightning_adapt.saa.functional import consistency_loss
from lightning_adapt.saa.models.backbones import SmallCNN
from lightning_adapt.saa.models.fixmatch import FixMatchModule

__all__ = ["USAGE", "run"]

N_LABELS = 40
_STEPS_PER_EPOCH = 20
_COLUMNS = (
    Column("test accuracy", "%", 1, "higher"),
    Column("against FixMatch", "points", 1, "higher"),
    Column("views regrouped", "%", 0),
    Column("training time", "CPU s", 1, "lower"),
)
USAGE = Usage(
    command="lightning-adapt overlay saa > saa.yaml\npython main.py fit --config mine.yaml --config saa.yaml",
    python="""from lightning_adapt import (
    FixMatchModule, SAADataModule,
    SampleAdaptiveAugmentation,
)

data = SAADataModule(labeled, unlabeled, val)
saa = SampleAdaptiveAugmentation()
trainer = L.Trainer(max_epochs=100, callbacks=[saa])
trainer.fit(FixMatchModule(), data)""",
    yaml="""trainer:
  callbacks+:
  - class_path: lightning_adapt.SampleAdaptiveAugmentation
    init_args:
      threshold: otsu""",
)
_ARMS = {
    "supervised": Arm(f"the {N_LABELS} labels alone", "baseline"),
    "fixmatch": Arm("FixMatch", "baseline"),
    "all": Arm("FixMatch, every view regrouped", "control"),
    "saa": Arm("FixMatch with SAA", "ours"),
}


class _Task(NamedTuple):
    """Data and sizes of the section."""

    train: TensorDataset
    test: TensorDataset
    epochs: int
    seeds: int

    @property
    def steps(self) -> int:
        return self.epochs * _STEPS_PER_EPOCH


class _Found(NamedTuple):
    """What one training gave."""

    accuracy: float  # percent
    regrouped: float  # percent of the strong views
    seconds: float
    saa: SampleAdaptiveAugmentation
    data: SAADataModule


class _LabelsAlone(FixMatchModule):
    """The same network and optimizer on the labelled images of each batch."""

    @override
    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        return {"loss": consistency_loss(self(batch["labeled"]["image"]), batch["labeled"]["label"]).mean()}


class _Watch(Callback):
    """Counts regrouped views, and takes the processor time of training."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance
        self.regrouped: list[float] = []
        self.seconds = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.regrouped.append(float(batch["unlabeled"]["regrouped"].float().mean()))
        self.advance()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.process_time() - self._began


def run(context: Context) -> Section:
    """Train every row on the same seeds, interleaved, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    task = _Task(*digits(0.4), *((2, 2) if context.quick else (10, 3)))
    context.start(task.steps * len(_ARMS) * task.seeds)
    fit = partial(_fit, task, advance=context.advance)
    with one_thread():
        found = compare(context, _ARMS, range(task.seeds), lambda _, arm, seed: fit(arm, seed))
    return Section(
        method="saa",
        title="SAA: sample-adaptive augmentation",
        problem="You have plenty of images and a handful of labels, and most of the images teach nothing any more.",
        findings=(_finding(task, found),),
        usage=USAGE,
    )


def _fit(task: _Task, arm: str, seed: int, advance: Callable[[], None]) -> _Found:
    """Train one row; all rows of a seed have the same labels, weights at the start and number of steps."""
    data = SAADataModule(
        task.train,
        val=task.test,
        n_labels=N_LABELS,
        batch_size=16,
        mu=1 if arm == "supervised" else 4,
        steps_per_epoch=_STEPS_PER_EPOCH,
        flip=False,  # a mirrored digit is another one, or none
        seed=seed,
    )
    if arm == "all":
        data.use_flags(torch.ones(data.n_unlabeled, dtype=torch.bool))
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        kind = _LabelsAlone if arm == "supervised" else FixMatchModule
        # so few steps: averaged weights, or slow averages in BatchNorm, would lag behind and harm the baselines most
        model = kind(SmallCNN(channels=1, bn_momentum=0.1), ema_decay=None)
    saa, watch = SampleAdaptiveAugmentation(warmup=0.25, enabled=arm == "saa"), _Watch(advance)
    quiet_trainer([saa, watch], max_epochs=task.epochs, limit_val_batches=0).fit(model, datamodule=data)
    (scores,) = quiet_trainer([]).validate(model, datamodule=data, verbose=False)
    return _Found(100 * scores["val_accuracy"], 100 * mean(watch.regrouped), watch.seconds, saa, data)


def _finding(task: _Task, found: dict[str, list[_Found]]) -> Finding:
    accuracy = {arm: [one.accuracy for one in some] for arm, some in found.items()}
    return Finding(
        caption="After training",
        columns=_COLUMNS,
        rows=table_rows(_ARMS, lambda arm: _cells(arm, found[arm], accuracy)),
        setting=f"scikit-learn digits: {len(task.train):,} images, {N_LABELS} of them with labels (4 a class), tested "
        f"on {len(task.test)}; a small CNN, {task.steps} steps, {task.seeds} seeds, mean ± standard deviation. Equal "
        "labels, start and steps in all rows; the second column is paired by seed.",
        gained=nbsp(_gained(accuracy)),
        not_gained=nbsp(_not_gained(accuracy, task.steps)),
        score=_score(accuracy, task.steps),
        pictures=_pictures(found["saa"][0]),
    )


def _cells(arm: str, some: list[_Found], accuracy: Mapping[str, list[float]]) -> tuple[Cell, ...]:
    gains = Cell(0.0) if arm == "fixmatch" else over_seeds(_gap(accuracy, arm, "fixmatch").values)
    seconds = over_seeds([one.seconds for one in some])
    return over_seeds(accuracy[arm]), gains, Cell(mean(one.regrouped for one in some)), seconds


def _pictures(ours: _Found) -> tuple[Picture, ...]:
    history = ours.saa.history
    if history is None:
        raise RuntimeError("The callback saw no training.")
    curve, naive = ours.saa.curve, f"{history.naive_share:.0%}"
    return (
        Picture(
            "selection",
            "Left: the last loss of each unlabelled image, with the cut; right: cut and share of naive images over "
            "training. Seed 0.",
            f"A histogram on a logarithmic axis and two lines. At the end {naive} of the images are naive: most losses "
            f"lie near 0, below the cut at {history.threshold:.2f} nats.",
            partial(selection_figure, history, curve),
        ),
        Picture(
            "views",
            "Images that SAA takes for learnt, and their views: an ordinary strong view, and one regrouped of two.",
            "A grid of pictures of digits. Each row shows an image, a shifted copy, a distorted copy, and a copy whose "
            "halves are distorted in two ways.",
            partial(views_figure, ours.data, history.flags),
        ),
    )


# -- words, from the numbers of the table, whichever way they fell out ------------------------------------------------
def _gap(accuracy: Mapping[str, list[float]], arm: str, other: str) -> Gap:
    return Gap.between(accuracy[arm], accuracy[other], 1, "points")


def _gained(accuracy: Mapping[str, list[float]]) -> str:
    gap = _gap(accuracy, "saa", "fixmatch")
    ours, without = mean(accuracy["saa"]), mean(accuracy["fixmatch"])
    nothing = "" if gap.result == "better" else "Over FixMatch nothing that these runs can show: "
    chosen = _gap(accuracy, "saa", "all")
    more = f"; it is {chosen.against('every view regrouped')}" if chosen.result == "better" else ""
    return f"{nothing}with SAA {ours:.1f} %, {gap.against('FixMatch without it')} at {without:.1f} %{more}."


def _not_gained(accuracy: Mapping[str, list[float]], steps: int) -> str:
    labels = _gap(accuracy, "fixmatch", "supervised").against("the labels alone")
    return (
        f"{_conclusion(accuracy, steps)} Every view regrouped gives {mean(accuracy['all']):.1f} %. FixMatch itself is "
        f"{labels} at {mean(accuracy['supervised']):.1f} %."
    )


def _conclusion(accuracy: Mapping[str, list[float]], steps: int) -> str:
    result = _gap(accuracy, "saa", "fixmatch").result
    if result == "worse":
        return "SAA costs accuracy here: so short a training has no use for harder views."
    if result == "level":
        return f"The authors report their gain after 1,048,576 steps on CIFAR-10; these were {steps:,}."
    if _gap(accuracy, "saa", "all").result == "better":
        return "The gain is not that of a harder view for everyone."
    return "A harder view for everyone is not clearly worse: the gain need not come from choosing for whom."


def _score(accuracy: Mapping[str, list[float]], steps: int) -> Score:
    gap = _gap(accuracy, "saa", "fixmatch")
    beside = {"better": "", "level": "; not clearly better than harder views for all"}
    chosen = beside.get(_gap(accuracy, "saa", "all").result, "; harder views for all do better")
    return Score(
        measure=f"test accuracy with {N_LABELS} labels, %",
        baseline=_ARMS["fixmatch"].name,
        without=f"{mean(accuracy['fixmatch']):.1f}",
        ours=f"{mean(accuracy['saa']):.1f}",
        change=str(gap),
        result=gap.result,
        but=f"{steps} steps are few: the authors took 1,048,576{chosen}",
    )
