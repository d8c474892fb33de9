"""How a LinaSpeechModule speaks: whole texts, one text piece by piece, and in the voice of a recording."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.inference.speech import Speech

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.inference.voice_states import Voices
    from lightning_adapt.lina_speech.voices.voice import Voice

__all__ = ["Speaking"]


class Speaking:
    """Adds `generate`, `stream` and `voice_from_prompt` to a class that can make a `Speaker`."""

    max_seconds: float

    @abstractmethod
    def speaker(self) -> Speaker:
        """Return what speaks: the model with its codec and tokenizer."""

    def generate(
        self,
        texts: Sequence[str],
        voice: Voices = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = 100,
        top_p: float = 1.0,
        max_seconds: float | None = None,
        n_best: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> list[Speech]:
        """Speak texts, in eval mode and in the precision of the weights; modes and random state are kept.

        Text i draws from the random numbers of `seed + i`, whatever else is in the batch: alone with that seed it
        sounds the same, up to rounding. The numbers on a GPU are those on a CPU.

        Args:
            texts: What to say.
            voice: One `Voice` (or state) for all texts, or one (or None) per text; None for the model's own.
            temperature: Divides the logits; 0 takes the most probable code.
            top_k: Draw among this many of the most probable codes; None for all.
            top_p: Draw among the fewest codes that together have this probability.
            max_seconds: Longest audio of a text; None for that of the module.
            n_best: Attempts per text; the one whose attention read the text best is kept.
            seed: Of the random numbers.
            options: Further arguments of `Speaker.speak_ids`, such as `batch_size`.

        Returns:
            One `Speech` per text.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If a text is empty, an argument is out of range, a voice belongs to another model or codec,
                or there is no codec or tokenizer.
        """
        seconds = self.max_seconds if max_seconds is None else max_seconds
        drawn = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "n_best": n_best, "seed": seed}
        return self.speaker().speak(texts, voice, max_seconds=seconds, **drawn, **options)

    def stream(
        self,
        text: str,
        voice: Voices = None,
        *,
        chunk_frames: int = 25,
        temperature: float = 1.0,
        top_k: int | None = 100,
        top_p: float = 1.0,
        max_seconds: float | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Iterator[Tensor]:
        """Speak a text piece by piece; the joined pieces are the audio of `generate([text])`, sample for sample.

        Args:
            text: What to say.
            voice: The voice; None for the model's own.
            chunk_frames: Frames that are decoded for each piece.
            temperature: As in `generate`.
            top_k: Likewise.
            top_p: Likewise.
            max_seconds: Likewise.
            seed: Likewise.
            options: Further arguments of `Speaker.stream`.

        Returns:
            An iterator over samples. Shape (s,) with s >= 1, dtype float32, on the CPU.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: As in `generate`.
        """
        seconds = self.max_seconds if max_seconds is None else max_seconds
        drawn: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        return self.speaker().stream(text, voice, chunk_frames=chunk_frames, max_seconds=seconds, **drawn, **options)

    def voice_from_prompt(
        self,
        audio: Any,
        text: str,
        *,
        sample_rate_hz: int | None = None,
        name: str = "prompt",
        consent: str | None = None,
        **options: Any,
    ) -> Voice:
        """Return a voice from one recording, without any training: the state of the model after it heard it.

        Args:
            audio: Path of an audio file, or samples of any rate: shape (S,), or with channels (C, S) or (S, C).
            text: What is said in it.
            sample_rate_hz: Rate of samples; a file knows its own.
            name: Of the voice.
            consent: Who agreed to what, in words.
            options: Further arguments of `voices.prompt.voice_from_prompt`, such as `max_seconds`.

        Returns:
            A voice of the kind "prompt", of the size of a state.

        Raises:
            FileNotFoundError: If there is no such file.
            TypeError: If an argument has the wrong type.
            ValueError: If the text is empty, the recording cannot be used, or there is no codec or tokenizer.
        """
        from lightning_adapt.lina_speech.voices.prompt import voice_from_prompt

        about: dict[str, Any] = {"sample_rate_hz": sample_rate_hz, "name": name, "consent": consent}
        return voice_from_prompt(self.speaker(), audio, text, **about, **options)
