"""Iterative selections whose clusters are given, and scores for them."""

from __future__ import annotations

from unittest import mock

import torch

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq import rounds as module
from lightning_adapt.divconq.choosing.clusters import Clusters
from lightning_adapt.divconq.rounds import SelectionRounds


def begun(
    labels: torch.Tensor, k: int, budget, method="kmq", *, quality=None, keys=None, **settings
) -> SelectionRounds:
    """A selection whose clusters are given, as if k-means had found them."""
    selection = SelectionRounds(budget, method, k=k, **settings)
    found = Clusters(labels, torch.zeros(len(labels)), k, "planted", {})
    with mock.patch.object(module, "cluster_pool", return_value=found):
        selection.begin(torch.arange(1.0, len(labels) + 1)[:, None], quality=quality, keys=keys)
    return selection


def scores_of(rows: torch.Tensor, selection: SelectionRounds, good: float = 1.0) -> torch.Tensor:
    """Scores that are high in even clusters and noisy."""
    own = torch.randn(len(rows), generator=generator(selection.round), dtype=torch.float64)
    return 0.3 * own + good * (selection.labels[rows] % 2 == 0)
