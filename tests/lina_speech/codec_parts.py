"""Sounds with a pitch, small codecs and the ways of pushing frames, for the tests of codecs."""

from __future__ import annotations

import torch

from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec

RATE, HOP = 8000, 160
PUSHES = ["one by one", "all at once", "in threes", "ragged", "with empty pushes"]


def sound(seconds=0.5, pitch=140.0, seed=0):
    """Partials of a gliding pitch with a moving envelope, and a little noise: shape (S,), float32, within [-1, 1]."""
    time = torch.arange(round(seconds * RATE)) / RATE
    phase = 2 * torch.pi * (pitch * time + 15 * time.square())
    bright = 0.55 + 0.35 * torch.sin(9 * time + seed)
    partials = sum(bright**number * torch.sin(number * phase) for number in range(1, 16))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return 0.25 * partials / partials.abs().max() + 0.003 * noise


def sounds(count=4):
    return [sound(0.5, 110.0 + 35 * number, number) for number in range(count)]


def small_codec(n_codebooks=2, codebook_size=8, **changes):
    settings = {"sample_rate_hz": RATE, "n_mels": 20, **changes}
    return KMeansMelCodec.fit(sounds(), n_codebooks=n_codebooks, codebook_size=codebook_size, **settings)


def pieces(codes, how):
    """Cut (Q, N) codes along time."""
    n = codes.shape[1]
    if how == "all at once":
        return [codes]
    if how == "ragged":
        sizes = torch.randint(0, 9, (n,), generator=torch.Generator().manual_seed(n)).tolist()
    elif how == "with empty pushes":
        sizes = [0, 1, 0, 7] * n
    else:
        sizes = [{"one by one": 1, "in threes": 3}[how]] * n
    cuts = [min(sum(sizes[:count]), n) for count in range(len(sizes) + 1)]
    return [codes[:, start:end] for start, end in zip(cuts, [*cuts[1:], n], strict=True)]


def streamed(codec, codes, how, **sizes):
    decoder = codec.stream_decoder(**sizes)
    return torch.cat([decoder.push(piece) for piece in pieces(codes, how)] + [decoder.finish()])
