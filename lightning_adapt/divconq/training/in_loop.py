"""The selection as it lives inside a training run: begun, scored and advanced once for all ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.collectives import gather_rows
from lightning_adapt._shared.forward import evaluating
from lightning_adapt._shared.sampling import StateMismatchError
from lightning_adapt._shared.state import to_plain
from lightning_adapt.divconq.embed.embedders import FloatArray
from lightning_adapt.divconq.figures import plane
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.scoring.examples import Examples
from lightning_adapt.divconq.scoring.generate import (
    find_language_model,
    find_tokenizer,
    generate_responses,
    random_state_kept,
    unwrapped,
)
from lightning_adapt.divconq.scoring.prompts import device_of, prompt_ids
from lightning_adapt.divconq.scoring.scorers import score_examples
from lightning_adapt.divconq.training.agreement import on_every_rank, on_rank_zero
from lightning_adapt.divconq.training.pool import TrainingPool

__all__ = ["RunningSelection", "check_pool", "needs_vectors"]

SCORED_AT_ONCE = 8  # rows per call of the scorer: fixed, so that scores do not depend on the number of ranks


def needs_vectors(rounds: SelectionRounds) -> bool:
    """Say whether a selection looks at vectors at all."""
    return rounds.method != "random" or rounds.dedup == "near"


def check_pool(saved: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise if a selection was made from other data, in the run of a checkpoint or in an earlier `fit`.

    Args:
        saved: Fingerprint of that selection's pool.
        here: Fingerprint of the pool of this run.

    Raises:
        StateMismatchError: If they differ; says that the data set has changed.
    """
    if saved == here:
        return
    rows = f"{saved['n']} rows" if saved["n"] != here["n"] else "other rows, or another order of them"
    raise StateMismatchError(
        f"The data set has changed since the selection was made: it had {rows}, here there are {here['n']}. The "
        "selection names rows by their numbers, so they would now mean others. Go on with the same data set, or start "
        "a new run, with a new Trainer and from the weights only."
    )


