"""The divconq section of the demo: a tiny language model, a pool that is mostly garbage, and four ways to select."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.demo_frame import Arm, Context, Gap, compare, nbsp, over_seeds, table_rows
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.report_parts import Cell, Column, Finding, Picture, Score, Section, Usage
from lightning_adapt.divconq.demo_fits import GARBAGE_TOPICS, Found, Task, fit, planted, prepare, texts
from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder
from lightning_adapt.divconq.figures import map_figure, plane, weights_figure
from lightning_adapt.divconq.rounds import SelectionRounds

__all__ = ["USAGE", "run"]

_COLUMNS = (
    Column("held-out loss", "nats per token", 3, "lower"),
    Column("against random", "nats", 3, "lower"),
    Column("garbage selected", "%", 0, "lower"),
    Column("training time", "CPU s", 1, "lower"),
)
USAGE = Usage(
    command="""lightning-adapt overlay divconq > divconq.yaml
python main.py fit --config mine.yaml \\
  --config divconq.yaml
# or before training, from a file to a file:
lightning-adapt select --data pool.jsonl --budget 5% \\
  --method kmq --out chosen.jsonl""",
    python="""from lightning_adapt import DiversitySelectionCallback

selection = DiversitySelectionCallback("5%", rounds=3)
trainer = L.Trainer(max_epochs=5, callbacks=[selection])
trainer.fit(model, data)  # an InstructionTuningModule
                          # and its data, or yours""",
    yaml="""trainer:
  callbacks+:
  - class_path: lightning_adapt.DiversitySelectionCallback
    init_args:
      budget: 5%
      rounds: 3""",
)
_ARMS = {
    "random": Arm("a random subset", "baseline"),
    "equal": Arm("equal quotas of clusters, once", "control"),
    "perplexity": Arm("in rounds, by perplexity", "control"),
    "ours": Arm("in rounds, by relevance of answers", "ours"),
}


def run(context: Context) -> Section:
    """Train every row on the same seeds, interleaved, and return what was found.

    Args:
        context: Progress bar and size of the demo.

    Returns:
        The section.

    Raises:
        ModuleNotFoundError: If an extra is missing; the message names it.
    """
    require("llm", "The divconq demo", "transformers", "scikit-learn")
    task = Task(48, 72, 48, 1, 2) if context.quick else Task(120, 180, 96, 3, 3)
    context.start(task.steps * len(_ARMS) * task.seeds)
    train, start = partial(fit, task, advance=context.advance), partial(prepare, task)
    found = compare(context, _ARMS, range(task.seeds), train, prepare=start, preparing="a model to start from")
    return Section(
        method="divconq",
        title="Diversify & Conquer: the data worth fine-tuning on",
        problem="You have a pool of instructions that nobody has read, and a budget for a part of it.",
        findings=(_finding(task, found, planted(task, seed=0).pool),),
        usage=USAGE,
    )


def _finding(task: Task, found: dict[str, list[Found]], pool: list[dict[str, Any]]) -> Finding:
    losses = {arm: [one.loss for one in some] for arm, some in found.items()}
    shares = {arm: mean(one.garbage for one in some) for arm, some in found.items()}
    seconds = {arm: mean(one.seconds for one in some) for arm, some in found.items()}
    return Finding(
        caption="After training on the selection",
        columns=_COLUMNS,
        rows=table_rows(_ARMS, lambda arm: _cells(arm, found[arm], losses)),
        setting=f"{task.clean} right answers in 12 topics and {task.garbage} answers of random words in "
        f"{GARBAGE_TOPICS} others; {task.budget} rows selected, {task.steps} steps of a tiny Llama that knew a few "
        f"clean rows before; loss on {task.clean} clean rows held out. {task.seeds} seeds, mean ± standard deviation. "
        "Equal pool, start and steps in all rows; the second column is paired by seed.",
        gained=nbsp(_gained(losses, shares)),
        not_gained=nbsp(_not_gained(losses, shares, seconds)),
        score=_score(losses, shares, seconds),
        pictures=_pictures(found["ours"][0].selection, pool),
    )


def _cells(arm: str, some: list[Found], losses: Mapping[str, list[float]]) -> tuple[Cell, ...]:
    gains = Cell(0.0) if arm == "random" else over_seeds(_gap(losses, arm, "random").values)
    seconds = over_seeds([one.seconds for one in some])
    return over_seeds(losses[arm]), gains, Cell(mean(one.garbage for one in some)), seconds


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


# -- words, from the numbers of the table, whichever way they fell out ------------------------------------------------
def _gap(losses: Mapping[str, list[float]], arm: str, other: str) -> Gap:
    return Gap.between(losses[arm], losses[other], 3, "", True)


def _gained(losses: Mapping[str, list[float]], garbage: Mapping[str, float]) -> str:
    random = _gap(losses, "ours", "random").against("a random subset")
    more = f", and {_beside_equal(losses, garbage)}" if _beats_equal(losses) else ""
    return (
        f"Selected in rounds, {garbage['ours']:.0f} % of the rows are garbage, of a random subset "
        f"{garbage['random']:.0f} %; a held-out loss of {mean(losses['ours']):.3f} is {random} at "
        f"{mean(losses['random']):.3f}{more}."
    )


def _not_gained(losses: Mapping[str, list[float]], garbage: Mapping[str, float], seconds: Mapping[str, float]) -> str:
    more = "" if _beats_equal(losses) else f"The loss is {_beside_equal(losses, garbage)}. "
    return f"Time: {seconds['ours']:.1f} s against {seconds['random']:.1f} s. {more}{_conclusion(garbage)}"


def _beats_equal(losses: Mapping[str, list[float]]) -> bool:
    return _gap(losses, "ours", "equal").result == "better"


def _beside_equal(losses: Mapping[str, list[float]], garbage: Mapping[str, float]) -> str:
    equal = _gap(losses, "ours", "equal").against("equal quotas of clusters")
    return f"{equal} at {mean(losses['equal']):.3f}, chosen once, {garbage['equal']:.0f} % garbage"


def _conclusion(garbage: Mapping[str, float]) -> str:
    text = f"Rounds that go by perplexity take {garbage['perplexity']:.0f} % garbage"
    if garbage["perplexity"] > garbage["ours"]:
        return f"{text}: it takes what is hard for what is useful."
    return f"{text}: here it did no worse."


def _score(losses: Mapping[str, list[float]], garbage: Mapping[str, float], seconds: Mapping[str, float]) -> Score:
    gap = _gap(losses, "ours", "random")
    once = "" if _beats_equal(losses) else "; not clearly better than choosing once, in equal quotas"
    return Score(
        measure="held-out loss, nats per token",
        baseline=_ARMS["random"].name,
        without=f"{mean(losses['random']):.3f}",
        ours=f"{mean(losses['ours']):.3f}",
        change=str(gap),
        result=gap.result,
        but=f"{seconds['ours'] / seconds['random']:.1f} times the time; {garbage['ours']:.0f} % is still garbage{once}",
    )
