"""When a run in RS2 rounds validates: rarely, and after the last round that is run to its end."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_adapt._shared import compat
from lightning_adapt._shared.checks import check_choice, check_integer


class RoundValidation:
    """Thins out the Trainer's validation to every so many rounds, and the last.

    Args:
        owner: Who asks; see `compat.thin_out_validation`.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.every = 0  # rounds; 0: as the Trainer says

    def start(self, trainer: Any, rounds: int, batches: int) -> None:
        """Validate every so many rounds from now on, and in the last; others that wait for validation follow.

        Args:
            trainer: The Trainer, in `on_train_start`.
            rounds: Rounds between validations, >= 1.
            batches: Batches of a round.
        """
        self.every = rounds
        compat.thin_out_validation(trainer, self.owner, rounds)
        _let_others_follow(trainer)
        # a run resumed inside a round gets no on_train_epoch_start
        self.begin_round(trainer, compat.batches_to_skip(trainer) % batches)

    def stop(self, trainer: Any) -> None:
        """Give the Trainer its own validation back.

        Args:
            trainer: The Trainer.
        """
        compat.restore_validation(trainer, self.owner)
        self.every = 0

    def begin_round(self, trainer: Any, done: int = 0) -> None:
        """Validate the last round that is run to its end: its schedule has come down, and its weights stay.

        Args:
            trainer: The Trainer, at the beginning of a round.
            done: Batches of this round that a run resumed inside it has behind it.
        """
        if not self.every:
            return
        compat.thin_out_validation(trainer, self.owner, self.every)
        if math.isinf(trainer.num_training_batches):  # a stream beside the rounds: nobody knows when its epoch ends
            if trainer.current_epoch + 1 == trainer.max_epochs:
                compat.validate_in_this_epoch(trainer)
            return
        batches = int(trainer.num_training_batches)
        steps, steps_done = -(-batches // trainer.accumulate_grad_batches), done // trainer.accumulate_grad_batches
        if not trainer.lightning_module.automatic_optimization and trainer.fit_loop.total_batch_idx >= 0:
            per_batch = trainer.global_step / (trainer.fit_loop.total_batch_idx + 1)  # several optimizers step
            steps, steps_done = round(batches * per_batch), round(done * per_batch)
        left = trainer.max_steps - trainer.global_step + steps_done  # from the beginning of this round
        ends_by_steps = trainer.max_steps > 0 and steps <= left < 2 * steps
        if trainer.current_epoch + 1 == trainer.max_epochs or ends_by_steps:
            compat.validate_in_this_epoch(trainer)
        elif trainer.max_steps > 0 and left < steps:
            trainer.check_val_every_n_epoch = 1  # a round cut short: ModelCheckpoint saves what it leaves, as ever


def _let_others_follow(trainer: Any) -> None:
    """Adapt what waits for validation: plateau schedules, and checkpoints that might never be saved."""
    every = trainer.check_val_every_n_epoch or 1
    for config in trainer.lr_scheduler_configs:  # ReduceLROnPlateau must find a metric when it steps
        if config.reduce_on_plateau and config.interval == "epoch" and config.frequency % every:
            config.frequency = every
    for number in compat.checkpoints_that_miss_validation(trainer):
        rank_zero_warn(
            f"ModelCheckpoint(every_n_epochs={number}) saves after validation, which now runs every {every} RS2 "
            f"rounds and in the last one: some of its checkpoints will not come. Use every_n_epochs=1, a multiple "
            f'of {every}, save_on_train_epoch_end=True, or RS2Callback(validate="round").'
        )


def check_validate(validate: Any) -> str | int:
    """Check the argument `validate`: "pass", "round" or a number of rounds >= 1.

    Args:
        validate: What the user passed.

    Returns:
        The value.

    Raises:
        TypeError: If it is neither a word nor a whole number.
        ValueError: If it is another word, or below 1.
    """
    remedy = "Use 'pass' to validate once per pass over the data."
    if isinstance(validate, str):
        return check_choice("validate", validate, ("pass", "round"), remedy)
    return check_integer("validate", validate, remedy, minimum=1)
