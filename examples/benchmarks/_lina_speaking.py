"""From text to sound with one stream: how long the first chunk takes, and how long a second of sound."""

from __future__ import annotations

from functools import cache
from typing import Any

import _harness as h
import torch

from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.corpus.voices import SynthesisedVoices
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.text.characters import CharacterTokenizer

TEXT = "the little river goes under the old stone bridge"


@cache
def _speaker() -> Any:
    """A model of random weights with a codec that knows a voice: it babbles, at the price of speech."""
    voice = SynthesisedVoices(1, 20, engine="formant")
    codec = KMeansMelCodec.fit([row["audio"] for row in voice], codebook_size=512)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = CharacterTokenizer()
        return LinaSpeechModule("tiny", codebook_size=512, codec=codec, tokenizer=tokenizer).eval()


def speak(seconds: float, seed: int) -> h.Run:
    """Measure the wait for the first chunk of a stream, and the time for a whole utterance.

    Args:
        seconds: Longest utterance.
        seed: Seed of what is babbled.

    Returns:
        Milliseconds to the first chunk and its seconds of sound; processor seconds (with one thread, else the clock's)
        per second of sound, and how many were spoken.
    """
    module = _speaker()
    began = h.spent("cpu")
    stream = module.stream(TEXT, max_seconds=seconds, seed=seed)
    chunk = next(stream)
    first = h.spent("cpu") - began
    began = h.spent("cpu")
    (speech,) = module.generate([TEXT], max_seconds=seconds, seed=seed)
    took, spoken = h.spent("cpu") - began, speech.seconds
    chunk_seconds = len(chunk) / speech.sample_rate_hz
    factor = took / max(spoken, 1 / speech.sample_rate_hz)
    return {
        "ratio": factor,
        "first chunk": 1e3 * first,
        "chunk": chunk_seconds,
        "real-time factor": factor,
        "seconds": spoken,
    }
