"""Quality from the digit that a language model would answer with, as Deita's scorers do (arXiv 2312.15685)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.divconq.scoring.loading import RatingModel
from lightning_adapt.divconq.scoring.prompts import cut_left, device_of, fill, padded
from lightning_adapt.divconq.scoring.quality_base import Quality
from lightning_adapt.divconq.text.conversation import Conversation

__all__ = ["COMPLEXITY_TEMPLATE", "QUALITY_TEMPLATE", "DigitTokenQuality", "digit_token_ids", "question_answer_pairs"]

# what hkust-nlp/deita-quality-scorer and hkust-nlp/deita-complexity-scorer were trained to continue
QUALITY_TEMPLATE = (
    "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. \n"
    " #Question#:\n{instruction}\n#Response#:\n{output} \n##Quality: "
)
COMPLEXITY_TEMPLATE = (
    "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
    "##Query: {instruction}  \n##Complexity: "
)
DIGITS = ("1", "2", "3", "4", "5", "6")


class DigitTokenQuality(Quality):
    """Asks a causal language model for a digit and takes the expected one.

    Logits of the digit tokens at the first generated position, softmax over these alone, expected value: in [1, 6] for
    "1".."6". With a second scorer the product of both, Deita's evol score. Turns of a conversation are summed. Differs
    from Deita's code in keeping all of it in floating point, and from the code of Diversify and Conquer in asking the
    complexity model for the complexity.

    When to use it: with Deita's two 7B scorers, or any instruction model strong enough to grade; a small random model
    gives noise. Long conversations score high by their number of turns alone.
    Cost: one forward pass per turn and scorer, no generation. Two 7B models over a large pool are the dearest part of a
    selection: run it once and keep the result as a column.

    Args:
        model: A causal language model of `transformers`, or its name or folder.
        tokenizer: Its tokenizer; None to load it beside a model given by name.
        template: Prompt with {instruction} and {output}.
        complexity_model: Second scorer, model or name; None for quality alone.
        complexity_tokenizer: Its tokenizer; None to load it beside a model given by name.
        complexity_template: Its prompt with {instruction}.
        digits: The answers asked about; the values are their numbers. Each must be one token.
        batch_size: Rows per batch.
        max_length: Longest prompt in tokens; the question and answer in it are cut, not the words around them.
        device: Where models given by name go; None for the GPU, if there is one.

    Raises:
        TypeError: If a loaded model comes without a tokenizer.
        ValueError: If a digit is not one token, a template lacks its place, or an argument is out of range.
    """

    name = "digit token"
    needs_texts = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        template: str = QUALITY_TEMPLATE,
        complexity_model: Any = None,
        complexity_tokenizer: Any = None,
        complexity_template: str = COMPLEXITY_TEMPLATE,
        digits: Sequence[str] = DIGITS,
        batch_size: int = 8,
        max_length: int = 2048,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(batch_size)
        max_length = check_integer("max_length", max_length, "Leave it out for the default.", minimum=16)
        _check_template("template", template, "{instruction}", "{output}")
        first = RatingModel("causal", model, tokenizer, device)
        self._quality = _DigitGrader(first, template, digits, max_length)
        self._complexity: _DigitGrader | None = None
        if complexity_model is not None:
            _check_template("complexity_template", complexity_template, "{instruction}")
            second = RatingModel("causal", complexity_model, complexity_tokenizer, device)
            self._complexity = _DigitGrader(second, complexity_template, digits, max_length)

    def rate(self, texts: Any, dataset: Any, rows: torch.Tensor) -> torch.Tensor:
        """Rate a batch of rows; see `Quality.rate`.

        Args:
            texts: The pool's texts.
            dataset: Not used.
            rows: Row numbers. Shape (n,), dtype int64.

        Returns:
            Sums over turns; 0 for a conversation without an answered question. Shape (n,), dtype float64.
        """
        del dataset
        turns = [question_answer_pairs(texts.conversation(row)) for row in rows.tolist()]
        pairs = [pair for one in turns for pair in one]
        owner = torch.tensor([place for place, one in enumerate(turns) for _ in one], dtype=torch.int64)
        values = self._quality.grades(pairs, self.batch_size)
        if self._complexity is not None:
            values = values * self._complexity.grades(pairs, self.batch_size)
        return torch.zeros(len(rows), dtype=torch.float64).index_add_(0, owner, values)


class _DigitGrader:
    """One model with one prompt: expected digit for each question and answer."""

    def __init__(self, rater: RatingModel, template: str, digits: Sequence[str], max_length: int) -> None:
        self.rater, self.tokenizer = rater, rater.tokenizer
        self.template, self.max_length = template, max_length
        self.ids = torch.tensor(digit_token_ids(rater.tokenizer, digits))
        self.values = torch.tensor([float(digit) for digit in digits], dtype=torch.float64)

    def grades(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> torch.Tensor:
        """Return the expected digit of each pair. Shape (P,), dtype float64."""
        found = [torch.zeros(0, dtype=torch.float64)]
        model = self.rater.placed()
        ids = self.ids.to(device_of(model))
        with evaluating(model):
            for start in range(0, len(pairs), batch_size):
                rows = [self._ids(*pair) for pair in pairs[start : start + batch_size]]
                logits = _last_logits(model, rows, self._pad)[:, ids]
                found.append(logits.double().softmax(1).cpu() @ self.values)
        return torch.cat(found)

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)  # to the right of what is read, so that any id will do

    def _ids(self, question: str, answer: str) -> list[int]:
        ids = self._encode(question, answer)
        surplus = len(ids) - self.max_length
        while surplus > 0 and (question or answer):  # the longer text gives; what the model is asked stays whole
            if len(answer) >= len(question):
                answer = answer[: _shortened(answer, surplus, len(ids))]
            else:
                question = question[: _shortened(question, surplus, len(ids))]
            ids = self._encode(question, answer)
            surplus = len(ids) - self.max_length
        return cut_left(ids, self.max_length, self.tokenizer.bos_token_id)

    def _encode(self, question: str, answer: str) -> list[int]:
        text = fill(self.template, instruction=question, output=answer)
        return [int(token) for token in self.tokenizer(text)["input_ids"]]


def question_answer_pairs(conversation: Conversation) -> list[tuple[str, str]]:
    """Return each assistant turn with the user turns since the one before it.

    Args:
        conversation: The turns; system and tool turns are left out, as Deita's scorers were not trained on any.

    Returns:
        Pairs (question, answer).

    Example:
        >>> from lightning_adapt.divconq.text.conversation import Turn
        >>> question_answer_pairs((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")))
        [('a', 'b')]
    """
    pairs, asked = [], []
    for role, content in conversation:
        if role == "user":
            asked.append(content)
        elif role == "assistant":
            pairs.append(("\n".join(asked), content))
            asked = []
    return pairs


def digit_token_ids(tokenizer: Any, digits: Sequence[str] = DIGITS) -> list[int]:
    """Return the token id of each digit.

    Args:
        tokenizer: A tokenizer of `transformers`.
        digits: The digits, or tokens as the vocabulary spells them.

    Returns:
        One id per digit.

    Raises:
        ValueError: If a digit is not one token of its own.
    """
    found = [_single_token(tokenizer, digit) for digit in digits]
    missing = [digit for digit, token in zip(digits, found, strict=True) if token is None]
    ids = [token for token in found if token is not None]
    if missing or len(set(ids)) != len(digits) or len(ids) < 2:
        remedy = "This tokenizer cannot be asked for a digit: use another model, or a RewardQuality."
        received = f"no single token for {', '.join(missing)}" if missing else list(digits)
        raise ValueError(problem("digits", "two or more tokens of the tokenizer, all different", received, remedy))
    return ids


def _single_token(tokenizer: Any, digit: str) -> int | None:
    token = tokenizer.convert_tokens_to_ids(digit)
    if token is not None and token != tokenizer.unk_token_id:
        return int(token)
    ids = tokenizer.encode(digit, add_special_tokens=False)
    return int(ids[0]) if len(ids) == 1 and ids[0] != tokenizer.unk_token_id else None


def _last_logits(model: Any, rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """Return the logits after each row's last token. Shape (B, vocabulary)."""
    ids, mask = padded(rows, pad, device_of(model))  # gaps on the right: positions count from 0 in any architecture
    last = mask.sum(1) - 1
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:  # spares most of a large vocabulary's logits
        kept, last = torch.unique(last, return_inverse=True)
        options["logits_to_keep"] = kept
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, **options).logits
    return logits[torch.arange(len(rows), device=logits.device), last]


def _shortened(text: str, surplus: int, tokens: int) -> int:
    """Return how many characters to keep: about as many fewer as the surplus tokens have, at least one fewer."""
    return max(0, min(len(text) - 1, int(len(text) - surplus * max(1.0, len(text) / tokens))))


def _check_template(argument: str, template: str, *places: str) -> None:
    missing = [place for place in places if place not in template]
    if missing:
        raise ValueError(problem(argument, f"a text with {' and '.join(places)}", template, "Add what is missing."))
