"""Scorers: how much better the pool's answer is than the model's own, example by example (Eq. 4 of the paper).

Yu, Chen, Ahmadian, Fadaee, "Diversify and Conquer", arXiv 2409.11378. Means over clusters drive the weights of rounds.
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lightning_adapt._shared.checks import check_flag, problem
from lightning_adapt.divconq.embed.embedders import PrecomputedEmbedder, as_embedder
from lightning_adapt.divconq.scoring.examples import Examples
from lightning_adapt.divconq.scoring.judges import JudgeScorer, RewardScorer
from lightning_adapt.divconq.scoring.likelihood import PerplexityScorer

__all__ = [
    "EmbeddingRelevanceScorer",
    "JudgeScorer",
    "PerplexityScorer",
    "RewardScorer",
    "Scorer",
    "as_scorer",
    "score_examples",
]


@runtime_checkable
class Scorer(Protocol):
    """What the rounds call: any object, or plain function, with this signature.

    `needs_generation` says whether `examples.generated` must be filled; a function without it is taken not to.
    """

    needs_generation: bool

    def __call__(self, examples: Examples, module: nn.Module) -> torch.Tensor:
        """Return one score per example. Shape (B,), dtype float64; positive: the pool's answer is better."""


def as_scorer(value: Any) -> Scorer:
    """Return a scorer for what the user passed.

    Args:
        value: A scorer, a plain callable `(examples, module) -> scores`, or None for the default.

    Returns:
        The value itself, or an `EmbeddingRelevanceScorer` for None.

    Raises:
        TypeError: If the value cannot be called.
    """
    if value is None:
        return EmbeddingRelevanceScorer()
    if not callable(value) or isinstance(value, type):
        remedy = "Pass for instance EmbeddingRelevanceScorer(), or a function."
        raise TypeError(problem("scorer", "a callable (examples, module) -> scores", value, remedy))
    return cast("Scorer", value)


def score_examples(scorer: Any, examples: Examples, module: nn.Module) -> torch.Tensor:
    """Call a scorer and check what comes back.

    Args:
        scorer: A scorer or a plain callable `(examples, module) -> scores`.
        examples: The examples; with generated answers if the scorer's `needs_generation` is true.
        module: The module in training.

    Returns:
        One score per example, NaN for a row without a score. Shape (B,), dtype float64, on the CPU, without gradient.

    Raises:
        ValueError: If the number of scores is wrong, or one is infinite; the message names the row.

    Example:
        >>> from lightning_adapt.divconq.text.conversation import Turn
        >>> examples = Examples.of(torch.tensor([7]), [(Turn("user", "2 + 2?"), Turn("assistant", "4"))])
        >>> score_examples(lambda examples, module: [len(examples.responses[0])], examples, nn.Identity())
        tensor([1.], dtype=torch.float64)
    """
    scores = torch.as_tensor(scorer(examples, module), dtype=torch.float64).detach().cpu()
    if scores.shape != (len(examples),):
        remedy = "Return one number per example, in the order given; NaN for a row without a score."
        raise ValueError(problem("scorer", f"one with results of shape ({len(examples)},)", scores.shape, remedy))
    if scores.isinf().any():
        row = int(examples.rows[scores.isinf()][0])
        raise ValueError(problem("scorer", "one with finite results", "infinity", f"Row {row} is the first."))
    return scores


class EmbeddingRelevanceScorer:
    """Rates an answer by how close it is to its prompt: the default, and the one that drives garbage out.

    S = cos(e(prompt), e(pool's answer)) - cos(e(prompt), e(generated answer)). Topics whose answers have nothing to do
    with their prompts score low, without any model that rates text.

    When to use it: noisy pools, no reward model at hand. It sees relevance, not correctness: a fluent wrong answer
    scores like a right one.
    Cost: one generation and three embeddings per scored example; with `TfidfEmbedder` only the generation counts.

    Args:
        embedder: What turns text into vectors: an object with `encode`, or a model's name or folder for
            `TransformerEmbedder`; None to be set by the callback to its own one. One that was not fitted is fitted by
            each run, on its pool. Unlike a precomputed array it must be able to embed new texts.
        truncate: Whether the pool's answer is first cut to the length of the generated one.
        generation: Options of generation, such as {"max_new_tokens": 128}; see `generate_with_model`.

    Raises:
        TypeError: If `embedder` is no embedder.
        ValueError: If it is precomputed.
    """

    needs_generation = True

    def __init__(
        self, embedder: Any = None, *, truncate: bool = True, generation: dict[str, Any] | None = None
    ) -> None:
        self.generation = dict(generation or {})
        bare = embedder is None or (hasattr(embedder, "encode") and not isinstance(embedder, str))
        self.embedder = embedder if bare else as_embedder(embedder)
        if isinstance(self.embedder, PrecomputedEmbedder):
            remedy = "Pass TfidfEmbedder(), or the name of a model."
            raise ValueError(problem("embedder", "one that can embed new texts", embedder, remedy))
        self.truncate = check_flag("truncate", truncate, "Leave it out for True.")

    def with_embedder(self, embedder: Any) -> EmbeddingRelevanceScorer:
        """Return a scorer with the same settings and another embedder; this one may serve other runs.

        Args:
            embedder: What turns text into vectors.

        Returns:
            A new scorer.
        """
        return EmbeddingRelevanceScorer(embedder, truncate=self.truncate, generation=self.generation)

    def __call__(self, examples: Examples, module: nn.Module) -> torch.Tensor:  # noqa: ARG002  # the text is enough
        """Score examples.

        Args:
            examples: The examples, with generated answers.
            module: Not used.

        Returns:
            Differences of cosines in [-2, 2]. Shape (B,), dtype float64. A text without any known word counts as 0.

        Raises:
            ValueError: If there is no embedder, or no generated answers.
        """
        if self.embedder is None:
            remedy = "Pass for instance EmbeddingRelevanceScorer(TfidfEmbedder()), fitted on the pool's texts."
            raise ValueError(problem("embedder", "set before scoring", None, remedy))
        generated = examples.answers()
        gold = examples.rivals(self.truncate)
        count = len(examples)
        if not count:
            return torch.zeros(0, dtype=torch.float64)
        vectors = _unit(np.asarray(self.embedder.encode([*examples.prompts, *gold, *generated]), dtype=np.float64))
        prompt, good, own = vectors[:count], vectors[count : 2 * count], vectors[2 * count :]
        return torch.from_numpy((prompt * good).sum(1) - (prompt * own).sum(1))


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = np.sqrt((vectors**2).sum(1, keepdims=True))
    return vectors / np.where(length > 0, length, 1.0)
