"""The divconq section of the demo: a tiny language model, a pool that is mostly garbage, and four ways to select."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lightning_adapt._shared.demo_training import one_thread
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report import Cell, Column, Kind, Picture, Row, Section
from lightning_adapt.divconq.demo_fits import GARBAGE_TOPICS, Found, Task, fit, prepare, texts
from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder
from lightning_adapt.divconq.figures import map_figure, plane, weights_figure
from lightning_adapt.divconq.rounds import SelectionRounds

if TYPE_CHECKING:
    from lightning_adapt.demo import DemoContext

__all__ = ["run"]

_T_QUANTILE = {2: 12.71, 3: 4.30}  # of Student's t, 97.5 %, by the number of seeds: a 95 % interval of their mean
_COLUMNS = (
    Column("held-out loss", "nats per token", 3),
    Column("against random", "nats", 3),
    Column("garbage selected", "%", 0),
    Column("training time", "CPU s", 1),
)
_USAGE = (
    (
        "In a script",
        "from lightning_adapt import DiversitySelectionCallback, InstructionDataModule, InstructionTuningModule\n\n"
        'data = InstructionDataModule("pool.jsonl", tokenizer)  # or a DataModule or DataLoader of yours\n'
        'selection = DiversitySelectionCallback("5%", rounds=3)\n'
        "trainer = L.Trainer(max_epochs=5, callbacks=[selection])\n"
        "trainer.fit(InstructionTuningModule(model), data)  # or a module of yours",
    ),
    (
        "On top of your own LightningCLI and YAML",
        "lightning-adapt overlay divconq > divconq.yaml\npython main.py fit --config mine.yaml --config divconq.yaml",
    ),
    (
        "Before training, from a file to a file",
        "lightning-adapt select --data pool.jsonl --budget 5% --method kmq --out chosen.jsonl",
    ),
)


class _Arm(NamedTuple):
    name: str
    kind: Kind


_ARMS = {
    "random": _Arm("a random subset", "baseline"),
    "equal": _Arm("equal quotas of clusters, once", "control"),
    "perplexity": _Arm("in rounds, by perplexity", "control"),
    "ours": _Arm("in rounds, by relevance of answers", "ours"),
}


def run(context: DemoContext) -> Section:
    """Train every row on the same seeds, interleaved, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    require("figures", "The divconq demo", "matplotlib")
    require("llm", "The divconq demo", "transformers", "scikit-learn")
    began = time.perf_counter()
    task = Task(48, 72, 48, 1, 2) if context.quick else Task(120, 180, 96, 3, 3)
    context.start(total=task.steps * len(_ARMS) * task.seeds)
    found: dict[str, list[Found]] = {arm: [] for arm in _ARMS}
    pools = []
    with one_thread():
        for seed in range(task.seeds):
            context.doing(f"a model to start from, seed {seed}")
            start = prepare(task, seed)
            pools.append(start.pool)
            for arm, some in found.items():
                context.doing(f"{_ARMS[arm].name}, seed {seed}")
                some.append(fit(task, start, arm, seed, context.advance))
    context.doing("Diversify & Conquer")
    return _section(task, found, pools[0], time.perf_counter() - began)


def _section(task: Task, found: dict[str, list[Found]], pool: list[dict[str, Any]], seconds: float) -> Section:
    losses = {arm: [one.loss for one in some] for arm, some in found.items()}
    shares = {arm: mean(one.garbage for one in some) for arm, some in found.items()}
    return Section(
        method="divconq",
        title="Diversify & Conquer: the data worth fine-tuning on",
        problem="You have a pool of instructions that nobody has read, and a budget for a part of it.",
        setting=f"{task.clean} right answers in 12 topics and {task.garbage} answers of random words in "
        f"{GARBAGE_TOPICS} others; {task.budget} rows selected, {task.steps} steps of a tiny Llama that knew a few "
        f"clean rows before; loss on {task.clean} clean rows held out. {task.seeds} seeds, mean ± standard deviation. "
        "Equal pool, start and steps in all rows; the second column is paired by seed.",
        table_caption="After training on the selection",
        columns=_COLUMNS,
        rows=tuple(Row(_ARMS[arm].name, _ARMS[arm].kind, _cells(arm, some, losses)) for arm, some in found.items()),
        verdict=_verdict(losses, shares),
        usage=_USAGE,
        seconds=seconds,
        pictures=_pictures(found["ours"][0].selection, pool),
    )


