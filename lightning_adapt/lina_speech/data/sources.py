"""One view of all sources of speech: manifests, lists of rows, and corpora that make their sound when asked for it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_adapt._shared.checks import problem
from lightning_adapt.lina_speech.data.audio import AudioError
from lightning_adapt.lina_speech.data.code_cache import audio_key
from lightning_adapt.lina_speech.data.manifest import AUDIO_COLUMNS, read_manifest

__all__ = ["Recording", "Source", "key_of"]


class Recording(NamedTuple):
    """A row of a source.

    Attributes:
        audio: Path of a file, or samples.
        sample_rate_hz: Rate of samples; None for a file.
        text: What is said; "" if the row has none.
        speaker: Who says it; "" if that is not known.
        id: Name that no other row of the source has.
        place: How to name the row to the user.
    """

    audio: Any
    sample_rate_hz: int | None
    text: str
    speaker: str
    id: str
    place: str


class Source:
    """Recordings with their texts, and a text that tells whether they are still the same.

    Args:
        data: Path of a manifest (see `read_manifest`), or rows: a sequence of {"audio", "text", "speaker", "id"},
            samples with "sample_rate_hz" beside them.
        argument: Name of the argument that it came as, for the error texts.

    Raises:
        FileNotFoundError: If the manifest is not there.
        TypeError: If it is neither.
        ValueError: If the manifest has a broken row, or there are no rows.
    """

    def __init__(self, data: Any, argument: str) -> None:
        self.argument = argument
        if isinstance(data, (str, os.PathLike)):
            if not Path(data).expanduser().exists():
                remedy = "Check the path."
                raise FileNotFoundError(problem(argument, "a file or folder that is there", os.fspath(data), remedy))
            self.rows: Sequence[Any] = read_manifest(os.fspath(data))
        elif isinstance(data, Sequence) or (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            self.rows = data
        else:
            remedy = "Pass the path of a manifest, or a list of rows."
            raise TypeError(problem(argument, "a path or rows with audio and text", data, remedy))
        if len(self.rows) == 0:
            raise ValueError(problem(argument, "at least one row long", data, "Pass recordings with texts."))
        self._identity: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Recording:
        row = self.rows[index]
        place = f"row {index} of `{self.argument}`"
        if not isinstance(row, Mapping):
            raise TypeError(f"{place} must be a mapping with audio and text, but got {type(row).__name__}.")
        audio: Any = next((row[name] for name in AUDIO_COLUMNS if row.get(name) is not None), None)
        rate: Any = row.get("sample_rate_hz")
        if isinstance(audio, Mapping) and "array" in audio:  # as the package datasets has it
            audio, rate = audio["array"], audio.get("sampling_rate", rate)
        elif hasattr(audio, "get_all_samples"):  # as it has it from release 4 on
            decoded = audio.get_all_samples()
            audio, rate = decoded.data, decoded.sample_rate
        if audio is None or "text" not in row:
            raise ValueError(f"{place} must have the keys audio and text, but got {', '.join(map(str, row))}.")
        path = isinstance(audio, (str, os.PathLike))
        if not path and rate is None:
            raise ValueError(f"{place} must have the key sample_rate_hz beside its samples.")
        text, speaker, name = (row.get(key) for key in ("text", "speaker", "id"))
        return Recording(
            os.fspath(audio) if path else audio,
            None if path else int(rate),
            "" if text is None else str(text).strip(),
            "" if speaker is None else str(speaker),
            f"{index:08d}" if name is None else str(name),
            row.get("place", place),
        )

    @property
    def identity(self) -> str:
        """32 hexadecimal digits that are the same as long as the data are.

        A file counts as the same while its path, its size and the time of its last change are. Rows with a
        `fingerprint` of their own are taken by its word; other samples are read.
        """
        if self._identity is None:
            own = getattr(self.rows, "fingerprint", None)
            digest = hashlib.blake2b(digest_size=16)
            if isinstance(own, str):
                digest.update(f"{type(self.rows).__qualname__} {own}".encode())
            else:
                for index in range(len(self)):
                    digest.update(_described(self[index]))
            self._identity = digest.hexdigest()
        return self._identity


def _described(recording: Recording) -> bytes:
    audio: Any = recording.audio
    if recording.sample_rate_hz is None:
        try:
            status = Path(audio).stat()
            audio = [audio, status.st_size, status.st_mtime_ns]
        except (OSError, ValueError):  # no such file, or no name that a file could have
            audio = [audio, None]
    else:
        try:
            audio = audio_key(audio, recording.sample_rate_hz)
        except (TypeError, ValueError, RuntimeError):
            audio = repr(audio)
    return json.dumps([audio, recording.text, recording.speaker, recording.id]).encode()


def key_of(recording: Recording) -> str:
    """Return the hash of a recording, see `audio_key`.

    Raises:
        AudioError: If it cannot be read.
    """
    try:
        return audio_key(recording.audio, recording.sample_rate_hz)
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError("cannot be read", str(error)) from error
