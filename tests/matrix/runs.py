"""Runs of a foreign module, watched from outside: which rows it was given, and what came out."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from tests.foreign import trainer
from tests.matrix.subjects import EPOCHS, SUBJECTS, Subject

__all__ = ["Run", "Watch", "plain", "run"]


class Watch(Callback):
    """Notes the rows of each training batch, and what `training_step` returned."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.marks: dict[int, list[Tensor]] = {}
        self.returned: list[tuple[Tensor, Any]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.marks.setdefault(trainer.current_epoch, []).append(self.subject.marks(batch).clone())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        kept = {key: torch.as_tensor(value).detach().clone() for key, value in (outputs or {}).items()}
        self.returned.append((self.subject.marks(batch).clone(), kept))


@dataclass
class Run:
    """What there is to see of a run.

    Attributes:
        module: The module afterwards.
        trainer: Its Trainer.
        epochs: Of each epoch, the rows of each batch.
        weights: What it learnt.
        tested: What `test` logged.
        returned: Rows and outputs of each `training_step`.
    """

    module: Any
    trainer: Any
    epochs: list[list[list[int]]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    tested: list[dict[str, float]] = field(default_factory=list)
    returned: list[tuple[list[int], Any]] = field(default_factory=list)

    @property
    def rows(self) -> list[list[int]]:
        """Of each epoch, its rows."""
        return [[row for batch in epoch for row in batch] for epoch in self.epochs]


def rows_by_mark(subject: Subject, marks: Tensor) -> list[int]:
    """The places in the train set of rows that are known by a number; of a stream, the numbers."""
    if subject.known is None:
        return marks.tolist()
    places = (marks[:, None] == known_marks(subject.title)[None]).double()
    assert bool((places.sum(1) == 1).all()), "a mark must name one row"
    return places.argmax(1).tolist()


@cache
def known_marks(title: str) -> Tensor:
    (known,) = (subject.known() for subject in SUBJECTS.values() if subject.title == title and subject.known)
    return known


def run(
    subject: Subject, callbacks: Any = (), *, module: Any = None, data: Any = None, test: bool = False, **options: Any
) -> Run:
    """Train a module as its owner does, with some callbacks more; every run begins with the same random numbers."""
    torch.manual_seed(0)
    module = (module or subject.module)()
    for callback in callbacks:
        if hasattr(type(module), "saa") and hasattr(callback, "regroup"):
            module.saa = callback
    watch, kind = Watch(subject), importlib.import_module(subject.package).Trainer
    with tempfile.TemporaryDirectory() as folder:
        settings = {"max_epochs": EPOCHS, "trainer_class": kind, **subject.trainer, **options}
        own = trainer(folder, [*subject.callbacks(), *callbacks, watch], **settings)
        torch.manual_seed(1)
        trainable = [name for name, value in module.named_parameters() if value.requires_grad]
        try:
            own.fit(module, **(subject.data() if data is None else data))
        finally:  # also after a refusal
            assert not any(part._forward_hooks for part in module.modules()), "a hook was left"
            left = [name for name, value in module.named_parameters() if value.requires_grad]
            assert left == trainable or not trainable, "a parameter was left frozen"
        weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
        tested = own.test(module, **_stream(subject), verbose=False) if test else []
    epochs = [[rows_by_mark(subject, marks) for marks in batches] for batches in watch.marks.values()]
    returned = [(rows_by_mark(subject, marks), kept) for marks, kept in watch.returned]
    return Run(module, own, epochs, weights, tested, returned)


def _stream(subject: Subject) -> dict[str, Any]:
    if subject.stream is not None:
        return subject.stream()
    data = subject.data()
    return {"datamodule": data["datamodule"]} if "datamodule" in data else {}


@cache
def plain(name: str) -> Run:
    """An epoch and a test of a module without any method; run once."""
    return run(SUBJECTS[name], test=True, max_epochs=1)
