"""Voices with random tensors, for small models and without any."""

from __future__ import annotations

import torch

from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.voices.voice import Voice

MODEL, CODEC = "0123456789abcdef0123456789abcdef", "KMeansMelCodec-1x512-50hz-0123456789abcdef"


def random_tensors(shapes, rank=2, seed=0, scale=0.5):
    """Factors, or matrices, of every recurrence but that of places, by the names and shapes of a model."""
    draw, made = torch.Generator().manual_seed(seed), {}
    for name, (heads, keys, values) in shapes.items():
        if rank == "full":
            made[name] = scale * torch.randn(heads, keys, values, generator=draw)
        else:
            made[f"{name}.u"] = torch.randn(rank, heads, keys, generator=draw)
            made[f"{name}.w"] = scale / rank**0.5 * torch.randn(rank, heads, values, generator=draw)
    return made


def shapes_of(model):
    layout = model.initial_state(1).layout()
    return {name: shape for name, shape in layout.items() if name.startswith("gla.")}


def voice_for(model, codec=None, rank=2, seed=0, **about):
    """A voice of random numbers for a model."""
    origin = {"codec_fingerprint": None if codec is None else codec.fingerprint, "name": f"voice {seed}"}
    return Voice(
        **{**origin, **about},
        tensors=random_tensors(shapes_of(model), rank, seed),
        model_fingerprint=weights_fingerprint(model),
    )


def some_voice(rank=2, seed=0, **about):
    """A voice of no model."""
    told = {"name": f"voice {seed}", "model_fingerprint": MODEL, "codec_fingerprint": CODEC, "sample_rate_hz": 22_050}
    return Voice(tensors=random_tensors({"gla.0": (2, 8, 16), "gla.1": (2, 8, 16)}, rank, seed), **{**told, **about})


def same_tensors(one, other):
    """Whether two voices hold the same bits under the same names."""
    return set(one.tensors) == set(other.tensors) and all(
        torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )
