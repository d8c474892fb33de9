"""The built-in synthesiser: 100 voices made of numbers, so that a corpus needs no other program."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import torch

from lightning_adapt.lina_speech.corpus.engine import split_settings, unknown_voice
from lightning_adapt.lina_speech.corpus.formant_phones import phones_of
from lightning_adapt.lina_speech.corpus.formant_sound import FormantVoice, sound_of
from lightning_adapt.lina_speech.corpus.words import text_key

__all__ = ["FormantEngine", "formant_voice"]

_N_VOICES: Final = 100
_LIMITS: Final = {
    "pitch": (50.0, 500.0),
    "scale": (0.7, 1.5),
    "speed": (0.4, 2.5),
    "breath": (0.0, 1.0),
    "tilt": (0.0, 0.95),
}


def formant_voice(name: str) -> FormantVoice:
    """Return the speaker behind a name.

    Args:
        name: "v00" to "v99", perhaps with settings: "v07,pitch=120,scale=1.1".

    Returns:
        The speaker. Neighbours in the list differ clearly: in pitch, vocal tract, speed, breath and brightness.

    Raises:
        ValueError: If there is no such voice, or a setting is outside its limits.

    Example:
        >>> formant_voice("v03,pitch=200").pitch
        200.0
    """
    bare, settings = split_settings(name, _LIMITS)
    if bare not in FormantEngine.voices:
        raise unknown_voice("the formant synthesiser", name, FormantEngine.voices)
    number = int(bare[1:])

    def spread(root: float) -> float:  # multiples of an irrational number fill [0, 1) evenly, however many are taken
        return (number * math.sqrt(root) + 0.25) % 1.0

    height = (number * (math.sqrt(5.0) - 1) / 2 + 0.25) % 1.0
    voice = FormantVoice(
        pitch=round(85.0 * (250.0 / 85.0) ** height, 1),
        scale=round(0.88 + 0.27 * height + 0.08 * (spread(2.0) - 0.5), 3),  # high voices have short vocal tracts
        speed=round(0.8 + 0.4 * spread(3.0), 3),
        breath=round(0.02 + 0.3 * spread(7.0) ** 2, 3),
        tilt=round(0.1 + 0.6 * spread(11.0), 3),
    )
    return dataclasses.replace(voice, **settings)


class FormantEngine:
    """The engine "formant": speech-like sound from rules, the same on every machine, at over 20 times real time.

    A text decides the phones and a voice how they sound, so that a model can learn to speak from it; it is no
    natural speech, and words are said by simple spelling rules. Needs SciPy.
    """

    name = "formant"
    voices = tuple(f"v{number:02d}" for number in range(_N_VOICES))
    fingerprint = "formant-1"  # raise it when the sound changes
    starts_programs = False

    def check_voice(self, voice: str) -> None:
        """Raise a ValueError that names near ones if there is no such voice or setting."""
        formant_voice(voice)

    def speak(self, text: str, voice: str, sample_rate_hz: int) -> torch.Tensor:
        """Return a text as sound.

        Args:
            text: What to say.
            voice: Who says it.
            sample_rate_hz: Rate of the samples.

        Returns:
            The samples in [-1, 1], shape (S,), float32.

        Raises:
            ValueError: If there is nothing to say in the text.
            ModuleNotFoundError: If SciPy is missing.
        """
        key = text_key(f"{voice}: {text}")
        sound = sound_of(phones_of(text), formant_voice(voice), sample_rate_hz, key=key)
        return torch.from_numpy(sound.astype("float32"))
