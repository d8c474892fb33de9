"""Pure parts of SAA and of FixMatch and FlexMatch below it: selection, regrouping, losses, thresholds.

SAA: Enhancing Sample Utilization through Sample Adaptive Augmentation in Semi-Supervised Learning, Gui et al.,
ICCV 2023, arXiv 2309.03598. FixMatch: Sohn et al., NeurIPS 2020, arXiv 2001.07685. FlexMatch: Zhang et al., NeurIPS
2021, arXiv 2110.08263. Shapes: B samples of a batch, N unlabelled images, C classes or channels, H and W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_adapt._shared.checks import check_flag, check_integer, check_number, check_share, problem
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = [
    "class_effect",
    "consistency_loss",
    "fixmatch_loss",
    "flexmatch_thresholds",
    "naive_flags",
    "otsu_threshold",
    "pseudo_labels",
    "regroup",
    "update_history",
]

LOG_FLOOR = 1e-4  # nats; what is below is equally easy, and its logarithm would only stretch the histogram


# -- selection ---------------------------------------------------------------------------------------------------------
def update_history(history: Tensor, index: Tensor, losses: Tensor, decay: float) -> None:
    """Record the losses of one step in place: h_i <- decay * h_i + (1 - decay) * l_i.

    As in the authors' code (section 4 of the card), with two cases made definite: the first loss of a sample is taken
    whole, since h_i is NaN until then, and a sample that a step holds several times counts with its mean loss. Losses
    that are not finite are left out.

    Args:
        history: h, NaN where nothing is recorded. Shape (N,), dtype float64.
        index: Which sample each loss belongs to, 0 <= i < N. Shape (B,), dtype int64.
        losses: l >= 0, nats. Shape (B,), floating point.
        decay: Weight of the past, in [0, 1).

    Example:
        >>> import torch
        >>> history = torch.tensor([torch.nan, 1.0], dtype=torch.float64)
        >>> update_history(history, torch.tensor([0, 1]), torch.tensor([2.0, 2.0]), decay=0.9)
        >>> history
        tensor([2.0000, 1.1000], dtype=torch.float64)
    """
    check_tensor("history", history, "real", ndim=1)
    check_tensor("index", index, "whole", ndim=1)
    check_tensor("losses", losses, "real", ndim=1)
    check_number("decay", decay, "[0, 1)", "Pass 0.001, as the authors' code does.")
    usable = torch.isfinite(losses)
    rows, where, counts = torch.unique(index[usable], return_inverse=True, return_counts=True)
    sums = torch.zeros(len(rows), dtype=history.dtype).index_add_(0, where, losses[usable].to(history.dtype))
    mean, past = sums / counts, history[rows]
    history[rows] = torch.where(torch.isnan(past), mean, decay * past + (1 - decay) * mean)


def otsu_threshold(values: Tensor, *, n_bins: int = 256, clip_quantile: float | None = None) -> Tensor:
    """Return the cut that splits values into the two groups of least variance inside (Otsu 1979).

    The same as scikit-image's `threshold_otsu` on a histogram from the smallest to the largest value: the centre of the
    last bin of the lower group.

    Args:
        values: At least one finite number; what is not finite is left out. Any shape, floating point.
        n_bins: Bins of the histogram, >= 2.
        clip_quantile: Values above this quantile count as equal to it, so that a few huge ones cannot stretch the bins
            over everything else; in [0, 1]. None: no clipping.

    Returns:
        The cut; the common value where all are equal. Scalar, dtype float64.

    Raises:
        ValueError: If no value is finite, or an argument is out of range.

    Example:
        >>> import torch
        >>> cut = otsu_threshold(torch.tensor([0.1, 0.2, 0.1, 2.0, 2.1]))
        >>> 0.1 < cut.item() < 2.0
        True
    """
    check_tensor("values", values)
    check_integer("n_bins", n_bins, "Pass 256.", minimum=2, maximum=2**24)
    finite = values.detach().double()[torch.isfinite(values)]
    if len(finite) == 0:
        raise ValueError(problem("values", "numbers of which at least one is finite", values, "Pass some losses."))
    if clip_quantile is not None:
        check_share("clip_quantile", clip_quantile, "Pass 0.995, or None.")
        finite = finite.clamp(max=float(finite.kthvalue(max(math.ceil(clip_quantile * len(finite)), 1)).values))
    low, high = finite.min(), finite.max()
    if low == high:
        return low
    counts = torch.histc(finite, n_bins, float(low), float(high))
    edges = torch.linspace(float(low), float(high), n_bins + 1, dtype=torch.float64, device=finite.device)
    centres = (edges[:-1] + edges[1:]) / 2
    below, weighted = counts.cumsum(0)[:-1], (counts * centres).cumsum(0)
    above = counts.sum() - below
    # the outer bins are never empty, so that neither weight is 0
    means_apart = weighted[:-1] / below - (weighted[-1] - weighted[:-1]) / above
    between = below * above * means_apart.square()
    # across a gap all cuts are equally good: the first of them, whichever way the sums were rounded
    return centres[(between >= between.max() * (1 - 1e-9)).int().argmax()]


def naive_flags(history: Tensor, threshold: float | Tensor, flags: Tensor) -> Tensor:
    """Return which samples are naive: h_i below the threshold; one that lies on it stays what it was.

    Args:
        history: h, NaN where nothing is recorded; such samples are not naive. Shape (N,), floating point.
        threshold: The cut g, nats: a number, or what `otsu_threshold` returned.
        flags: The flags until now. Shape (N,), dtype bool.

    Returns:
        The new flags. Shape (N,), dtype bool.

    Example:
        >>> import torch
        >>> naive_flags(torch.tensor([0.1, 0.9, torch.nan]), 0.5, torch.zeros(3, dtype=torch.bool))
        tensor([ True, False, False])
    """
    check_tensor("history", history, "real", ndim=1)
    check_tensor("flags", flags, "whole", ndim=1)
    cut = threshold.item() if isinstance(threshold, Tensor) and threshold.ndim == 0 else threshold
    threshold = check_number("threshold", cut, "(-inf, inf)", "Pass the cut of `otsu_threshold`.")
    return (history < threshold) | ((history == threshold) & flags)


# -- augmentation ------------------------------------------------------------------------------------------------------
def check_pieces(pieces: Any) -> int:
    """Check the number of pieces of a regrouped view, 2 or 4."""
    if isinstance(pieces, bool) or pieces not in (2, 4):
        raise ValueError(problem("pieces", "2 or 4", pieces, "Pass 2, as the authors do."))
    return int(pieces)


def regroup(first: Tensor, second: Tensor, orientation: Tensor, pieces: int = 2) -> Tensor:
    """Paste pieces of a second view onto a first view of the same images; each keeps its place in the picture.

    Two pieces: the left or the top half comes from the second view, as in the authors' code. Four: one diagonal of
    quadrants does. Each axis is cut at int(size / 2), whatever the sizes are.

    Args:
        first: Views that are pasted onto. Shape (B, C, H, W), any dtype.
        second: Other views of the same images. Shape and dtype of `first`.
        orientation: Two pieces: 0 for the left half, 1 for the top half. Four: 0 for the top left and the bottom right
            quadrant, 1 for the other two. Shape (B,), integers.
        pieces: 2 or 4.

    Returns:
        The composed views. Shape and dtype of `first`.

    Raises:
        ValueError: If the shapes differ, or `pieces` is neither 2 nor 4.

    Example:
        >>> import torch
        >>> first, second = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        >>> regroup(first, second, torch.tensor([0]))
        tensor([[[[1., 0.],
                  [1., 0.]]]])
    """
    check_tensor("first", first)
    check_tensor("second", second)
    check_tensor("orientation", orientation)
    if first.shape != second.shape or first.ndim != 4 or orientation.shape != first.shape[:1]:
        shapes = f"{tuple(first.shape)}, {tuple(second.shape)} and an orientation of {tuple(orientation.shape)}"
        raise ValueError(problem("second", "of the shape (B, C, H, W) of `first`", shapes, "Pass two whole batches."))
    check_pieces(pieces)
    height, width = first.shape[-2:]
    top = (torch.arange(height, device=first.device) < height // 2)[:, None]
    left = (torch.arange(width, device=first.device) < width // 2)[None, :]
    zero, one = (left.expand(height, width), top.expand(height, width)) if pieces == 2 else (top == left, top != left)
    pasted = torch.where(orientation[:, None, None] == 0, zero, one)[:, None]
    return torch.where(pasted, second, first)


# -- losses ------------------------------------------------------------------------------------------------------------
def pseudo_labels(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the confidence max p and the hard pseudo-label argmax p of each weakly augmented sample.

    Args:
        logits: Shape (B, C), floating point. No gradient flows back.

    Returns:
        Confidences in (0, 1], shape (B,), dtype float32; labels 0..C-1, shape (B,), dtype int64.

    Example:
        >>> import torch
        >>> pseudo_labels(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        (tensor([0.8808, 0.7311]), tensor([0, 1]))
    """
    check_tensor("logits", logits, "real")
    confidence, label = logits.detach().float().softmax(-1).max(-1)
    return confidence, label


