"""Makes `trainer.estimated_stepping_batches` right where epochs have different lengths that are known beforehand.

Lightning multiplies the length of one epoch by the number of epochs. A schedule built from that ends too early or too
late when the data set changes between epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from lightning_adapt._shared.compat import combined_loader_mode, combined_train_loader
from lightning_adapt._shared.loaders import batches_in

__all__ = ["batches_of_epochs", "counted_max_steps", "forget_plan", "plan_steps", "steps_of_epochs"]

_PLANS = "_lightning_adapt_step_plans"

Resize = Callable[[int | None], int]


class _Plan(NamedTuple):
    resize: Resize
    first_epoch: int


def plan_steps(trainer: Any, owner: Hashable, resize: Resize, *, first_epoch: int = 0) -> None:
    """Count the optimizer steps of a run over epochs of different lengths.

    The Trainer's class is replaced by a subclass of it with the one property changed, as long as a plan is there.

    Args:
        trainer: The Trainer; call it from a callback's `setup`.
        owner: Who asks; asking again replaces the plan.
        resize: Given an epoch, lets the train loader be as long as in that epoch and returns its number of rows (or
            anything else that stands for its length); given None, lets it be as it is now. It is called once the
            train loaders are there.
        first_epoch: Epochs before this one do not count: where training begins anew there.
    """
    plans = trainer.__dict__.setdefault(_PLANS, {})
    plans[owner] = _Plan(resize, first_epoch)
    kind = type(trainer)
    if not kind.__dict__.get(_PLANS, False):
        changes = {_PLANS: True, "estimated_stepping_batches": property(_planned)}
        kept = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
        trainer.__class__ = type(kind.__name__, (kind,), {**kept, **changes})


def forget_plan(trainer: Any, owner: Hashable) -> None:
    """Take back what `plan_steps` did for one owner; harmless when there is nothing to take back.

    Args:
        trainer: The Trainer.
        owner: Who asked.
    """
    plans = trainer.__dict__.get(_PLANS)
    if plans is None:
        return
    plans.pop(owner, None)
    if not plans:
        del trainer.__dict__[_PLANS]
        trainer.__class__ = type(trainer).__bases__[0]


def _planned(trainer: Any) -> int | float:
    """Return the optimizer steps of the run; what Lightning says where the epochs are unknown or unbounded."""
    usual: int | float = super(type(trainer), trainer).estimated_stepping_batches  # loads the train loaders, too
    if trainer.train_dataloader is None and trainer.max_steps != -1 and _first_epoch(trainer):
        trainer.fit_loop.setup_data()  # Lightning needs no loader to say `max_steps`
    batches, bound = batches_of_epochs(trainer), counted_max_steps(trainer)
    steps = usual if batches is None else _steps(trainer, batches)
    return steps if bound is None else min(steps, bound)


def _steps(trainer: Any, batches: list[int]) -> int:
    accumulate: int = trainer.accumulate_grad_batches
    whole = trainer.strategy.handles_gradient_accumulation  # it makes no step of what is left at the end of an epoch
    return sum(length // accumulate if whole else -(-length // accumulate) for length in batches)


def counted_max_steps(trainer: Any) -> int | None:
    """Return what `max_steps` leaves for the epochs that count, as the plans of a Trainer say.

    Args:
        trainer: The Trainer, once it has train loaders.

    Returns:
        Optimizer steps; None for no bound. All of them where training ends before an epoch that counts.
    """
    if trainer.max_steps == -1:
        return None
    left = int(trainer.max_steps) - (steps_of_epochs(trainer, _first_epoch(trainer)) or 0)
    return left if left > 0 else int(trainer.max_steps)


def steps_of_epochs(trainer: Any, count: int) -> int | None:
    """Return the optimizer steps of the first epochs, without the bound of `max_steps`.

    Args:
        trainer: The Trainer, once it has train loaders.
        count: Number of epochs.

    Returns:
        Optimizer steps; None without a plan, or where the length of epochs is unknown.
    """
    batches = _batches(trainer, range(count))
    return None if batches is None else _steps(trainer, batches)


def batches_of_epochs(trainer: Any) -> list[int] | None:
    """Return the batches of each epoch that counts, as the plans of a Trainer say.

    Args:
        trainer: The Trainer, once it has train loaders.

    Returns:
        One number for each epoch up to `max_epochs`; None without a plan, or where epochs are unbounded or unknown.
    """
    if trainer.max_epochs in (None, -1):
        return None
    return _batches(trainer, range(_first_epoch(trainer), trainer.max_epochs))


def _plans(trainer: Any) -> dict[Hashable, _Plan]:
    plans: dict[Hashable, _Plan] = trainer.__dict__.get(_PLANS, {})
    return plans


def _first_epoch(trainer: Any) -> int:
    return max((plan.first_epoch for plan in _plans(trainer).values()), default=0)


def _batches(trainer: Any, epochs: range) -> list[int] | None:
    plans = _plans(trainer)
    if not plans or trainer.train_dataloader is None or math.isinf(trainer.num_training_batches):
        return None
    combined = combined_train_loader(trainer)
    batches: list[int] = []
    measured: dict[tuple[int, ...], int] = {}
    try:
        for epoch in epochs:
            size = tuple(plan.resize(epoch) for plan in plans.values())
            if size not in measured:
                measured[size] = _length(combined, trainer.limit_train_batches)
            batches.append(measured[size])
    finally:
        for plan in plans.values():
            plan.resize(None)
    return batches


def _length(combined: Any, limit: int | float) -> int:
    """Return the batches of an epoch, as the Trainer counts them: each loader is cut, then all are combined."""
    lengths = [_cut(loader, limit) for loader in combined.flattened]
    return int(min(lengths) if combined_loader_mode(combined) == "min_size" else max(lengths))


def _cut(loader: Any, limit: int | float) -> float:
    length = batches_in(loader)
    if length is None:
        return math.inf if isinstance(limit, float) else limit
    return min(length, limit) if isinstance(limit, int) else int(length * limit)
