"""The texts of any data set: rows in a known format, plain strings, or tokenised rows put back into text."""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, overload

import torch
from torch.utils.data import Subset

from lightning_adapt._shared.checks import check_choice, describe
from lightning_adapt.divconq.text.conversation import (
    Conversation,
    TokenisedConversation,
    Turn,
    clean_text,
    conversation_key,
    prompt_of,
    response_of,
)
from lightning_adapt.divconq.text.formats import FORMAT_HELP, detect_format, to_conversation

__all__ = ["IGNORED", "RowTexts", "TextPart", "TextView", "check_part", "texts_of"]

TextPart = Literal["prompt", "response", "prompt+response"]
IGNORED = -100  # label of a token without loss


def check_part(part: Any) -> TextPart:
    """Return the part of a row that is read, or raise a ValueError that calls it `text`, as the callers do."""
    checked: Any = check_choice("text", part, get_args(TextPart), "Pass 'prompt' for the default.")
    return checked  # type: ignore[no-any-return]


class RowTexts(Sequence[str]):
    """Texts of the rows of a data set, read when asked for; as a sequence, the prompts.

    Args:
        length: Number of rows N.
        conversation_at: Gives the turns of row 0..N-1.
        place_of: Names a row in an error text, such as "pool.jsonl, line 7"; "row 7" when left out.
    """

    def __init__(
        self,
        length: int,
        conversation_at: Callable[[int], Conversation],
        place_of: Callable[[int], str] | None = None,
    ) -> None:
        self._length, self._conversation_at, self._place_of = length, conversation_at, place_of
        self._last: tuple[int, Conversation] | None = None  # prompt, response and key of a row are asked for in turn

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self.prompt(index) for index in range(*row.indices(self._length))]
        return self.prompt(row)

    def conversation(self, row: int) -> Conversation:
        """Return the turns of a row.

        Args:
            row: 0..N-1; negative numbers count from the end.

        Returns:
            The turns.

        Raises:
            IndexError: If there is no such row.
            ValueError: If the row is not in the format of the others.
        """
        row = _checked_row(row, self._length)
        last = self._last
        if last is None or last[0] != row:
            self._last = last = (row, self._conversation_at(row))
        return last[1]

    def prompt(self, row: int) -> str:
        """Return the system, user and tool turns of a row, joined by newlines; raises as `conversation`."""
        return prompt_of(self.conversation(row))

    def response(self, row: int) -> str:
        """Return the assistant turns of a row, joined by newlines; raises as `conversation`."""
        return response_of(self.conversation(row))

    def key(self, row: int) -> bytes:
        """Return the hash of a row's turns, 16 bytes; copies have the same one. Raises as `conversation`."""
        return conversation_key(self.conversation(row))

    def place(self, row: int) -> str:
        """Return how to name a row to the user, such as "pool.jsonl, line 7"."""
        return self._place_of(row) if self._place_of else f"row {row}"

    def view(self, part: TextPart) -> TextView:
        """Return one part of every row as a sequence, still read when asked for.

        Args:
            part: "prompt", "response" or "prompt+response" (joined by a newline).

        Returns:
            The texts, length N.

        Raises:
            ValueError: If there is no such part.
        """
        return TextView(self, part)


class TextView(Sequence[str]):
    """One part of every row of a `RowTexts`.

    Args:
        texts: The rows.
        part: "prompt", "response" or "prompt+response".

    Raises:
        ValueError: If there is no such part.
    """

    def __init__(self, texts: RowTexts, part: TextPart) -> None:
        self.texts = texts
        self.part = check_part(part)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[index] for index in range(*row.indices(len(self)))]
        conversation = self.texts.conversation(row)
        if self.part == "prompt":
            return prompt_of(conversation)
        if self.part == "response":
            return response_of(conversation)
        return "\n".join(part for part in (prompt_of(conversation), response_of(conversation)) if part)


def texts_of(dataset: Any, tokenizer: Any = None) -> RowTexts:
    """Return the texts of a data set.

    Args:
        dataset: Has a length and one of: a method `conversation(row)`, rows that are mappings in a known format, rows
            that are strings (each a prompt without a response), or mappings with `input_ids`. A `Subset` of such a data
            set is fine, too. `open_rows` gives one for a file.
        tokenizer: Puts `input_ids` back into text (any tokenizer of transformers). Tokens whose label is -100 belong to
            the prompt, the others to the response; without `labels`, or if no label is -100 (with a warning), all
            belong to the prompt. Special tokens are left out of the text. Headers that a chat template writes in plain
            words ("user", "### Assistant:") cannot be told from it and stay, as part of a "user" turn; a model is not
            asked with this text, but with the row's own ids (`TokenisedConversation.prompt_ids`).

    Returns:
        The texts; nothing but the first row is read yet.

    Raises:
        TypeError: If the data set has no length or no access by row.
        ValueError: If it is empty, or its rows are none of these.

    Example:
        >>> texts = texts_of([{"prompt": "2+2?", "response": "4"}])
        >>> texts.prompt(0), texts.response(0)
        ('2+2?', '4')
    """
    if isinstance(dataset, RowTexts):
        return dataset
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(f"The data set must have a length and rows by number, but got {describe(dataset)}. {_WAY_OUT}")
    if len(dataset) == 0:
        raise ValueError("The data set must have at least one row, but it is empty.")
    return RowTexts(len(dataset), _conversations(dataset, tokenizer), getattr(dataset, "place", None))


