"""A codec of a few lines, tones as recordings, and a small data module, for the tests of speech data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule

RATE = 1000
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


class LoudnessCodec:
    """The protocol of codecs, as small as it gets: a code is the loudness of 20 ms, once per codebook."""

    def __init__(self, n_codebooks=2, codebook_size=16, name="loudness"):
        self.sample_rate_hz, self.frame_rate_hz = RATE, 50.0
        self.n_codebooks, self.codebook_size = n_codebooks, codebook_size
        self.fingerprint = f"{name}-{n_codebooks}x{codebook_size}"
        self.calls = 0

    def encode(self, audio):
        self.calls += 1
        frames = audio[: len(audio) // 20 * 20].reshape(-1, 20).abs().mean(dim=1)
        codes = (frames * self.codebook_size).long().clamp(0, self.codebook_size - 1)
        return torch.stack([(codes + row) % self.codebook_size for row in range(self.n_codebooks)])

    def decode(self, codes):
        return (codes[..., 0, :].float() / self.codebook_size).repeat_interleave(20, dim=-1)

    def stream_decoder(self):
        raise NotImplementedError

    def to_state(self):
        return {"class": "LoudnessCodec"}


class Letters:
    """The protocol of tokenizers: a letter is its place in the alphabet."""

    vocab_size = 64

    def __init__(self, name="letters"):
        self.fingerprint = name

    def encode(self, text):
        return [1, *(4 + ord(letter) % 60 for letter in text), 2]

    def decode(self, ids):
        return "?" * (len(ids) - 2)

    def to_state(self):
        return {"kind": "letters"}


def tone(seconds, number=0, rate=RATE):
    """A sine of its own pitch and loudness."""
    time = np.arange(round(seconds * rate)) / rate
    return ((0.3 + 0.03 * (number % 20)) * np.sin(2 * np.pi * (50 + number) * time)).astype(np.float32)


def rows(count, *, speakers=3, start=0):
    """Tones of 0.4 to 1.8 seconds as rows in memory."""
    made = []
    for number in range(start, start + count):
        length = 0.4 + 0.1 * (int(hashlib.md5(str(number).encode()).hexdigest(), 16) % 15)
        audio = torch.from_numpy(tone(length, number))
        speaker = f"voice {number % speakers}"
        text = f"number {number} is said"
        made.append({"audio": audio, "sample_rate_hz": RATE, "text": text, "speaker": speaker, "id": f"u{number:04d}"})
    return made


def write_wav(path, samples, rate=RATE, **options):
    import soundfile

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(samples), rate, **options)
    return str(path)


def data(source=None, cache="cache", **options):
    """A data module of 60 tones with a cache in the working directory of the test."""
    given = {"codec": LoudnessCodec(), "tokenizer": Letters(), "tokens_per_batch": 200, "progress": False, "val": None}
    return TextSpeechDataModule(rows(60) if source is None else source, cache_dir=cache, **{**given, **options})
