"""The formats of instruction data: alpaca, sharegpt (LIMA too), messages, and prompt with response."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from lightning_adapt._shared.checks import check_choice, describe
from lightning_adapt.divconq.text.conversation import ROLES, Conversation, Turn, clean_text

__all__ = ["FORMATS", "FORMAT_HELP", "Format", "detect_format", "to_conversation"]

Format = Literal["alpaca", "sharegpt", "messages", "prompt-response"]
FORMATS: tuple[Format, ...] = get_args(Format)
FORMAT_HELP = (
    "alpaca (`instruction`, `output`, optional `input`), sharegpt (`conversations`: a list of `from`/`value` turns, or "
    "of strings, user first), messages (`messages`: a list of `role`/`content` turns) or prompt-response "
    "(`prompt`/`response`, `prompt`/`completion` or `question`/`answer`)"
)

_PAIRS = (("prompt", "response"), ("prompt", "completion"), ("question", "answer"))
_ROLE_NAMES = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("function", "observation", "ipython"), "tool"),
    "developer": "system",
}
_CALLS = ("tool_calls", "function_call")  # of an assistant turn in the messages format


def detect_format(row: Any) -> Format:
    """Return the format that a row is in, by its keys.

    A row with the keys of several formats counts as the first of messages, sharegpt, alpaca, prompt-response.

    Args:
        row: A mapping with names as keys.

    Returns:
        The name of the format.

    Raises:
        TypeError: If the row is no mapping.
        ValueError: If its keys fit no format; names the keys found.

    Example:
        >>> detect_format({"instruction": "Add 2 and 2.", "input": "", "output": "4"})
        'alpaca'
    """
    if not isinstance(row, Mapping):
        raise TypeError(f"A row must be a mapping (a JSON object), but got {describe(row)}.")
    if "messages" in row:
        return "messages"
    if "conversations" in row:
        return "sharegpt"
    if "instruction" in row and "output" in row:
        return "alpaca"
    if any(prompt in row and response in row for prompt, response in _PAIRS):
        return "prompt-response"
    raise ValueError(f"A row must be in one of the formats {FORMAT_HELP}, but got one with the keys {_keys(row)}.")


def to_conversation(row: Any, format: Format | None = None) -> Conversation:
    """Return the turns of a row.

    alpaca: `instruction` and `input` become one user turn, joined by a newline; `system` and `history` (pairs of user
    and assistant texts) come before it where they are there. None counts as an empty text.

    Turns of the roles tool, function, observation and ipython get the role "tool"; they are part of the prompt. What an
    assistant turn holds in `tool_calls` or `function_call` is put below its text as JSON, since a turn is text. Chat
    templates see both in this form; for a model with a form of its own for calls, write them into `content`.

    Args:
        row: A mapping in one of the formats.
        format: The format to read it in; None to go by its keys.

    Returns:
        The turns.

    Raises:
        TypeError: If the row is no mapping.
        ValueError: If it is not in the format; names the keys found.

    Example:
        >>> to_conversation({"conversations": ["2+2?", "4"]})
        (Turn(role='user', content='2+2?'), Turn(role='assistant', content='4'))
    """
    if format is None:
        format = detect_format(row)
    elif not isinstance(row, Mapping):
        raise TypeError(f"A row must be a mapping (a JSON object), but got {describe(row)}.")
    check_choice("format", format, FORMATS, "Leave it out to go by the keys of the row.")
    return _READERS[format](row)


def _alpaca(row: Mapping[str, Any]) -> Conversation:
    _need(row, "alpaca", "instruction", "output")
    turns = []
    if row.get("system"):
        turns.append(Turn("system", _text(row["system"], "`system`")))
    for place, pair in enumerate(_list(row.get("history") or [], "`history`")):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"`history[{place}]` must be a pair of user and assistant text, but got {describe(pair)}.")
        turns += _alternating(pair, f"history[{place}]")
    instruction, extra = _text(row["instruction"], "`instruction`"), _text(row.get("input"), "`input`")
    turns.append(Turn("user", "\n".join(part for part in (instruction, extra) if part)))
    turns.append(Turn("assistant", _text(row["output"], "`output`")))
    return tuple(turns)


def _sharegpt(row: Mapping[str, Any]) -> Conversation:
    _need(row, "sharegpt", "conversations")
    turns = _list(row["conversations"], "`conversations`")
    if turns and all(isinstance(turn, str) for turn in turns):
        return tuple(_alternating(turns, "conversations"))
    return _turns(turns, "conversations")


def _messages(row: Mapping[str, Any]) -> Conversation:
    _need(row, "messages", "messages")
    return _turns(_list(row["messages"], "`messages`"), "messages")


def _prompt_response(row: Mapping[str, Any]) -> Conversation:
    for prompt, response in _PAIRS:
        if prompt in row and response in row:
            return (*_side(row[prompt], prompt, "user"), *_side(row[response], response, "assistant"))
    names = " or ".join(f"`{prompt}`/`{response}`" for prompt, response in _PAIRS)
    raise ValueError(f"A row in the format prompt-response must have {names}, but got the keys {_keys(row)}.")


_READERS: dict[str, Callable[[Mapping[str, Any]], Conversation]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "prompt-response": _prompt_response,
}


def _side(value: Any, name: str, role: str) -> Conversation:
    if isinstance(value, Sequence) and not isinstance(value, str):  # TRL's conversational form: a list of messages
        return _turns(value, name)
    return (Turn(role, _text(value, f"`{name}`")),)


def _alternating(texts: Sequence[Any], name: str) -> list[Turn]:
    return [
        Turn("assistant" if place % 2 else "user", _text(text, f"`{name}[{place}]`"))
        for place, text in enumerate(texts)
    ]


def _turns(turns: Sequence[Any], name: str) -> Conversation:
    return tuple(_turn(turn, f"`{name}[{place}]`") for place, turn in enumerate(turns))


def _turn(turn: Any, place: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{place} must be a turn with a role and a text, but got {describe(turn)}.")
    if "role" in turn and ("content" in turn or any(name in turn for name in _CALLS)):
        role, content = turn["role"], turn.get("content")
    elif "from" in turn and "value" in turn:
        role, content = turn["from"], turn["value"]
    else:
        raise ValueError(f"{place} must have `role` and `content`, or `from` and `value`, but got {_keys(turn)}.")
    name = _ROLE_NAMES.get(role.strip().lower()) if isinstance(role, str) else None
    if name is None:
        raise ValueError(f"The role of {place} must be one of {', '.join(_ROLE_NAMES)}, but got {describe(role)}.")
    calls = [json.dumps(turn[call], ensure_ascii=False, default=str) for call in _CALLS if turn.get(call)]
    return Turn(name, clean_text("\n".join(part for part in (_text(content, place), *calls) if part)))


def _text(value: Any, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Sequence) and value and all(_is_text_part(part) for part in value):
        return clean_text("\n".join(part["text"] for part in value))  # OpenAI's content parts, texts only
    raise ValueError(f"The text of {place} must be a string, but got {describe(value)}.")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str) and part.get("type", "text") == "text"


def _list(value: Any, place: str) -> Sequence[Any]:
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return value
    raise ValueError(f"{place} must be a list, but got {describe(value)}.")


def _need(row: Mapping[str, Any], format_name: str, *names: str) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        wanted = " and ".join(f"`{name}`" for name in names)
        raise ValueError(f"A row in the format {format_name} must have {wanted}, but got the keys {_keys(row)}.")


def _keys(row: Mapping[Any, Any]) -> str:
    return describe(", ".join(map(str, row)) or "none")
