"""Whether the learning-rate schedules fit the number of steps that a run really has, and what to do if not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_adapt._shared import schedule_kinds as kinds
from lightning_adapt._shared.planned_steps import batches_of_epochs, counted_max_steps
from lightning_adapt._shared.schedule_lambdas import End

__all__ = ["ACTIONS", "Action", "RunLength", "check_horizons", "tolerance"]

Action = Literal["warn", "rescale", "error", "ignore"]
ACTIONS = ("warn", "rescale", "error", "ignore")


@dataclass(frozen=True)
class RunLength:
    """How long a run is, in all the units that a schedule may be stepped in.

    Attributes:
        batches: Batches of an epoch; None when not known.
        accumulate: Batches of an optimizer step. The last step of an epoch takes what is left, unless `drops_rest`.
        max_epochs: Epochs, or None for no bound.
        max_steps: Optimizer steps, or None for no bound.
        drops_rest: Whether the strategy accumulates by itself and makes no step of what is left at the end of an epoch.
        lengths: Batches of every epoch, where they differ and are known (see `planned_steps`); None otherwise.
    """

    batches: int | None
    accumulate: int = 1
    max_epochs: int | None = None
    max_steps: int | None = None
    drops_rest: bool = False
    lengths: tuple[int, ...] | None = None

    @classmethod
    def of(cls, trainer: Any) -> RunLength:
        """Read the length off a Trainer whose training has started.

        Args:
            trainer: The Trainer.

        Returns:
            The length; resumed runs count from their first beginning, as schedulers do.
        """
        batches, lengths = trainer.num_training_batches, batches_of_epochs(trainer)
        epochs = trainer.max_epochs if lengths is None else len(lengths)
        return cls(
            batches=None if math.isinf(batches) else int(batches),
            lengths=None if lengths is None else tuple(lengths),
            accumulate=trainer.accumulate_grad_batches,
            max_epochs=epochs if epochs is not None and epochs >= 0 else None,
            max_steps=counted_max_steps(trainer),
            drops_rest=bool(trainer.strategy.handles_gradient_accumulation),
        )

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch, None when not known."""
        return None if self.batches is None else self._count(self.batches, 1)

    @property
    def optimizer_steps(self) -> int | None:
        """Optimizer steps of the run, None when nothing bounds it or an epoch has no known length."""
        per_epoch = self.steps_per_epoch
        by_epochs = None if per_epoch is None or self.max_epochs is None else per_epoch * self.max_epochs
        by_epochs = by_epochs if self.lengths is None else sum(self._count(batches, 1) for batches in self.lengths)
        bounds = [bound for bound in (by_epochs, self.max_steps) if bound is not None]
        unknown = self.max_epochs is not None and per_epoch is None  # it may end before max_steps
        return None if unknown or not bounds else min(bounds)

    def scheduler_steps(self, interval: str, frequency: int = 1) -> int | None:
        """Return how often a scheduler is stepped.

        The Trainer counts `frequency` in batches of the epoch, and steps only on those that step the optimizer.

        Args:
            interval: "step" or "epoch".
            frequency: As in Lightning's scheduler configuration.

        Returns:
            Scheduler steps of the run, None when not known.
        """
        steps = self.optimizer_steps
        if steps is None:
            return None
        if not self.steps_per_epoch or self.batches is None:
            return steps if interval == "step" and self.accumulate == frequency == 1 else None
        if self.lengths is None:
            epochs, rest = divmod(steps, self.steps_per_epoch)
            by_step = epochs * self._count(self.batches, frequency)
        else:
            epochs, by_step, rest = self._whole_epochs(self.lengths, steps, frequency)
        if interval == "epoch":
            return epochs // frequency
        return by_step + rest * self.accumulate // math.lcm(self.accumulate, frequency)

    def _whole_epochs(self, lengths: tuple[int, ...], steps: int, frequency: int) -> tuple[int, int, int]:
        """Return the epochs that some optimizer steps complete, the scheduler steps in them, and the steps left."""
        by_step = 0
        for epoch, batches in enumerate(lengths):
            if self._count(batches, 1) > steps:
                return epoch, by_step, steps
            steps -= self._count(batches, 1)
            by_step += self._count(batches, frequency)
        return len(lengths), by_step, steps

    def _count(self, batches: int, frequency: int) -> int:
        rest_steps = batches % self.accumulate and batches % frequency == 0 and not self.drops_rest
        return batches // math.lcm(self.accumulate, frequency) + bool(rest_steps)


