"""Drawing the next code: temperature, top-k, top-p, and random numbers that a stream shares with no other."""

# dimension suffixes:
# B batch, T audio steps, Q codebooks, V audio ids

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_fraction, check_integer, check_not_negative, problem
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt._shared.tensor_checks import check_tensor

__all__ = ["Drawing", "SamplingOptions", "draw", "kept_probabilities", "stream_key", "stream_uniforms"]

_BELOW_ONE = 1.0 - 2.0**-40  # a larger number times the sum of the probabilities could round to that sum


class Drawing(TypedDict, total=False):
    """The arguments of `SamplingOptions`, for signatures that pass them on."""

    temperature: float
    top_k: int | None
    top_p: float
    first_greedy_codebook: int | None


@dataclass(frozen=True)
class SamplingOptions:
    """How codes are drawn.

    Attributes:
        temperature: Divides the logits, >= 0; 0 always takes the most probable code.
        top_k: Draw among this many of the most probable codes; more than there are, or None, for all.
        top_p: Draw among the fewest most probable codes that together have this probability, in (0, 1]; 1 for all.
        first_greedy_codebook: Codebooks from this one on (0-based) take the most probable code; the authors draw
            codebook 0 alone. None draws all.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = 100
    top_p: float = 1.0
    first_greedy_codebook: int | None = 1

    def __post_init__(self) -> None:
        check_not_negative("temperature", self.temperature, "Pass 1.0, or 0 for the most probable code.")
        check_fraction("top_p", self.top_p, "Pass 1.0 for all codes.")
        for name, value in (("top_k", self.top_k), ("first_greedy_codebook", self.first_greedy_codebook)):
            if value is not None:
                check_integer(name, value, "Pass None for all.", minimum=1 if name == "top_k" else 0)

    def drawn_codebooks(self, n_codebooks: int) -> int:
        """Return how many codebooks, from the first one on, are drawn rather than taken greedily.

        Args:
            n_codebooks: Q.

        Returns:
            A number in 0..Q.
        """
        if self.temperature == 0:
            return 0
        return n_codebooks if self.first_greedy_codebook is None else min(self.first_greedy_codebook, n_codebooks)


def kept_probabilities(logits: Tensor, options: SamplingOptions) -> Tensor:
    """Return the probabilities to draw from, after temperature, top-k and top-p, in this order.

    Codes that tie at the border of top-k or top-p are all kept, so the result does not depend on an order of sorting.

    Args:
        logits: Scores; -inf for what must not be drawn, at least one finite per row. Shape (..., V).
        options: `temperature` > 0, `top_k` and `top_p`.

    Returns:
        Probabilities, 0 for what is left out. Shape (..., V), dtype float64, each row of sum 1.

    Example:
        >>> logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
        >>> kept_probabilities(logits, SamplingOptions(top_k=2)).round(decimals=3).tolist()
        [0.667, 0.333, 0.0, 0.0]
        >>> kept_probabilities(logits, SamplingOptions(top_p=0.8)).round(decimals=3).tolist()
        [0.5, 0.25, 0.125, 0.125]
    """
    check_tensor("logits", logits, "real")
    if not isinstance(options, SamplingOptions):
        raise TypeError(problem("options", "SamplingOptions", options, "Pass SamplingOptions(top_k=50), say."))
    scores = logits.double()
    scores = (scores - scores.amax(-1, keepdim=True)) / options.temperature  # the smallest temperature is no NaN then
    if options.top_k is not None and options.top_k < scores.shape[-1]:
        border = scores.topk(options.top_k, dim=-1, sorted=True).values[..., -1:]
        scores = scores.masked_fill(scores < border, -math.inf)
    probabilities = scores.softmax(-1)
    if options.top_p < 1:
        ordered = probabilities.sort(dim=-1, descending=True).values
        before = _running_sums(ordered) - ordered  # of the codes that are more probable
        border = ordered.masked_fill(before >= options.top_p, math.inf).amin(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < border, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def draw(logits: Tensor, uniforms: Tensor, options: SamplingOptions) -> Tensor:
    """Draw one code per row: the first whose summed probability exceeds the row's number.

    Args:
        logits: Scores. Shape (..., V).
        uniforms: Numbers in [0, 1). Shape (...), dtype float64.
        options: How to draw; temperature > 0.

    Returns:
        Ids. Shape (...), dtype int64.
    """
    sums = _running_sums(kept_probabilities(logits, options))
    wanted = uniforms.clamp(max=_BELOW_ONE).unsqueeze(-1) * sums[..., -1:]
    return (sums <= wanted).sum(-1)


def _running_sums(values: Tensor) -> Tensor:
    if values.is_cuda and torch.are_deterministic_algorithms_enabled():  # torch then refuses them on a GPU
        return values.cpu().cumsum(-1).to(values.device)
    return values.cumsum(-1)


def stream_key(seed: int, candidate: int = 0) -> int:
    """Return the key of a stream's random numbers.

    Args:
        seed: Of the text: text i of a call with `seed=s` has the seed s + i.
        candidate: Which of `n_best` attempts.

    Returns:
        A key in 0..2^64-1.
    """
    return derive_key(seed, candidate)


def stream_uniforms(keys: Sequence[int], n_steps: int, n_codebooks: int) -> Tensor:
    """Return the random numbers of streams: of (key, step, codebook) alone, whatever is drawn beside them and where.

    Args:
        keys: A key per stream.
        n_steps: T.
        n_codebooks: Q, of the model.

    Returns:
        Numbers in [0, 1). Shape (B, T, Q), dtype float64, on the CPU.
    """
    positions = torch.arange(n_steps * n_codebooks).reshape(n_steps, n_codebooks)
    return torch.stack([uniform(positions, key) for key in keys]) if keys else torch.empty(0, n_steps, n_codebooks)
