"""What must hold between a Trainer and a selection, and where in a run a Trainer is."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_adapt._shared import compat
from lightning_adapt._shared.batch_planner import BatchPlanner
from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.loaders import Advice
from lightning_adapt._shared.planned_steps import steps_of_epochs
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.training.chosen_rows import ChosenRows
from lightning_adapt.divconq.training.options import RunOptions, check_time, epochs_before_last_round
from lightning_adapt.divconq.training.restart import check_restart
from lightning_adapt.divconq.training.round_files import require_parquet

__all__ = [
    "ADVICE",
    "NAME",
    "check_lengths",
    "check_trainer",
    "is_over",
    "warn_if_cut",
    "warn_if_too_short",
    "warn_if_unspent",
    "warn_of_untrained",
]

NAME = "DiversitySelectionCallback"
ADVICE = Advice(length=", or raise `budget`")


def check_trainer(options: RunOptions, trainer: Any) -> None:
    """Raise where a Trainer or a missing package would make the run fail later.

    Args:
        options: What was asked for.
        trainer: The Trainer, in `setup`.

    Raises:
        ModuleNotFoundError: If an optional package is missing; names the extra.
        ValueError: If the Trainer cannot be used with it.
    """
    if options.out_dir is not None:
        require_parquet(f"{NAME}(out_dir=...)")
    if options.log_figure:
        require("figures", f"{NAME}(log_figure=True)", "matplotlib")
    if trainer.overfit_batches:
        remedy = "It trains on one fixed subset and replaces the sampler: remove one of the two."
        raise ValueError(problem("overfit_batches", f"0 beside {NAME}", trainer.overfit_batches, remedy))
    if not compat.is_dev_run(trainer):
        check_time(trainer.max_epochs, options.epochs_per_round, options.rounds)
    if options.restarts:
        check_restart(trainer)


def check_lengths(rounds: SelectionRounds, sampler: ChosenRows, loader: ResumableLoader, global_batch: int) -> None:
    """Raise unless the running round and all to come have a batch.

    Args:
        rounds: The rounds.
        sampler: Our sampler; it stays as it is.
        loader: The loader over it.
        global_batch: Rows of a batch on all ranks together, for the error text.

    Raises:
        ValueError: If one has none.
    """
    if isinstance(sampler, BatchPlanner):
        return  # it says itself what is too few
    rows, smallest = sampler.rows(), min(rounds.sizes[rounds.round :])
    sampler.set_rows(torch.arange(smallest))
    batches = len(loader)
    sampler.set_rows(rows)
    if batches == 0:
        remedy = "Choose more rows, or a smaller batch, or drop_last=False."
        size = f"{smallest} rows a round for a global batch of {global_batch}"
        raise ValueError(problem("budget", "enough for a batch on every rank", size, remedy))


def warn_if_cut(trainer: Any, loader: Any) -> bool:
    """Say so where epochs are shorter than the selection.

    Args:
        trainer: The Trainer, as an epoch starts.
        loader: Our loader; a sampler stacked on it may shorten epochs on purpose, and has its own word on it.

    Returns:
        Whether it was said.
    """
    here, batches = trainer.num_training_batches, 0 if loader is None else len(loader)
    alone = any(entry is loader for entry in compat.combined_train_loader(trainer).flattened)
    if not alone or here >= batches or compat.is_dev_run(trainer):
        return False
    rank_zero_warn(
        f"Epochs are cut from {batches} to {here} batches by limit_train_batches or a shorter loader beside it, and "
        f"train on a random part of the selected rows. Lower `budget` of {NAME} instead."
    )
    return True


def warn_if_too_short(options: RunOptions, trainer: Any) -> None:
    """Say so where `max_steps` ends a run before its last round; as it may go on later, it is no error.

    Args:
        options: What was asked for.
        trainer: The Trainer, in `on_train_start`.
    """
    if options.rounds == 1 or trainer.max_steps < 0:
        return
    needed = steps_of_epochs(trainer, epochs_before_last_round(options.epochs_per_round, options.rounds))
    if needed is not None and trainer.max_steps <= needed:
        rank_zero_warn(
            f"{NAME}: max_steps={trainer.max_steps} ends the run before its last round of {options.rounds}, which "
            f"begins after {needed} steps. Train longer, or ask for fewer rounds, to train on the whole `budget`."
        )


def warn_of_untrained(rounds: int, epoch: int) -> None:
    """Say that rounds are selected, but were not trained on; in `on_train_start`.

    Args:
        rounds: How many.
        epoch: Where training goes on.
    """
    rank_zero_warn(
        f"{NAME}: training goes on at epoch {epoch}, but {rounds} round{'s' * (rounds > 1)} before it are missing: the "
        "checkpoint was written without this callback, or with other `epochs_per_round`. Their rows are drawn now, and "
        "rated by the model as it is, though it was not trained on them."
    )


def warn_if_unspent(rounds: SelectionRounds) -> None:
    """Say so where training ended before the last round; in `on_train_end`.

    Args:
        rounds: The rounds.
    """
    if not rounds.done:
        rank_zero_warn(
            f"{NAME}: training ended in round {rounds.round + 1} of {rounds.rounds}, so that {len(rounds.union)} of "
            f"the {rounds.size} rows of `budget` were selected."
        )


def is_over(trainer: Any) -> bool:
    """Say whether no epoch follows the one that ends; in `on_train_epoch_end`, on all ranks."""
    by_epochs = 0 <= trainer.max_epochs <= trainer.current_epoch + 1
    by_steps = 0 <= trainer.max_steps <= trainer.global_step
    long_enough = trainer.current_epoch + 1 >= (trainer.min_epochs or 0)
    long_enough = long_enough and trainer.global_step >= (trainer.min_steps or 0)
    return bool(by_epochs or by_steps or (long_enough and _is_stopping(trainer)))


def _is_stopping(trainer: Any) -> bool:
    """Say whether training was asked to stop, or an EarlyStopping will ask for it as this epoch ends.

    That one looks after the `on_train_epoch_end` of all others: a copy of it is asked here. On metrics that are logged
    still later, in the module's own hook, it has no answer yet.
    """
    asked = trainer.should_stop
    try:
        for callback in map(copy, trainer.early_stopping_callbacks):
            callback.verbose = False
            if callback.monitor in trainer.callback_metrics:
                callback.on_train_epoch_end(trainer, trainer.lightning_module)
        return bool(trainer.should_stop)
    finally:
        trainer.should_stop = asked