def tolerance(steps: int, interval: str, epochs: int) -> float:
    """Return by how many scheduler steps a schedule may miss the end of the run without being called wrong.

    1 %, at least one step. Schedules by step may also miss one step per epoch, which is what computing
    `epochs * len(data) // batch_size` by hand may cost, up to 5 %.

    Args:
        steps: Scheduler steps of the run.
        interval: "step" or "epoch".
        epochs: Epochs of the run.

    Returns:
        Scheduler steps.
    """
    rounding = min(epochs, 0.05 * steps) if interval == "step" else 0.0
    return max(1.0, 0.01 * steps, rounding)


def check_horizons(trainer: Any, action: str, owner: str, scale: float) -> None:
    """Look for schedules that were built for another number of steps than the run has, and act on them.

    Right schedules are left alone: those built from `trainer.estimated_stepping_batches`, by hand for this run, or in
    epochs. Exponential, cyclic, plateau and unknown schedules have no end to compare and pass; so do drops of the
    learning rate that all lie inside the run, or that the run without the owner would not have reached either. With
    manual optimization, an unbounded run, or accumulation that changes, the number of steps is not known, and nothing
    is said.

    Call it in `on_train_start`: there the loaders are known and a checkpoint has been restored. A schedule that an
    earlier run rescaled comes out of its checkpoint rescaled and is continued.

    Args:
        trainer: The Trainer.
        action: "warn", "rescale" (change them in place; what cannot be changed is warned about), "error" or "ignore".
        owner: Name of the caller, for the message; has an argument `lr_horizon`.
        scale: Batches of an epoch as a share of those that it would have without the owner, > 0.

    Raises:
        MisconfigurationException: With "error", if a schedule does not fit.
    """
    if action == "ignore" or not trainer.lightning_module.automatic_optimization:
        return
    run = RunLength.of(trainer)
    usual = _usual(trainer, run, scale)
    if usual is None or any(hasattr(callback, "get_accumulate_grad_batches") for callback in trainer.callbacks):
        return
    found = []
    for config in trainer.lr_scheduler_configs:
        if not config.reduce_on_plateau:
            kinds.wrap_again(config.scheduler)
            found.append(_examine(config, run, usual))
    wrong = [finding for finding in found if finding is not None]
    texts = [_settle(finding, action) for finding in wrong]
    _report([text for text in texts if text], wrong, action, owner)


def _usual(trainer: Any, run: RunLength, scale: float) -> RunLength | None:
    """Return the length of the run as it would be without the owner."""
    if run.batches is None:
        return None
    batches = round(run.batches / scale)
    limit = trainer.limit_train_batches
    if isinstance(limit, int) and limit >= run.batches:  # a number of batches cuts both
        batches = min(batches, limit)
    return replace(run, batches=batches, lengths=None)


@dataclass(frozen=True)
class _Finding:
    scheduler: Any
    unit: str
    now: int
    without: int
    end: End | None  # None: it may be wrong, but nobody can tell
    meant_steps: bool = False  # it is stepped by epoch, but its length is the run's in steps

    @property
    def old(self) -> int:
        """The length that the schedule was built for."""
        if self.end is None or self.end.rule in ("settle", "change"):
            return self.without
        near = self.end.near(self.without)
        return near if abs(near - self.without) <= max(1.0, 0.05 * self.without) else self.end.step


def _examine(config: Any, run: RunLength, usual: RunLength) -> _Finding | None:
    """Return what does not fit about one schedule."""
    now, without = (length.scheduler_steps(config.interval, config.frequency) for length in (run, usual))
    if not now or not without:
        return None
    epochs = run.scheduler_steps("epoch") or 1
    slack, slack_without = tolerance(now, config.interval, epochs), tolerance(without, config.interval, epochs)
    unit = "epochs" if config.interval == "epoch" else "steps"
    unit = unit if config.frequency == 1 else "scheduler steps"
    scheduler = config.scheduler
    length = kinds.mark(scheduler)
    found = kinds.ends(scheduler, now, without) if length is None else [End(length, "exact")]
    for end in found:
        if _is_wrong(end, now, without, slack, slack_without):
            meant_steps = config.interval == "epoch" and _counts_steps(end, run, usual, epochs)
            return _Finding(scheduler, unit, now, without, end, meant_steps)
    if kinds.foreign(scheduler) and abs(without - now) > slack and not _is_tuner(scheduler):
        return _Finding(scheduler, unit, now, without, None)
    return None


