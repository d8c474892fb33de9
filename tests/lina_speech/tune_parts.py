"""Somebody who speaks in tones, manifests of what they said, and a small model trained on another one."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import soundfile
import torch
from lightning.pytorch import Trainer

from lightning_adapt import cli
from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from tests.lina_speech.speech_parts import QUIET, module

RATE = 16_000
WORDS = ["one two", "three", "four five", "six", "seven one", "two four", "five", "three six", "seven", "one five two"]


def said(text, speaker=0.0):
    """Each letter is 80 ms of partials at a pitch of its own, and 40 ms of nearly nothing: (S,) at RATE, in [-1, 1].

    The speaker moves all pitches and the brightness.
    """
    pieces = []
    for letter in text:
        time = np.arange(round(0.08 * RATE)) / RATE
        pitch = (120 + 11 * (ord(letter) % 13)) * (1 + 0.5 * speaker)
        sound = sum((0.8 - 0.5 * speaker) ** n * np.sin(2 * np.pi * n * pitch * time) for n in range(1, 12))
        pieces += [0.3 * sound * np.hanning(len(sound)), np.zeros(round(0.04 * RATE))]
    noise = np.random.default_rng(len(text)).standard_normal(sum(map(len, pieces)))
    return (np.concatenate(pieces) + 1e-3 * noise).astype(np.float32)


def write(path, samples, rate=RATE):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return str(path)


def manifest(path, recordings):
    """Write (file, text, speaker) rows as CSV."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("audio", "text", "speaker"), *recordings])
    return str(path)


def recorded(count, *, speaker=1.0, name="", folder="wavs", start=0):
    """Write utterances of one speaker; rows for `manifest`."""
    texts = {f"{folder}/{number}.wav": WORDS[number % len(WORDS)] for number in range(start, start + count)}
    return [(write(path, said(text, speaker)), text, name) for path, text in texts.items()]


@functools.cache
def codec():
    sounds = [torch.from_numpy(said(text, speaker)) for text in WORDS for speaker in (0.0, 1.0)]
    return KMeansMelCodec.fit(sounds, sample_rate_hz=RATE, codebook_size=24)


def trained(path, steps=30, **options):
    """Train a small model on speaker 0 and write its checkpoint."""
    rows = [
        {"audio": said(text, 0.1 * (number % 3)), "sample_rate_hz": RATE, "text": text, "id": str(number)}
        for number, text in enumerate(WORDS)
    ]
    settings = {"codebook_size": 24, "text_vocab_size": 256, "max_seconds": 0.3, "learning_rate": 2e-2}
    made = module(**{**settings, "codec": codec(), "tokenizer": "characters", **options})
    data = TextSpeechDataModule(rows, val=None, codec=codec(), join_probability=0.0, max_batch_size=10, progress=False)
    trainer = Trainer(**QUIET, max_steps=steps)
    trainer.fit(made, datamodule=data)
    trainer.save_checkpoint(path)
    return str(path)


def tune(checkpoint, rows, *arguments, out="me.safetensors"):
    """Run the command on a manifest of rows; returns its exit code."""
    given = ["--checkpoint", checkpoint, "--manifest", manifest("me.csv", rows), "--out", out]
    return cli.main(["tune-voice", *given, "--consent", "yes", *map(str, arguments)])
