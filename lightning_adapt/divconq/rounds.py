"""The state of an iterative selection: draw, take scores, reweight the clusters, draw again.

Algorithm 1 of Yu et al., 2024, arXiv 2409.11378, without the training, which is the caller's. Shapes: N rows, K
clusters, R rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_adapt._shared.hashing import derive_key
from lightning_adapt._shared.kmeans import Engine
from lightning_adapt.divconq.choosing.arguments import (
    DRAWN_METHODS,
    Dedup,
    Method,
    Quota,
    check_round_arguments,
    check_scores,
    check_selection_arguments,
)
from lightning_adapt.divconq.choosing.budgets import resolve_budget, round_sizes
from lightning_adapt.divconq.choosing.candidates import Candidates, check_fits, check_quality, find_candidates
from lightning_adapt.divconq.choosing.clusters import Clusters, cluster_pool, start_weights
from lightning_adapt.divconq.choosing.draws import cluster_quotas, draw_rows
from lightning_adapt.divconq.choosing.rounds_state import read_state, write_state
from lightning_adapt.divconq.choosing.weights import (
    Update,
    drop_light_clusters,
    quality_log_weights,
    reweight_clusters,
    shrunk_cluster_scores,
    weight_entropy,
)
from lightning_adapt.divconq.choosing.without_quotas import choose_without_quotas

__all__ = ["SelectionRounds"]


class SelectionRounds:
    """Selects a budget of rows in rounds; clusters whose rows scored well give more of the next round.

    After `begin` nothing but scores is needed: vectors are not kept. Every draw depends on (seed, round, row) alone, so
    that all ranks and a resumed run select the same rows.

    Args:
        budget: Rows in all: 103, 0.05 or "5%".
        method: As in `select_rows`; more than one round needs "kmq" or "km_random".
        rounds: Rounds, R; the paper has 3. With 1 this is `select_rows`.
        k: Clusters, or "auto": best silhouette, at most N / 8 and b / R.
        quota: Cluster quotas of a single round: "proportional" or "equal".
        initial_weights: First cluster weights of several rounds: "uniform" (paper, code) or "proportional" to size.
        update: How scores change weights, see `reweight_clusters`.
        tau: Temperature of the quality inside clusters and of the update, >= 1e-6.
        shrink: How many rows the mean of all scores is worth in a cluster's score, >= 0.
        drop_below: Clusters below this share of an even weight (1 / K) give no more rows while others can; in [0, 1).
        train_on: "union" of all rounds so far (paper) or only the "new" rows.
        dedup: As in `select_rows`.
        engine: As in `select_rows`.
        seed: Seed of clusters and draws, >= 0.

    Attributes:
        round: The newest round, from 0; -1 before `begin`.
        n: Rows of the pool, N; 0 before `begin`.
        k: Clusters, K; 0 for methods without clusters.
        engine: Engine of k-means and its version; "" where there is none.
        silhouettes: Silhouette of each k that was tried; empty where k was given.
        labels: Cluster of each row, or None. Shape (N,), dtype int64.
        quality: Quality of each row, or None. Shape (N,), dtype float64.
        duplicates: Rows left out as copies. Shape (N,), dtype bool.
        scores: Newest score of each row, NaN where there is none. Shape (N,), dtype float64.
        log_weights: Log-weight of each cluster, -inf once dropped, or None. Shape (K,), dtype float64.
        history: One entry per round: "round", "new" (rows drawn), "weights", "quotas", "entropy" (nats),
            "cluster_scores" and "scored" (rows scored per cluster) that led to its weights; None where there are none.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the method does not fit several rounds.

    Example:
        >>> rounds = SelectionRounds("10%", "random", seed=0)
        >>> rounds.begin(None, n=50)
        >>> rounds.sizes, rounds.done, len(rounds.rows)
        ([5], True, 5)
    """

    def __init__(
        self,
        budget: int | float | str,
        method: Method = "kmq",
        *,
        rounds: int = 1,
        k: int | Literal["auto"] = "auto",
        quota: Quota = "proportional",
        initial_weights: Literal["uniform", "proportional"] = "uniform",
        update: Update = "exp",
        tau: float = 1.0,
        shrink: float = 4.0,
        drop_below: float = 0.0,
        train_on: Literal["union", "new"] = "union",
        dedup: Dedup = "exact",
        engine: Engine = "auto",
        seed: int = 42,
    ) -> None:
        check_selection_arguments(method, k, quota, tau, dedup, engine, seed)
        check_round_arguments(budget, method, rounds, initial_weights, update, shrink, drop_below, train_on)
        self.budget, self.method, self.rounds, self.dedup, self.seed = budget, method, rounds, dedup, seed
        self.quota, self.initial_weights, self.train_on = quota, initial_weights, train_on
        self.update, self.tau, self.shrink, self.drop_below = update, tau, shrink, drop_below
        self.wanted_k, self.wanted_engine = k, engine
        self.forget()

    def forget(self) -> None:
        """Return to the state before `begin`."""
        self.round, self.n, self.k, self.engine = -1, 0, 0, ""
        self.silhouettes: dict[int, float] = {}
        self.labels: Tensor | None = None
        self.quality: Tensor | None = None
        self.log_weights: Tensor | None = None
        self.scores = torch.zeros(0, dtype=torch.float64)
        self.duplicates = torch.zeros(0, dtype=torch.bool)
        self.history: list[dict[str, Any]] = []
        self.drawn: list[Tensor] = []  # new rows of each round

    # -- what to train on ----------------------------------------------------------------------------------------------
    @property
    def begun(self) -> bool:
        """Whether there is a selection."""
        return self.round >= 0

    @property
    def done(self) -> bool:
        """Whether the whole budget is drawn, so that no round follows."""
        return self.round == self.rounds - 1

    @property
    def size(self) -> int:
        """The budget in rows, b."""
        self._check_begun()
        return resolve_budget(self.budget, self.n)

    @property
    def new_sizes(self) -> list[int]:
        """New rows of each round of the plan."""
        return round_sizes(self.size, self.rounds)

    @property
    def sizes(self) -> list[int]:
        """Training rows in each round of the plan."""
        new = self.new_sizes
        return new if self.train_on == "new" else [sum(new[: number + 1]) for number in range(self.rounds)]

    @property
    def new_rows(self) -> Tensor:
        """The rows that the newest round added, ascending; dtype int64."""
        self._check_begun()
        return self.drawn[-1]

    @property
    def union(self) -> Tensor:
        """The rows of all rounds so far, ascending; dtype int64."""
        self._check_begun()
        return torch.cat(self.drawn).sort().values

    @property
    def rows(self) -> Tensor:
        """The rows to train on in the newest round, ascending; shape (sizes[round],), dtype int64."""
        return self.new_rows if self.train_on == "new" else self.union

    def _check_begun(self) -> None:
        if not self.begun:
            raise RuntimeError("Nothing is selected yet. Call `begin`, or load a state.")

    # -- rounds --------------------------------------------------------------------------------------------------------
    def begin(
        self,
        vectors: Any,
        *,
        n: int | None = None,
        quality: Tensor | None = None,
        keys: Sequence[bytes] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        """Remove copies, cluster, and draw the first round; what was selected before is forgotten.

        Args:
            vectors: One vector per row; None for "random". Shape (N, D).
            n: Rows of the pool, needed without vectors.
            quality: Quality of each row, higher is better, finite; for "kmq" only. Shape (N,).
            keys: One key per row, equal for copies; None: rows with equal vectors are copies.
            device: Where k-means runs; None leaves it to the engine.

        Raises:
            ValueError: If the rows without copies are fewer than the budget, there are more rounds than rows to draw,
                or another argument does not fit.
        """
        pool = find_candidates(vectors, n=n, keys=keys, dedup=self.dedup, engine=self.wanted_engine, seed=self.seed)
        size = resolve_budget(self.budget, pool.n)
        check_fits(size, pool)
        plan = round_sizes(size, self.rounds)
        numbers = check_quality(quality, self.method, pool.n)
        options: dict[str, Any] = {"engine": self.wanted_engine, "seed": self.seed, "device": device}
        if self.method in DRAWN_METHODS:
            clusters = cluster_pool(pool, self.wanted_k, budget=size // self.rounds, **options)
            self._start(pool, clusters)
            sizes = torch.bincount(clusters.labels[~pool.duplicates], minlength=clusters.k)
            self.log_weights = start_weights(self.quota if self.rounds == 1 else self.initial_weights, sizes).log()
            self.quality = numbers
            self._draw(0, plan[0])
        else:
            rows, found = choose_without_quotas(pool, size, self.method, **options)
            self._start(pool, found)
            self.round = 0
            self._keep(rows, None if found is None else torch.bincount(found.labels[rows], minlength=found.k))

    def _start(self, pool: Candidates, clusters: Clusters | None) -> None:
        self.forget()
        self.n, self.duplicates = pool.n, pool.duplicates
        self.scores = torch.full((pool.n,), float("nan"), dtype=torch.float64)
        if clusters is not None:
            self.labels, self.k, self.engine = clusters.labels, clusters.k, clusters.engine
            self.silhouettes = clusters.silhouettes

    def advance(self, rows: Tensor, scores: Tensor) -> None:
        """Take the scores of rows drawn so far, reweight the clusters and draw the next round.

        Clusters are scored by all scores known, of earlier rounds as given then; without a new one, the weights stay.

        Args:
            rows: Rows drawn in this or an earlier round, each once. Shape (M,), integers.
            scores: Score of each, higher where the pool's response is better than the model's; NaN: not scored. Shape
                (M,), floating point.

        Raises:
            RuntimeError: If nothing was begun, or all rounds are drawn.
            ValueError: If a row was not drawn or comes twice, a score is too large, or the shapes do not fit.
        """
        self._check_begun()
        if self.done:
            raise RuntimeError(f"All {self.rounds} rounds are drawn. Ask `done` before `advance`.")
        labels, log_weights = self._clustered()
        rows, scores = check_scores(rows, scores, self.union)
        self.scores[rows] = torch.where(torch.isnan(scores), self.scores[rows], scores)
        found: dict[str, Any] = {}
        if not bool(torch.isnan(scores).all()):
            known = (~torch.isnan(self.scores)).nonzero().squeeze(1)
            of_cluster = shrunk_cluster_scores(labels[known], self.scores[known], self.k, shrink=self.shrink)
            weights = reweight_clusters(log_weights, of_cluster, update=self.update, tau=self.tau)
            self.log_weights = drop_light_clusters(weights, self.drop_below)
            scored = torch.bincount(labels[known], minlength=self.k)
            found = {"cluster_scores": of_cluster.tolist(), "scored": scored.tolist()}
        self._draw(self.round + 1, self.new_sizes[self.round + 1])
        self.history[-1] |= found

    def _clustered(self) -> tuple[Tensor, Tensor]:
        if self.labels is None or self.log_weights is None:
            raise RuntimeError(f"{self.method!r} has no clusters to draw from.")
        return self.labels, self.log_weights

    def _draw(self, number: int, count: int) -> None:
        labels, log_weights = self._clustered()
        free = ~self.duplicates
        for rows in self.drawn:
            free[rows] = False
        key = derive_key(self.seed, number)
        left = torch.bincount(labels[free], minlength=self.k)
        quotas = cluster_quotas(count, log_weights.exp(), left, key=key)
        distinct = labels.masked_fill(self.duplicates, -1)  # a copy plays no part in the mean quality of its cluster
        inside = None if self.quality is None else quality_log_weights(self.quality, distinct, tau=self.tau)
        new = draw_rows(labels, quotas, log_weights=inside, available=free, key=key)
        self.round = number
        self._keep(new, quotas)

    def _keep(self, rows: Tensor, quotas: Tensor | None) -> None:
        self.drawn.append(rows)
        entry: dict[str, Any] = dict.fromkeys(("weights", "entropy", "cluster_scores", "scored"))
        if self.log_weights is not None:
            entry["weights"], entry["entropy"] = self.log_weights.exp().tolist(), weight_entropy(self.log_weights)
        entry["quotas"] = None if quotas is None else quotas.tolist()
        self.history.append({"round": self.round, "new": len(rows), **entry})

    # -- resume --------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Return the plain state: arguments, clusters, rows and scores so far; no vectors."""
        return write_state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a state was taken; no vectors are needed.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If it was taken with other arguments (it names each difference), or its version is unknown.
        """
        read_state(self, state)
