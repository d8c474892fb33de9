"""Ratings of answers by a reward model: any sequence-classification model with one output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.divconq.scoring.loading import RatingModel
from lightning_adapt.divconq.scoring.prompts import cut_left, device_of, fill, padded, render
from lightning_adapt.divconq.text.conversation import Conversation, Turn, prompt_of

__all__ = ["RewardModel"]


class RewardModel:
    r"""Rates answers with a reward model, without gradients and in the model's own number format.

    A tokenizer with a chat template sees the whole conversation through it; the beginning-of-text token stands once.
    Without one, prompt and answer go in as a pair of texts, which is what cross-encoders expect; or through `template`.

    Args:
        model: A sequence-classification model of `transformers` with one output, or its name or folder.
        tokenizer: Its tokenizer; None to load it beside a model given by name.
        template: Format such as "###Human: {prompt}\n###Assistant: {response}" in place of the chat template.
        batch_size: Conversations per batch.
        max_length: Longest row in tokens; longer ones lose their beginning.
        device: Where a model given by name goes; None for the GPU, if there is one. A loaded model stays where it is.

    Raises:
        ModuleNotFoundError: If `transformers` is missing.
        TypeError: If a loaded model comes without a tokenizer.
        ValueError: If the model has more than one output, or an argument is out of range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        template: str | None = None,
        batch_size: int = 8,
        max_length: int = 2048,
        device: str | torch.device | None = None,
    ) -> None:
        self.batch_size = check_integer("batch_size", batch_size, "Leave it out for the default.", minimum=1)
        self.max_length = check_integer("max_length", max_length, "Leave it out for the default.", minimum=2)
        if template is not None and not ("{prompt}" in template and "{response}" in template):
            remedy = 'Pass for instance "###Human: {prompt}\\n###Assistant: {response}".'
            raise ValueError(problem("template", "a text with {prompt} and {response}", template, remedy))
        self.template = template
        self._rater = RatingModel("classify", model, tokenizer, device)
        self.tokenizer = self._rater.tokenizer
        outputs = getattr(self._rater.model.config, "num_labels", 1)
        if outputs != 1:
            remedy = "Load it with num_labels=1, or pass a reward model; a classifier's logits are no rating."
            raise ValueError(problem("model", "a model with one output", f"one with {outputs}", remedy))

    def rate(self, contexts: Sequence[Conversation], answers: Sequence[str]) -> torch.Tensor:
        """Rate one answer per conversation.

        Args:
            contexts: The turns before the answer.
            answers: The answers.

        Returns:
            Raw output of the model, higher is better. Shape (B,), dtype float64, on the CPU.

        Raises:
            ValueError: If the model gives NaN or infinity, or the chat template refuses a conversation.
        """
        # without a padding id the model finds the last token of a single row only
        alone = _pad_token(self._rater.model) is None
        size = 1 if alone else self.batch_size
        ratings = [
            self._batch(contexts[start : start + size], answers[start : start + size])
            for start in range(0, len(answers), size)
        ]
        values = torch.cat(ratings) if ratings else torch.zeros(0, dtype=torch.float64)
        if not values.isfinite().all():
            first = int((~values.isfinite()).nonzero()[0])
            remedy = f"Answer {first} of this call is the first; try the model in float32."
            raise ValueError(problem("model", "one with finite ratings", float(values[first]), remedy))
        return values

    def _batch(self, contexts: Sequence[Conversation], answers: Sequence[str]) -> torch.Tensor:
        model = self._rater.placed()
        with evaluating(model):
            output: torch.Tensor = model(**self._inputs(contexts, answers, device_of(model))).logits
        return output.reshape(len(answers)).double().cpu()

    def _inputs(
        self, contexts: Sequence[Conversation], answers: Sequence[str], device: torch.device
    ) -> dict[str, torch.Tensor]:
        if self.template is None and not getattr(self.tokenizer, "chat_template", None):
            return self._pairs([prompt_of(context) for context in contexts], list(answers), device)
        rows = [self._ids(context, answer) for context, answer in zip(contexts, answers, strict=True)]
        pad = _pad_token(self._rater.model)
        ids, mask = padded(rows, 0 if pad is None else pad, device)
        return {"input_ids": ids, "attention_mask": mask}

    def _ids(self, context: Conversation, answer: str) -> list[int]:
        if self.template is not None:
            ids = self.tokenizer(fill(self.template, prompt=prompt_of(context), response=answer))["input_ids"]
        else:  # the template writes the beginning-of-text token itself where the model wants it
            ids = render(self.tokenizer, (*context, Turn("assistant", answer)), tokenize=True)
        ids = [int(token) for token in ids]
        begin = self.tokenizer.bos_token_id
        while begin is not None and ids[:2] == [begin, begin]:
            ids = ids[1:]
        return cut_left(ids, self.max_length, begin)

    def _pairs(self, prompts: list[str], answers: list[str], device: torch.device) -> dict[str, torch.Tensor]:
        several = len(answers) > 1
        options = {"padding": several, "truncation": "longest_first", "max_length": self.max_length}
        encoded = self.tokenizer(prompts, answers, return_tensors="pt", **options)
        return {name: tensor.to(device) for name, tensor in encoded.items()}


def _pad_token(model: Any) -> int | None:
    config = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    pad = getattr(config, "pad_token_id", None)
    return None if pad is None else int(pad)