_WAY_OUT = (
    "Pass vectors of your own as `embedder=<array>` (one row per example) to select without texts; with rounds > 1 "
    "also a scorer that reads `examples.rows` only. Or give the data set a method `conversation(row)`."
)
_UNMASKED = (
    "The `labels` of the first row are not -100 anywhere, so prompt and response cannot be told apart: the whole rows "
    "are taken as prompts, and no scorer can compare answers. Set the labels of the prompt's tokens to -100, or give "
    "the data set a method `conversation(row)`."
)


def _conversations(dataset: Any, tokenizer: Any) -> Callable[[int], Conversation]:
    if callable(getattr(dataset, "conversation", None)):
        return lambda row: tuple(Turn(*turn) for turn in dataset.conversation(row))
    if isinstance(dataset, Subset):  # not through its own items: the data set inside may know its conversations
        inside, rows = _conversations(dataset.dataset, tokenizer), dataset.indices
        return lambda row: inside(int(rows[row]))
    first = dataset[0]
    if isinstance(first, str):
        return lambda row: _plain_text(dataset[row], row)
    if isinstance(first, Mapping):
        return _conversations_of_mappings(dataset, first, tokenizer)
    raise ValueError(_unknown(describe(first)))


def _conversations_of_mappings(dataset: Any, first: Mapping[Any, Any], tokenizer: Any) -> Callable[[int], Conversation]:
    try:
        name = detect_format(first)
    except ValueError:
        if "input_ids" not in first:
            raise ValueError(_unknown("rows with the keys " + describe(", ".join(map(str, first))))) from None
        if not hasattr(tokenizer, "decode"):
            raise ValueError(
                f"Rows with `input_ids` need the tokenizer that made them, but got {describe(tokenizer)}. "
                f"Pass `tokenizer=`. {_WAY_OUT}"
            ) from None
        answer = _tokens_and_answer(first, 0)[1]
        if len(answer) and answer.all():
            warnings.warn(_UNMASKED, stacklevel=4)
        return lambda row: _decoded(dataset[row], row, tokenizer)

    def conversation_at(row: int) -> Conversation:
        try:
            return to_conversation(dataset[row], name)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Row {row}: {error}") from error

    return conversation_at


def _unknown(received: str) -> str:
    return (
        f"The rows of the data set must be mappings in one of the formats {FORMAT_HELP}; strings; mappings with "
        f"`input_ids` and a tokenizer; or the data set must have a method `conversation(row)`. Got {received}. "
        f"{_WAY_OUT}"
    )


def _plain_text(text: Any, row: int) -> Conversation:
    if not isinstance(text, str):
        raise ValueError(f"Row {row} must be a string like the first one, but got {describe(text)}.")
    return (Turn("user", clean_text(text)),)


def _tokens_and_answer(item: Any, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens of a row without padding, and which of them have a label. Shape (T,) each, int64 and bool."""
    if not isinstance(item, Mapping) or "input_ids" not in item:
        raise ValueError(f"Row {row} must have `input_ids` like the first one, but got {describe(item)}.")
    tokens = torch.as_tensor(item["input_ids"]).reshape(-1).long()
    labels = torch.as_tensor(item["labels"]).reshape(-1) if "labels" in item else torch.full_like(tokens, IGNORED)
    if len(labels) != len(tokens):
        raise ValueError(f"Row {row} must have as many labels as tokens ({len(tokens)}), but got {len(labels)}.")
    answer = labels != IGNORED
    if "attention_mask" in item:
        real = torch.as_tensor(item["attention_mask"]).reshape(-1).bool()
        tokens, answer = tokens[real], answer[real]
    return tokens, answer


def _decoded(item: Any, row: int, tokenizer: Any) -> Conversation:
    tokens, answer = _tokens_and_answer(item, row)
    if answer.all():  # nothing says where an answer begins
        answer = torch.zeros_like(answer)
    turns, asked, start = [], len(tokens), 0
    for length in torch.unique_consecutive(answer, return_counts=True)[1].tolist():
        text = tokenizer.decode(tokens[start : start + length].tolist(), skip_special_tokens=True)
        if text.strip():  # a run of nothing but an end-of-turn token is no turn
            spoken = bool(answer[start])
            turns.append(Turn("assistant" if spoken else "user", clean_text(text)))
            asked = start if spoken else asked
        start += length
    return TokenisedConversation(turns, array("i", tokens[:asked].tolist()))


def _checked_row(row: int, length: int) -> int:
    index = row + length if row < 0 else row
    if not 0 <= index < length:
        raise IndexError(f"Row {row} is outside the {length} rows.")
    return index
