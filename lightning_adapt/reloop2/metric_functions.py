"""AUC, logloss and calibration of many groups of rows at once: slots, users or everything (torch only)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["check_columns", "equal_slots", "grouped_auc", "grouped_calibration", "grouped_logloss", "weighted_user_auc"]

PROBABILITY_EPS = 1e-6  # predictions are cut to [eps, 1 - eps] for the logloss: a hard 0 or 1 would make it infinite
MOST_SLOTS = 1_000_000  # a larger number is no slot but, say, a time in seconds


def grouped_auc(prediction: Tensor, target: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Return the area under the ROC curve inside each group.

    The Mann-Whitney statistic: the share of (click, no click) pairs in which the click has the larger prediction; a
    pair of equal predictions counts half. One sort for all groups together.

    Args:
        prediction: Larger means more likely. Shape (N,), any float dtype, no NaN.
        target: 0 or 1. Shape (N,), any dtype.
        group: Group of each row, from 0 to `n_groups` - 1. Shape (N,), dtype int64.
        n_groups: Number of groups G.

    Returns:
        AUC per group; NaN where a group lacks one of the classes. Shape (G,), dtype float64.

    Example:
        >>> import torch
        >>> grouped_auc(torch.tensor([0.1, 0.9, 0.5, 0.5]), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]), 2)
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    order = prediction.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]  # by group, and by prediction inside each
    prediction, target, group = prediction[order], target[order].double(), group[order]
    rows = torch.bincount(group, minlength=n_groups)
    before = rows.cumsum(0) - rows  # rows of the groups before
    rank = _middle_rank(prediction, group) - before[group]
    clicks = _sums(target, group, n_groups)
    pairs = clicks * (rows - clicks)
    wins = _sums(rank * target, group, n_groups) - clicks * (clicks + 1) / 2
    return wins / pairs  # 0 / 0, that is NaN, where there is no pair


def _middle_rank(prediction: Tensor, group: Tensor) -> Tensor:
    """Rank from 1 of each sorted row; equal predictions of a group share the middle of their ranks."""
    new = torch.ones_like(group)
    new[1:] = (group[1:] != group[:-1]) | (prediction[1:] != prediction[:-1])
    run = new.cumsum(0) - 1  # number of the run of equal predictions that a row belongs to
    length = torch.bincount(run)
    last = length.cumsum(0)
    return (last - (length - 1).double() / 2)[run]


def weighted_user_auc(prediction: Tensor, target: Tensor, user: Tensor) -> Tensor:
    """Return the gAUC: the mean of the AUC of each user, weighted by the user's rows.

    As in Zhu et al., KDD 2023, section 4.1; users who only clicked or never did are left out.

    Args:
        prediction: As in `grouped_auc`. Shape (N,).
        target: 0 or 1. Shape (N,), any dtype.
        user: Any numbers that tell users apart. Shape (N,), any integer dtype.

    Returns:
        The mean; NaN when no user has both classes. Shape (), dtype float64.
    """
    known, user = torch.unique(user, return_inverse=True)
    auc = grouped_auc(prediction, target, user, len(known))
    rows = torch.bincount(user, minlength=len(known)).double()
    both = ~auc.isnan()
    return (auc[both] * rows[both]).sum() / rows[both].sum()


def grouped_logloss(prediction: Tensor, target: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Return the mean negative log-likelihood (nats) inside each group.

    Args:
        prediction: Probability of a click, cut to [1e-6, 1 - 1e-6]. Shape (N,), any float dtype.
        target: 0 or 1. Shape (N,), any dtype.
        group: Group of each row. Shape (N,), dtype int64.
        n_groups: Number of groups G.

    Returns:
        Logloss per group; NaN for a group without rows. Shape (G,), dtype float64.
    """
    probability = prediction.double().clamp(PROBABILITY_EPS, 1 - PROBABILITY_EPS)
    likelihood = torch.where(target.bool(), probability, 1 - probability)
    return _sums(-likelihood.log(), group, n_groups) / torch.bincount(group, minlength=n_groups)