def consistency_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Return the cross-entropy of each strongly augmented sample to its pseudo-label, before any mask.

    Args:
        logits: Of the strong views. Shape (B, C), floating point.
        label: Pseudo-labels 0..C-1. Shape (B,), dtype int64.

    Returns:
        Nats, >= 0. Shape (B,), dtype float32, also under autocast.

    Example:
        >>> import torch
        >>> consistency_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.1269, 0.6931])
    """
    check_tensor("logits", logits, "real", ndim=2)
    check_tensor("label", label, "whole", ndim=1)
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits.float(), label, reduction="none")


def fixmatch_loss(sample_loss: Tensor, mask: Tensor) -> Tensor:
    """Return sum(mask * loss) / B, Eq. 4 of FixMatch: divided by the whole batch, not by how many pass the mask.

    Args:
        sample_loss: Of `consistency_loss`. Shape (B,).
        mask: True, or 1, where the confidence passes. Shape (B,), bool or floating point.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> fixmatch_loss(torch.tensor([0.5, 3.0]), torch.tensor([True, False]))
        tensor(0.2500)
    """
    check_tensor("sample_loss", sample_loss, "real")
    check_tensor("mask", mask)
    return (sample_loss * mask.to(sample_loss.dtype)).mean()


def class_effect(counts: Tensor, *, warm: bool = True) -> Tensor:
    """Return the learning effect beta of each class, Eqs. 5, 6 and 11 of FlexMatch.

    Args:
        counts: How many unlabelled samples have no confident label yet, then how many have each class. Shape (C + 1,),
            integers.
        warm: Count the samples without a label as a class of their own in the maximum (threshold warm-up).

    Returns:
        beta in [0, 1]; all 0 while no sample has a label. Shape (C,), dtype float32.

    Example:
        >>> import torch
        >>> class_effect(torch.tensor([2, 6, 3]))  # 2 without a label, 6 of class 0, 3 of class 1
        tensor([1.0000, 0.5000])
    """
    check_tensor("counts", counts, "whole", ndim=1)
    check_flag("warm", warm, "Pass True for the warm-up of thresholds.")
    sigma = counts[1:]
    most = counts.max() if warm else sigma.max()
    return sigma.float() / most.clamp(min=1)


def flexmatch_thresholds(effect: Tensor, label: Tensor, threshold: float) -> Tensor:
    """Return the threshold of each sample, tau * M(beta of its class) with the convex M(x) = x / (2 - x).

    Args:
        effect: beta, of `class_effect`. Shape (C,), floating point.
        label: Pseudo-labels 0..C-1. Shape (B,), dtype int64.
        threshold: tau in [0, 1], the threshold of a class that is learnt.

    Returns:
        Thresholds in [0, tau]. Shape (B,), dtype of `effect`.

    Example:
        >>> import torch
        >>> flexmatch_thresholds(torch.tensor([1.0, 0.5]), torch.tensor([0, 1, 1]), 0.95)
        tensor([0.9500, 0.3167, 0.3167])
    """
    check_tensor("effect", effect, "real", ndim=1)
    check_tensor("label", label, "whole")
    check_share("threshold", threshold, "Pass 0.95.")
    beta = effect[label]
    return threshold * beta / (2 - beta)
