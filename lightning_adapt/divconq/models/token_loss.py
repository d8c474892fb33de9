"""Loss of a language model on the answers, per example and over the batch; torch only."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_adapt.divconq.text.rows import IGNORED

__all__ = ["batch_loss", "response_losses"]


def response_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the negative log-likelihood of each example's answer, summed over its tokens.

    The logits at a place are compared with the label of the next one. The softmax is taken in float32.

    Args:
        logits: Scores of the next token. Shape (B, T, V), any float dtype.
        labels: Token ids, -100 where there is no loss. Shape (B, T), dtype int64.

    Returns:
        Sums in nats, shape (B,), dtype float32; and the number of tokens in each, shape (B,), dtype int64.

    Example:
        >>> import torch
        >>> response_losses(torch.zeros(1, 3, 4), torch.tensor([[-100, 1, 2]]))  # two tokens, log 4 each
        (tensor([2.7726]), tensor([2]))
    """
    targets = labels[:, 1:]
    scores = logits[:, :-1].float()
    losses = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
    return losses.view(targets.shape).sum(dim=1), (targets != IGNORED).sum(dim=1)


def batch_loss(sums: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss of a batch, each token with the same weight, and the mean of each example.

    Args:
        sums: Summed losses. Shape (B,).
        tokens: Their number of tokens. Shape (B,).

    Returns:
        The loss, a scalar (0 where there are no tokens, not NaN), and the means, shape (B,), detached.
    """
    loss = sums.sum() / tokens.sum().clamp(min=1)
    return loss, (sums / tokens.clamp(min=1)).detach()
