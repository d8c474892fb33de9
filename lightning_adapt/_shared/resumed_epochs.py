"""Runs that go on from a checkpoint of the last batch of an epoch: the next epoch is one of its own."""

from __future__ import annotations

from typing import Any

__all__ = ["begin_next_epoch", "count_next_epoch"]


def begin_next_epoch(trainer: Any) -> bool:
    """Let the epoch after a checkpoint of the last batch of an epoch be counted, and begin with its hooks.

    Lightning 2.6.6 takes it for the rest of the epoch before: it calls no `on_train_epoch_start` and does not count the
    epoch. Stopped again, and gone on with from a checkpoint of that epoch's own last batch, a run then trains this
    epoch a second time. What belongs to the end of the epoch before, its validation and `on_train_epoch_end`, is left
    out.

    Args:
        trainer: The Trainer, in `on_train_start`; nothing happens in any other run.

    Returns:
        Whether the run goes on from such a checkpoint, so that there may be something to catch up with.
    """
    loop = trainer.fit_loop
    after_last_batch = loop.epoch_loop.restarted_on_train_batch_end and loop.epoch_loop.batch_progress.is_last_batch
    if loop.restarted_mid_epoch and after_last_batch:
        loop.reset_restart_stage()
    return bool(after_last_batch)


def count_next_epoch(trainer: Any) -> None:
    """Count that epoch where no hook of ours comes before its first batch; the hooks it begins with are left out.

    Args:
        trainer: The Trainer, asked for a first batch, of an epoch or of a pass of somebody else over its loader.
    """
    loop = trainer.fit_loop
    beside_epochs = loop.epoch_loop.batch_progress.is_last_batch  # in a hook before or after one
    epochs = loop.epoch_progress.total
    if loop.restarted_mid_epoch and epochs.processed == epochs.started and not beside_epochs:
        loop.epoch_progress.increment_ready()
        loop.epoch_progress.increment_started()
