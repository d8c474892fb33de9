"""Pure parts of Diversify and Conquer: budgets, quotas of clusters, draws without replacement, weights.

Diversify and Conquer: Diversity-Centric Data Selection with Iterative Refinement, Yu et al., 2024, arXiv 2409.11378.
Everything here depends on its arguments alone.
"""

from lightning_adapt.divconq.choosing.budgets import resolve_budget, round_sizes
from lightning_adapt.divconq.choosing.draws import cluster_quotas, draw_rows, gumbel_top_k
from lightning_adapt.divconq.choosing.weights import (
    drop_light_clusters,
    quality_log_weights,
    reweight_clusters,
    shrunk_cluster_scores,
    weight_entropy,
)

__all__ = [
    "cluster_quotas",
    "draw_rows",
    "drop_light_clusters",
    "gumbel_top_k",
    "quality_log_weights",
    "resolve_budget",
    "reweight_clusters",
    "round_sizes",
    "shrunk_cluster_scores",
    "weight_entropy",
]
