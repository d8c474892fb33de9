"""Small WavTokenizers: sizes, and checkpoints under the authors' names with weights that any machine makes alike."""

from __future__ import annotations

import hashlib
import math

import torch

from lightning_adapt._shared.hashing import uniform
from lightning_adapt.lina_speech.codecs.wavtokenizer import WavTokenizerCodec

SIZES = {
    "ratios": [3, 2],
    "n_filters": 4,
    "n_lstm_layers": 2,
    "codebook_size": 32,
    "codebook_dim": 16,
    "width": 64,
    "feedforward_width": 96,
    "n_blocks": 2,
    "n_fft": 24,
}
HOP = 6
CONDITIONS = 3
ENCODER = "feature_extractor.encodec.encoder.model."
CODEBOOK = "feature_extractor.encodec.quantizer.vq.layers.0._codebook."


def encoder_shapes():
    """Names and shapes of the encoder and the codebook in a checkpoint of the authors' code for SIZES."""
    found = {}

    def conv(name, n_out, n_in, kernel):
        normed = {"weight_g": (n_out, 1, 1), "weight_v": (n_out, n_in, kernel), "bias": (n_out,)}
        found.update({f"{ENCODER}{name}.conv.conv.{part}": shape for part, shape in normed.items()})

    conv("0", 4, 1, 7)
    for number, width, stride in ((1, 4, 2), (4, 8, 3)):
        conv(f"{number}.block.1", width // 2, width, 3)
        conv(f"{number}.block.3", width, width // 2, 1)
        conv(f"{number}.shortcut", width, width, 1)
        conv(f"{number + 2}", 2 * width, width, 2 * stride)
    for part in ("ih_l0", "hh_l0", "ih_l1", "hh_l1"):
        found.update({f"{ENCODER}7.lstm.weight_{part}": (64, 16), f"{ENCODER}7.lstm.bias_{part}": (64,)})
    conv("9", 16, 16, 7)
    found.update({CODEBOOK + "embed": (32, 16), CODEBOOK + "embed_avg": (32, 16)})
    return {**found, CODEBOOK + "inited": (1,), CODEBOOK + "cluster_size": (32,)}


def decoder_shapes():
    """Names and shapes of the backbone and the head in a checkpoint of the authors' code for SIZES."""
    plain = {"backbone.embed": (64, 16, 7), "backbone.pos_net.2.norm": (64,), "backbone.pos_net.5": (64,)}
    for block in (0, 1, 3, 4):
        for half in (1, 2):
            plain[f"backbone.pos_net.{block}.norm{half}"] = (64,)
            plain[f"backbone.pos_net.{block}.conv{half}"] = (64, 64, 3)
    plain.update({f"backbone.pos_net.2.{part}": (64, 64, 1) for part in ("q", "k", "v", "proj_out")})
    for block in ("backbone.convnext.0.", "backbone.convnext.1."):
        plain.update({block + "dwconv": (64, 1, 7), block + "pwconv1": (96, 64), block + "pwconv2": (64, 96)})
    plain.update({"backbone.final_layer_norm": (64,), "head.out": (26, 64)})
    found = {f"{name}.weight": shape for name, shape in plain.items()}
    found.update({f"{name}.bias": shape[:1] for name, shape in plain.items()})
    for name in ("backbone.norm", "backbone.convnext.0.norm", "backbone.convnext.1.norm"):
        found.update({f"{name}.scale.weight": (CONDITIONS, 64), f"{name}.shift.weight": (CONDITIONS, 64)})
    gammas = {"backbone.convnext.0.gamma": (64,), "backbone.convnext.1.gamma": (64,)}
    return {**found, **gammas, "head.istft.window": (24,)}


def tensor_of(name, shape, seed=0):
    """Numbers that follow from the name: around 1 for scales, of variance 1 / fan-in for matrices, small for others."""
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
    values = 2 * uniform(torch.arange(math.prod(shape)), key).reshape(shape) - 1
    if name.endswith("weight_g"):
        return (2.5 + 0.5 * values).float()
    if name.endswith(("gamma", "scale.weight")) or (len(shape) == 1 and name.endswith("weight")):
        return (1 + 0.2 * values).float()
    if len(shape) == 1:
        return (0.1 * values).float()
    fan_in = 1 if name.endswith(("embed", "shift.weight")) else math.prod(shape[1:])
    return (values * math.sqrt(3 / fan_in)).float()


def weights(seed=0):
    """A state dict under the authors' names."""
    return {name: tensor_of(name, shape, seed) for name, shape in {**encoder_shapes(), **decoder_shapes()}.items()}


def extras():
    """Names of a training checkpoint that a codec does not need."""
    names = ("feature_extractor.encodec.decoder.model.0.conv.conv.weight_v", "multiperioddisc.a", "dac.b", "melspec.c")
    return {name: torch.ones(2) for name in names}


def checkpoint(folder, seed=0, name="small.ckpt", **changes):
    """Write a Lightning checkpoint; `changes` None removes a name."""
    state = {**weights(seed), **extras(), **changes}
    state = {key: value for key, value in state.items() if value is not None}
    path = folder / name
    torch.save({"state_dict": state, "epoch": 3, "pytorch-lightning_version": "1.8.6", "callbacks": {}}, path)
    return path


def codec(folder, seed=0, **changes):
    return WavTokenizerCodec(checkpoint(folder, seed), config=SIZES, **changes)


def audio_of(n_samples, seed=0):
    return tensor_of("audio", (1, n_samples), seed)[0] / 2
