"""Clusters of a pool: how many, which rows, what each weighs before any score, and the rows nearest to the centres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.kmeans import Engine, kmeans, nearest_centers
from lightning_adapt.divconq.choosing.candidates import Candidates
from lightning_adapt.divconq.choosing.choose_k import choose_k

__all__ = ["Clusters", "closest_rows", "cluster_pool", "start_weights"]


@dataclass(frozen=True)
class Clusters:
    """A clustering of a pool.

    Attributes:
        labels: Cluster of each row, copies included. Shape (N,), dtype int64.
        distances: Squared distance of each row to its centre. Shape (N,), dtype float32.
        k: Clusters, K.
        engine: Engine of k-means and its version.
        silhouettes: Silhouette of each k that was tried.
    """

    labels: Tensor
    distances: Tensor
    k: int
    engine: str
    silhouettes: dict[int, float]


def cluster_pool(
    pool: Candidates,
    k: int | str,
    *,
    budget: int,
    engine: Engine = "auto",
    seed: int = 42,
    device: str | torch.device | None = None,
) -> Clusters:
    """Cluster the usable rows of a pool; copies join the cluster of the nearest centre.

    Args:
        pool: The pool, with vectors.
        k: Clusters, or "auto" for `choose_k`.
        budget: Rows to select in one round, which bounds "auto".
        engine: Engine of k-means.
        seed: Seed of k-means.
        device: Where k-means runs; None leaves it to the engine.

    Returns:
        The clusters.

    Raises:
        ValueError: If there are no vectors, or fewer usable rows than clusters.
    """
    usable = pool.usable
    vectors = pool.usable_vectors
    silhouettes: dict[int, float] = {}
    if isinstance(k, str):
        choice = choose_k(vectors, budget=budget, engine=engine, seed=seed, device=device)
        k, silhouettes = choice.k, choice.scores
    if k > len(usable):
        allowed = f"at most the {len(usable)} rows left of {pool.n} without copies"
        raise ValueError(problem("k", allowed, k, "Lower it, or leave it at 'auto'."))
    result = kmeans(vectors, k, engine=engine, seed=seed, device=device)
    labels, distances = nearest_centers(pool.vectors, result.centers, device=device)
    labels[usable] = result.labels  # by the engine's own arithmetic: no cluster is empty
    return Clusters(labels, distances, len(result.centers), result.engine, silhouettes)


def closest_rows(clusters: Clusters, usable: Tensor, budget: int) -> Tensor:
    """Return the row of each cluster that is nearest to its centre; then the second of each, until there are enough.

    Args:
        clusters: The clusters.
        usable: Rows that may be taken, ascending. Shape (U,), dtype int64.
        budget: Rows wanted, b <= U.

    Returns:
        The rows, ascending. Shape (b,), dtype int64.
    """
    own, distances = clusters.labels[usable], clusters.distances[usable]
    order = torch.argsort(distances, stable=True)
    order = order[torch.argsort(own[order], stable=True)]
    counts = torch.bincount(own, minlength=clusters.k)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    ranked = torch.argsort(distances, stable=True)
    ranked = ranked[torch.argsort(place[ranked], stable=True)]
    return usable[ranked[:budget]].sort().values


def start_weights(quota: str, sizes: Tensor) -> Tensor:
    """Return cluster weights before any score: by size ("proportional") or even; shape (K,), float64, sum 1."""
    weights = sizes.double() if quota == "proportional" else (sizes > 0).double()
    return weights / weights.sum()
