"""Which voice speaks which text: one for all, one per text, or none; torch only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_adapt._shared.checks import problem

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.model.model import LinaModel
    from lightning_adapt.lina_speech.model.state import State
    from lightning_adapt.lina_speech.voices.voice import Voice

    Voices: TypeAlias = Voice | State | Sequence[Voice | State | None] | None

__all__ = ["batch_of_voices", "voice_per_text"]


def voice_per_text(
    model: LinaModel, voice: Voices, n_texts: int, initial_state: State | None = None, codec: Any = None
) -> list[State | None]:
    """Return a state, or None, for each text.

    Args:
        model: The model that will speak.
        voice: A `Voice`, or a state of one stream, for all texts; a state of as many streams as texts; a list with a
            voice, a state or None per text; or None.
        n_texts: Number of texts.
        initial_state: What stands for None, of one stream.
        codec: The codec it will speak through, which a `Voice` must have been made with; None for no check.

    Returns:
        States of one stream, or None.

    Raises:
        TypeError: If it is neither voices, nor states, nor None.
        ValueError: If there are more or fewer voices than texts, or one belongs to another model or codec.
    """
    voices = [initial_state if item is None else item for item in _listed(model, voice, n_texts, codec)]
    if len(voices) != n_texts:
        remedy = "Pass one voice for all texts, or one per text."
        raise ValueError(problem("voice", f"one, or as many as texts ({n_texts})", len(voices), remedy))
    layout = model.initial_state(1).layout()
    for number, item in enumerate(voices):
        if item is not None:
            name = "initial_state" if item is initial_state else f"voice[{number}]" if n_texts > 1 else "voice"
            item.check(layout, name)
            if item.batch_size != 1:
                remedy = "Take one with state.split()."
                raise ValueError(problem(name, "the state of one stream", f"{item.batch_size} streams", remedy))
    return voices


def _listed(model: LinaModel, voice: Voices, n_texts: int, codec: Any) -> list[State | None]:
    from lightning_adapt.lina_speech.model.state import State
    from lightning_adapt.lina_speech.voices.voice import Voice

    if isinstance(voice, State) and voice.batch_size != 1:
        return list(voice.split())
    if voice is None or isinstance(voice, (Voice, State)):
        voices: list[Any] = [voice] * n_texts
    elif isinstance(voice, Sequence) and all(item is None or isinstance(item, (Voice, State)) for item in voice):
        voices = list(voice)
    else:
        remedy = "Load one with Voice.load(path)."
        raise TypeError(problem("voice", "a Voice, a State, a list of them, or None", voice, remedy))
    different = {id(item): item for item in voices if isinstance(item, Voice)}
    made = {key: item.state(model, codec) for key, item in different.items()}
    return [made.get(id(item), item) for item in voices]


def batch_of_voices(model: LinaModel, voices: Sequence[State | None]) -> State:
    """Return the state that a batch of streams starts from.

    Args:
        model: The model that will speak.
        voices: A state of one stream, or None for the model's own beginning, per stream.

    Returns:
        A state of as many streams, on the device and in the float type of the model's own.
    """
    from lightning_adapt.lina_speech.model.state import State

    own = model.initial_state(1)
    like = own.gla[0]
    if all(voice is None for voice in voices):
        return model.initial_state(len(voices))
    return State.cat([own if voice is None else voice.map(lambda value: value.to(like)) for voice in voices])