class RunningSelection:
    """A pool and the rounds of a selection from it, equal on all ranks.

    Args:
        pool: The pool.
        rounds: The rounds, begun or not.
        text: What of a row is embedded: "prompt", "response" or "prompt+response".

    Attributes:
        fingerprint: What the pool was when the run began.
        embedder: What made the vectors that the selection was begun with, as it describes itself; None without vectors.
        plane: The vectors' two main directions, for a figure; None without vectors. Shape (n, 2), float32, rank 0.
    """

    def __init__(self, pool: TrainingPool, rounds: SelectionRounds, text: Any = "prompt") -> None:
        self.pool, self.rounds, self.text = pool, rounds, text
        self.fingerprint: dict[str, Any] = {}
        self.embedder: dict[str, Any] | None = None
        self.plane: FloatArray | None = None

    # -- begin ----------------------------------------------------------------------------------------------------
    def begin(
        self,
        trainer: Any,
        *,
        quality: Any = None,
        restored: dict[str, Any] | None = None,
        judge: Any = None,
        want_plane: bool = False,
        cache_dir: Path | None = None,
    ) -> None:
        """Make the first selection, or take over the one of a checkpoint.

        Args:
            trainer: The Trainer.
            quality: The user's `quality`.
            restored: State of the rounds, fingerprint of the pool and what the embedder was, under "rounds",
                "fingerprint" and "embedder".
            judge: The embedder that the scorer will ask for more vectors; that of the pool, or another.
            want_plane: Whether a figure of the vectors will be drawn.
            cache_dir: Where vectors are kept between runs.

        Raises:
            ValueError: If the data does not fit the arguments, or is not that of the checkpoint.
        """
        self.fingerprint = self.pool.read(trainer)
        if restored is not None:
            check_pool(restored["fingerprint"], self.fingerprint)
        embeds = self.pool.embedder is not None and (restored is None or want_plane)
        if embeds or (judge is not None and judge is self.pool.embedder):
            self.pool.fit(trainer, self.pool.embedder)
        if judge is not self.pool.embedder and not getattr(judge, "is_fitted", True):
            self.pool.fit(trainer, judge)
        vectors = self.pool.vectors(trainer, self.text, cache_dir) if embeds else None
        self._describe(trainer, restored)
        if restored is not None:
            self.rounds.load_state_dict(restored["rounds"])
        else:
            numbers = self.pool.quality(trainer, quality)
            given: dict[str, Any] = {"n": self.pool.n, "quality": numbers, "keys": self.pool.keys}
            device = trainer.strategy.root_device
            given["device"] = device if device.type == "cuda" else None  # None: what is best on a CPU
            self._on_rank_zero(trainer, lambda: self.rounds.begin(vectors, **given))
        if want_plane and vectors is not None and trainer.is_global_zero:
            self.plane = plane(vectors)
        self.pool.forget_texts()

    def _describe(self, trainer: Any, restored: dict[str, Any] | None) -> None:
        """A resumed run does not embed again: its embedder may be fitted on nothing, and is not the one to describe."""
        self.embedder = None if restored is None else restored["embedder"]
        if self.embedder is None and self.pool.embedder is not None:
            describe = self.pool.embedder.describe
            self.embedder = on_rank_zero(trainer, lambda: to_plain(describe()))  # checkpoints hold it

    def restore(self, restored: dict[str, Any]) -> None:
        """Take over a checkpoint in a run that has begun.

        Args:
            restored: As in `begin`.

        Raises:
            ValueError: If it is of other data or other arguments.
        """
        check_pool(restored["fingerprint"], self.fingerprint)
        self.rounds.load_state_dict(restored["rounds"])
        self.embedder = self.embedder if restored["embedder"] is None else restored["embedder"]

    def _on_rank_zero(self, trainer: Any, change: Callable[[], None]) -> None:
        """Change the rounds on rank 0 and take its state over on the others: k-means there may differ in a bit."""

        def changed() -> dict[str, Any]:
            change()
            return self.rounds.state_dict()

        state = on_rank_zero(trainer, changed) if trainer.world_size > 1 else changed()
        if not trainer.is_global_zero:
            self.rounds.load_state_dict(state)

    # -- rows -----------------------------------------------------------------------------------------------------
    @property
    def dataset_rows(self) -> Tensor:
        """Rows of the user's data set to train on now. Shape (R,), dtype int64."""
        return self.pool.dataset_rows(self.rounds.rows)

    # -- score and advance ----------------------------------------------------------------------------------------
    def advance(self, trainer: Any, module: nn.Module, scorer: Any) -> float:
        """Score the newest rows and draw the next round's.

        Args:
            trainer: The Trainer.
            module: The module in training.
            scorer: What rates its answers.

        Returns:
            The mean of the scores, NaN where none came out.

        Raises:
            ValueError: If the scorer returns something else than one number per row.
        """
        rows = self.rounds.new_rows
        scores = self._scores(trainer, module, scorer, rows)
        self._on_rank_zero(trainer, lambda: self.rounds.advance(rows, scores))
        known = scores[torch.isfinite(scores)]
        return float(known.mean()) if len(known) else float("nan")

    def check_answers(self, trainer: Any, module: nn.Module, scorer: Any) -> None:
        """Raise ValueError if the module cannot answer what a later round would ask it; before anything is trained.

        Args:
            trainer: The Trainer.
            module: The module in training.
            scorer: What rates its answers.
        """
        texts = self.pool.texts
        if self.rounds.done or texts is None or not getattr(scorer, "needs_generation", False):
            return
        module = unwrapped(module)
        if callable(getattr(module, "generate_responses", None)):
            return
        try:
            find_language_model(module)
            tokenizer = find_tokenizer(module, getattr(trainer, "datamodule", None))
        except TypeError as found:
            raise ValueError(str(found)) from found
        prompt_ids(tokenizer, texts.conversation(int(self.rounds.new_rows[0])), 2048)

    def _scores(self, trainer: Any, module: nn.Module, scorer: Any, rows: Tensor) -> Tensor:
        batches = torch.split(torch.arange(len(rows)), SCORED_AT_ONCE)[trainer.global_rank :: trainer.world_size]
        data: Any = getattr(trainer, "datamodule", None)

        def score() -> list[Tensor]:
            with evaluating(module, trainer), random_state_kept(device_of(module)):
                return [self._score_batch(rows[places], module, scorer, data, trainer) for places in batches]

        found = on_every_rank(trainer, score)
        empty = torch.zeros(0, dtype=torch.float64)
        mine = torch.stack([torch.cat([*places_of(batches), empty]), torch.cat([*found, empty])], dim=1)
        together = gather_rows(trainer, mine)
        scores = torch.full((len(rows),), float("nan"), dtype=torch.float64)
        scores[together[:, 0].long()] = together[:, 1]
        return scores

    def _score_batch(self, rows: Tensor, module: nn.Module, scorer: Any, data: Any, trainer: Any) -> Tensor:
        named = self.pool.dataset_rows(rows)
        texts, count = self.pool.texts, len(rows)
        if texts is None:
            if getattr(scorer, "needs_generation", False):
                remedy = (
                    "Pass a scorer that reads `examples.rows` only, or give the data set a method conversation(row)."
                )
                raise ValueError(problem("scorer", "one without generation where rows have no texts", scorer, remedy))
            return score_examples(scorer, Examples(named, [""] * count, [""] * count, [()] * count), module)
        conversations = [texts.conversation(row) for row in rows.tolist()]
        generated = None
        if getattr(scorer, "needs_generation", False):
            options = getattr(scorer, "generation", {})
            generated = generate_responses(module, conversations, data=data, trainer=trainer, **options)
        return score_examples(scorer, Examples.of(named, conversations, generated), module)


def places_of(batches: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the places of batches as float64, to travel beside their scores; exact below 2^53."""
    return [places.double() for places in batches]
