"""The sampler that draws the selected rows: our own, or the user's where that one plans whole batches."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_adapt._shared.batch_planner import BatchPlanner
from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt.divconq.training.options import RunOptions

__all__ = ["ChosenRows", "check_planned", "sampler_over", "usual_batches"]

ChosenRows = RowSampler | BatchPlanner


def check_planned(source: Any, options: RunOptions) -> None:
    """Raise where several rounds are asked for of a loader whose sampler plans whole batches.

    Args:
        source: What `inspect_loader` found: the data set, or a sampler of ours.
        options: What was asked for.

    Raises:
        ValueError: If both.
    """
    if isinstance(source, BatchPlanner) and options.rounds > 1:
        remedy = "How many batches a later round has depends on its rows, and schedules need the number: use one round."
        raise ValueError(problem("rounds", "1 where the loader plans whole batches", options.rounds, remedy))


def sampler_over(source: Any, rows: Tensor, *, seed: int, num_replicas: int, rank: int) -> ChosenRows:
    """Return a sampler of some rows: their shuffles, or the batches that the user's planner makes of them.

    Args:
        source: As in `check_planned`.
        rows: Rows of the data set. Shape (n,), dtype int64.
        seed: Seed of the shuffles; a planner has its own.
        num_replicas: Number of ranks.
        rank: This rank.

    Returns:
        The sampler.
    """
    if isinstance(source, BatchPlanner):
        return source.restricted(rows)
    return RowSampler(rows, seed=seed, num_replicas=num_replicas, rank=rank)


def usual_batches(loader: Any, source: Any, n: int, global_batch: int) -> int:
    """Return the batches of each rank in an epoch without a selection.

    Args:
        loader: The user's loader.
        source: As in `check_planned`.
        n: Rows to choose from.
        global_batch: Rows of a batch on all ranks together.

    Returns:
        The number.
    """
    return len(loader) if isinstance(source, BatchPlanner) else -(-n // global_batch)