def grouped_calibration(prediction: Tensor, target: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Return the sum of the predictions over the number of clicks inside each group; 1 is right on average.

    Args:
        prediction: Probability of a click. Shape (N,), any float dtype.
        target: 0 or 1. Shape (N,), any dtype.
        group: Group of each row. Shape (N,), dtype int64.
        n_groups: Number of groups G.

    Returns:
        The ratio per group; NaN for a group without clicks. Shape (G,), dtype float64.
    """
    clicks = _sums(target.double(), group, n_groups)
    ratio = _sums(prediction.double(), group, n_groups) / clicks
    return torch.where(clicks > 0, ratio, torch.nan)


def equal_slots(n_rows: int, n_slots: int, device: torch.device | None = None) -> Tensor:
    """Cut rows in the order of time into equal slots, as `PrequentialDataModule` cuts its stream.

    Args:
        n_rows: Number of rows N.
        n_slots: Number of slots S, >= 1; with fewer rows than slots some stay empty.
        device: Where the result is.

    Returns:
        Slot of each row, from 0 to S - 1. Shape (N,), dtype int64.

    Example:
        >>> equal_slots(5, 2)
        tensor([0, 0, 1, 1, 1])
    """
    edges = torch.arange(n_slots + 1, device=device) * n_rows // n_slots
    return torch.bucketize(torch.arange(n_rows, device=device), edges, right=True) - 1


def _sums(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    # not bincount with weights: on CUDA it has no deterministic form
    return values.new_zeros(n_groups).index_add_(0, group, values)


def check_columns(columns: Mapping[str, Tensor], n_slots: int | None) -> None:
    """Check a batch of rows before it is measured.

    Args:
        columns: "prediction" and "target", and any of "base", "slot", "group" and "index". Shape (B,) each.
        n_slots: Number of slots; None for any.

    Raises:
        TypeError: If something is no tensor, or of a wrong dtype.
        ValueError: If shapes differ, or values are out of range.
    """
    for name, values in columns.items():
        _check_column(name, values, len(columns["prediction"]) if name != "prediction" else None)
    for name in ("prediction", "base"):
        if name in columns and not bool(((columns[name] >= 0) & (columns[name] <= 1)).all()):  # NaN is neither
            worst = columns[name][~((columns[name] >= 0) & (columns[name] <= 1))][0].item()
            raise ValueError(problem(name, "probabilities in [0, 1]", worst, "Pass logits through .sigmoid() first."))
    target = columns["target"]
    if not bool(((target == 0) | (target == 1)).all()):
        wrong = target[(target != 0) & (target != 1)][0].item()
        raise ValueError(problem("target", "0 or 1", wrong, "Turn ratings into clicks first."))
    if "slot" in columns and len(target):
        highest, most = int(columns["slot"].max()), n_slots or MOST_SLOTS
        if highest >= most:
            remedy = "Raise `n_slots`." if n_slots else "Slots are counted from 0; cut times into slots first."
            raise ValueError(problem("slot", f"below {most}", highest, remedy))


def _check_column(name: str, values: Any, length: int | None) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(problem(name, "a tensor", values, "Use torch.as_tensor."))
    if name in ("prediction", "base") and not values.is_floating_point():
        raise TypeError(problem(name, "of a float dtype", values.dtype, "Pass probabilities."))
    if name in ("slot", "group", "index") and (
        values.is_floating_point() or values.is_complex() or values.dtype == torch.bool
    ):
        raise TypeError(problem(name, "of an integer dtype", values.dtype, "Use .long()."))
    if values.ndim != 1 or (length is not None and len(values) != length):
        allowed = "of shape (B,)" if length is None else f"of shape ({length},), as `prediction`"
        raise ValueError(problem(name, allowed, tuple(values.shape), "Use .flatten() on columns of shape (B, 1)."))
