"""Choosing a speech engine, and its voices, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from lightning_adapt._shared.checks import check_choice, check_integer, problem
from lightning_adapt.lina_speech.corpus.engine import Engine
from lightning_adapt.lina_speech.corpus.espeak_program import find_espeak

__all__ = ["chosen_voices", "make_engine"]

_ENGINES = {"espeak": "EspeakEngine", "flite": "FliteEngine", "formant": "FormantEngine"}
_DEFAULT_VOICES = 20


def make_engine(name: str) -> Engine:
    """Return a new engine.

    Args:
        name: "espeak", "flite", "formant", or "auto" for espeak where it is found, else formant.

    Returns:
        The engine.

    Raises:
        ValueError: If there is no engine of that name.
        ModuleNotFoundError: If what it needs is not installed; the message says how to install it.
    """
    check_choice("engine", name, ("auto", *_ENGINES), "Pass 'formant', which needs no other program.")
    if name == "auto":
        name = "espeak" if find_espeak() else "formant"
    module = import_module(f"lightning_adapt.lina_speech.corpus.{name}")
    maker: Callable[[], Engine] = getattr(module, _ENGINES[name])
    return maker()


def chosen_voices(engine: str, voices: Sequence[str] | None, n_voices: int | None, first_voice: int) -> tuple[str, ...]:
    """Return the full names of the voices asked for, such as "espeak:en-gb+f3".

    Args:
        engine: Name of an engine, or "auto".
        voices: Names of voices, with an engine's name before a colon or of `engine`; None for the engine's own.
        n_voices: How many; None for 20, or for all of `voices`.
        first_voice: How many are left out at the start.

    Returns:
        The names.

    Raises:
        TypeError: If `voices` is one text, or holds something else than texts.
        ValueError: If there are fewer voices than asked for, or one comes twice.
    """
    check_integer("first_voice", first_voice, "Pass 0 for all voices.")
    default = make_engine(engine).name if voices is None or any(":" not in str(voice) for voice in voices) else ""
    if voices is None:
        own = make_engine(default).voices
        return _cut([f"{default}:{voice}" for voice in own], _default(n_voices), first_voice, default)
    if isinstance(voices, str) or not all(isinstance(voice, str) for voice in voices):
        raise TypeError(problem("voices", "a list of names", voices, "Write ['espeak:en-gb+f3'] for one voice."))
    named = [voice if ":" in voice else f"{default}:{voice}" for voice in voices]
    if len(set(named)) < len(named):
        raise ValueError(problem("voices", "different names", voices, "Leave out the second of two equal ones."))
    wanted = len(named) - first_voice if n_voices is None else n_voices
    return _cut(named, wanted, first_voice, "the list")


def _default(n_voices: int | None) -> int:
    return _DEFAULT_VOICES if n_voices is None else n_voices


def _cut(voices: Sequence[str], n_voices: int, first_voice: int, owner: str) -> tuple[str, ...]:
    most = len(voices) - first_voice
    remedy = f"Voices of {owner}: {len(voices)}, of which first_voice={first_voice} leaves {most}."
    if n_voices > most or most < 1:
        raise ValueError(problem("n_voices", f"at most {max(most, 0)}", n_voices, remedy))
    check_integer("n_voices", n_voices, remedy, minimum=1)
    return tuple(voices[first_voice : first_voice + n_voices])
