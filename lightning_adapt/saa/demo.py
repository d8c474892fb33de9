"""The SAA section of the demo: digits with four labels a class, with the labels alone, by FixMatch, and with SAA."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import TensorDataset
from typing_extensions import override

from lightning_adapt._shared.datasets import digits
from lightning_adapt._shared.demo_training import one_thread, quiet_trainer
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report import Cell, Column, Kind, Picture, Row, Section
from lightning_adapt.saa.callback import SampleAdaptiveAugmentation
from lightning_adapt.saa.data.datamodule import SAADataModule
from lightning_adapt.saa.figures import selection_figure, views_figure
from lightning_adapt.saa.functional import consistency_loss
from lightning_adapt.saa.models.backbones import SmallCNN
from lightning_adapt.saa.models.fixmatch import FixMatchModule

if TYPE_CHECKING:
    from lightning_adapt.demo import DemoContext

__all__ = ["run"]

N_LABELS = 40
_STEPS_PER_EPOCH = 20
_T_QUANTILE = {2: 12.71, 3: 4.30}  # of Student's t, 97.5 %, by the number of seeds: a 95 % interval of their mean
_COLUMNS = (
    Column("test accuracy", "%", 1),
    Column("against FixMatch", "points", 1),
    Column("views regrouped", "%", 0),
    Column("training time", "CPU s", 1),
)
_USAGE = (
    (
        "In a script",
        "from lightning_adapt import FixMatchModule, SAADataModule, SampleAdaptiveAugmentation\n\n"
        "data = SAADataModule(labeled, unlabeled, val)  # any data sets of images\n"
        "trainer = L.Trainer(max_epochs=100, callbacks=[SampleAdaptiveAugmentation()])\n"
        "trainer.fit(FixMatchModule(), data)  # or a module of yours that returns two more keys",
    ),
    (
        "On top of your own LightningCLI and YAML",
        "lightning-adapt overlay saa > saa.yaml\npython main.py fit --config mine.yaml --config saa.yaml",
    ),
)


class _Arm(NamedTuple):
    name: str
    kind: Kind


_ARMS = {
    "supervised": _Arm(f"the {N_LABELS} labels alone", "baseline"),
    "fixmatch": _Arm("FixMatch", "baseline"),
    "all": _Arm("FixMatch, every view regrouped", "control"),
    "saa": _Arm("FixMatch with SAA", "ours"),
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


def run(context: DemoContext) -> Section:
    """Train every row on the same seeds, interleaved, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    require("figures", "The SAA demo", "matplotlib")
    began = time.perf_counter()
    task = _Task(*digits(0.4), *((2, 2) if context.quick else (10, 3)))
    context.start(total=task.steps * len(_ARMS) * task.seeds)
    found: dict[str, list[_Found]] = {arm: [] for arm in _ARMS}
    with one_thread():
        for seed in range(task.seeds):
            for arm, some in found.items():
                context.doing(f"{_ARMS[arm].name}, seed {seed}")
                some.append(_fit(task, arm, seed, context.advance))
    context.doing("SAA")
    return _section(task, found, time.perf_counter() - began)


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


def _section(task: _Task, found: dict[str, list[_Found]], seconds: float) -> Section:
    accuracy = {arm: [one.accuracy for one in some] for arm, some in found.items()}
    return Section(
        method="saa",
        title="SAA: sample-adaptive augmentation",
        problem="You have plenty of images and a handful of labels, and most of the images teach nothing any more.",
        setting=f"scikit-learn digits: {len(task.train):,} images, {N_LABELS} of them with labels (4 a class), tested "
        f"on {len(task.test)}; a small CNN, {task.steps} steps, {task.seeds} seeds, mean ± standard deviation. Equal "
        "labels, start and steps in all rows; the second column is paired by seed.",
        table_caption="After training",
        columns=_COLUMNS,
        rows=tuple(Row(_ARMS[arm].name, _ARMS[arm].kind, _cells(arm, some, accuracy)) for arm, some in found.items()),
        verdict=_verdict(accuracy, task.steps),
        usage=_USAGE,
        seconds=seconds,
        pictures=_pictures(found["saa"][0]),
    )


def _cells(arm: str, some: list[_Found], accuracy: Mapping[str, list[float]]) -> tuple[Cell, ...]:
    gains = Cell(0.0) if arm == "fixmatch" else _over_seeds(_gains(accuracy, arm, "fixmatch"))
    seconds = _over_seeds([one.seconds for one in some])
    return _over_seeds(accuracy[arm]), gains, Cell(mean(one.regrouped for one in some)), seconds


def _over_seeds(values: list[float]) -> Cell:
    return Cell(mean(values), stdev(values))


def _gains(accuracy: Mapping[str, list[float]], arm: str, other: str) -> list[float]:
    return [one - against for one, against in zip(accuracy[arm], accuracy[other], strict=True)]


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


def _verdict(accuracy: Mapping[str, list[float]], steps: int) -> str:
    """Word the result from the numbers of the table, whichever way they fell out."""
    supervised, fixmatch, everything, ours = (mean(accuracy[arm]) for arm in ("supervised", "fixmatch", "all", "saa"))
    text = (
        f"FixMatch reached {fixmatch:.1f} %, {_against(accuracy, 'fixmatch', 'supervised')} the {N_LABELS} labels "
        f"alone ({supervised:.1f} %). With SAA it reached {ours:.1f} %, {_against(accuracy, 'saa', 'fixmatch')} "
        f"FixMatch, and with every view regrouped {everything:.1f} %. {_conclusion(accuracy, steps)}"
    )
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _conclusion(accuracy: Mapping[str, list[float]], steps: int) -> str:
    low, high = _interval(_gains(accuracy, "saa", "fixmatch"))
    if high < 0:
        return "SAA costs accuracy here: so short a training has no use for harder views."
    if low <= 0:
        return f"The authors report their gain after 1,048,576 steps on CIFAR-10; these were {steps:,}."
    if _interval(_gains(accuracy, "saa", "all"))[0] > 0:
        return "The gain is not that of a harder view for everyone."
    return "A harder view for everyone is not clearly worse: the gain need not come from choosing for whom."


def _against(accuracy: Mapping[str, list[float]], arm: str, other: str) -> str:
    gains = _gains(accuracy, arm, other)
    low, high = _interval(gains)
    interval = f"{mean(gains):+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
    if low <= 0 <= high:
        return f"no clear difference ({interval}) to"
    return f"{'better' if low > 0 else 'worse'} ({interval}) than"


def _interval(gains: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences."""
    half = _T_QUANTILE[len(gains)] * stdev(gains) / len(gains) ** 0.5
    return mean(gains) - half, mean(gains) + half
