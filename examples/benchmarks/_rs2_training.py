"""How the rows of rs2_time_to_accuracy train: one data set, network, schedule, Trainer and clock for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from _harness import Options, Run, spent
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_adapt._shared.collate import as_is
from lightning_adapt._shared.demo_parts import small_cnn, small_resnet
from lightning_adapt._shared.demo_training import CountedRows, quiet_trainer
from lightning_adapt._shared.forward import evaluating

WIDTHS = {"cnn": 16, "resnet": 8}
PEAK_RATE = 0.1


class NumberedRows(CountedRows):
    """Counted rows whose batches also carry row numbers and loss weights: (images, labels, rows, weights).

    Args:
        images: Shape (N, C, S, S).
        labels: Shape (N,), dtype int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__(images, labels)
        self.weights = torch.ones(len(labels))

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, ...]:  # type: ignore[override]
        numbers = torch.tensor(rows)
        return *super().__getitems__(rows), numbers, self.weights[numbers]


def network(name: str, images: Tensor) -> nn.Sequential:
    """Return a fresh network for images of that shape; its last module is the linear layer."""
    if name == "resnet":
        return small_resnet(width=WIDTHS[name], channels=images.shape[1])
    return small_cnn(image_size=images.shape[-1], width=WIDTHS[name])


class Classifier(LightningModule):
    """A small network, Nesterov SGD, a cosine with 10 % warm-up per step.

    Args:
        horizon: Steps of the schedule; None: the run's own length.
        net: The network; None: the small CNN for Fashion-MNIST.
    """

    def __init__(self, horizon: int | None = None, net: nn.Sequential | None = None) -> None:
        super().__init__()
        self.horizon = horizon
        self.net = small_cnn(image_size=28, width=WIDTHS["cnn"]) if net is None else net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ARG002
        """Return the mean loss; with numbered rows also what the callback of a row needs to know of each sample."""
        images, targets, *numbered = batch
        logits = self(images)
        if not numbered:
            return nn.functional.cross_entropy(logits, targets)
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        _, weights = numbered
        return {"loss": (losses * weights).mean(), "losses": losses.detach(), "logits": logits.detach()}

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


class Outputs(NamedTuple):
    """What a network says about rows, on the CPU.

    Attributes:
        features: Input of the last linear layer, shape (N, D).
        probabilities: Shape (N, classes).
        targets: Shape (N,).
    """

    features: Tensor
    probabilities: Tensor
    targets: Tensor


def predict(module: LightningModule, rows: CountedRows) -> Outputs:
    """Return what a module says about rows; it comes back as it was."""
    *body, head = module.net
    features, probabilities = [], []
    with evaluating(module):
        for part in rows.images.split(1000):
            hidden = part.to(module.device)
            for layer in body:
                hidden = layer(hidden)
            features.append(hidden.cpu())
            probabilities.append(head(hidden).softmax(1).cpu())
    return Outputs(torch.cat(features), torch.cat(probabilities), rows.labels)


class Curve(Callback):
    """Measures test accuracy at even step fractions; the seconds it takes are kept apart and charged to nobody."""

    def __init__(self, every: int, test: CountedRows, device: str) -> None:
        self.every, self.test, self.device = max(every, 1), test, device
        self.points: list[tuple[int, float, float]] = []  # steps, seconds, per cent
        self.evaluating = 0.0
        self.began = spent(device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.evaluate(trainer.global_step, pl_module)

    def evaluate(self, step: int, module: LightningModule) -> None:
        paused = spent(self.device)
        right = (predict(module, self.test).probabilities.argmax(1) == self.test.labels).float().mean().item()
        self.points.append((step, paused - self.began - self.evaluating, 100 * right))
        self.evaluating += spent(self.device) - paused


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
        sampler: Gives the row numbers of each epoch; None: a shuffle of all.
        inside: Returns the seconds of selecting that passed inside of `fit`.
    """

    data: CountedRows
    trainer: dict[str, Any]
    horizon: int | None = None
    callbacks: list[Callback] = field(default_factory=list)
    selecting: float = 0.0
    finer: int = 1
    sampler: Iterable[int] | None = None
    inside: Callable[[], float] = lambda: 0.0


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
        net: "cnn" or "resnet".
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
        net: str = "cnn",
    ) -> None:
        self.train, self.test, self.ratio, self.batch, self.rounds = train, test, ratio, batch, rounds
        self.points, self.net = points, net
        self.device = options.device
        self.kept = int(ratio * len(train)) // batch * batch  # a round of RS2, in whole batches
        self.steps = self.kept // batch * rounds
        self.epoch_steps = math.ceil(len(train) / batch)

    def fit(self, seed: int, plan: Plan, steps: int, *observers: Callback) -> LightningModule:
        """Train one row from the seed's initial weights and check that it made the steps it should."""
        torch.manual_seed(seed)
        module = Classifier(plan.horizon, network(self.net, self.train.images))
        order = torch.Generator().manual_seed(seed)
        shuffle = plan.sampler is None
        loader = DataLoader(
            plan.data, self.batch, shuffle=shuffle, sampler=plan.sampler, collate_fn=as_is, generator=order
        )
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
        _, fitting, accuracy = curve.points[-1]
        inside = plan.inside()
        return {
            "accuracy": accuracy,
            "steps": steps,
            "training seconds": fitting - inside,
            "selecting seconds": plan.selecting + inside,
            "seconds": fitting + plan.selecting,
            "evaluating seconds": curve.evaluating,
            "share of data seen": int(plan.data.seen.sum()) / len(self.train),
            "curve": [(step, seconds + plan.selecting, percent) for step, seconds, percent in curve.points],
        }

    def subset(self, rows: Tensor, selecting: float) -> Plan:
        """Return the plan that trains on fixed rows in every round."""
        data = CountedRows(self.train.images[rows], self.train.labels[rows])
        return Plan(data, {"max_epochs": self.rounds}, selecting=selecting)
