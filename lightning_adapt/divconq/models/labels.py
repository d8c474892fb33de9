"""Token rows of conversations with labels on what the assistant writes and nowhere else; no Lightning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt.divconq.models.templates import has_generation_markers, resolve_template
from lightning_adapt.divconq.text.conversation import Conversation

__all__ = ["ChatEncoder", "Encoded", "with_template"]

_PROBE = (
    {"role": "user", "content": "Ask"},
    {"role": "assistant", "content": "First answer"},
    {"role": "user", "content": "More"},
    {"role": "assistant", "content": "Second answer"},
)
_MERGED = 4  # tokens at the end of a prefix that may merge with what follows it, such as line breaks

Bools = NDArray[np.bool_]
Message = dict[str, str]


class Encoded(NamedTuple):
    """One conversation as a token row.

    Attributes:
        input_ids: Token ids. Shape (T,), dtype int32.
        supervised: Whether a token is one that the assistant writes. Shape (T,), dtype bool.
    """

    input_ids: NDArray[np.int32]
    supervised: Bools


class ChatEncoder:
    """Turns conversations into token rows, once, through the chat template, and knows which tokens are the assistant's.

    Supervised are the tokens of all assistant turns with the token that ends a turn, and nothing else. They are found
    by the template's generation markers; without these, or if they mark something else on a trial, by the length of
    each conversation's beginnings, rendered turn by turn, which are checked to be beginnings of the whole. In that way
    an assistant turn that comes before any other turn is not supervised.

    Args:
        tokenizer: A tokenizer of `transformers`; not changed.
        chat_template: "plain", "chatml", a Jinja template, or None for the tokenizer's own.
        max_length: Longest row in tokens; what is beyond is cut off.

    Raises:
        TypeError: If `max_length` is no whole number.
        ValueError: If there is no chat template, or `max_length` is below 2.
    """

    def __init__(self, tokenizer: Any, *, chat_template: str | None = None, max_length: int = 2048) -> None:
        self.tokenizer = tokenizer
        self.template = resolve_template(tokenizer, chat_template)
        self.max_length = check_integer("max_length", max_length, "Pass 2048.", minimum=2)
        self.route: Literal["markers", "prefix"] = "markers" if self._markers_work() else "prefix"

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded]:
        """Encode conversations, each cut to `max_length`.

        Args:
            conversations: The conversations; at least one turn each.

        Returns:
            One row each; in some of them nothing may be supervised.

        Raises:
            ValueError: If the template refuses a conversation, or rewrites earlier turns where it has no markers. Which
                one it is shows when they are encoded one by one.
        """
        from jinja2.exceptions import TemplateError

        batch = [[{"role": turn.role, "content": turn.content} for turn in turns] for turns in conversations]
        try:
            rows = self._by_markers(batch) if self.route == "markers" else [self._by_prefix(one) for one in batch]
        except TemplateError as found:
            roles = [message["role"] for message in batch[0]]
            remedy = f"The template says: {found}"
            raise ValueError(problem("conversation", "one that the chat template accepts", roles, remedy)) from found
        cut = self.max_length
        return [Encoded(np.asarray(ids[:cut], np.int32), mask[:cut].copy()) for ids, mask in rows]

    # -- by markers -----------------------------------------------------------------------------------------------
    def _markers_work(self) -> bool:
        from jinja2.exceptions import TemplateError

        if not (has_generation_markers(self.template) and self.tokenizer.is_fast):
            return False
        try:
            ids, mask = self._by_markers([list(_PROBE)])[0]
        except TemplateError:  # it may not know such roles; then the conversations will show it
            return True
        written = self.tokenizer.decode(np.asarray(ids)[mask].tolist())
        answers, questions = (_PROBE[1]["content"], _PROBE[3]["content"]), (_PROBE[0]["content"], _PROBE[2]["content"])
        return all(text in written for text in answers) and not any(text in written for text in questions)

    def _by_markers(self, batch: list[list[Message]]) -> list[tuple[list[int], Bools]]:
        made = self.tokenizer.apply_chat_template(
            batch,
            chat_template=self.template,
            tokenize=True,
            return_dict=True,  # the default in transformers 5 only
            return_assistant_tokens_mask=True,
            tokenizer_kwargs={
                "verbose": False,  # no word about rows that are cut right after
                "return_offsets_mapping": True,
            },
        )
        rows = zip(made["input_ids"], made["assistant_masks"], made["offset_mapping"], strict=True)
        return [(ids, self._with_ends(ids, np.asarray(mask, bool), np.asarray(spans))) for ids, mask, spans in rows]

    def _with_ends(self, ids: list[int], mask: Bools, spans: NDArray[np.int64]) -> Bools:
        """Add what belongs to the end of an answer but was not marked.

        A last character of several tokens is marked in its first one only (read in transformers 5.23), and a template
        may close its block before the end-of-turn token.
        """
        is_end = np.asarray(ids) == self._end
        for last in np.flatnonzero(mask[:-1] & ~mask[1:]).tolist():
            after = last + 1
            while after < len(ids) and spans[after, 0] < spans[last, 1]:
                after += 1
            after += after < len(ids) and bool(is_end[after]) and not is_end[after - 1]
            mask[last:after] = True
        return mask

    @property
    def _end(self) -> int:
        token = self.tokenizer.eos_token_id
        return -1 if token is None else int(token)

    # -- by prefixes ----------------------------------------------------------------------------------------------
    def _by_prefix(self, messages: list[Message]) -> tuple[list[int], Bools]:
        text = self._render(messages)
        ids = self._tokenize(text)
        mask = np.zeros(len(ids), bool)
        for place, message in enumerate(messages):
            if message["role"] != "assistant" or place == 0:
                continue
            start = self._common(self._render(messages[:place], opens=True), text, ids)
            end = self._common(self._render(messages[: place + 1]), text, ids)
            mask[start : self._without_tail(ids, start, end)] = True
        return ids, mask

    def _render(self, messages: list[Message], *, opens: bool = False) -> str:
        options = {"chat_template": self.template, "tokenize": False, "add_generation_prompt": opens}
        return str(self.tokenizer.apply_chat_template(messages, **options))

    def _tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _common(self, beginning: str, text: str, ids: list[int]) -> int:
        """Return how many tokens of the row belong to its beginning."""
        tokens = self._tokenize(beginning)
        shorter = min(len(tokens), len(ids))
        differs = np.flatnonzero(np.asarray(tokens[:shorter]) != np.asarray(ids[:shorter]))
        common = int(differs[0]) if len(differs) else shorter
        if not text.startswith(beginning) or common < len(tokens) - _MERGED:
            remedy = (
                "It rewrites or drops earlier turns, so that the assistant's tokens cannot be told from the rest. "
                'Pass chat_template="plain" or "chatml", or a template with {% generation %} blocks around what the '
                "assistant writes."
            )
            allowed = "one that extends a conversation without changing its beginning"
            raise ValueError(problem("chat_template", allowed, self.template, remedy))
        return common

    def _without_tail(self, ids: list[int], start: int, end: int) -> int:
        """Return the end of a turn without the white space that a template puts behind the end-of-turn token."""
        special = {self._end, *self.tokenizer.all_special_ids}
        last = end
        while last > start and ids[last - 1] not in special and not self.tokenizer.decode([ids[last - 1]]).strip():
            last -= 1
        return last if last > start and ids[last - 1] in special else end


def with_template(tokenizer: Any, template: str) -> Any:
    """Return a copy of a tokenizer that has a chat template, or the tokenizer itself if it has that one.

    Args:
        tokenizer: A tokenizer of `transformers`; not changed.
        template: A Jinja template.

    Returns:
        A tokenizer.
    """
    if tokenizer.chat_template == template:
        return tokenizer
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = template
    return copied
