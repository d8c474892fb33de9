"""How many clusters: the silhouette of k-means on a sample, as Yu et al., 2024, arXiv 2409.11378 choose k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.hashing import generator
from lightning_adapt._shared.kmeans import Engine, kmeans
from lightning_adapt._shared.kmeans_rows import Rows, Vectors

__all__ = ["KChoice", "choose_k", "silhouette"]

_BLOCK = 1024  # rows whose distances to the whole sample are held at once
_ROWS_OF_A_CLUSTER = 8  # fewer on average, and the silhouette rises again only because of clusters of one row
_SALT = 0x6B  # keeps the sample apart from other draws of the same seed


@dataclass(frozen=True)
class KChoice:
    """A number of clusters and what spoke for it.

    Attributes:
        k: The choice.
        scores: Silhouette of each k that was tried, in [-1, 1].
    """

    k: int
    scores: dict[int, float]


def silhouette(vectors: Vectors, labelings: Sequence[Tensor]) -> list[float]:
    """Return the mean silhouette (Rousseeuw 1987) of several clusterings of the same rows, Euclidean distance.

    The same as scikit-learn's `silhouette_score`, but distances are computed once for all clusterings, in blocks.

    Args:
        vectors: One vector per row. Shape (N, D), floating point.
        labelings: Clusters of each row, 0..K-1, none empty, K >= 2. Each of shape (N,), integers.

    Returns:
        One value in [-1, 1] per clustering; a row alone in its cluster counts as 0.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> [round(value, 2) for value in silhouette(points, [torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])])]
        [0.98, -0.49]
    """
    rows_given = Rows(vectors, "cpu")
    matrix = rows_given.take(torch.arange(rows_given.n))
    matrix -= matrix.mean(0)  # distances stay, and their rounding shrinks
    norms = matrix.square().sum(1)
    plans = [_Plan(labels) for labels in labelings]
    totals = [0.0] * len(plans)
    for first in range(0, len(matrix), _BLOCK):
        rows = torch.arange(first, min(first + _BLOCK, len(matrix)))
        squares = torch.addmm(norms[:, None] + norms[rows], matrix, matrix[rows].T, alpha=-2)
        squares[rows, rows - first] = 0  # exactly, whatever was rounded
        distances = squares.clamp_(min=0).sqrt_()
        for number, plan in enumerate(plans):
            totals[number] += plan.total(distances, rows)
    return [total / len(matrix) for total in totals]


class _Plan:
    """One clustering, with the sizes of its clusters."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels.long()
        self.counts = torch.bincount(self.labels)

    def total(self, distances: Tensor, rows: Tensor) -> float:
        """Return the sum of the silhouettes of some rows; distances from all rows to them, shape (N, B)."""
        sums = distances.new_zeros(len(self.counts), len(rows)).index_add_(0, self.labels, distances).double()  # (K, B)
        own, columns = self.labels[rows], torch.arange(len(rows))
        inside = sums[own, columns] / (self.counts[own] - 1).clamp(min=1)
        means = sums / self.counts[:, None]
        means[own, columns] = float("inf")
        nearest = means.amin(0)
        values = (nearest - inside) / torch.maximum(nearest, inside).clamp(min=1e-300)
        return float(torch.where(self.counts[own] > 1, values, 0.0).sum())


def choose_k(
    vectors: Vectors | Rows,
    *,
    budget: int,
    engine: Engine = "auto",
    seed: int = 42,
    sample: int = 10_000,
    device: str | torch.device | None = None,
) -> KChoice:
    """Choose the number of clusters by silhouette, with a bound that keeps clusters and quotas from becoming tiny.

    The best silhouette among 8, 16, 32, ..., at most N / 8 (clusters of 8 rows on average, also of the sample) and b
    (one row of each cluster). With fewer than 8, where silhouettes are low the best is often 2, which tells no topics
    apart. The paper tries k from 64 to 8192 on 196,000 rows and finds its best k, 2048, by silhouette; on
    small pools all silhouettes are low and say little.

    Args:
        vectors: Vectors of the rows to cluster, finite. Shape (N, D), floating point.
        budget: Rows to select in one round, b.
        engine: Engine of k-means.
        seed: Seed of the sample and of k-means.
        sample: Rows that are clustered and compared for this choice; time grows with its square.
        device: Where k-means runs; None leaves it to the engine.

    Returns:
        The choice, with the silhouette of every candidate. Where no candidate fits, k is the bound itself.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> corners = torch.eye(3).repeat(20, 1) + 0.01 * torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
        >>> choose_k(corners, budget=12, engine="torch").k <= 12
        True
    """
    check_integer("budget", budget, "Pass the rows of a round.", minimum=1)
    check_integer("seed", seed, "Pass any whole number >= 0.")
    check_integer("sample", sample, "Pass 10000.", minimum=16)
    rows = Rows(vectors, "cpu")
    bound = max(1, min(rows.n // _ROWS_OF_A_CLUSTER, budget))
    part = rows.take(_sample(rows.n, sample, seed))
    limit = min(bound, len(part) // _ROWS_OF_A_CLUSTER)
    grid = [2**power for power in range(3, limit.bit_length())]
    labelings = {k: kmeans(part, k, engine=engine, seed=seed, device=device).labels for k in grid}
    usable = {k: labels for k, labels in labelings.items() if int(labels.max()) > 0}  # all rows equal: one cluster
    scores = dict(zip(usable, silhouette(part, list(usable.values())), strict=True))
    if not scores:
        return KChoice(1 if grid else bound, {})
    return KChoice(max(scores, key=lambda k: (scores[k], -k)), scores)


def _sample(n: int, sample: int, seed: int) -> Tensor:
    if n <= sample:
        return torch.arange(n)
    return torch.randperm(n, generator=generator(seed, _SALT))[:sample].sort().values
