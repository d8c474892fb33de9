"""How likely a causal language model finds an answer: mean loss of its tokens given the prompt, and its scorer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lightning_adapt._shared.checks import check_integer
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.divconq.scoring.examples import Examples
from lightning_adapt.divconq.scoring.generate import find_language_model, find_tokenizer
from lightning_adapt.divconq.scoring.prompts import device_of, padded, prompt_ids, room_for_prompt
from lightning_adapt.divconq.text.conversation import Conversation

__all__ = ["PerplexityScorer", "response_nll"]


class PerplexityScorer:
    """Rates an answer by how unlikely the model finds it (Eq. 7 of the paper). Warns: it pulls garbage in.

    S = NLL(pool's answer) - NLL(generated answer) = log PPL(pool's) - log PPL(generated), mean over the answer's tokens
    given the prompt. Differs from the paper, which counts the prompt's tokens, too.

    When to use it: to repeat the paper's comparison, or on a pool known to be clean, where "hard" means "worth
    learning". Once the model has learnt the clean answers, random words are the hardest text of all, so clusters of
    garbage gain weight. Answers by the likeliest token are often repetitions, likelier than any text; the authors draw
    them instead: generation={"do_sample": True}.
    Cost: one generation and two forward passes per scored example.

    Args:
        tokenizer: Tokenizer of the model in training; None to take the module's.
        batch_size: Answers per forward pass.
        max_length: Longest row in tokens, prompt included; the prompt is cut from the left, then the answer at its end.
        generation: Options of generation, such as {"max_new_tokens": 128}; see `generate_with_model`.
    """

    needs_generation = True

    def __init__(
        self,
        tokenizer: Any = None,
        *,
        batch_size: int = 8,
        max_length: int = 2048,
        generation: dict[str, Any] | None = None,
    ) -> None:
        self.generation = dict(generation or {})
        self.tokenizer = tokenizer
        self.batch_size = check_integer("batch_size", batch_size, "Leave it out for the default.", minimum=1)
        self.max_length = check_integer("max_length", max_length, "Leave it out for the default.", minimum=2)
        warnings.warn(
            "PerplexityScorer raises the weight of clusters that the model finds hard, garbage first. Use "
            "EmbeddingRelevanceScorer or RewardScorer unless the pool is known to be clean.",
            UserWarning,
            stacklevel=2,
        )

    def __call__(self, examples: Examples, module: nn.Module) -> torch.Tensor:
        """Score examples.

        Args:
            examples: The examples, with generated answers.
            module: The module in training; its language model is asked.

        Returns:
            Differences in nats per token. Shape (B,), dtype float64; NaN where one of the answers is empty.

        Raises:
            TypeError: If the module has no language model or no tokenizer.
            ValueError: If there are no generated answers.
        """
        generated = examples.answers()
        model = find_language_model(module)
        tokenizer = find_tokenizer(module) if self.tokenizer is None else self.tokenizer
        options = {"batch_size": self.batch_size, "max_length": self.max_length}
        gold = response_nll(model, tokenizer, examples.conversations, examples.responses, **options)
        return gold - response_nll(model, tokenizer, examples.conversations, generated, **options)


def response_nll(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    responses: Sequence[str],
    *,
    batch_size: int = 8,
    max_length: int = 2048,
) -> torch.Tensor:
    """Return the mean negative log-likelihood of each answer's tokens, prompt and padding not counted.

    The end-of-text token is not counted either: a generated answer that was cut off has none.

    Args:
        model: A causal language model of `transformers`.
        tokenizer: Its tokenizer, with a chat template.
        conversations: The conversations; their own last answer is left out.
        responses: The answers to judge, one per conversation.
        batch_size: Answers per forward pass; results do not depend on it.
        max_length: Longest row in tokens; the prompt is cut from the left, then the answer at its end.

    Returns:
        Nats per token. Shape (B,), dtype float64, on the CPU; NaN for an answer without tokens.

    Raises:
        ValueError: If the tokenizer has no chat template.
    """
    max_length = room_for_prompt(model, 0, max_length)
    device = device_of(model)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    found = torch.full((len(responses),), torch.nan, dtype=torch.float64)
    with evaluating(model):
        for start in range(0, len(responses), batch_size):
            stop = min(start + batch_size, len(responses))
            pairs = [_row(tokenizer, conversations[i], responses[i], max_length) for i in range(start, stop)]
            ids, mask = padded([row for row, _ in pairs], pad, device)
            if ids.shape[1] < 2:
                continue
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for position, (row, first) in enumerate(pairs):
                if first < len(row):
                    found[start + position] = _mean_loss(logits[position], ids[position], first, len(row))
    return found


def _row(tokenizer: Any, conversation: Conversation, response: str, max_length: int) -> tuple[list[int], int]:
    """Return prompt and answer as one row, and where the answer begins."""
    answer = [int(token) for token in tokenizer.encode(response, add_special_tokens=False)][: max_length - 1]
    prompt = prompt_ids(tokenizer, conversation, max_length - len(answer)) or [_first(tokenizer)]
    return prompt + answer, len(prompt)


def _first(tokenizer: Any) -> int:
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)  # the first token needs one before it to be predicted
    return int(next(token for token in known if token is not None))


def _mean_loss(logits: torch.Tensor, ids: torch.Tensor, first: int, end: int) -> float:
    # the token at position t is predicted at t - 1; float32 at least, as bfloat16 sums lose three digits
    loss = F.cross_entropy(logits[first - 1 : end - 1].float(), ids[first:end], reduction="none")
    return float(loss.double().mean())
