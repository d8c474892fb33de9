"""How the rows of rs2_time_to_accuracy train: one data set, network, schedule, Trainer and clock for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from _harness import Options, Run, now
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_adapt._shared.datasets import fashion_mnist
from lightning_adapt._shared.demo_parts import small_cnn
from lightning_adapt._shared.demo_training import CountedRows, as_is, quiet_trainer
from lightning_adapt._shared.forward import evaluating

WIDTH, PEAK_RATE = 16, 0.1


def load(split: str) -> CountedRows:
    """Return a split of Fashion-MNIST, standardised with the mean and sd of its training pixels."""
    images, targets = fashion_mnist(split).tensors
    return CountedRows((images - 0.286) / 0.353, targets)


class Classifier(LightningModule):
    """A small CNN, Nesterov SGD, a cosine with 10 % warm-up per step; `horizon` None means the run's own length."""

    def __init__(self, horizon: int | None = None) -> None:
        super().__init__()
        self.horizon = horizon
        self.net = small_cnn(image_size=28, width=WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        steps = self.horizon or int(self.trainer.estimated_stepping_batches)
        warm = max(1, steps // 10)

        def rate(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2

        optimizer = torch.optim.SGD(self.parameters(), PEAK_RATE, momentum=0.9, nesterov=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def predict(module: LightningModule, images: Tensor) -> Tensor:
    """Return class probabilities on the CPU, shape (N, 10); the module comes back as it was."""
    with evaluating(module):
        return torch.cat([module(part.to(module.device)).softmax(1).cpu() for part in images.split(1000)])


class Curve(Callback):
    """Measures test accuracy at even step fractions; the seconds it takes are kept apart and charged to nobody."""

    def __init__(self, every: int, test: CountedRows, device: str) -> None:
        self.every, self.test, self.device = max(every, 1), test, device
        self.points: list[tuple[int, float, float]] = []  # steps, seconds, per cent
        self.evaluating = 0.0
        self.began = now(device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.evaluate(trainer.global_step, pl_module)

    def evaluate(self, step: int, module: LightningModule) -> None:
        paused = now(self.device)
        right = (predict(module, self.test.images).argmax(1) == self.test.labels).float().mean().item()
        self.points.append((step, paused - self.began - self.evaluating, 100 * right))
        self.evaluating += now(self.device) - paused


@dataclass
class Plan:
    """What distinguishes a row.

    Attributes:
        data: The data set behind its ordinary shuffled loader.
        trainer: Arguments of the Trainer that bound the run.
        horizon: Steps of the learning-rate schedule; None: the run's own.
        callbacks: The method.
        selecting: Seconds that choosing the data took.
        finer: Times as many points of the curve as the bench says.
    """

    data: CountedRows
    trainer: dict[str, Any]
    horizon: int | None = None
    callbacks: list[Callback] = field(default_factory=list)
    selecting: float = 0.0
    finer: int = 1


class Bench:
    """The data and the arithmetic that the rows share.

    Args:
        train: Images to train on.
        test: Images to measure the accuracy on.
        ratio: Share of the data per round.
        batch: Batch size.
        rounds: Rounds, and epochs of the full run.
        points: Points of the accuracy curve.
        options: The command line.
    """

    def __init__(
        self,
        train: CountedRows,
        test: CountedRows,
        *,
        ratio: float,
        batch: int,
        rounds: int,
        points: int,
        options: Options,
    ) -> None:
        self.train, self.test, self.ratio, self.batch, self.rounds = train, test, ratio, batch, rounds
        self.points = points
        self.device = options.device
        self.kept = int(ratio * len(train)) // batch * batch  # a round of RS2, in whole batches
        self.steps = self.kept // batch * rounds
        self.epoch_steps = math.ceil(len(train) / batch)

    def fit(self, seed: int, plan: Plan, steps: int, *observers: Callback) -> LightningModule:
        """Train one row from the seed's initial weights and check that it made the steps it should."""
        torch.manual_seed(seed)
        module = Classifier(plan.horizon)
        order = torch.Generator().manual_seed(seed)
        loader = DataLoader(plan.data, self.batch, shuffle=True, collate_fn=as_is, generator=order)
        accelerator = "gpu" if self.device == "cuda" else "cpu"
        trainer = quiet_trainer([*plan.callbacks, *observers], accelerator=accelerator, **plan.trainer)
        trainer.fit(module, loader)
        if trainer.global_step != steps:
            raise RuntimeError(f"The row made {trainer.global_step} steps instead of {steps}: its rounds are wrong.")
        return module

    def run(self, seed: int, plan: Plan, steps: int) -> Run:
        """Train one row and return its plain values."""
        plan.data.seen.zero_()
        curve = Curve(steps // (self.points * plan.finer), self.test, self.device)
        module = self.fit(seed, plan, steps, curve)
        if not curve.points or curve.points[-1][0] != steps:
            curve.evaluate(steps, module)
        _, training, accuracy = curve.points[-1]
        return {
            "accuracy": accuracy,
            "steps": steps,
            "training seconds": training,
            "selecting seconds": plan.selecting,
            "seconds": training + plan.selecting,
            "evaluating seconds": curve.evaluating,
            "share of data seen": int(plan.data.seen.sum()) / len(self.train),
            "curve": [(step, seconds + plan.selecting, percent) for step, seconds, percent in curve.points],
        }

    def subset(self, rows: Tensor, selecting: float) -> Plan:
        """Return the plan that trains on fixed rows in every round."""
        data = CountedRows(self.train.images[rows], self.train.labels[rows])
        return Plan(data, {"max_epochs": self.rounds}, selecting=selecting)

    def scored(self, seed: int, score: Callable[[Tensor, Tensor], Tensor], nets: int) -> Plan:
        """Return the plan that keeps the rows with the highest mean score of nets trained for one epoch on all."""
        began, total = now(self.device), torch.zeros(len(self.train))
        for net in range(nets):
            module = self.fit(1000 + 10 * seed + net, Plan(self.train, {"max_epochs": 1}), self.epoch_steps)
            total += score(predict(module, self.train.images), self.train.labels)
        rows = total.argsort(descending=True)[: self.kept]
        return self.subset(rows, now(self.device) - began)
