"""The texts of a pool as a training run reads them: held in memory while they are few, and in the embedder's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_adapt.divconq.text.conversation import Conversation
from lightning_adapt.divconq.text.rows import RowTexts

__all__ = ["Documents", "HeldTexts"]

_HELD_CHARACTERS = 2**28  # some hundred MB; a selection reads a row up to six times, and a user's row may cost much


class HeldTexts(RowTexts):
    """The texts of a pool, each read once from the user's data set where memory allows.

    Args:
        texts: What reads them.
    """

    def __init__(self, texts: RowTexts) -> None:
        super().__init__(len(texts), self._read, texts.place)
        self._texts, self._room = texts, _HELD_CHARACTERS
        self._held: dict[int, Conversation] = {}

    def _read(self, row: int) -> Conversation:
        held = self._held.get(row)
        if held is not None:
            return held
        conversation = self._texts.conversation(row)
        self._room -= sum(len(turn.content) for turn in conversation)
        if self._room >= 0:
            self._held[row] = conversation
        return conversation

    def forget(self) -> None:
        """Hold nothing from now on."""
        self._held, self._room = {}, 0


class Documents(Sequence[str]):
    """Prompts and then responses of a pool, read when asked for; what an embedder is fitted on.

    Args:
        texts: The texts of the pool.
    """

    def __init__(self, texts: RowTexts) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return 2 * len(self._texts)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(len(self)))]
        n = len(self._texts)
        return self._texts.prompt(place) if place < n else self._texts.response(place - n)
