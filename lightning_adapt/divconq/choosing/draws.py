"""How many rows each cluster gives, and which: exact quotas, and draws without replacement in log space.

Yu et al., 2024, arXiv 2409.11378. Shapes: N rows of the pool, K clusters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.hashing import uniform
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = ["cluster_quotas", "draw_rows", "gumbel_top_k"]


# -- quotas ------------------------------------------------------------------------------------------------------------
def cluster_quotas(budget: int, weights: Tensor, available: Tensor, *, key: int = 0) -> Tensor:
    """Return how many rows each cluster gives: in proportion to its weight, no more than it has, exactly the budget.

    The paper's b_j = b w_j, made exact: what a cluster cannot give is spread over the others in proportion to their
    weights (water-filling), and fractions are rounded by largest remainder. Clusters of weight 0 give rows only when
    all others are empty. The authors' code takes int(b / K) of every cluster and never makes up for what is missing.

    Args:
        budget: Rows to give out, b >= 0.
        weights: Weight of each cluster, finite, >= 0. Shape (K,), floating point.
        available: Rows that each cluster can still give. Shape (K,), dtype int64.
        key: Decides between equal remainders. With fewer rows than clusters and equal weights it decides which
            clusters give one: another key for every round lets all have a turn.

    Returns:
        Rows of each cluster, 0 <= q_j <= available_j, adding up to `budget`. Shape (K,), dtype int64.

    Raises:
        ValueError: If the clusters have fewer rows than `budget`, or a weight is negative or not finite.

    Example:
        >>> cluster_quotas(10, torch.tensor([0.5, 0.3, 0.2]), torch.tensor([2, 100, 100])).tolist()
        [2, 5, 3]
    """
    check_tensor("weights", weights, ndim=1)
    check_tensor("available", available, "whole", ndim=1)
    check_integer("budget", budget, "Pass the rows to give out.")
    check_integer("key", key, "Pass a key of `derive_key`.")
    weights = weights.detach().double().cpu()
    available = available.detach().long().cpu()
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        bad = weights[~torch.isfinite(weights) | (weights < 0)][0].item()
        raise ValueError(problem("weights", "finite and >= 0", bad, "Exponentiate log-weights first."))
    rows = int(available.sum())
    if budget > rows:
        raise ValueError(
            problem("budget", f"at most the {rows} rows that the clusters still have", budget, "Lower it.")
        )
    quotas = torch.zeros_like(available)
    for worth in (weights, available.double() * (weights == 0)):  # the second only when the first cannot fill it
        room = available * (worth > 0)
        quotas += _fill(min(budget - int(quotas.sum()), int(room.sum())), worth, room, key)
    return quotas


def _fill(budget: int, weights: Tensor, room: Tensor, key: int) -> Tensor:
    """Spread a budget that fits over the clusters with room; `room` is 0 where the weight is 0."""
    quotas = torch.zeros_like(room)
    unfilled = room > 0
    left = budget
    while left:
        part = torch.where(unfilled, weights, 0.0)
        part = part / part.max()  # before the sum: tiny weights must not vanish
        share = left * (part / part.sum())
        full = unfilled & (share >= room)
        if not bool(full.any()):
            return quotas + _largest_remainder(left, share, unfilled, key)
        quotas[full] = room[full]
        unfilled &= ~full
        left = budget - int(quotas.sum())
    return quotas


def _largest_remainder(budget: int, share: Tensor, unfilled: Tensor, key: int) -> Tensor:
    quotas = share.floor().long()
    # rounded, so that equal weights are equal remainders whatever the last bit says
    remainder = torch.where(unfilled, ((share - quotas) * 1e9).round(), -1.0)
    turn = uniform(torch.arange(len(share)), key)
    order = torch.argsort(turn, stable=True)
    order = order[torch.argsort(remainder[order], descending=True, stable=True)]
    quotas[order[: budget - int(quotas.sum())]] += 1
    return quotas


# -- draws -------------------------------------------------------------------------------------------------------------
def gumbel_top_k(log_weights: Tensor, count: int, noise: Tensor | torch.Generator) -> Tensor:
    """Draw rows one after another, without replacement, each with probability proportional to its weight.

    The count largest of log w_i + G_i with Gumbel noise G_i (Kool et al., 2019, arXiv 1903.06059) are distributed
    exactly so, and no exponential can over- or underflow. The paper writes the draw as a multinomial with replacement.

    Args:
        log_weights: log w_i; -inf is never drawn. Shape (N,), floating point.
        count: Rows to draw, at most those with a finite log-weight.
        noise: Uniform numbers in [0, 1), shape (N,), or a generator to draw them from.

    Returns:
        Rows in the order drawn. Shape (count,), dtype int64.

    Raises:
        ValueError: If fewer than `count` rows can be drawn, or a log-weight is NaN or +inf.

    Example:
        >>> gumbel_top_k(torch.tensor([0.0, -math.inf, 0.0]), 2, torch.Generator().manual_seed(0)).sort().values
        tensor([0, 2])
    """
    check_tensor("log_weights", log_weights, ndim=1)
    if not isinstance(noise, torch.Generator):
        check_tensor("noise", noise, "real", ndim=1)
    check_integer("count", count, "Pass the rows to draw.")
    keys = _race(log_weights, noise)
    possible = int(torch.isfinite(keys).sum())
    if count > possible:
        raise ValueError(problem("count", f"at most the {possible} rows of positive weight", count, "Lower it."))
    return torch.topk(keys, count, largest=False, sorted=True).indices


def _race(log_weights: Tensor, noise: Tensor | torch.Generator) -> Tensor:
    """Return -(log w + Gumbel) = log E - log w with E ~ Exp(1): the smallest is drawn first; +inf where w = 0."""
    weights = log_weights.detach().double().cpu()
    if bool(torch.isnan(weights).any()) or bool((weights == math.inf).any()):
        raise ValueError(problem("log_weights", "finite or -inf", weights, "Pass logarithms of weights >= 0."))
    if isinstance(noise, torch.Generator):
        noise = torch.rand(len(weights), dtype=torch.float64, generator=noise)
    # 0 is a possible number, and its logarithm would beat every weight
    return torch.log(-torch.log1p(-noise.double().clamp(min=2.0**-54))) - weights


def draw_rows(
    labels: Tensor,
    quotas: Tensor,
    *,
    log_weights: Tensor | None = None,
    available: Tensor | None = None,
    key: int,
) -> Tensor:
    """Draw each cluster's quota of rows, without replacement.

    Every row has one random number that depends on the row and the key alone, so that the draw of a cluster is the
    same whatever happens in the others and in whatever order it is computed.

    Args:
        labels: Cluster of each row; a negative one belongs to none. Shape (N,), any integer dtype.
        quotas: Rows wanted of each cluster. Shape (K,), dtype int64.
        log_weights: log w_i inside the clusters, finite or -inf (never drawn); None for equal weights. Shape (N,).
        available: Rows that may be drawn; None for all. Shape (N,), dtype bool.
        key: Key of the draw, see `_shared.hashing.derive_key`.

    Returns:
        The rows, ascending. Shape (sum of quotas,), dtype int64.

    Raises:
        ValueError: If a cluster has fewer rows than its quota; it names the first one.

    Example:
        >>> import torch
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> rows = draw_rows(labels, torch.tensor([1, 2]), key=0)
        >>> labels[rows]
        tensor([0, 1, 1])
    """
    check_tensor("labels", labels, "whole", ndim=1)
    check_tensor("quotas", quotas, "whole", ndim=1)
    check_integer("key", key, "Pass a key of `derive_key`.")
    for name, value in (("log_weights", log_weights), ("available", available)):
        if value is not None:
            check_tensor(name, value, ndim=1)
    labels = labels.long()
    may = (labels >= 0) & (quotas[labels.clamp(min=0)] > 0)
    if available is not None:
        may &= available
    if log_weights is not None:
        may &= log_weights != -math.inf
    rows = may.nonzero().squeeze(1)
    own = labels[rows]
    counts = torch.bincount(own, minlength=len(quotas))
    short = (counts < quotas).nonzero().squeeze(1)
    if len(short):
        first = int(short[0])
        allowed = f"at most the rows each cluster has (cluster {first} has {int(counts[first])})"
        raise ValueError(problem("quotas", allowed, int(quotas[first]), "Use `cluster_quotas`."))
    noise = uniform(rows, key)
    keys = _race(torch.zeros(len(rows)) if log_weights is None else log_weights[rows], noise)
    order = torch.argsort(keys, stable=True)
    order = order[torch.argsort(own[order], stable=True)]  # by cluster, and by key inside one
    place = torch.arange(len(rows)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return rows[order[place < quotas.repeat_interleave(counts)]].sort().values
