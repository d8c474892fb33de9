"""Two judges of speech that need no ear: whose voice it is (Resemblyzer), and which digits were said (pocketsphinx)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

HEARING_RATE = 16_000
_DIGITS = "zero | one | two | three | four | five | six | seven | eight | nine"
_GRAMMAR = f"#JSGF V1.0;\ngrammar digits;\npublic <digits> = ({_DIGITS})+;\n"


@cache
def _voice_encoder() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old imports inside Resemblyzer
        from resemblyzer import VoiceEncoder

        return VoiceEncoder("cpu", verbose=False)


def voice_of(audio: Tensor, rate: int) -> Tensor:
    """Return the voice embedding of audio of shape (S,). Shape (256,), of length 1; zeros if nothing is heard."""
    encoder = _voice_encoder()
    from resemblyzer import preprocess_wav

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heard = preprocess_wav(audio.numpy(), source_sr=rate)
        return torch.from_numpy(encoder.embed_utterance(heard)) if len(heard) else torch.zeros(256)


def mean_voice(audios: Sequence[Tensor], rate: int) -> Tensor:
    """Return the mean of the embeddings of some utterances: the product of two such means is that of all pairs."""
    return torch.stack([voice_of(audio, rate) for audio in audios]).mean(0)


@cache
def _recogniser() -> Any:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=HEARING_RATE, lm=None, loglevel="FATAL")
    decoder.add_jsgf_string("digits", _GRAMMAR)
    decoder.activate_search("digits")
    return decoder


def digits_heard(audio: Tensor, rate: int) -> list[str]:
    """Return the digits that are heard in audio of shape (S,)."""
    from torchaudio.functional import resample

    quiet, decoder = torch.zeros(HEARING_RATE // 4), _recogniser()
    samples = torch.cat([quiet, resample(audio, rate, HEARING_RATE), quiet])
    decoder.start_utt()
    decoder.process_raw((samples.clamp(-1, 1) * 32767).short().numpy().tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr.split() if found else []


def digit_accuracy(texts: Sequence[str], audios: Sequence[Tensor], rate: int) -> float:
    """Return the share of digits that are heard rightly: 1 minus edits per digit, no utterance below 0."""
    wrong = total = 0
    for text, audio in zip(texts, audios, strict=True):
        said = text.split()
        wrong += min(len(said), edits(said, digits_heard(audio, rate)))
        total += len(said)
    return 1.0 - wrong / total


def edits(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and exchanges of words that make one of the other."""
    row = list(range(len(second) + 1))
    for place, one in enumerate(first, 1):
        before, row = row, [place]
        for column, other in enumerate(second, 1):
            row.append(min(before[column] + 1, row[-1] + 1, before[column - 1] + (one != other)))
    return row[-1]
