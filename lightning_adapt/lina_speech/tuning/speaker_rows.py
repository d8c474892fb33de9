"""SpeakerRows: which voice each row of a batch belongs to, from the speaker that the batch names; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

__all__ = ["SpeakerRows"]


class SpeakerRows:
    """Finds the voice of each row of a batch.

    Args:
        voices: Names of the voices that are tuned.
        key: Key of the speakers in a batch, or their place in one that is a tuple or a list: numbers, shape (B,), or a
            list of names.
        speakers: Names that the numbers of a batch are places in; None for `voices` themselves.
    """

    def __init__(self, voices: Sequence[str], key: int | str, speakers: Sequence[str] | None) -> None:
        self.voices, self.key = list(voices), key
        self.speakers = list(voices if speakers is None else speakers)
        self._voice_of = {name: number for number, name in enumerate(voices)}
        self._looked = False  # at whether one voice is that of one speaker

    def check_all_there(self) -> None:
        """Raise a ValueError if one of several voices is not among the speakers: it would have nothing to learn from.

        Evaluation may be on fewer of them.
        """
        missing = [name for name in self.voices if name not in self.speakers]
        if len(self.voices) > 1 and missing:
            allowed = "names among the speakers of the data, " + ", ".join(map(repr, self.speakers))
            raise ValueError(problem("voice", allowed, missing, "Name the speakers as the data does."))

    def rows(self, batch: Any) -> Tensor | None:
        """Return the number of the voice of each row.

        Args:
            batch: A batch; with one voice all rows are of that voice and nothing is looked up.

        Returns:
            Shape (B,), dtype int64, on the CPU; None with one voice.

        Raises:
            TypeError: If the batch does not name a speaker for each row.
            ValueError: If a row is of a speaker whose voice is not tuned.
        """
        if len(self.voices) == 1:
            return None
        if not self._names_speakers(batch):
            allowed = f"a dict with the key {self.key!r} for several voices"
            if isinstance(self.key, int):
                allowed = f"a tuple, a list or a dict with speakers at {self.key} for several voices"
            remedy = "Name their key, or their place in a tuple, as `speaker_key`, or tune one voice at a time."
            raise TypeError(problem("batch", allowed, _kind_of(batch), remedy))
        return torch.tensor([self._number(speaker) for speaker in self._listed(batch[self.key])], dtype=torch.int64)

    def blend(self, batch: Any) -> str | None:
        """Look, once, at whether one voice is about to be learnt from several speakers.

        Args:
            batch: A batch to train on.

        Returns:
            A warning; None if all is well, or was looked at before.

        Raises:
            ValueError: If the name of the voice is that of one of the speakers: it would not be theirs.
        """
        if self._looked or len(self.voices) > 1:
            return None
        self._looked = True
        if len(self.speakers) < 2 or not self._names_speakers(batch):
            return None
        (voice,), count = self.voices, len(self.speakers)
        if voice in self.speakers:
            allowed = f"several names, or that of the only speaker, where the data has {count}"
            remedy = (
                f"One name is the voice of all rows. Pass the rows of {voice!r} alone, or tune several speakers at "
                f"once by their names: voice={self.speakers[:3]!r}."
            )
            raise ValueError(problem("voice", allowed, voice, remedy))
        return (
            f"InitialStateTuning({voice!r}) learns one voice from {count} speakers, a blend of them. For the voice of "
            "one, pass their rows alone; for a voice each, pass their names as `voice`."
        )

    def _names_speakers(self, batch: Any) -> bool:
        if isinstance(batch, Mapping):
            return self.key in batch
        if isinstance(batch, (tuple, list)) and isinstance(self.key, int):
            return -len(batch) <= self.key < len(batch)
        return False

    def _listed(self, speakers: Any) -> list[Any]:
        if isinstance(speakers, Tensor):
            speakers = speakers.reshape(-1).tolist()
        if isinstance(speakers, str) or not isinstance(speakers, Iterable):
            remedy = "Have the data give a tensor of numbers, or a list of names."
            raise TypeError(problem(f"batch[{self.key!r}]", "one speaker a row", _kind_of(speakers), remedy))
        listed = [speaker.tolist() if isinstance(speaker, Tensor) else speaker for speaker in speakers]
        if not all(isinstance(speaker, (int, str)) for speaker in listed):
            remedy = "Name the place of the speakers as `speaker_key`."
            found = sorted({type(speaker).__name__ for speaker in listed})
            raise TypeError(problem(f"batch[{self.key!r}]", "numbers or names of speakers", ", ".join(found), remedy))
        return listed

    def _number(self, speaker: Any) -> int:
        name = speaker
        if isinstance(speaker, int):
            name = self.speakers[speaker] if 0 <= speaker < len(self.speakers) else speaker
        if name not in self._voice_of:
            allowed = "one of the tuned voices, " + ", ".join(map(repr, self.voices))
            remedy = "Leave other speakers out of the data, or name them in `voice`, too."
            raise ValueError(problem(f"batch[{self.key!r}]", allowed, name, remedy))
        return self._voice_of[name]


def _kind_of(batch: Any) -> str:
    """Say what something is made of, without the numbers in it."""
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        return f"{kind} with {', '.join(map(str, batch))}"
    if isinstance(batch, (tuple, list)):
        return f"{kind} of {', '.join(type(part).__name__ for part in batch[:8])}"
    return kind
