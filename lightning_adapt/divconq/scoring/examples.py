"""What a scorer is handed: rows of the pool, their texts, and what the model answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lightning_adapt._shared.checks import problem
from lightning_adapt.divconq.text.conversation import Conversation, prompt_of

__all__ = ["Examples", "cut_to", "split_answer"]

_LEAST_CHARACTERS = 80  # an answer that ended at once does not empty the pool's answer


@dataclass
class Examples:
    """A batch of pool rows with everything that a scorer may look at.

    Attributes:
        rows: Rows of the pool. Shape (B,), dtype int64.
        prompts: Text of the system, user and tool turns, one string per row.
        responses: The pool's own answer, one string per row; it competes with `generated`.
        conversations: The whole conversations, for scorers that apply a chat template.
        generated: The model's answers to the same prompts; None for a scorer that needs none.
    """

    rows: torch.Tensor
    prompts: list[str]
    responses: list[str]
    conversations: list[Conversation]
    generated: list[str] | None = None

    @classmethod
    def of(
        cls, rows: torch.Tensor, conversations: Sequence[Conversation], generated: Sequence[str] | None = None
    ) -> Examples:
        """Make examples from conversations.

        In a conversation of several turns the model answers the last one, so the pool's response is the last assistant
        turn, not all of them.

        Args:
            rows: Rows of the pool. Shape (B,), dtype int64.
            conversations: One conversation per row.
            generated: One answer of the model per row, if there are any.

        Returns:
            The examples.

        Raises:
            ValueError: If the lengths differ.
        """
        splits = [split_answer(conversation) for conversation in conversations]
        prompts = [prompt_of(context) for context, _ in splits]
        answers = [answer for _, answer in splits]
        written = None if generated is None else list(generated)
        examples = cls(rows, prompts, answers, list(conversations), written)
        examples.check()
        return examples

    def __len__(self) -> int:
        return len(self.rows)

    def check(self) -> None:
        """Check that all fields speak of the same rows.

        Raises:
            ValueError: If the lengths differ.
        """
        for name in ("prompts", "responses", "conversations", "generated"):
            texts = getattr(self, name)
            if texts is not None and len(texts) != len(self.rows):
                remedy = "Pass one entry per row, in the order of `rows`."
                raise ValueError(problem(name, f"{len(self.rows)} entries long", len(texts), remedy))

    def answers(self) -> list[str]:
        """Return the model's answers.

        Raises:
            ValueError: If none were generated.
        """
        if self.generated is None:
            remedy = "Set `needs_generation = True` on the scorer, so that the model is asked first."
            raise ValueError(problem("generated", "given for this scorer", None, remedy))
        return self.generated

    def rivals(self, truncate: bool = True) -> list[str]:
        """Return the pool's answers as the model's ones meet them.

        Args:
            truncate: Whether each is cut to about the length of the generated answer, see `cut_to`.

        Returns:
            One string per row.

        Raises:
            ValueError: If none were generated.
        """
        pairs = zip(self.responses, self.answers(), strict=True)
        return [cut_to(gold, own) if truncate else gold for gold, own in pairs]


def split_answer(conversation: Conversation) -> tuple[Conversation, str]:
    """Split a conversation into what the model is asked and the pool's answer to it.

    Args:
        conversation: The turns.

    Returns:
        The turns before the last assistant turn, and that turn's text. Without an assistant turn: all turns and "".

    Example:
        >>> from lightning_adapt.divconq.text.conversation import Turn
        >>> split_answer((Turn("user", "2 + 2?"), Turn("assistant", "4")))
        ((Turn(role='user', content='2 + 2?'),), '4')
    """
    for position in range(len(conversation) - 1, -1, -1):
        if conversation[position].role == "assistant":
            return conversation[:position], conversation[position].content
    return conversation, ""


def cut_to(text: str, other: str, least: int = _LEAST_CHARACTERS) -> str:
    """Return the beginning of a text, about as long as another one.

    Long texts share more with any prompt than short ones; an answer of the pool of 500 words against a generated one of
    50 would win by length alone. Characters are counted, so that it holds for languages without spaces, too.

    Args:
        text: What to cut.
        other: The length to cut to.
        least: Fewest characters to keep.

    Returns:
        The text, cut at the last white space before the limit if there is any in its second half.

    Example:
        >>> cut_to("alpha beta gamma delta", "0123456789012", least=4)
        'alpha beta'
    """
    limit = max(len(other), least)
    if len(text) <= limit:
        return text
    if text[limit].isspace():
        return text[:limit].rstrip()
    head = text[:limit]
    place = max(head.rfind(" "), head.rfind("\n"))
    return head[:place].rstrip() if place > limit // 2 else head
