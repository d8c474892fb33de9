"""Scorers that ask somebody else which answer is better: a function of the user's, or a reward model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lightning_adapt._shared.checks import check_flag, problem
from lightning_adapt.divconq.scoring.examples import Examples, split_answer
from lightning_adapt.divconq.scoring.ratings import as_number
from lightning_adapt.divconq.scoring.reward import RewardModel

__all__ = ["JudgeScorer", "RewardScorer"]


class JudgeScorer:
    """Rates answers with a function of yours, such as a call to a large model or a rule.

    S = fn(prompt, pool's answer) - fn(prompt, generated answer).

    When to use it: a judge is at hand that tells good from bad better than any local model; rules for a narrow task
    (does the code run, is the number right).
    Cost: one generation and two calls of `fn` per scored example, one after the other; a paid judge is paid twice per
    example and round.

    Args:
        fn: `(prompt, response) -> rating`, higher is better, on any scale. Retries are its own business.
        truncate: Whether the pool's answer is first cut to the length of the generated one. Switch it off for a
            judge that must see whole answers, and allow generated ones the same length.
        generation: Options of generation, such as {"max_new_tokens": 128}; see `generate_with_model`.
    """

    needs_generation = True

    def __init__(
        self, fn: Callable[[str, str], float], *, truncate: bool = True, generation: dict[str, Any] | None = None
    ) -> None:
        if not callable(fn):
            raise TypeError(problem("fn", "a callable (prompt, response) -> rating", fn, "Pass a function."))
        self.fn = fn
        self.generation = dict(generation or {})
        self.truncate = check_flag("truncate", truncate, "Leave it out for True.")

    def __call__(self, examples: Examples, module: nn.Module) -> torch.Tensor:  # noqa: ARG002  # the text is enough
        """Score examples.

        Args:
            examples: The examples, with generated answers.
            module: Not used.

        Returns:
            Differences of ratings. Shape (B,), dtype float64.

        Raises:
            RuntimeError: If the function raises; the message names the row of the pool, the cause is attached.
            ValueError: If there are no generated answers, or a rating is no finite number.
        """
        generated = examples.answers()
        gold = examples.rivals(self.truncate)
        scores = [
            self._rating(row, prompt, good) - self._rating(row, prompt, own)
            for row, prompt, good, own in zip(examples.rows.tolist(), examples.prompts, gold, generated, strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float64)

    def _rating(self, row: int, prompt: str, response: str) -> float:
        try:
            rating: object = self.fn(prompt, response)
        except Exception as error:
            raise RuntimeError(f"`fn` failed on row {row} of the pool: {type(error).__name__}: {error}") from error
        number = as_number(rating)
        if number is None or not math.isfinite(number):
            remedy = f"It came for row {row} of the pool. Return a number for every answer, empty ones included."
            raise ValueError(problem("fn", "a function that returns a finite number", rating, remedy))
        return number


class RewardScorer:
    r"""Rates answers with a reward model, the paper's best scorer.

    S = r(prompt, pool's answer) - r(prompt, generated answer), the model's raw output.

    When to use it: a reward model of the pool's language and domain fits beside the model in training.
    Cost: one generation and two forward passes of the reward model per scored example, and its memory.

    Args:
        model: A sequence-classification model of `transformers` with one output, or its name or folder.
        tokenizer: Its tokenizer; None to load it beside a model given by name.
        truncate: Whether the pool's answer is first cut to the length of the generated one.
        template: Format such as "###Human: {prompt}\n###Assistant: {response}" in place of the chat template.
        batch_size: Conversations per batch.
        max_length: Longest row in tokens; longer ones lose their beginning.
        device: Where a model given by name goes; None for the GPU, if there is one. A loaded model stays where it is.
        generation: Options of generation, such as {"max_new_tokens": 128}; see `generate_with_model`.

    Raises:
        TypeError: If a loaded model comes without a tokenizer.
        ValueError: If the model has more than one output, or an argument is out of range.
    """

    needs_generation = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        truncate: bool = True,
        template: str | None = None,
        batch_size: int = 8,
        max_length: int = 2048,
        device: str | None = None,
        generation: dict[str, Any] | None = None,
    ) -> None:
        self.generation = dict(generation or {})
        self.truncate = check_flag("truncate", truncate, "Leave it out for True.")
        options: dict[str, Any] = {"template": template, "batch_size": batch_size, "max_length": max_length}
        self.reward = RewardModel(model, tokenizer, device=device, **options)

    def __call__(self, examples: Examples, module: nn.Module) -> torch.Tensor:  # noqa: ARG002  # has its own model
        """Score examples.

        Args:
            examples: The examples, with generated answers.
            module: Not used.

        Returns:
            Differences of ratings. Shape (B,), dtype float64.

        Raises:
            ValueError: If there are no generated answers, or the model gives NaN.
        """
        generated = examples.answers()
        contexts = [split_answer(conversation)[0] for conversation in examples.conversations]
        gold = self.reward.rate(contexts, examples.rivals(self.truncate))
        return gold - self.reward.rate(contexts, generated)