def _is_wrong(end: End, now: int, without: int, slack: float, slack_without: float) -> bool:
    if end.rule == "exact":
        missing = end.near(now) - now
        slack += (end.near(now) - end.step) / end.step if end.every else 0  # each repetition is rounded by itself
        return missing > slack or -missing > (0 if end.raises else slack)
    if end.rule == "reach":
        return end.step - now > slack
    if end.rule == "settle":
        return now + slack < end.step <= without + slack_without
    return now <= end.step < without and without - now > slack


def _counts_steps(end: End, run: RunLength, usual: RunLength, epochs: int) -> bool:
    lengths = [length.optimizer_steps for length in (run, usual)]
    return any(steps and abs(end.near(steps) - steps) <= tolerance(steps, "step", epochs) for steps in lengths)


def _is_tuner(scheduler: Any) -> bool:
    return ".tuner." in type(scheduler).__module__  # the Trainer's own search for a learning rate


def _settle(finding: _Finding, action: str) -> str | None:
    """Rescale if asked to; return what there is left to say."""
    if action != "rescale":
        return None if finding.end is None else _describe(finding)
    if finding.meant_steps:  # rescaled, it would come down once per epoch, which nobody meant
        return _describe(finding)
    foreign = kinds.foreign(finding.scheduler)
    if foreign:
        return f"{', '.join(foreign)} cannot be rescaled, because its shape is not known. {_describe(finding)}".strip()
    if kinds.steps_done(finding.scheduler) > 0:
        return f"It cannot be rescaled in the middle of a run. {_describe(finding)}"
    kinds.compress(finding.scheduler, finding.old, finding.now)
    return None


def _describe(finding: _Finding) -> str:
    """Say by how much a schedule misses the end of the run."""
    end, scheduler, now = finding.end, finding.scheduler, finding.now
    name = kinds.family(scheduler)
    if end is None:
        return f"The run has {now} {finding.unit} instead of {finding.without}."
    verb = "changes the learning rate" if end.rule == "change" else "ends"
    text = f"{name} {verb} after {end.step} {finding.unit}, but the run has {now}"
    if finding.meant_steps:
        return f'{text}. It seems to count steps: return it as {{"scheduler": ..., "interval": "step"}}.'
    if end.raises and end.step < now:
        return f"{text}: it will raise an error."
    actual, meant = kinds.learning_rate(scheduler, now), kinds.learning_rate(scheduler, finding.old)
    if actual is None or meant is None:
        return f"{text}."
    if math.isclose(actual, meant, rel_tol=1e-3):
        return f"{text}, at learning rate {actual:.4g} either way."
    return f"{text}: it will end at learning rate {actual:.4g} instead of {meant:.4g}."


def _report(texts: list[str], wrong: list[_Finding], action: str, owner: str) -> None:
    """Warn or raise, once for all schedules."""
    if not texts:
        return
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # here: the rest does without it
    from lightning.pytorch.utilities import rank_zero_warn

    by_step = any(finding.unit != "epochs" or finding.meant_steps for finding in wrong)
    ways = ["`trainer.estimated_stepping_batches`"] if by_step else []
    by_epoch = any(finding.unit == "epochs" and not finding.meant_steps for finding in wrong)
    ways += ["`trainer.max_epochs`"] if by_epoch else []
    remedy = f"Build the schedule from {' or '.join(ways)} in configure_optimizers"
    if action != "rescale" and not all(finding.meant_steps for finding in wrong):
        remedy += f', or use {owner}(lr_horizon="rescale")'
    message = f"{owner}: the learning-rate schedule does not fit the run. {' '.join(texts)} {remedy}."
    if action == "error":
        raise MisconfigurationException(message)
    rank_zero_warn(message, category=UserWarning)
