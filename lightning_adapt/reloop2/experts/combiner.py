"""Weighs the signals of an adaptive memory: a blend of all, and a mixture that falls back on any of them alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_adapt.reloop2.experts.blend import ExpertMixture, OnlineBlend

__all__ = ["Combiner"]

FIRST_WEIGHT = 0.1  # of an effect or a key space in the blend, before any feedback
FIXED_LAMBDAS = (0.4, 1.0)  # the paper's compensation (Eq. 9) by one key space, as experts of the mixture
_PRIOR_OF_BASE, _PRIOR_OF_BLEND = 0.25, 0.5  # of the mixture; the other experts share the rest


class Combiner(nn.Module):
    """Experts and how far to trust them, for G effects and K key spaces.

    The experts are the base model, the blend, each effect alone on top of the base model, and each key space alone at
    each of `FIXED_LAMBDAS`; N = 2 + G + 2 K.

    Args:
        n_effects: G.
        n_spaces: K.
        regression: Values with squared error instead of labels behind a logit.
        eps: Probabilities stay in [eps, 1 - eps].
    """

    def __init__(self, n_effects: int, n_spaces: int, *, regression: bool, eps: float) -> None:
        super().__init__()
        self.n_effects, self.regression, self.eps = n_effects, regression, eps
        signals = n_effects + n_spaces
        self.blend = OnlineBlend(
            initial=torch.tensor([0.0, 1.0] + [FIRST_WEIGHT] * signals),
            lower=torch.tensor([-5.0] + [0.0] * (1 + signals)),
            upper=torch.tensor([5.0, 2.0] + [1.5] * signals),
            sparse=torch.tensor([False, False] + [True] * signals),
        )
        alone = n_effects + len(FIXED_LAMBDAS) * n_spaces
        rest = (1 - _PRIOR_OF_BASE - _PRIOR_OF_BLEND) / max(alone, 1)
        self.mixture = ExpertMixture(torch.tensor([_PRIOR_OF_BASE, _PRIOR_OF_BLEND] + [rest] * alone))

    def serve(self, features: Tensor, errors: Tensor, base: Tensor) -> Tensor:
        """Return the predictions to serve.

        Args:
            features: 1, the base model's logit (or value), the effects, the key spaces. Shape (B, 2 + G + K).
            errors: Error near the keys, in the unit of the prediction. Shape (B, K).
            base: The base model's prediction. Shape (B,).

        Returns:
            Shape (B,), float64.
        """
        return self._experts(features, errors, base) @ self.mixture.weights

    def learn(
        self, features: Tensor, errors: Tensor, base: Tensor, labels: Tensor, served: Tensor, noise: float
    ) -> tuple[Tensor, Tensor]:
        """Move the weights by rows whose labels have arrived.

        Args:
            features: As these rows were served with. Shape (B, 2 + G + K).
            errors: Likewise. Shape (B, K).
            base: The base model's prediction. Shape (B,).
            labels: Shape (B,).
            served: What was served. Shape (B,).
            noise: Variance of the base model's residuals; for regression.

        Returns:
            Slope and curvature of each row's log-likelihood in the blend's prediction: y - p and p (1 - p) behind a
            logit, in units of the residuals' deviation for regression. Shape (B,) each.
        """
        labels = labels.double()
        experts = self._experts(features, errors, base)
        mixed = experts @ self.mixture.weights
        self.mixture.learn(*(self._loss(part, labels, noise) for part in (experts, mixed, served.double())))
        prediction = self.blend.predict(features)
        if self.regression:
            slope, curvature = (labels - prediction) / noise**0.5, torch.ones_like(prediction)
        else:
            chance = torch.sigmoid(prediction)
            slope, curvature = labels - chance, chance * (1 - chance)
        self.blend.learn(features, slope)
        return slope, curvature

    def restart(self, effects: Tensor) -> None:
        """Put the weights of some effects back to where they began.

        Args:
            effects: Mask of shape (G,).
        """
        places = torch.zeros_like(self.blend.weights, dtype=torch.bool)
        places[2 : 2 + self.n_effects] = effects
        self.blend.restart(places)

    def reset(self) -> None:
        """Put all weights back to where they began."""
        self.blend.reset()
        self.mixture.reset()

    def merge_(self, other: Combiner) -> None:
        """Take in what another shard learnt.

        Args:
            other: A combiner of the same signals; stays as it is.
        """
        self.blend.merge_(other.blend)
        self.mixture.merge_(other.mixture)

    def _experts(self, features: Tensor, errors: Tensor, base: Tensor) -> Tensor:
        """Return the prediction of each expert. Shape (B, N), float64."""
        start = features[:, 1:2]
        alone = start + features[:, 2 : 2 + self.n_effects]
        fixed = torch.cat([base[:, None] + lam * errors for lam in FIXED_LAMBDAS], 1).double()
        parts = torch.cat([start.double(), self.blend.predict(features)[:, None], alone.double()], 1)
        if self.regression:
            return torch.cat([parts, fixed], 1)
        return torch.cat([torch.sigmoid(parts), fixed], 1).clamp(self.eps, 1 - self.eps)

    def _loss(self, predictions: Tensor, labels: Tensor, noise: float) -> Tensor:
        """Return the loss of each column, or of the one column, summed over the rows."""
        labels = labels[:, None] if predictions.ndim == 2 else labels
        if self.regression:
            return (labels - predictions).square().sum(0) / (2 * noise)
        return -(torch.xlogy(labels, predictions) + torch.xlogy(1 - labels, 1 - predictions)).sum(0)
