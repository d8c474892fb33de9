"""One selection from a pool: remove copies, cluster, draw. The iterative version is in rounds.py.

The static selections of Yu et al., 2024, arXiv 2409.11378. Shapes: N rows, D dimensions, K clusters, b budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_adapt._shared.kmeans import Engine
from lightning_adapt.divconq.choosing.arguments import Dedup, Method, Quota
from lightning_adapt.divconq.rounds import SelectionRounds

__all__ = ["Dedup", "Method", "Quota", "Selection", "select_rows"]


@dataclass(frozen=True)
class Selection:
    """What was selected from a pool, and how.

    Attributes:
        rows: The rows selected, ascending, all distinct. Shape (b,), dtype int64.
        labels: Cluster of each row, copies in that of the nearest centre; None for methods without clusters. Shape
            (N,), dtype int64.
        quotas: Rows taken of each cluster; None without clusters. Shape (K,), dtype int64.
        weights: Weight of each cluster; None where it played no part. Shape (K,), dtype float64.
        duplicates: Rows left out as copies of earlier ones. Shape (N,), dtype bool.
        k: Clusters, K; 0 without clusters.
        engine: Engine of k-means and its version; "" without clusters.
        method: The method.
        seed: The seed.
        silhouettes: Silhouette of each k that was tried; empty where k was given.
    """

    rows: Tensor
    labels: Tensor | None
    quotas: Tensor | None
    weights: Tensor | None
    duplicates: Tensor
    k: int
    engine: str
    method: Method
    seed: int
    silhouettes: dict[int, float] = field(default_factory=dict)


def select_rows(
    vectors: Any,
    budget: int | float | str,
    method: Method = "kmq",
    *,
    n: int | None = None,
    k: int | Literal["auto"] = "auto",
    quality: Tensor | None = None,
    quota: Quota = "proportional",
    tau: float = 1.0,
    dedup: Dedup = "exact",
    keys: Sequence[bytes] | None = None,
    engine: Engine = "auto",
    seed: int = 42,
    device: str | torch.device | None = None,
) -> Selection:
    """Select exactly `budget` distinct rows of a pool.

    The static rules of Yu et al., 2024, arXiv 2409.11378. Differs from the paper: never twice the same row, quotas
    that add up to the budget, quality standardised inside clusters. Differs from the authors' code: proportional
    quotas by default, seeds that count.

    Args:
        vectors: One vector per row, finite; None for "random". Shape (N, D), array, memory map or tensor.
        budget: Rows (103), a share (0.05) or a percentage ("5%").
        method: "random": uniform. "km_random": a quota of each cluster, uniform inside. "kmq": the same, inside by
            quality; without `quality` it is "km_random". "km_closest": the rows nearest to b centres. "k_center":
            greedily the farthest row from all chosen ones.
        n: Rows of the pool, needed without vectors.
        k: Clusters of "km_random" and "kmq"; "auto" chooses by silhouette, see `choose_k`. The others do not use it.
        quality: Quality of each row, higher is better, finite; for "kmq" only. Shape (N,).
        quota: Rows of each cluster "proportional" to its size (paper) or "equal" (authors' code).
        tau: Temperature of the quality, >= 1e-6.
        dedup: Leave out copies: "exact", "near" (and those of cosine >= 0.95) or "none".
        keys: One key per row, equal for copies, such as a hash of the text; None: equal vectors are copies.
        engine: Engine of k-means, see `_shared.kmeans`.
        seed: Seed of clusters and draws, >= 0.
        device: Where k-means runs; None leaves it to the engine.

    Returns:
        The selection.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the budget exceeds the rows without copies, or another argument does not fit.

    Example:
        >>> select_rows(None, "5%", "random", n=1030, seed=0).rows.shape
        torch.Size([52])
    """
    only = SelectionRounds(budget, method, k=k, quota=quota, tau=tau, dedup=dedup, engine=engine, seed=seed)
    only.begin(vectors, n=n, quality=quality, keys=keys, device=device)
    quotas = only.history[0]["quotas"]
    return Selection(
        rows=only.rows,
        labels=only.labels,
        quotas=None if quotas is None else torch.tensor(quotas),
        weights=None if only.log_weights is None else only.log_weights.exp(),
        duplicates=only.duplicates,
        k=only.k,
        engine=only.engine,
        method=method,
        seed=seed,
        silhouettes=only.silhouettes,
    )
