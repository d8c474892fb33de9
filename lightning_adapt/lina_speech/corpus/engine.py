"""What a speech engine is, and what all of them share: names of voices with settings, and one sample rate."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Engine", "near_names", "resampled", "speakable", "split_settings", "unknown_voice"]


class Engine(Protocol):
    """A way to turn a text into sound.

    Attributes:
        name: What stands before the colon in the name of a voice: "espeak" in "espeak:en-gb+f3".
        voices: The voices it has on its own, in a fixed order, without that name.
        fingerprint: Name and version, for caches: equal fingerprints give equal samples.
        starts_programs: Whether speaking waits for another process, so that threads make it faster.
    """

    name: str
    voices: tuple[str, ...]
    fingerprint: str
    starts_programs: bool

    def check_voice(self, voice: str) -> None:
        """Raise a ValueError that names near ones if there is no such voice."""

    def speak(self, text: str, voice: str, sample_rate_hz: int) -> torch.Tensor:
        """Return the sound: shape (S,), float32 in [-1, 1] at `sample_rate_hz`; equal arguments give equal samples."""


def near_names(name: str, known: Sequence[str]) -> str:
    """Return a few known names that look like one, or the first few, as text for an error message."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=5, cutoff=0.5)]
    return ", ".join(map(repr, near or list(known)[:8]))


def unknown_voice(engine: str, voice: str, known: Sequence[str]) -> ValueError:
    """Return the error for a voice that an engine does not have."""
    return ValueError(
        problem("voices", f"names of voices that {engine} has", voice, f"Near ones are {near_names(voice, known)}.")
    )


def speakable(text: str) -> str:
    r"""Return a text without what a synthesiser does not take for text.

    A NUL ends a text for programs written in C, halves of surrogate pairs have no UTF-8, and espeak-ng reads what
    stands between [[ and ]] as phonemes.

    Example:
        >>> speakable("one\0two [[three]]")
        'one two [ [three]]'
    """
    plain = re.sub(r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]", " ", text)
    return plain.replace("[[", "[ [")


def split_settings(voice: str, limits: Mapping[str, tuple[float, float]]) -> tuple[str, dict[str, float]]:
    """Cut the name of a voice such as "en-gb+f3,pitch=70,speed=150" into the voice and its settings.

    Args:
        voice: The name; settings follow it, each after a comma.
        limits: Names of the settings, with the least and largest value of each.

    Returns:
        The bare name, and the settings that were given.

    Raises:
        ValueError: If a setting is unknown, no number, or outside its limits.

    Example:
        >>> split_settings("en-gb+f3,pitch=70", {"pitch": (0, 99)})
        ('en-gb+f3', {'pitch': 70.0})
    """
    name, *parts = (part.strip() for part in voice.split(","))
    settings: dict[str, float] = {}
    for part in parts:
        key, _, value = part.partition("=")
        if key not in limits:
            example = f"{name},{next(iter(limits))}={next(iter(limits.values()))[1]:g}"
            allowed = f"followed by settings among {', '.join(map(repr, limits))}"
            raise ValueError(problem("voices", allowed, voice, f"Write them like {example!r}."))
        settings[key] = _setting(voice, key, value, limits[key])
    return name, settings


def _setting(voice: str, key: str, value: str, limits: tuple[float, float]) -> float:
    low, high = limits
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:  # NaN is outside, too
        raise ValueError(problem("voices", f"with {key} from {low:g} to {high:g}", voice, f"Correct {key}={value!r}."))
    return number


def resampled(samples: npt.NDArray[np.int16], rate: int, sample_rate_hz: int) -> torch.Tensor:
    """Return 16-bit samples as float32 in [-1, 1] at another rate.

    Args:
        samples: One channel. Shape (S,), dtype int16.
        rate: Their rate in Hz.
        sample_rate_hz: The rate wanted.

    Returns:
        The samples, shape (ceil(S * sample_rate_hz / rate),), float32.

    Raises:
        ModuleNotFoundError: If the rates differ and torchaudio is missing.
    """
    audio = torch.from_numpy(samples.astype("float32")) / 32768.0
    if rate == sample_rate_hz:
        return audio
    require("speech", f"Resampling from {rate} to {sample_rate_hz} Hz", "torchaudio")
    from torchaudio.functional import resample

    changed: torch.Tensor = resample(audio, rate, sample_rate_hz)
    return changed.clamp(-1.0, 1.0)
