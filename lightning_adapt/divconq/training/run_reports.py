"""What a run tells of a round: a few lines with examples of clusters, the round files, and the figures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import lightning_adapt
from lightning_adapt._shared.figures import log_figure
from lightning_adapt.divconq.figures import map_figure, weights_figure
from lightning_adapt.divconq.training.in_loop import RunningSelection
from lightning_adapt.divconq.training.options import RunOptions
from lightning_adapt.divconq.training.round_files import write_round

__all__ = ["describe_clusters", "log_figures", "write_files"]

_SHOWN_CLUSTERS = 3  # with the largest weights, and as many with the smallest
_SHOWN_TEXTS = 2
_SHOWN_CHARACTERS = 60


def describe_clusters(running: RunningSelection) -> str:
    """Return what is known of the newest round: rows, entropy, and the clusters at both ends with example texts.

    Args:
        running: The selection.

    Returns:
        A few lines; one where no scores have moved the weights yet.
    """
    rounds = running.rounds
    entry = rounds.history[-1]
    text = (
        f"Diversify and Conquer, round {rounds.round + 1} of {rounds.rounds}: {len(rounds.rows):,} of {rounds.n:,} rows"
    )
    if rounds.k:
        text += f" from {rounds.k} clusters"
    if entry["cluster_scores"] is None:
        return text
    weights = torch.tensor(entry["weights"])
    order = torch.argsort(weights, descending=True, stable=True).tolist()
    count = min(_SHOWN_CLUSTERS, rounds.k // 2)
    lines = [f"{text}; entropy of their weights {entry['entropy']:.2f} nats"]
    for title, clusters in (("more of", order[:count]), ("less of", order[len(order) - count :])):
        for cluster in clusters:
            facts = f"cluster {cluster}: weight {weights[cluster]:.2g}, score {entry['cluster_scores'][cluster]:.3g}"
            lines.append(f"  {title} {facts}{_examples(running, cluster)}")
    return "\n".join(lines)


def _examples(running: RunningSelection, cluster: int) -> str:
    texts, labels = running.pool.texts, running.rounds.labels
    if texts is None or labels is None:
        return ""
    rows = (labels == cluster).nonzero().squeeze(1)[:_SHOWN_TEXTS].tolist()
    return "".join(f", {_short(texts.prompt(row))!r}" for row in rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 3] + "..."


def write_files(running: RunningSelection, options: RunOptions) -> None:
    """Write the two files of the newest round; on rank 0.

    Args:
        running: The selection.
        options: What was asked for; its `out_dir` is the folder.

    Raises:
        OSError: If the folder cannot be written to.
    """
    rounds, pool = running.rounds, running.pool
    if options.out_dir is None:
        return
    entry, rows = rounds.history[-1], rounds.rows
    settings = {**options.settings, "epochs_per_round": options.epochs_per_round, "round_init": options.round_init}
    settings["text"] = options.text
    summary = {
        "versions": {"lightning_adapt": lightning_adapt.__version__, "torch": str(torch.__version__)},
        "settings": settings,
        "embedder": running.embedder,
        "seed": rounds.seed,
        "n": rounds.n,
        "fingerprint": running.fingerprint,
        "k": rounds.k,
        "engine": rounds.engine,
        **entry,
        "sizes": rounds.sizes,
        "rows": pool.dataset_rows(rounds.new_rows),
    }
    labels, weights = rounds.labels, entry["weights"]
    nothing: list[Any] = [None] * len(rows)
    table: dict[str, Tensor | list[Any]] = {
        "index": pool.dataset_rows(rows),
        "row_hash": pool.hashes(rows),
        "cluster": nothing if labels is None else labels[rows],
        "q": nothing if rounds.quality is None else rounds.quality[rows],
        "S": rounds.scores[rows],
        "w": nothing if labels is None or weights is None else torch.tensor(weights, dtype=torch.float64)[labels[rows]],
    }
    write_round(options.out_dir, summary, table)


def log_figures(trainer: Any, running: RunningSelection) -> None:
    """Log the weights of the clusters over the rounds, and a map of the pool; what there is no data for is left out.

    Args:
        trainer: The Trainer; call it on rank 0.
        running: The selection.
    """
    rounds, step = running.rounds, trainer.global_step
    weights = [entry["weights"] for entry in rounds.history if entry["weights"] is not None]
    if weights:
        titles = None if running.pool.texts is None else [_title(running, cluster) for cluster in range(rounds.k)]
        log_figure(trainer, "divconq/weights", weights_figure(weights, titles), step=step)
    if running.plane is not None:
        log_figure(trainer, "divconq/map", map_figure(running.plane, rounds.labels, rounds.union), step=step)


def _title(running: RunningSelection, cluster: int) -> str:
    if running.pool.texts is None or running.rounds.labels is None:
        return ""
    rows = (running.rounds.labels == cluster).nonzero().squeeze(1)[:1].tolist()
    return _short(running.pool.texts.prompt(rows[0]))[:30] if rows else ""
