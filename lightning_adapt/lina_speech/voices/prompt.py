"""A voice from one recording: the state of the model after it has heard how somebody says a text; nothing is learnt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.fingerprint import known_fingerprint
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.lina_speech.data.audio import AudioError
from lightning_adapt.lina_speech.data.encode import Preparation
from lightning_adapt.lina_speech.data.sources import Recording
from lightning_adapt.lina_speech.model.delay import delay_codes
from lightning_adapt.lina_speech.voices.voice import Voice

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.inference.speaker import Speaker
    from lightning_adapt.lina_speech.model.state import State

__all__ = ["voice_from_prompt"]


def voice_from_prompt(
    speaker: Speaker,
    audio: Any,
    text: str,
    *,
    sample_rate_hz: int | None = None,
    name: str = "prompt",
    consent: str | None = None,
    min_seconds: float = 0.3,
    max_seconds: float = 20.0,
    trim_silence_db: float | None = 40.0,
) -> Voice:
    """Let a model hear a recording with its text, and keep what it then knows as a voice.

    The recording is prepared as training data is. The model reads begin and codes up to the last frame of codebook 0:
    the columns after it, in which the delay pattern completes the other codebooks, hold the end of codebook 0, and a
    state that has seen an end stops early. Matrices and inputs of short convolutions of all blocks are kept; the
    recurrence over places in the text starts anew with the text that is to be spoken. The voice takes as much memory
    as a state: the factors of a tuned one are far smaller.

    Args:
        speaker: The model with codec and tokenizer.
        audio: Path of an audio file, or samples of any rate: shape (S,), or with channels (C, S) or (S, C).
        text: What is said in it.
        sample_rate_hz: Rate of samples; a file knows its own.
        name: Of the voice.
        consent: Who agreed to what, in words.
        min_seconds: Shortest recording after trimming.
        max_seconds: Longest recording after trimming; best no longer than the utterances that the model was trained on.
        trim_silence_db: What counts as silence at the ends, as in `trim_silence`; None to leave them.

    Returns:
        A voice of the kind "prompt"; its `training_seconds` are those of the trimmed recording.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If soundfile or torchaudio is needed and missing; names the extra.
        TypeError: If the text is no string, or an option has the wrong type.
        ValueError: If the text is empty; the recording cannot be read, is empty, silent, too short or too long, or the
            rate of samples is missing; or an option is out of range.
    """
    if not isinstance(text, str):
        raise TypeError(problem("text", "a string", text, "Pass what is said in the recording."))
    if sample_rate_hz is None and not isinstance(audio, (str, os.PathLike)):
        remedy = "Pass the rate they were recorded at, such as 16000; a file knows its own."
        raise ValueError(problem("sample_rate_hz", "given beside samples", None, remedy))
    (ids,) = speaker.encode([text])
    preparation = Preparation.checked(min_seconds, max_seconds, trim_silence_db)
    samples = _prepared(preparation, audio, text, sample_rate_hz, speaker.codec.sample_rate_hz)
    with torch.no_grad():
        codes = speaker.codec.encode(samples)
    state = _state_after(speaker, ids, codes)
    last = f"conv.{len(state.gla)}"  # of the recurrence over places
    kept = {part: value[0] for part, value in state.tensors().items() if part not in ("position", last)}
    return Voice(
        name=name,
        tensors=kept,
        model_fingerprint=known_fingerprint(speaker.model),
        codec_fingerprint=speaker.codec.fingerprint,
        sample_rate_hz=speaker.codec.sample_rate_hz,
        kind="prompt",
        training_seconds=len(samples) / speaker.codec.sample_rate_hz,
        consent=consent,
    )


def _prepared(preparation: Preparation, audio: Any, text: str, rate: int | None, wanted: int) -> Tensor:
    named = os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else "samples"
    try:
        return preparation.prepared(Recording(audio, rate, text, "", "prompt", "`audio`"), wanted)
    except AudioError as error:
        if error.reason == "file not found":
            raise FileNotFoundError(problem("audio", "a file that is there", named, "Check the path.")) from error
        remedy = "Pass a clear recording of one short text, with `sample_rate_hz` if it is given as samples."
        raise ValueError(problem("audio", "a recording that can be used", f"{named}: {error}", remedy)) from error


def _state_after(speaker: Speaker, ids: list[int], codes: Tensor) -> State:
    """Return the state after begin and all codes of codebook 0; codes of shape (Q, N)."""
    device, n_frames = next(speaker.model.parameters()).device, codes.shape[1]
    if n_frames == 0:
        remedy = "Pass a longer recording."
        raise ValueError(problem("audio", "a recording that can be used", "less than a frame of the codec", remedy))
    columns = delay_codes(codes[None].to(device), torch.tensor([n_frames], device=device))[:, : n_frames + 1]
    text, lengths = torch.tensor([ids], device=device), torch.tensor([len(ids)], device=device)
    start = None if speaker.initial_state is None else speaker.initial_state.to(device)
    with evaluating(speaker.model):
        after: State = speaker.model(text, lengths, columns, state=start, output_state=True).state
    return after
