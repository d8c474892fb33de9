"""WavTokenizer as a codec: the authors' checkpoints, one codebook, 40 or 75 frames per second."""

# Dimension suffixes: B batch, T audio samples, Q codebooks (one), N frames.
# ruff: noqa: N806 - tensor names carry their dimensions

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Self, override

from lightning_adapt.lina_speech.codecs.neural import NeuralCodec
from lightning_adapt.lina_speech.codecs.wavtokenizer_config import WavTokenizerConfig, config_from, preset_of_weights
from lightning_adapt.lina_speech.codecs.wavtokenizer_model import WavTokenizerModel
from lightning_adapt.lina_speech.codecs.wavtokenizer_weights import load_weights, read_weights, translate_weights

__all__ = ["WavTokenizerCodec"]

_BLOCK_SECONDS, _LEFT_SECONDS, _RIGHT_SECONDS = 0.5, 2.0, 0.5  # together 3 s, the length of the training clips


class WavTokenizerCodec(NeuralCodec):
    """The codec of Ji et al. (2024, arXiv 2408.16532): 24 kHz speech as one of 4096 numbers per frame.

    An EnCodec encoder, a codebook, and a Vocos decoder with attention. S samples give ceil(S / hop) frames, as in the
    authors' code, and N frames give exactly N * hop samples. This is a new implementation; it was compared with the
    authors' code on random weights. No published weights were at hand when it was written, so none have been tried.

    Published checkpoints (MIT licence) are the files WavTokenizer_small_600_24k_4096.ckpt (40 frames per second),
    WavTokenizer_small_320_24k_4096.ckpt (75) and the "medium" and "large" ones of the same two sizes, on the hub under
    novateur/. Files of one size differ in their codebooks, also where their names differ by "_v2" only: codes of one
    are babble to another. The fingerprint tells them apart.

    The decoder's group norms and attention see all frames it is given, so a stream, decoded in windows, only comes near
    `decode`: each half second is decoded with two seconds before and half a second after it, together as long as the
    clips that the models were trained with.

    Args:
        path: The checkpoint: a Lightning .ckpt, a state dict, or a .safetensors file of one. Nothing in it is executed.
        config: Sizes of the model: None for a published one, or a dict, or the YAML or JSON file that it was trained
            with.
        bandwidth_id: Which condition of the adaptive layer norms to decode with; the authors use 0.

    Raises:
        ModuleNotFoundError: If transformers, or what the file calls for, is not installed (extra `speech`; `cli` for
            YAML).
        OSError: If there is no such file.
        TypeError: If an argument has the wrong type.
        ValueError: If the file cannot be read as plain tensors, or has others than the model; the text lists them.
    """

    n_codebooks = 1

    def __init__(self, path: str | os.PathLike[str], *, config: Any = None, bandwidth_id: int = 0) -> None:
        path = Path(path).expanduser().absolute()  # a state must find its file from wherever it is loaded
        self.path, self.bandwidth_id = str(path), bandwidth_id
        given = None if config is None else config_from(config)
        tensors = translate_weights(read_weights(path), bandwidth_id)
        self.config: WavTokenizerConfig = preset_of_weights(tensors, path) if given is None else given
        self.model = WavTokenizerModel(self.config)
        load_weights(self.model, tensors, path)
        self.model.eval().requires_grad_(False)
        self.hop_length = self.config.hop_length
        self.sample_rate_hz = self.config.sample_rate_hz
        self.frame_rate_hz = self.sample_rate_hz / self.hop_length
        self.codebook_size = self.config.codebook_size

    def __repr__(self) -> str:
        return f"{type(self).__name__}({Path(self.path).name}, {self.fingerprint}, {self.sample_rate_hz} Hz)"

    @override
    def _codebooks(self) -> dict[str, Tensor]:
        return {"codebook": self.model.codebook}

    @override
    def _to_codes(self, audio_BT: Tensor) -> Tensor:
        codes_BN: Tensor = self.model.to_codes(audio_BT.to(self.model.codebook.dtype))
        return codes_BN[:, None]

    @override
    def _to_audio(self, codes_BQN: Tensor) -> Tensor:
        audio_BT: Tensor = self.model.to_audio(codes_BQN[:, 0])
        return audio_BT

    @override
    def _stream_frames(self) -> tuple[int, int, int]:
        seconds = (_BLOCK_SECONDS, _LEFT_SECONDS, _RIGHT_SECONDS)
        block, left, right = (max(1, round(one * self.frame_rate_hz)) for one in seconds)
        return block, left, right

    @override
    def _source(self) -> dict[str, Any]:
        return {"path": self.path, "config": self.config.to_dict(), "bandwidth_id": self.bandwidth_id}

    @classmethod
    @override
    def _from_source(cls, state: Mapping[str, Any]) -> tuple[Self, str]:
        codec = cls(state["path"], config=dict(state["config"]), bandwidth_id=state["bandwidth_id"])
        return codec, state["path"]
