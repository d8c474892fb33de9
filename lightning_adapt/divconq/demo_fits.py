"""What the divconq section of the demo trains: a tiny language model on four selections from one pool."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_adapt._shared.demo_training import quiet_trainer
from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.models.instruction_data import InstructionDataModule
from lightning_adapt.divconq.models.instruction_module import InstructionTuningModule
from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.scoring.likelihood import PerplexityScorer
from lightning_adapt.divconq.text.planted import planted_instructions

__all__ = ["GARBAGE_TOPICS", "Found", "Start", "Task", "fit", "planted", "prepare", "texts"]

GARBAGE_TOPICS = 6
_CLUSTERS, _BATCH, _ROUNDS = 18, 8, 3
_LAST_EPOCHS = 2  # of the last round; the first two have one


class Task(NamedTuple):
    """Sizes of the section.

    Args:
        clean: Clean rows of the pool; as many are held out, and as many known before.
        garbage: Garbage rows of the pool.
        budget: Rows to select.
        pretraining: Epochs on the rows known before.
        seeds: Seeds.
    """

    clean: int
    garbage: int
    budget: int
    pretraining: int
    seeds: int

    @property
    def steps(self) -> int:
        """Steps of one row: a third, two thirds and the whole of the budget, the latter `_LAST_EPOCHS` times."""
        return self.budget // _BATCH * (1 + _LAST_EPOCHS)


class Planted(NamedTuple):
    """Rows of a seed.

    Args:
        before: Clean rows that the model knows before the selection.
        pool: Rows to select from.
        held_out: Clean rows to measure on.
    """

    before: list[dict[str, Any]]
    pool: list[dict[str, Any]]
    held_out: list[dict[str, Any]]


class Start(NamedTuple):
    """What all rows of a seed share.

    Args:
        model: The language model before the selection.
        tokenizer: Its tokenizer.
        pool: Rows to select from.
        data: The pool to train on, and clean rows to measure on; tokenised once.
    """

    model: Any
    tokenizer: Any
    pool: list[dict[str, Any]]
    data: InstructionDataModule


class Found(NamedTuple):
    """What one training gave.

    Args:
        loss: On the held-out rows, nats per token.
        garbage: Percent of the selection.
        seconds: Processor time of the fit, with embedding, clusters and scores.
        selection: The rounds.
    """

    loss: float
    garbage: float
    seconds: float
    selection: SelectionRounds


class _Watch(Callback):
    """Moves the bar, and takes the processor time of training."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance
        self.seconds = 0.0

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.advance()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.process_time() - self._began


def planted(task: Task, seed: int) -> Planted:
    """Make clean rows and a pool that is mostly garbage.

    Args:
        task: Sizes.
        seed: Seed of everything.

    Returns:
        The rows; no row is in two parts.
    """
    n = task.clean
    clean = planted_instructions(3 * n, 0, seed=seed)
    garbage = planted_instructions(0, task.garbage, garbage_topics=GARBAGE_TOPICS, garbage_words=12, seed=seed)
    return Planted(clean[:n], clean[n : 2 * n] + garbage, clean[2 * n :])


def prepare(task: Task, seed: int) -> Start:
    """Make a pool, and a model that has seen a few clean rows which are not in it.

    Args:
        task: Sizes.
        seed: Seed of everything.

    Returns:
        What all rows of the seed start from.
    """
    before, pool, held_out = planted(task, seed)
    model, tokenizer = tiny_language_model([text for row in before for text in texts(row)], seed=seed)
    trainer = quiet_trainer([], max_epochs=task.pretraining, limit_val_batches=0)
    trainer.fit(_module(model, tokenizer, 3e-3), datamodule=_data(before, tokenizer, seed))
    return Start(model, tokenizer, pool, _data(pool, tokenizer, seed, val=held_out))


def texts(row: Mapping[str, Any]) -> list[str]:
    """Return prompt and answer of a row.

    Args:
        row: A row with `messages`.

    Returns:
        Both texts.
    """
    return [message["content"] for message in row["messages"]]


def _module(model: Any, tokenizer: Any, rate: float) -> InstructionTuningModule:
    return InstructionTuningModule(model, lora=False, tokenizer=tokenizer, learning_rate=rate, max_new_tokens=16)


def _data(rows: list[dict[str, Any]], tokenizer: Any, seed: int, val: Any = None) -> InstructionDataModule:
    return InstructionDataModule(
        rows, tokenizer, val=val, max_length=72, batch_size=_BATCH, eval_batch_size=32, seed=seed
    )


def fit(task: Task, start: Start, arm: str, seed: int, *, advance: Callable[[], None]) -> Found:
    """Train one row of the table; all of a seed have the same pool, weights at the start and number of steps.

    Args:
        task: Sizes.
        start: What the rows share.
        arm: "random", "equal", "perplexity" or "ours".
        seed: Seed of clusters, draws and order.
        advance: Called after every step.

    Returns:
        What was measured.
    """
    data = start.data
    module = _module(copy.deepcopy(start.model), start.tokenizer, 2e-3)
    selection, watch = _callback(task, arm, seed), _Watch(advance)
    epochs = _LAST_EPOCHS + (_ROUNDS - 1 if selection.rounds > 1 else 1)
    quiet_trainer([selection, watch], max_epochs=epochs, limit_val_batches=0).fit(module, datamodule=data)
    (scores,) = quiet_trainer([]).validate(module, datamodule=data, verbose=False)
    rounds = selection.selection
    if rounds is None:
        raise RuntimeError("The callback saw no training.")
    garbage = mean(start.pool[row]["garbage"] for row in data.train_set.rows[rounds.rows.numpy()].tolist())
    return Found(scores["val_loss"], 100 * garbage, watch.seconds, rounds)


def _callback(task: Task, arm: str, seed: int) -> DiversitySelectionCallback:
    if arm == "random":
        return DiversitySelectionCallback(task.budget, "random", seed=seed)
    if arm == "equal":
        return DiversitySelectionCallback(task.budget, "km_random", k=_CLUSTERS, quota="equal", seed=seed)
    scorer = None
    if arm == "perplexity":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it pulls garbage in is what this row shows
            scorer = PerplexityScorer()
    return DiversitySelectionCallback(task.budget, rounds=_ROUNDS, k=_CLUSTERS, scorer=scorer, seed=seed)
