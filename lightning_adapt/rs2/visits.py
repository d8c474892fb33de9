"""Pure parts of loss-guided rounds: what share of the visits a row should get, and whose turn it is. Ours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_adapt._shared.checks import (
    check_fraction,
    check_integer,
    check_positive,
    check_share,
    problem,
)
from lightning_adapt._shared.hashing import derive_key, generator, uniform
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = ["loss_weights", "most_owed"]


def loss_weights(
    losses: Tensor,
    *,
    power: float = 1.0,
    loss_cap: float = 0.75,
    uniform_mix: float = 0.0,
    targets: Tensor | None = None,
) -> Tensor:
    """Return the share of the next visits that each row should get, from its last training loss.

    Ours: p_i proportional to min(l_i, q)^power, q the `loss_cap` quantile of the known losses: wrong labels have the
    highest losses, and cut there they weigh no more than many right ones. Rows without a loss get the mean weight.

    Args:
        losses: Last loss of each row, >= 0; NaN where there is none. Shape (N,), floating point.
        power: Exponent, > 0.
        loss_cap: Quantile in (0, 1]; 1 cuts nothing.
        uniform_mix: Share of the visits that are spread evenly, in [0, 1].
        targets: Class of each row: every class then gets visits in proportion to its rows. Shape (N,), int64.

    Returns:
        Shares that add up to 1. Shape (N,), dtype float64.

    Example:
        >>> loss_weights(torch.tensor([1.0, 1.0, 2.0, 9.0]), loss_cap=0.5).tolist()
        [0.2, 0.2, 0.3, 0.3]
    """
    check_tensor("losses", losses, "real", ndim=1)
    power = check_positive("power", power, "Pass 1.")
    check_fraction("loss_cap", loss_cap, "Pass 0.75, or 1 to cut nothing.")
    check_share("uniform_mix", uniform_mix, "Pass 0 to draw by losses alone.")
    if targets is not None:
        check_tensor("targets", targets, "whole", ndim=1)
    if not len(losses) or (targets is not None and targets.shape != losses.shape):
        allowed = "a loss of each row, and `targets` as many classes"
        raise ValueError(problem("losses", allowed, tuple(losses.shape), "Describe the same rows."))
    known = torch.isfinite(losses)
    n_known = int(known.sum())
    if not n_known:
        return torch.full((len(losses),), 1 / len(losses), dtype=torch.float64)
    values = losses.double() if n_known == len(losses) else losses[known].double()
    weights = values.clamp(max=float(np.quantile(values.numpy(), loss_cap)))  # torch.quantile stops at 2^24 values
    if power != 1:
        weights = weights.pow(power)
    if n_known < len(losses):
        weights = torch.full((len(losses),), float(weights.mean()), dtype=torch.float64).masked_scatter_(known, weights)
    if targets is None:
        total = weights.sum()
        shares = weights / total if total > 0 else torch.full_like(weights, 1 / len(weights))  # all learnt: evenly
    else:
        shares = _within_classes(weights, targets)
    return shares if uniform_mix == 0 else (1 - uniform_mix) * shares + uniform_mix / len(losses)


def _within_classes(weights: Tensor, targets: Tensor) -> Tensor:
    """Return weights as shares that add up, in each class, to its share of the rows; evenly where all are 0."""
    counts = torch.bincount(targets).double()
    totals = torch.zeros_like(counts).index_add_(0, targets, weights)
    within = torch.where(totals[targets] > 0, weights / totals[targets], 1 / counts[targets])
    return within * counts[targets] / len(weights)


def most_owed(owed: Tensor, weights: Tensor, k: int, seed: int, round_index: int) -> tuple[Tensor, Tensor]:
    """Return the k rows of a round whose visits lag most behind what their weights say, and what is owed afterwards.

    Ours: each round owes row i another k w_i visits, at most one, and what is above one goes to the others; the k rows
    owed the most come next, after a uniform number in [0, 1) has broken the order among those owed alike. Equal weights
    give passes without replacement; any others give each row its share of the visits to within about one, where
    independent draws would scatter by their square root.

    Args:
        owed: Visits owed before the round. Shape (N,), floating point.
        weights: Share of the visits of each row, adding up to 1. Shape (N,), floating point.
        k: Rows to draw, <= N.
        seed: Seed of the run.
        round_index: The round, t.

    Returns:
        The rows, in random order, shape (k,), dtype int64; and the visits owed after the round, which add up to what
        they did before it, shape (N,), dtype float32.

    Example:
        >>> import torch
        >>> most_owed(torch.tensor([0.9, 0.0, 0.1]), torch.full((3,), 1 / 3), k=1, seed=0, round_index=0)
        (tensor([0]), tensor([0.2333, 0.3333, 0.4333]))
    """
    check_tensor("owed", owed, "real", ndim=1)
    check_tensor("weights", weights, "real", ndim=1)
    if owed.shape != weights.shape:
        raise ValueError(problem("weights", f"of shape ({len(owed)},)", tuple(weights.shape), "One for each row."))
    check_integer("k", k, "Draw at most all rows.", maximum=len(owed))
    check_integer("seed", seed, "Pass any whole number >= 0.")
    check_integer("round_index", round_index, "Pass any whole number >= 0.")
    due = owed.double() + _shared_out(weights.double(), k)
    tie_break = uniform(torch.arange(len(due)), derive_key(seed, round_index, 3))
    rows = torch.topk(due + tie_break, k).indices
    after = due.float()
    after[rows] -= 1
    return rows[torch.randperm(k, generator=generator(seed, round_index, 4))], after


def _shared_out(weights: Tensor, k: int) -> Tensor:
    """Return k visits in proportion to the weights, at most one each: debts that no round can pay would only grow."""
    visits = k * weights
    if float(visits.max()) <= 1:
        return visits
    full = torch.zeros(len(weights), dtype=torch.bool)
    while bool((visits[~full] > 1).any()):
        full |= visits >= 1
        left, rest = k - int(full.sum()), float(visits[~full].sum())
        others = visits * (left / rest) if rest > 0 else torch.full_like(visits, left / max(1, int((~full).sum())))
        visits = torch.where(full, 1.0, others)
    return visits
