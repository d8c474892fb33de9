"""What `DiversitySelectionCallback` was asked for, checked; and when an epoch belongs to which round."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt.divconq.choosing.arguments import DRAWN_METHODS
from lightning_adapt.divconq.embed.embedders import PrecomputedEmbedder
from lightning_adapt.divconq.scoring.scorers import EmbeddingRelevanceScorer, as_scorer
from lightning_adapt.divconq.text.rows import TextPart

__all__ = [
    "RoundInit",
    "RunOptions",
    "as_folder",
    "check_effect",
    "check_epochs",
    "check_time",
    "epochs_before_last_round",
    "round_of_epoch",
    "scorer_for",
]

RoundInit = Literal["continue", "restart"]


@dataclass(frozen=True)
class RunOptions:
    """What a run needs of the callback's arguments, checked; `settings` are those of `SelectionRounds`."""

    settings: dict[str, Any]
    rounds: int
    epochs_per_round: int
    embedder: Any
    quality: Any
    scorer: Any
    round_init: str
    loader: str | int | None
    seed: int
    out_dir: Path | None
    cache_dir: Path | None
    log_figure: bool
    text: TextPart
    lr_horizon: str

    def round_of(self, epoch: int) -> int:
        """Return the round that an epoch belongs to, from 0."""
        return round_of_epoch(epoch, self.epochs_per_round, self.rounds)

    @property
    def restarts(self) -> bool:
        """Whether rounds begin from the start of training."""
        return self.round_init == "restart" and self.rounds > 1


def round_of_epoch(epoch: int, epochs_per_round: int, rounds: int) -> int:
    """Return the round that an epoch belongs to; the last round takes all epochs that are left.

    Args:
        epoch: From 0.
        epochs_per_round: Epochs of each round but the last.
        rounds: Number of rounds.

    Returns:
        The round, from 0.

    Example:
        >>> [round_of_epoch(epoch, 2, 3) for epoch in range(8)]
        [0, 0, 1, 1, 2, 2, 2, 2]
    """
    return min(epoch // epochs_per_round, rounds - 1)


def epochs_before_last_round(epochs_per_round: int, rounds: int) -> int:
    """Return the epochs of all rounds but the last one."""
    return (rounds - 1) * epochs_per_round


def check_time(max_epochs: int, epochs_per_round: int, rounds: int) -> None:
    """Raise if a run ends before its last round.

    Args:
        max_epochs: Of the Trainer; -1 for no bound.
        epochs_per_round: As above.
        rounds: As above.

    Raises:
        ValueError: If it does; the message has the numbers.
    """
    needed = epochs_before_last_round(epochs_per_round, rounds) + 1
    if max_epochs != -1 and max_epochs < needed:
        allowed = f"at least {needed} for {rounds} rounds with epochs_per_round={epochs_per_round}"
        remedy = "With less the last round would not be trained on: train longer, or ask for fewer rounds."
        raise ValueError(problem("max_epochs", allowed, max_epochs, remedy))


_OF_SEVERAL_ROUNDS = {
    "scorer": None,
    "epochs_per_round": 1,
    "round_init": "continue",
    "initial_weights": "uniform",
    "update": "exp",
    "shrink": 4.0,
    "drop_below": 0.0,
    "train_on": "union",
}
_OF_VECTORS = {"embedder": None, "text": "prompt", "log_figure": False}


def check_effect(arguments: Mapping[str, Any], *, vectors: bool) -> None:
    """Raise where an argument differs from its default and nothing would come of it.

    Args:
        arguments: The callback's arguments.
        vectors: Whether the selection looks at vectors.

    Raises:
        ValueError: If so; names the argument and what makes it useless.
    """
    method, rounds = arguments["method"], arguments["rounds"]
    draws = method in DRAWN_METHODS
    useless: list[tuple[dict[str, Any], str, str]] = []
    if rounds == 1:
        useless.append((_OF_SEVERAL_ROUNDS, "rounds=1", "Ask for several rounds"))
    else:
        useless.append(({"quota": "proportional"}, f"rounds={rounds}", "Use `initial_weights`"))
    if not draws:
        useless.append(({"k": "auto", "quota": "proportional"}, f"method={method!r}", "Use method='kmq'"))
    if method != "kmq":
        useless.append(({"quality": None}, f"method={method!r}", "Use method='kmq'"))
    if not vectors:
        useless.append((_OF_VECTORS, f"method={method!r}, which uses no vectors", "Use another method"))
    for defaults, why, way_out in useless:
        for name, default in defaults.items():
            value = arguments[name]
            if value is not None if default is None else value != default:
                remedy = f"It would have no effect. {way_out}, or leave it out."
                raise ValueError(problem(name, f"left at {default!r} with {why}", value, remedy))


def check_epochs(epochs: Any) -> int:
    """Return the epochs of a round, or raise."""
    return check_integer("epochs_per_round", epochs, "Pass 1: each round but the last is one epoch.", minimum=1)


def as_folder(argument: str, value: Any) -> Path | None:
    """Return a folder's path, or None for None.

    Args:
        argument: Name of the argument.
        value: What the user passed.

    Returns:
        The path.

    Raises:
        TypeError: If it is no path.
        ValueError: If there is a file of that name.
    """
    if value is None:
        return None
    if not isinstance(value, (str, Path)):
        raise TypeError(problem(argument, "a folder or None", value, "Pass a path."))
    if Path(value).is_file():
        raise ValueError(problem(argument, "a folder", str(value), "There is a file of that name."))
    return Path(value)


def scorer_for(value: Any, embedder: Any, rounds: int) -> Any:
    """Return the scorer of a run, with an embedder if it needs one.

    Args:
        value: What the user passed as `scorer`.
        embedder: Embedder of the run; None where there is none.
        rounds: Number of rounds; one round needs no scorer.

    Returns:
        The scorer; None where it is never called.

    Raises:
        TypeError: If it cannot be called.
        ValueError: If it needs an embedder that can embed new texts, and there is none.
    """
    if rounds == 1:
        return None
    scorer = as_scorer(value)
    if isinstance(scorer, EmbeddingRelevanceScorer) and scorer.embedder is None:
        if embedder is None or isinstance(embedder, PrecomputedEmbedder):
            allowed = "given where `embedder` is an array, which cannot embed the model's answers"
            remedy = (
                "Pass a function (examples, module) -> scores, a RewardScorer, or "
                "EmbeddingRelevanceScorer(an embedder with a model)."
            )
            raise ValueError(problem("scorer", allowed, value, remedy))
        return scorer.with_embedder(embedder)
    if isinstance(scorer, EmbeddingRelevanceScorer) and not getattr(scorer.embedder, "is_fitted", True):
        return scorer.with_embedder(deepcopy(scorer.embedder))  # for this run to fit; the user's stays as it is
    return scorer
