"""What recordings are like before a voice is tuned on them: their rate, their channels, and whether anybody speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_adapt.lina_speech.data.audio import read_audio

__all__ = ["Recordings", "look_at", "loudness_range_db"]

# White noise moves by up to 2 dB and pink noise by 4; speech by 20 and more, with noise 10 dB below it by 13 and more
EVEN_DB = 8.0
_FRAME_SECONDS = 0.02
_FLOOR = 1e-8  # power of silence, 80 dB below the loudest sample


@dataclass(frozen=True)
class Recordings:
    """What was found in some recordings.

    Attributes:
        count: How many there are.
        narrow: Rates in Hz of those below the codec's.
        mixed: How many have several channels.
        even: Paths of those whose loudness hardly changes, as that of noise.
    """

    count: int
    narrow: tuple[int, ...]
    mixed: int
    even: tuple[str, ...]

    def warnings(self, sample_rate_hz: int) -> list[str]:
        """Return what the user should know.

        Args:
            sample_rate_hz: Rate of the codec.

        Returns:
            A sentence or two per matter.
        """
        found = []
        if self.narrow:
            rates = " and ".join(f"{rate:,}" for rate in sorted(set(self.narrow)))
            found.append(
                f"{len(self.narrow)} of {self.count} recordings are sampled at {rates} Hz, below the codec's "
                f"{sample_rate_hz:,} Hz: nothing above {min(self.narrow) / 2000:g} kHz can be learnt from them."
            )
        if self.even:
            found.append(
                f"{len(self.even)} of {self.count} recordings hardly change in loudness, as noise does and speech does "
                f"not ({', '.join(self.even[:3])}{' ...' if len(self.even) > 3 else ''}). Listen to them."
            )
        return found


def look_at(paths: Sequence[str], sample_rate_hz: int) -> Recordings:
    """Look at recordings that can be read.

    Args:
        paths: Sound files.
        sample_rate_hz: Rate of the codec.

    Returns:
        What was found.
    """
    narrow: list[int] = []
    even: list[str] = []
    mixed = 0
    for path in paths:
        channels, rate = read_audio(path)
        if rate < sample_rate_hz:
            narrow.append(rate)
        mixed += len(channels) > 1
        if loudness_range_db(channels.mean(0), rate) < EVEN_DB:
            even.append(path)
    return Recordings(len(paths), tuple(narrow), mixed, tuple(even))


def loudness_range_db(audio: Tensor, sample_rate_hz: int) -> float:
    """Return by how much a recording is louder in its loud stretches than in its quiet ones.

    Args:
        audio: Samples. Shape (S,).
        sample_rate_hz: Their rate.

    Returns:
        The 95th minus the 5th percentile of the power of 20 ms, each without its mean, in decibels.
    """
    step = max(1, round(_FRAME_SECONDS * sample_rate_hz))
    frames = audio[: len(audio) // step * step].reshape(-1, step)
    if not len(frames):
        return 0.0
    peak = audio.abs().max().clamp(min=1e-12)
    levels = 10 * ((frames / peak).var(1, correction=0) + _FLOOR).log10()
    quiet, loud = levels.quantile(torch.tensor([0.05, 0.95], dtype=levels.dtype)).tolist()
    return float(loud - quiet)
