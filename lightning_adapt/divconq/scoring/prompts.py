"""Conversations as token rows of one model: chat template, cut from the left, padded to either side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_adapt._shared.checks import problem
from lightning_adapt.divconq.scoring.examples import split_answer
from lightning_adapt.divconq.text.conversation import Conversation, TokenisedConversation

__all__ = ["cut_left", "device_of", "fill", "padded", "prompt_ids", "render", "room_for_prompt"]


def render(tokenizer: Any, conversation: Conversation, *, tokenize: bool, add_generation_prompt: bool = False) -> Any:
    """Apply a tokenizer's chat template.

    Args:
        tokenizer: A tokenizer of `transformers` with a chat template.
        conversation: The turns.
        tokenize: True for token ids, False for text.
        add_generation_prompt: Whether the row ends with the opening of an assistant turn.

    Returns:
        A list of token ids, or a string.

    Raises:
        ValueError: If the tokenizer has no chat template, or the template refuses the conversation.
    """
    from jinja2.exceptions import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        remedy = (
            "Set tokenizer.chat_template to the format that the model is trained on, or give your module its own "
            "method generate_responses(conversations)."
        )
        raise ValueError(problem("tokenizer", "one with a chat template", tokenizer, remedy))
    messages = [{"role": turn.role, "content": turn.content} for turn in conversation]
    options = {"tokenize": tokenize, "add_generation_prompt": add_generation_prompt}
    if tokenize:
        options["return_dict"] = False  # transformers 5 returns a dict unless told not to
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except TemplateError as error:  # a template that knows no system role, say
        roles = [turn.role for turn in conversation]
        remedy = f"The template says: {error}"
        raise ValueError(problem("conversation", "one that the chat template accepts", roles, remedy)) from error


def prompt_ids(tokenizer: Any, conversation: Conversation, max_length: int) -> list[int]:
    """Return the token ids that ask for the last answer of a conversation.

    Args:
        tokenizer: A tokenizer of `transformers` with a chat template.
        conversation: The turns; the last assistant turn and what follows it are left out. A `TokenisedConversation` has
            its own ids, which are used as they are.
        max_length: Most tokens; more are cut from the left, the beginning-of-text token excepted.

    Returns:
        The ids, ending with the opening of an assistant turn; none where the answer is the first turn.

    Raises:
        ValueError: If the tokenizer has no chat template, or the template refuses the conversation.
    """
    if isinstance(conversation, TokenisedConversation):
        ids = conversation.prompt_ids
    else:
        asked = split_answer(conversation)[0]  # templates refuse no turn at all: nothing was asked, nothing is rendered
        ids = render(tokenizer, asked, tokenize=True, add_generation_prompt=True) if asked else []
    return cut_left([int(token) for token in ids], max_length, tokenizer.bos_token_id)


def fill(template: str, **texts: str) -> str:
    """Put texts in the places of a template, in one pass: a text that holds "{response}" itself is left alone.

    Args:
        template: Text with places such as {prompt}; other braces stay.
        texts: What goes into each place.

    Returns:
        The text.

    Example:
        >>> fill("Q {prompt} A {response}", prompt="{response}?", response="yes")
        'Q {response}? A yes'
    """
    return re.sub(r"\{(" + "|".join(texts) + r")\}", lambda place: texts[place[1]], template)


def cut_left(ids: list[int], max_length: int, first: int | None = None) -> list[int]:
    """Return the last tokens of a row; a beginning-of-text token stays in front.

    Args:
        ids: The row.
        max_length: Most tokens.
        first: The beginning-of-text token, if there is one.

    Returns:
        At most `max_length` ids.
    """
    if len(ids) <= max_length:
        return ids
    if first is not None and ids[0] == first and max_length > 1:
        return [first, *ids[len(ids) - max_length + 1 :]]
    return ids[len(ids) - max_length :]


def room_for_prompt(model: nn.Module, max_new_tokens: int, max_prompt_length: int) -> int:
    """Return the longest prompt that leaves room for an answer.

    Args:
        model: A language model; `config.max_position_embeddings` is its limit, if it has one.
        max_new_tokens: Length of the answer in tokens.
        max_prompt_length: What the user allows.

    Returns:
        The length in tokens.

    Raises:
        ValueError: If the model has no room for a prompt beside the answer.
    """
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return max_prompt_length
    if max_new_tokens >= positions:
        remedy = f"The model holds {positions} tokens, prompt included. Ask for shorter answers."
        raise ValueError(problem("max_new_tokens", f"below {positions}", max_new_tokens, remedy))
    return min(max_prompt_length, positions - max_new_tokens)


def padded(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token rows of different lengths as one block.

    The tokenizer's own padding settings are neither used nor changed.

    Args:
        rows: Token ids, one list per row.
        pad: Id that fills the gaps.
        device: Where the block goes.
        left: Whether the gaps are on the left, as generation needs it.

    Returns:
        The ids and the attention mask. Shape (B, T), dtype int64, on `device`.
    """
    width = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for position, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[position, place] = torch.tensor(row, dtype=torch.int64)
        mask[position, place] = 1
    return ids.to(device), mask.to(device)


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's first parameter or buffer is.

    Args:
        module: Any module.

    Returns:
        The device; the CPU for a module without any.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")