def _cells(arm: str, some: list[Found], losses: Mapping[str, list[float]]) -> tuple[Cell, ...]:
    gains = Cell(0.0) if arm == "random" else _over_seeds(_gains(losses, arm, "random"))
    seconds = _over_seeds([one.seconds for one in some])
    return _over_seeds(losses[arm]), gains, Cell(mean(one.garbage for one in some)), seconds


def _over_seeds(values: list[float]) -> Cell:
    return Cell(mean(values), stdev(values))


def _gains(losses: Mapping[str, list[float]], arm: str, other: str) -> list[float]:
    return [one - against for one, against in zip(losses[arm], losses[other], strict=True)]


def _pictures(rounds: SelectionRounds, pool: list[dict[str, Any]]) -> tuple[Picture, ...]:
    labels = rounds.labels
    if labels is None:
        raise RuntimeError("The selection has no clusters.")
    prompts = [texts(row)[0] for row in pool]
    embedder = TfidfEmbedder()
    embedder.fit([text for row in pool for text in texts(row)])
    vectors, names = embedder.encode(prompts), _names(labels, pool)
    weights = [torch.tensor(one["weights"]) for one in rounds.history]
    before, after = (_garbage_weight(one, labels, pool) for one in (weights[0], weights[-1]))
    return (
        Picture(
            "weights",
            "Weight of each cluster in each round, the extremes named by their topic; garbage in capitals. Seed 0.",
            f"Lines on a logarithmic axis. The clusters of garbage had {before:.0%} of the weight in the first round "
            f"and {after:.1%} in the last.",
            partial(weights_figure, weights, names),
        ),
        Picture(
            "map",
            "The pool, similar prompts close together (t-SNE), a colour for each cluster, garbage in capitals. Rows "
            "with an outline were selected. Seed 0.",
            f"A map of {len(pool):,} points in {rounds.k} clusters, {len(rounds.rows)} of them selected, "
            f"{sum(pool[row]['garbage'] for row in rounds.rows.tolist())} of those garbage.",
            partial(map_figure, plane(vectors, labels=labels, selected=rounds.rows), labels, rounds.rows, names),
        ),
    )


def _names(labels: Tensor, pool: list[dict[str, Any]]) -> list[str]:
    """Name each cluster by the topic that most of its rows have."""
    names = []
    for cluster in range(int(labels.max()) + 1):
        rows = [pool[place] for place in (labels == cluster).nonzero().flatten().tolist()]
        topic, _ = Counter((row["topic"], row["garbage"]) for row in rows).most_common(1)[0]
        names.append(topic[0].upper() if topic[1] else topic[0])
    return names


def _garbage_weight(weights: Tensor, labels: Tensor, pool: list[dict[str, Any]]) -> float:
    garbage = torch.tensor([float(row["garbage"]) for row in pool])
    shares = torch.bincount(labels, garbage, len(weights)) / torch.bincount(labels, minlength=len(weights))
    return float((weights * shares).sum())


def _verdict(losses: Mapping[str, list[float]], garbage: Mapping[str, float]) -> str:
    """Word the result from the numbers of the table, whichever way they fell out."""
    text = (
        f"Selected in rounds, {garbage['ours']:.0f} % of the rows were garbage, of a random subset "
        f"{garbage['random']:.0f} %. Its loss of {mean(losses['ours']):.3f} is {_against(losses, 'random')} the "
        f"{mean(losses['random']):.3f} of a random subset, and {_against(losses, 'equal')} the "
        f"{mean(losses['equal']):.3f} of equal quotas ({garbage['equal']:.0f} % garbage). {_conclusion(garbage)}"
    )
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _conclusion(garbage: Mapping[str, float]) -> str:
    text = f"By perplexity, which takes what is hard for what is useful, {garbage['perplexity']:.0f} % were garbage"
    if garbage["perplexity"] > garbage["ours"]:
        return f"{text}: what the rounds go by decides."
    return f"{text}: here it did no worse."


def _against(losses: Mapping[str, list[float]], other: str) -> str:
    gains = _gains(losses, "ours", other)
    half = _T_QUANTILE[len(gains)] * stdev(gains) / len(gains) ** 0.5
    low, high = mean(gains) - half, mean(gains) + half
    interval = f"{mean(gains):+.3f}, 95 % interval {low:+.3f} to {high:+.3f}"
    if low <= 0 <= high:
        return f"not clearly different from ({interval})"
    return f"{'lower' if high < 0 else 'higher'} ({interval}) than"
