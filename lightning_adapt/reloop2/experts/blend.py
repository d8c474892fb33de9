"""Online weights: a blend of signals by AdaGrad, and a mixture of experts with a certificate of its regret."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SPARSITY", "ExpertMixture", "OnlineBlend"]

SPARSITY = 0.1


class OnlineBlend(nn.Module):
    """A linear blend of signals whose weights follow the loss of past feedback.

    Prediction w . x in logit space (regression: in the value's own units), one AdaGrad step per batch of feedback on
    its loss (McMahan and Streeter, 2010; Duchi et al., 2011), each weight projected onto its interval. A weight may be
    sparse: it is pulled towards 0 as if its gradient was `SPARSITY` of its own root mean square larger, so that a
    signal has to be that useful to keep a weight at all (an L1 penalty, as in FTRL-Proximal; McMahan et al., 2013).

    Args:
        initial: Weights before any feedback. Shape (m,).
        lower: Smallest weights. Shape (m,).
        upper: Largest weights. Shape (m,).
        sparse: Which weights are pulled towards 0; their lower bound is 0. Shape (m,), bool.
        learning_rate: AdaGrad's step; scale-free, as the steps are divided by the size of the gradients so far.
    """

    def __init__(
        self, initial: Tensor, lower: Tensor, upper: Tensor, sparse: Tensor, learning_rate: float = 0.05
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.weights: Tensor
        self.squares: Tensor
        self.initial: Tensor
        self.lower: Tensor
        self.upper: Tensor
        self.pull: Tensor
        self.batches: Tensor
        with torch.inference_mode(False):
            self.register_buffer("weights", initial.double().clone())
            self.register_buffer("squares", torch.zeros_like(self.weights))
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
            for name, value in {"initial": initial, "lower": lower, "upper": upper, "pull": SPARSITY * sparse}.items():
                self.register_buffer(name, value.double().clone(), persistent=False)

    def predict(self, signals: Tensor) -> Tensor:
        """Return the blend.

        Args:
            signals: Shape (B, m), any float dtype.

        Returns:
            Shape (B,), float64.
        """
        return signals.double() @ self.weights

    def learn(self, signals: Tensor, residuals: Tensor) -> None:
        """Take one step on the mean loss of rows whose labels have arrived.

        Args:
            signals: The signals that these rows were served with. Shape (B, m).
            residuals: What the loss falls by per unit of the prediction, in any unit: y - p behind a logit. Shape (B,).
        """
        if not len(residuals):
            return
        gradient = -residuals.double() @ signals.double() / len(residuals)
        self.squares += gradient.square()
        self.batches += 1
        size = self.squares.sqrt()
        gradient = (
            gradient + self.pull * size / self.batches.sqrt()
        )  # size / sqrt(batches): the root mean square so far
        # a weight that never had a gradient does not move: 0 / 1 instead of 0 / 0
        step = self.learning_rate * gradient / torch.where(size > 0, size, torch.ones_like(size))
        self.weights.copy_(torch.minimum(torch.maximum(self.weights - step, self.lower), self.upper))

    def restart(self, places: Tensor) -> None:
        """Put some weights back to where they began.

        Args:
            places: Mask of shape (m,).
        """
        self.weights[places] = self.initial[places]
        self.squares[places] = 0

    def reset(self) -> None:
        """Put every weight back to where it began."""
        self.weights.copy_(self.initial)
        self.squares.zero_()
        self.batches.zero_()

    def merge_(self, other: OnlineBlend) -> None:
        """Take in what another shard learnt: weights by the square root of their evidence, evidence summed.

        Args:
            other: A blend of the same signals; stays as it is.
        """
        mine, theirs = self.squares.sqrt(), other.squares.sqrt().to(self.squares)
        total = mine + theirs
        share = torch.where(total > 0, mine / total.clamp_min(1e-300), torch.full_like(total, 0.5))
        self.weights.copy_(share * self.weights + (1 - share) * other.weights.to(self.weights))
        self.squares.add_(other.squares.to(self.squares))
        self.batches.add_(other.batches.to(self.batches))


class ExpertMixture(nn.Module):
    """A mixture of experts by their past losses that accounts for how much worse than the best one it was.

    Weights are softmax(log prior - rate * cumulative loss) and predictions the mixture of the experts' predictions; the
    rate is 1, or less where the mixture turned out to lose by it (AdaHedge; de Rooij et al., 2014). Everything that
    the bound needs is added up on the way: the mixability gaps, and what late labels cost (the loss of what was served
    minus the loss of what the current weights would have served). So after any sequence of feedback

        loss served - loss of expert j <= -log prior_j / rate + gaps + lateness

    holds exactly, not in expectation (`regret_bound`).

    Args:
        prior: Weights before any feedback. Shape (N,), positive, sum 1.
    """

    def __init__(self, prior: Tensor) -> None:
        super().__init__()
        self.losses: Tensor
        self.served: Tensor
        self.gaps: Tensor
        self.lateness: Tensor
        self.log_prior: Tensor
        self.spent: Tensor
        with torch.inference_mode(False):
            self.register_buffer("log_prior", prior.double().log(), persistent=False)
            self.register_buffer("losses", torch.zeros(len(prior), dtype=torch.float64))
            for name in ("served", "gaps", "lateness", "spent"):
                self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    @property
    def rate(self) -> float:
        """Learning rate of the next mixture, in (0, 1]."""
        return min(1.0, math.log(max(len(self.losses), 2)) / max(float(self.spent), 1e-12))

    @property
    def weights(self) -> Tensor:
        """Weights of the experts now. Shape (N,), float64, sum 1."""
        return torch.softmax(self.log_prior - self.rate * self.losses, 0)

    def learn(self, losses: Tensor, mixed: Tensor, served: Tensor) -> None:
        """Add the losses of rows whose labels have arrived.

        Args:
            losses: Loss of each expert, summed over the rows. Shape (N,).
            mixed: Loss of the mixture with the current weights, summed over the rows. A scalar.
            served: Loss of what these rows were served, summed. A scalar.
        """
        rate = self.rate
        before = torch.logsumexp(self.log_prior - rate * self.losses, 0)
        self.losses += losses.double()
        after = torch.logsumexp(self.log_prior - rate * self.losses, 0)
        gap = mixed.double() - (before - after) / rate
        self.gaps += gap
        self.spent += gap.clamp_min(0)
        self.served += served.double()
        self.lateness += served.double() - mixed.double()

    def regret(self) -> float:
        """Return the loss of what was served minus that of the best single expert, summed over all rows."""
        return float(self.served - self.losses.min())

    def regret_bound(self) -> float:
        """Return the certified bound of `regret`, summed over all rows."""
        best = int(self.losses.argmin())
        return float(-self.log_prior[best] / self.rate + self.gaps + self.lateness)

    def reset(self) -> None:
        """Forget all losses."""
        for value in self.buffers():
            if value is not self.log_prior:
                value.zero_()

    def merge_(self, other: ExpertMixture) -> None:
        """Add the losses of another shard; the bound then holds for the feedback of both.

        Args:
            other: A mixture of the same experts; stays as it is.
        """
        self.gaps -= self.log_prior.min() * (1 / self.rate + 1 / other.rate)  # each shard paid for its own prior
        for name in ("losses", "served", "gaps", "lateness", "spent"):
            getattr(self, name).add_(getattr(other, name).to(self.losses))
