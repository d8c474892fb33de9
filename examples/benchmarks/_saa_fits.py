"""What the benchmark of SAA's cost fits: FixMatch with all, some or nothing of SAA, and the clocks."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import Any, NamedTuple

import _harness as h
import torch
from _saa_training import Flags, images
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Subset

from lightning_adapt import FixMatchModule, SAADataModule, SampleAdaptiveAugmentation
from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt._shared.hashing import generator
from lightning_adapt.saa.functional import otsu_threshold
from lightning_adapt.saa.history import CLIP_QUANTILE, LossHistory

BATCH, MU, N_LABELS = 64, 7, 100
FLAGGED = 0.77
FIXMATCH, BOOKS, SAA, ALWAYS = "FixMatch", "SAA, flags unused", "SAA", "every view regrouped"
TURNS = "SAA in every second step"
METRIC = "milliseconds"  # per step; of a history alone, per selection


class Clocked(h.ClockedHooks, SampleAdaptiveAugmentation):
    """SampleAdaptiveAugmentation that starts with a history, and notes the seconds that its own work takes."""

    known: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self.history is not None and self.known is not None:
            self.history.load_state_dict(self.known)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = h.spent(self.device)
        super().on_train_end(trainer, pl_module)
        self.seconds += h.spent(self.device) - began


class Watch(Callback):
    """Notes the seconds of training alone; the last of the callbacks, so that the work of the others is in it."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.began = h.spent(self.device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.seconds = h.spent(self.device) - self.began


class Unheeding(SAADataModule):
    """A SAADataModule that regroups nothing, whatever is flagged."""

    def use_flags(self, flags: Tensor | None) -> None:
        """Ignore the flags."""


class Turns(Callback):
    """Has the flags heeded in every second step, and notes what steps take; what the machine does hits both alike.

    It stands behind the callback that sets the flags. A step is clocked from the end of the one before to its own, the
    views of its batch included.
    """

    def __init__(self, flagging: Clocked) -> None:
        self.flagging = flagging
        self.ends: list[tuple[float, float]] = []  # of each step: when it ended, bookkeeping until then
        self.regrouped: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self._heed(trainer, heeded=False)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.ends.append((h.spent(self.flagging.device), self.flagging.seconds))
        self.regrouped.append(float(batch["unlabeled"]["regrouped"].float().mean()))
        self._heed(trainer, heeded=batch_idx % 2 == 0)

    def _heed(self, trainer: Trainer, *, heeded: bool) -> None:
        history, data = self.flagging.history, trainer.datamodule  # type: ignore[attr-defined]
        if history is not None:
            data.use_flags(history.flags if heeded else torch.zeros_like(history.flags))

    def summary(self) -> h.Run:
        """Return milliseconds of the steps with and without SAA, all of its bookkeeping added to the former."""
        steps = [(end - start, own - before) for (start, before), (end, own) in pairwise(self.ends)]
        plain = statistics.fmean(took - own for took, own in steps[1::2])
        after = self.flagging.seconds - self.ends[-1][1]  # the selection
        ours = statistics.fmean(took for took, _ in steps[::2]) + after / len(self.ends)
        return {METRIC: 1000 * ours, "without": 1000 * plain, "extra": ours / plain - 1}


class Row(NamedTuple):
    """What is fitted: a kind of training, and on how many unlabelled images."""

    kind: str
    n: int

    def __str__(self) -> str:
        return f"{self.kind}, N={self.n:,}"


def cut(losses: Tensor) -> float:
    """Do the work of Otsu's cut, and then cut where the share that the benchmark is about gets flagged."""
    otsu_threshold(losses, clip_quantile=CLIP_QUANTILE)
    return float(losses.kthvalue(max(round(FLAGGED * len(losses)), 1)).values)


def saa(n: int, seed: int, device: str) -> Clocked:
    """Return the callback as it is between two periods: a loss of every sample, and the share flagged."""
    callback = Clocked(threshold=cut, warmup=0, seed=seed)
    callback.device = device
    history = LossHistory(n, threshold=cut)
    history.record(torch.arange(n), torch.rand(n, generator=generator(seed, 3)))
    history.select()
    callback.known = history.state_dict()
    return callback


class Bench:
    """How a row is fitted.

    Args:
        steps: Steps of a fit, at the end of which is one selection.
        device: "cpu" or "cuda".
    """

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device = steps, device

    def data(self, row: Row, seed: int) -> SAADataModule:
        """Return the data of a seed: the same images in the same order for every kind of row."""
        everything = images("train")
        order = torch.randperm(len(everything), generator=generator(seed, 1))
        kind = Unheeding if row.kind == BOOKS else SAADataModule
        options = {"batch_size": BATCH, "mu": MU, "steps_per_epoch": self.steps, "seed": seed}
        made = kind(Subset(everything, order[: row.n].tolist()), n_labels=N_LABELS, **options)
        made.views.to(
            "cuda" if self.device == "cuda" else "cpu"
        )  # reads the images and their colours, before the clock
        return made

    def callbacks(self, row: Row, seed: int) -> list[Callback]:
        """Return what makes the row what it is."""
        if row.kind in (BOOKS, SAA, TURNS):
            flagging = saa(row.n, seed, self.device)
            return [flagging, Turns(flagging)] if row.kind == TURNS else [flagging]
        return [Flags(1.0, seed)] if row.kind == ALWAYS else []

    def fit(self, row: Row, seed: int) -> h.Run:
        """Train; return milliseconds per step, those of the bookkeeping, and what share was regrouped."""
        made, callbacks, watch = self.data(row, seed), self.callbacks(row, seed), Watch(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = FixMatchModule("cnn", n_classes=10, channels=1)
        options: dict[str, Any] = {"accelerator": "cuda" if self.device == "cuda" else "cpu", "max_epochs": 1}
        quiet_trainer([*callbacks, watch], **options).fit(module, datamodule=made)
        result = {METRIC: 1000 * watch.seconds / self.steps}
        for callback in callbacks:
            if isinstance(callback, Clocked):
                result["bookkeeping"] = 1000 * callback.seconds / self.steps
                result["selections"] = len(callback.curve)
                result["flagged"] = callback.history.naive_share if callback.history is not None else 0.0
            if isinstance(callback, Turns):
                result |= callback.summary()
        return result


def alone(n: int, seed: int) -> h.Run:
    """Time a history without training: the median step of 448 losses, and the median selection by Otsu's cut."""
    history, draws = LossHistory(n), generator(seed, 4)
    history.record(torch.arange(n), torch.rand(n, generator=draws))
    recording, selecting = [], []
    for step in range(100):
        index = torch.randint(n, (BATCH * MU,), generator=draws)
        losses = torch.rand(len(index), generator=draws)
        began = h.spent("cpu")
        history.record(index, losses, losses < 0.5)
        recording.append(h.spent("cpu") - began)
        if step % 20 == 19:
            began = h.spent("cpu")
            history.select()
            selecting.append(h.spent("cpu") - began)
    return {METRIC: 1e3 * statistics.median(selecting), "microseconds per step": 1e6 * statistics.median(recording)}
