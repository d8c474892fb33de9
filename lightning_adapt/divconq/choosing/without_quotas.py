"""The methods that draw from no clusters by quota: "random", "km_closest" and "k_center"."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adapt._shared.hashing import derive_key
from lightning_adapt._shared.kmeans import Engine
from lightning_adapt.divconq.choosing.arguments import Method
from lightning_adapt.divconq.choosing.candidates import Candidates
from lightning_adapt.divconq.choosing.clusters import Clusters, closest_rows, cluster_pool
from lightning_adapt.divconq.choosing.draws import draw_rows
from lightning_adapt.divconq.choosing.k_center import farthest_rows

__all__ = ["choose_without_quotas"]


def choose_without_quotas(
    pool: Candidates, budget: int, method: Method, *, engine: Engine, seed: int, device: str | torch.device | None
) -> tuple[Tensor, Clusters | None]:
    """Choose rows by one of the methods that several rounds cannot use.

    Args:
        pool: The pool.
        budget: Rows wanted, at most the usable ones.
        method: "random", "km_closest" or "k_center".
        engine: Engine of k-means.
        seed: Seed of clusters and draws.
        device: Where k-means runs; None leaves it to the engine.

    Returns:
        The rows, ascending, shape (b,), dtype int64, and the clusters of "km_closest".

    Raises:
        ValueError: If a method that needs vectors has none.
    """
    usable, key = pool.usable, derive_key(seed, 0)
    if method == "km_closest":
        clusters = cluster_pool(pool, budget, budget=budget, engine=engine, seed=seed, device=device)
        return closest_rows(clusters, usable, budget), clusters
    if method == "k_center":
        first = key % len(usable)  # the arbitrary first row
        return usable[farthest_rows(pool.usable_vectors, budget, first=first)].sort().values, None
    everything = torch.zeros(pool.n, dtype=torch.int64)
    return draw_rows(everything, torch.tensor([budget]), available=~pool.duplicates, key=key), None
