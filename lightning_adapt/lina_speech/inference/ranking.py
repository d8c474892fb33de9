"""Choosing among several spoken attempts at a text, by how the attention walked through it; torch only."""

# ruff: noqa: N803  # suffixes name the dimensions
# N audio frames, M text tokens

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = ["alignment_score", "backward_share", "best_candidate", "text_coverage"]


def text_coverage(alignment_NM: Tensor) -> float:
    """Return the share of the text that the attention has read.

    C = 1/M sum_m min(1, sum_n A_nm): a token counts in full once the frames have spent the weight of one frame on it.

    Args:
        alignment_NM: Attention weights of each frame over the text, each row of sum 1. Shape (N, M).

    Returns:
        C, in [0, 1]; 0 without frames.

    Example:
        >>> text_coverage(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        0.5
    """
    check_tensor("alignment_NM", alignment_NM, "real", ndim=2)
    if alignment_NM.numel() == 0:
        return 0.0
    return float(alignment_NM.double().sum(0).clamp(max=1.0).mean())


def backward_share(alignment_NM: Tensor) -> float:
    """Return how far the attention went back in the text, as a share of the text's length.

    D = 1/(M-1) sum_n max(0, p_{n-1} - p_n) with the expected place p_n = sum_m m A_nm. A reading that only goes on has
    D = 0; one that repeats the whole text once has D near 1.

    Args:
        alignment_NM: Attention weights, each row of sum 1. Shape (N, M).

    Returns:
        D >= 0.

    Example:
        >>> backward_share(torch.eye(4)), backward_share(torch.eye(4).flip(0))
        (0.0, 1.0)
    """
    check_tensor("alignment_NM", alignment_NM, "real", ndim=2)
    n_frames, n_tokens = alignment_NM.shape
    if n_frames < 2 or n_tokens < 2:
        return 0.0
    places = torch.arange(n_tokens, dtype=torch.float64, device=alignment_NM.device)
    expected = alignment_NM.double() @ places
    return float((expected[:-1] - expected[1:]).clamp(min=0.0).sum() / (n_tokens - 1))


def alignment_score(alignment_NM: Tensor) -> float:
    """Return C - D: what was read of the text, less what was gone back.

    Ours: the authors drop the half of the attempts whose attention is the least monotonic, then the shorter ones.

    Args:
        alignment_NM: Attention weights, each row of sum 1. Shape (N, M).

    Returns:
        A number <= 1; higher is better.

    Example:
        >>> import torch
        >>> round(alignment_score(torch.eye(4)), 3)  # each step reads one letter after the other
        1.0
    """
    return text_coverage(alignment_NM) - backward_share(alignment_NM)


def best_candidate(alignments: Sequence[Tensor], stopped: Sequence[bool]) -> int:
    """Return the attempt to keep: one that ended by itself before one that was cut off, then by `alignment_score`.

    Args:
        alignments: Attention weights of each attempt, at least one. Shapes (N_i, M).
        stopped: Whether each attempt ended by itself.

    Returns:
        Its place; the first of equals.
    """
    scores = [(ended, alignment_score(weights)) for weights, ended in zip(alignments, stopped, strict=True)]
    return max(range(len(scores)), key=lambda place: (*scores[place], -place))
