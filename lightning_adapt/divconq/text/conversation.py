"""A conversation as plain tuples: who says what, what counts as the prompt, and a key for finding copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "ROLES",
    "Conversation",
    "TokenisedConversation",
    "Turn",
    "clean_text",
    "conversation_key",
    "prompt_of",
    "response_of",
]

ROLES = ("system", "user", "assistant", "tool")
_KEY_BYTES = 16


class Turn(NamedTuple):
    """One message.

    Args:
        role: "system", "user", "assistant" or "tool" (what a tool gave back; part of the prompt).
        content: What is said; may be empty.
    """

    role: str
    content: str


Conversation = tuple[Turn, ...]


class TokenisedConversation(tuple[Turn, ...]):
    """A conversation read back from token ids, equal to the tuple of its turns.

    Args:
        turns: The turns, decoded; words that the chat template wrote around them may be in them.
        prompt_ids: The row's own token ids before its last answer: what a model is asked with, as these turns must not
            go through a chat template again.
    """

    prompt_ids: Sequence[int]

    def __new__(cls, turns: Iterable[Turn] = (), prompt_ids: Sequence[int] = ()) -> TokenisedConversation:
        """Make the tuple of turns, with the ids beside it."""
        made = super().__new__(cls, turns)
        made.prompt_ids = prompt_ids
        return made


def prompt_of(conversation: Conversation) -> str:
    r"""Return what the model is given: the system, user and tool turns, joined by newlines.

    Args:
        conversation: The turns.

    Returns:
        The text; empty if there is none.

    Example:
        >>> prompt_of((Turn("system", "Be brief."), Turn("user", "2+2?"), Turn("assistant", "4")))
        'Be brief.\n2+2?'
    """
    return "\n".join(turn.content for turn in conversation if turn.role != "assistant")


def response_of(conversation: Conversation) -> str:
    """Return what the model should answer: the assistant turns, joined by newlines.

    Args:
        conversation: The turns.

    Returns:
        The text; empty if there is none.
    """
    return "\n".join(turn.content for turn in conversation if turn.role == "assistant")


def conversation_key(conversation: Conversation) -> bytes:
    """Return a hash of roles and contents; copies have the same one.

    Args:
        conversation: The turns.

    Returns:
        16 bytes, blake2b.
    """
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for role, content in conversation:
        data = content.encode("utf-8", "surrogatepass")
        digest.update(f"{role} {len(data)} ".encode())  # with its length, no text can imitate the next turn
        digest.update(data)
    return digest.digest()


def clean_text(text: str) -> str:
    r"""Return the text with lone surrogates replaced: JSON can hold them (`"\ud800"`), UTF-8 and tokenizers cannot.

    Args:
        text: Any text.

    Returns:
        The same text where it was fine, else with U+FFFD in the places that were not.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
