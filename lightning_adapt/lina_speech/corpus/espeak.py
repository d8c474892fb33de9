"""Voices of espeak-ng: about 100 variants times a dozen English accents, small and always the same."""

from __future__ import annotations

from typing import Final

import torch

from lightning_adapt.lina_speech.corpus.engine import resampled, split_settings, unknown_voice
from lightning_adapt.lina_speech.corpus.espeak_program import require_espeak
from lightning_adapt.lina_speech.corpus.wave_files import samples_of_wave

__all__ = ["ESPEAK_VOICES", "EspeakEngine"]

# Twenty that are easily told apart: by accent, sex, size of the head (formants), pitch and pace.
_FIRST: Final = (
    "en-us+m1,pitch=35",
    "en-gb+f2,speed=160",
    "en-gb-scotland+m7,pitch=60",
    "en-us+f4,pitch=75",
    "en-029+m2,speed=150",
    "en-gb-x-rp+f1,pitch=35",
    "en-us+klatt2,pitch=45",
    "en-gb-x-gbclan+m5,pitch=80",
    "en-us+croak,pitch=30",
    "en-gb-scotland+f5,pitch=60",
    "en-gb+m8,pitch=15,speed=160",
    "en-029+f3,pitch=90",
    "en-gb-x-rp+m4,pitch=70,speed=200",
    "en-us+f2,pitch=20,speed=150",
    "en-gb-x-gbcwmd+m3,pitch=45",
    "en-gb-x-gbclan+f4,pitch=30,speed=195",
    "en-us+m6,pitch=90",
    "en-gb-scotland+klatt3,pitch=25,speed=185",
    "en-gb+f1,pitch=95,speed=160",
    "en-029+croak,pitch=75,speed=195",
)
_ACCENTS: Final = ("en-gb", "en-us", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
_VARIANTS: Final = ("f3", "m6", "f1", "m1", "f5", "m7", "f2", "m2", "f4", "m3", "klatt3", "m5", "croak", "m8", "m4")

# The fixed order of the voices: the twenty, then plain variants, each next to ones of another accent and sex.
ESPEAK_VOICES: Final = _FIRST + tuple(
    f"{_ACCENTS[(place + round_) % len(_ACCENTS)]}+{variant}"
    for round_ in range(6)
    for place, variant in enumerate(_VARIANTS)
)

_LIMITS: Final = {"pitch": (0.0, 99.0), "speed": (80.0, 450.0)}  # the ranges of espeak-ng itself


class EspeakEngine:
    """The engine "espeak": a voice is a language, perhaps a variant after a plus sign, and perhaps settings.

    "en-gb+f3", "en-us", "en-us+m1,pitch=35,speed=150": the pitch goes from 0 to 99 (50 is the variant's own), the
    speed is in words per minute, from 80 to 450 (175 when left out). Any language of espeak-ng will do.

    Raises:
        ModuleNotFoundError: If espeak-ng is not there.
    """

    name = "espeak"
    voices = ESPEAK_VOICES
    starts_programs = True

    def __init__(self) -> None:
        self.program = require_espeak("The engine 'espeak'")
        self.fingerprint = f"espeak-ng-{self.program.version}"

    def check_voice(self, voice: str) -> None:
        """Raise a ValueError that names near ones if there is no such voice or setting."""
        name, _ = split_settings(voice, _LIMITS)
        language, plus, variant = name.partition("+")
        if not self.program.check_language(language):
            raise unknown_voice("espeak-ng", voice, self.program.languages())
        # espeak-ng takes an unknown variant for none, without a word
        variants = self.program.variants()
        if plus and variant not in variants:
            raise unknown_voice("espeak-ng", voice, [f"{language}+{known}" for known in variants])

    def speak(self, text: str, voice: str, sample_rate_hz: int) -> torch.Tensor:
        """Return a text as sound.

        Args:
            text: What to say.
            voice: Who says it.
            sample_rate_hz: Rate of the samples; 22,050 Hz is what espeak-ng makes itself.

        Returns:
            The samples in [-1, 1], shape (S,), float32.

        Raises:
            RuntimeError: If espeak-ng reports an error or says nothing.
        """
        name, settings = split_settings(voice, _LIMITS)
        language, plus, variant = name.partition("+")
        options = ["-v", f"{self.program.voice_file(language) or language}{plus}{variant}"]
        for option, key in (("-p", "pitch"), ("-s", "speed")):
            if key in settings:
                options += [option, str(round(settings[key]))]
        samples, rate = samples_of_wave(self.program.run(*options, "--stdin", "--stdout", text=text))
        if not samples.size:
            raise RuntimeError(f"espeak-ng made no sound for the text {text!r} and the voice {voice!r}.")
        return resampled(samples, rate, sample_rate_hz)
