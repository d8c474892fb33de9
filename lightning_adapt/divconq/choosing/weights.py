"""Pure parts of Diversify and Conquer: weights of rows from their quality, and of clusters from their scores.

Yu et al., 2024, arXiv 2409.11378. Weights are kept as logarithms in float64. Shapes: N rows, M scored rows, K clusters.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_choice, check_integer, check_not_negative, check_number, problem
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = [
    "drop_light_clusters",
    "quality_log_weights",
    "reweight_clusters",
    "shrunk_cluster_scores",
    "weight_entropy",
]

Update = Literal["exp", "ratio", "softmax"]

UPDATES = ("exp", "ratio", "softmax")
WEIGHT_FLOOR = 1e-12  # a cluster that scored badly can still come back
_RATIO_FLOOR = 1e-3  # what a score <= 0 counts as in Eq. 6, as a share of the largest
_FLAT = 1e-12  # a spread below this share of the values is rounding
_LEAST_TAU = 1e-6  # all goes to the best long before, and nothing overflows
LARGEST_SCORE = 1e100  # sums, and quotients by tau, stay finite


# -- rows --------------------------------------------------------------------------------------------------------------
def quality_log_weights(
    quality: Tensor, labels: Tensor, *, tau: float = 1.0, mode: Literal["softmax", "power"] = "softmax"
) -> Tensor:
    """Return the log-weight of each row inside its cluster from its quality.

    kMQ draws with probability proportional to quality. The authors' code takes a softmax of the raw score, which may
    reach 36 per turn and overflow; here the score is standardised inside its cluster first, so that `tau` means the
    same for every scorer.

    Args:
        quality: q(x), higher is better; finite, for "power" also >= 0. Shape (N,), floating point.
        labels: Cluster of each row; negative ones (no cluster) count as one more cluster. Shape (N,), integers.
        tau: Temperature, >= 1e-6; large: nearly uniform.
        mode: "softmax": p proportional to exp(z / tau), z the standardised quality. "power": p proportional to
            q^(1 / tau), as in the paper for tau 1; rows of quality 0 come last.

    Returns:
        Log-weights, finite. Shape (N,), dtype float64.

    Raises:
        ValueError: If a quality is not finite, negative in "power" mode, or another argument is out of range.

    Example:
        >>> quality_log_weights(torch.tensor([1.0, 3.0, 7.0]), torch.tensor([0, 0, 1])).tolist()
        [-1.0, 1.0, 0.0]
    """
    check_tensor("quality", quality, ndim=1)
    check_tensor("labels", labels, "whole", ndim=1)
    tau = check_tau(tau)
    check_choice("mode", mode, ("softmax", "power"), "Leave it at 'softmax'.")
    values = quality.detach().double().cpu()
    if not bool(torch.isfinite(values).all()):
        raise ValueError(problem("quality", "finite", values[~torch.isfinite(values)][0].item(), "Fill the gaps."))
    if mode == "power":
        if bool((values < 0).any()):
            raise ValueError(problem("quality", ">= 0 in 'power' mode", values.min().item(), "Use 'softmax'."))
        return values.clamp(min=torch.finfo(torch.float64).tiny).log() / tau
    return _standardised(values, labels.long().cpu() + 1) / tau


def _standardised(values: Tensor, groups: Tensor) -> Tensor:
    """Return (x - mean) / sd inside each group, 0 where all are equal."""
    if not len(values):
        return values
    counts = torch.bincount(groups).clamp(min=1)
    tiny = torch.full((len(counts),), torch.finfo(torch.float64).tiny, dtype=torch.float64)
    largest = tiny.scatter_reduce(0, groups, values.abs(), "amax")
    values = values * (torch.frexp(largest).mantissa / largest)[groups]  # by powers of 2: squares must not overflow

    def mean(numbers: Tensor) -> Tensor:
        return torch.bincount(groups, weights=numbers) / counts

    centred = values - mean(values)[groups]
    sd = mean(centred.square()).sqrt()
    size = mean(values.abs())
    return torch.where((sd > _FLAT * size)[groups], centred / sd.clamp(min=1e-300)[groups], 0.0)


def check_tau(tau: float) -> float:
    """Return `tau`; raise TypeError or ValueError unless it is a finite number >= 1e-6."""
    return check_number("tau", tau, f"[{_LEAST_TAU}, inf)", "Pass 1.0, or 1e-6 for the best rows alone.")


# -- clusters ----------------------------------------------------------------------------------------------------------
def shrunk_cluster_scores(clusters: Tensor, scores: Tensor, k: int, *, shrink: float = 4.0) -> Tensor:
    """Return each cluster's score: the mean of its scored rows (Eq. 5), pulled towards the mean of all.

    (n_j mean_j + m mean) / (n_j + m), with n_j the scored rows of cluster j. The pull is ours: a round of 3,300 rows
    leaves 1.6 for each of 2,048 clusters, and a mean of one or two says little. A cluster without scores gets the mean
    of all (the authors' code crashes).

    Args:
        clusters: Cluster of each scored row, 0..K-1. Shape (M,), integers.
        scores: S of each row, higher where the pool's response is better than the model's, at most 1e100 in size; NaN:
            not scored. Shape (M,).
        k: Clusters, K.
        shrink: m >= 0, how many rows the mean of all is worth.

    Returns:
        Scores; all 0 where nothing is scored. Shape (K,), dtype float64.

    Raises:
        ValueError: If a score is too large, or `shrink` is negative or not finite.

    Example:
        >>> shrunk_cluster_scores(torch.tensor([0, 0]), torch.tensor([1.0, 3.0]), 2).tolist()
        [2.0, 2.0]
    """
    check_tensor("clusters", clusters, "whole", ndim=1)
    check_tensor("scores", scores, ndim=1)
    shrink = check_shrink(shrink)
    check_integer("k", k, "Pass the number of clusters.", minimum=1, maximum=2**31)
    _check_size(scores)
    known = ~torch.isnan(scores)
    if not bool(known.any()):
        return torch.zeros(k, dtype=torch.float64)
    own, values = clusters[known].long(), scores[known].double()
    overall = values.mean()
    counts = torch.bincount(own, minlength=k)
    sums = torch.bincount(own, weights=values, minlength=k)
    return torch.where(counts > 0, (sums + shrink * overall) / (counts + shrink).clamp(min=1e-300), overall)


def _check_size(scores: Tensor) -> None:
    large = scores[scores.abs() > LARGEST_SCORE]
    if len(large):
        raise ValueError(problem("scores", f"at most {LARGEST_SCORE} in size", large[0].item(), "Divide them."))


def check_shrink(shrink: float) -> float:
    """Return `shrink`; raise TypeError or ValueError unless it is a finite number >= 0."""
    return check_not_negative("shrink", shrink, "Pass 4, or 0 for plain means.")


def reweight_clusters(log_weights: Tensor, scores: Tensor, *, update: Update = "exp", tau: float = 1.0) -> Tensor:
    """Return the cluster weights of the next round.

    Args:
        log_weights: log w_j of the last round; -inf for a dropped cluster, which stays so. Shape (K,).
        scores: s_j, from `shrunk_cluster_scores`; at most 1e100 in size. Shape (K,).
        update: "exp": w_j exp(z_j / tau), z the scores standardised over the clusters; ours, for scores of any scale
            and sign. "ratio": Eq. 6, w_j s_j / sum s; as printed its weights do not add up to 1 and it breaks for
            scores <= 0, so here those count as a thousandth of the largest, and if none is above 0, all are shifted up
            by the lowest. "softmax": exp(s_j / tau) without memory, as in the authors' code.
        tau: Temperature of "exp" and "softmax", >= 1e-6.

    Returns:
        Log-weights whose exponentials add up to 1, none below 1e-12. Shape (K,), dtype float64.

    Raises:
        ValueError: If a score is NaN or too large, or another argument is out of range.

    Example:
        >>> reweight_clusters(torch.zeros(2), torch.tensor([3.0, 1.0]), update="ratio").exp().float()
        tensor([0.7500, 0.2500])
    """
    check_tensor("log_weights", log_weights, ndim=1)
    check_tensor("scores", scores, ndim=1)
    check_choice("update", update, UPDATES, "Leave it at 'exp'.")
    tau = check_tau(tau)
    weights, values = log_weights.detach().double(), scores.detach().double()
    if bool(torch.isnan(values).any()):
        raise ValueError(problem("scores", "finite", math.nan, "Leave them out."))
    _check_size(values)
    alive = weights != -math.inf
    if update == "softmax":
        new = values / tau
    elif update == "exp":
        new = weights + _standardised(values, (~alive).long()) / tau
    else:
        new = weights + ratio_factors(values, alive).log()
    return _normalised(torch.where(alive, new, -math.inf))


def ratio_factors(scores: Tensor, alive: Tensor) -> Tensor:
    """Return what Eq. 6 multiplies each weight with, up to a common factor; positive.

    Args:
        scores: s_j. Shape (K,), dtype float64.
        alive: Clusters that are not dropped. Shape (K,), dtype bool.

    Returns:
        The factors, at most 1 for clusters that are alive. Shape (K,), dtype float64.
    """
    values = scores[alive]
    if not len(values):
        return torch.ones_like(scores)
    largest = float(values.max())
    if largest <= _FLAT * float(values.abs().max()):  # none above 0: only their order and their distances are left
        scores, largest = scores - values.min(), largest - float(values.min())
    if largest <= 0:  # all equal
        return torch.ones_like(scores)
    return (scores / largest).clamp(min=_RATIO_FLOOR)


def _normalised(log_weights: Tensor) -> Tensor:
    alive = log_weights != -math.inf
    shares = log_weights - torch.logsumexp(log_weights, 0)
    floored = torch.where(alive, shares.clamp(min=math.log(WEIGHT_FLOOR)), -math.inf)
    return floored - torch.logsumexp(floored, 0)


def drop_light_clusters(log_weights: Tensor, drop_below: float) -> Tensor:
    """Return weights without the clusters that fell below a share of an even weight; the heaviest always stays.

    Ours: the paper's clusters fade and are never dropped.

    Args:
        log_weights: log w_j, their exponentials adding up to 1. Shape (K,).
        drop_below: Share in [0, 1) of the even weight 1 / K: 0.1 drops what fell below a tenth of it, 0 drops nothing.

    Returns:
        Log-weights that add up to 1 again, -inf for what is dropped. Shape (K,), dtype float64.

    Raises:
        ValueError: If `drop_below` is outside [0, 1).

    Example:
        >>> drop_light_clusters(torch.tensor([0.8, 0.16, 0.04]).log(), 0.2).exp().float()
        tensor([0.8333, 0.1667, 0.0000])
    """
    check_tensor("log_weights", log_weights, ndim=1)
    check_drop_below(drop_below)
    weights = log_weights.detach().double()
    light = (weights.exp() * len(weights) < drop_below) & (weights < weights.max())
    return _normalised(torch.where(light, -math.inf, weights))


def check_drop_below(drop_below: float) -> None:
    """Raise ValueError unless `drop_below` is a number in [0, 1)."""
    check_number("drop_below", drop_below, "[0, 1)", "Pass 0 to drop nothing.")


def weight_entropy(log_weights: Tensor) -> float:
    """Return the entropy of cluster weights in nats: log K where all are equal, 0 where one has everything.

    Args:
        log_weights: log w_j, their exponentials adding up to 1; -inf counts as 0. Shape (K,).

    Returns:
        The entropy, >= 0.

    Example:
        >>> round(weight_entropy(torch.tensor([0.5, 0.5]).log()), 4)
        0.6931
    """
    check_tensor("log_weights", log_weights, ndim=1)
    shares = log_weights.double()
    return float(-(shares.exp() * torch.where(shares == -math.inf, 0.0, shares)).sum()) + 0.0
