"""What SAA reads off a Trainer: when to select, and among how many samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import Any, Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_adapt._shared.checks import check_choice, check_integer, check_share, problem

__all__ = ["check_n_unlabeled", "check_update_every", "check_warmup", "unlabeled_rows", "warm_batches"]


def check_n_unlabeled(n_unlabeled: Any) -> int | None:
    """Check a number of unlabelled samples >= 1; None: to be found out."""
    if n_unlabeled is None:
        return None
    return check_integer("n_unlabeled", n_unlabeled, "Pass the length of the unlabelled data set.", minimum=1)


def check_update_every(update_every: Any) -> Literal["epoch"] | int:
    """Check the time between selections: "epoch", or a number of training batches >= 1."""
    remedy = "Pass 'epoch', or a number of training batches."
    if isinstance(update_every, str):
        check_choice("update_every", update_every, ("epoch",), remedy)
        return "epoch"
    return check_integer("update_every", update_every, remedy, minimum=1)


def check_warmup(warmup: Any) -> int | float:
    """Check the time before the first selection: a share of the run in [0, 1], or a whole number of batches."""
    remedy = "Pass 0.1 for a tenth of the run, or a number of batches."
    if isinstance(warmup, float):
        return check_share("warmup", warmup, remedy)
    return check_integer("warmup", warmup, remedy)


def warm_batches(trainer: Any, warmup: int | float) -> float:
    """Return the training batches before the first selection.

    Args:
        trainer: The Trainer, once training starts.
        warmup: What `check_warmup` returned.

    Returns:
        Batches >= 0; infinity for never.

    Raises:
        MisconfigurationException: If a share is asked for and nothing says how long the run is.
    """
    if isinstance(warmup, int) or warmup == 0:
        return warmup
    if warmup == 1:
        return math.inf
    bounds = [math.inf]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        bounds.append(trainer.max_epochs * trainer.num_training_batches)
    if trainer.max_steps > 0 and trainer.lightning_module.automatic_optimization:  # else, several steps a batch
        bounds.append(trainer.max_steps * trainer.accumulate_grad_batches)
    if math.isinf(min(bounds)):
        allowed = "a number of batches where neither max_epochs nor max_steps says how long the run is"
        raise MisconfigurationException(problem("warmup", allowed, warmup, "Pass warmup=1000, say."))
    return warmup * min(bounds)


def unlabeled_rows(trainer: Any) -> int:
    """Return the number of unlabelled samples: the rows behind the train loader, or behind the one named "unlabeled".

    Args:
        trainer: The Trainer, once training starts.

    Returns:
        Rows, >= 1.

    Raises:
        MisconfigurationException: If there is no such loader, or its data set has no length.
    """
    loaders = trainer.train_dataloader
    loader = loaders.get("unlabeled") if isinstance(loaders, Mapping) else loaders
    rows = getattr(loader, "dataset", None)
    if not isinstance(rows, Sized) or len(rows) == 0:
        allowed = 'given where no train loader, or none of several named "unlabeled", has a data set with a length'
        raise MisconfigurationException(problem("n_unlabeled", allowed, None, "Pass len(unlabeled_dataset)."))
    return len(rows)
