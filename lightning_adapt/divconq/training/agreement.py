"""One decision for all ranks: work that fails on one rank fails on all, instead of leaving the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lightning_adapt._shared.collectives import from_rank_zero

__all__ = ["on_every_rank", "on_rank_zero"]

T = TypeVar("T")


def on_every_rank(trainer: Any, work: Callable[[], T]) -> T:
    """Do work on every rank, and raise on every rank if it fails on any.

    Args:
        trainer: The Trainer.
        work: Must not talk to other ranks itself.

    Returns:
        What the work returned here.

    Raises:
        Exception: What the work raised here.
        RuntimeError: If it failed on another rank only.
    """
    error: Exception | None = None
    result: Any = None
    try:
        result = work()
    except Exception as found:  # whatever it is: the other ranks must not wait for this one
        error = found
    fine = trainer.strategy.reduce_boolean_decision(error is None, all=True)
    if error is not None:
        raise error
    if not fine:
        raise RuntimeError("Another rank failed at the same place; its own error says why.")
    return result  # type: ignore[no-any-return]


def on_rank_zero(trainer: Any, work: Callable[[], T]) -> T:
    """Do work on rank 0 and return what came out of it on every rank.

    Args:
        trainer: The Trainer.
        work: Returns something that can be pickled.

    Returns:
        What the work returned on rank 0.

    Raises:
        Exception: On rank 0, what the work raised.
        ValueError: On the other ranks, with the text of that error.
    """
    error: Exception | None = None
    outcome: tuple[Any, str | None] = (None, None)
    if trainer.is_global_zero:
        try:
            outcome = (work(), None)
        except Exception as found:  # as above
            error = found
            outcome = (None, str(found))
    value, text = from_rank_zero(trainer, outcome)
    if error is not None:
        raise error
    if text is not None:
        raise ValueError(text)
    return value  # type: ignore[no-any-return]
