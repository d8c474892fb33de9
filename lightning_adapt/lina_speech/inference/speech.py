"""Speech: the audio of one text, with the codes and the alignment it came from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lightning_adapt._shared.audio_log import save_audio

__all__ = ["Speech"]


@dataclass(eq=False)  # not frozen: Lightning refuses frozen ones among predictions
class Speech:
    """One text as it was spoken.

    Attributes:
        audio: Samples in [-1, 1]. Shape (S,), dtype float32, on the CPU.
        sample_rate_hz: Samples per second.
        codes: Codes of the codec. Shape (Q, N), dtype int64, on the CPU.
        stopped: Whether it ended by itself; False where `max_seconds` cut it off.
        alignment: Attention of each frame over the text. Shape (N, M), dtype float32, on the CPU.
        text: What was to be said.
    """

    audio: Tensor
    sample_rate_hz: int
    codes: Tensor
    stopped: bool
    alignment: Tensor
    text: str = ""

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / self.sample_rate_hz

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the audio to a file, all of it or nothing.

        Args:
            path: Where to; the ending chooses the format (wav, flac, ogg). Missing folders are made.

        Returns:
            The path.

        Raises:
            ModuleNotFoundError: If soundfile is missing; names the extra.
            ValueError: If the ending means no sound format.
        """
        return save_audio(path, self.audio, self.sample_rate_hz)
