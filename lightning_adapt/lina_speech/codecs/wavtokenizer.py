"""WavTokenizer as a codec: the authors' checkpoints, one codebook, 40 or 75 frames per second."""

# Dimension suffixes: B batch, T audio samples, Q codebooks (one), N frames.
# ruff: noqa: N806 - tensor names carry their dimensions

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_adapt._shared.state import read_version
from lightning_adapt.lina_speech.codecs.codec import STATE_VERSION, check_codec, fingerprint_text, tensors_digest
from lightning_adapt.lina_speech.codecs.inputs import audio_batch, code_batch
from lightning_adapt.lina_speech.codecs.stream_decoder import WindowedStreamDecoder
from lightning_adapt.lina_speech.codecs.wavtokenizer_config import WavTokenizerConfig, config_from, preset_of_weights
from lightning_adapt.lina_speech.codecs.wavtokenizer_model import WavTokenizerModel
from lightning_adapt.lina_speech.codecs.wavtokenizer_weights import load_weights, read_weights, translate_weights

__all__ = ["WavTokenizerCodec"]

_BLOCK_SECONDS, _LEFT_SECONDS, _RIGHT_SECONDS = 0.5, 2.0, 0.5  # together 3 s, the length of the training clips


class WavTokenizerCodec:
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

    @property
    def device(self) -> torch.device:
        """Where the codec computes and where its results are."""
        return self.model.codebook.device

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device, in place, and return the codec."""
        self.model.to(device)
        return self

    @property
    def fingerprint(self) -> str:
        """Class, Q, C, frame rate and a hash of geometry and codebook; the same on every device.

        Of the codebook the signs of all numbers are hashed: they do not change when the model is converted to another
        float type, and another training has others.
        """
        settings = {"sample_rate_hz": self.sample_rate_hz, "hop_length": self.hop_length}
        digest = tensors_digest({"codebook": torch.signbit(self.model.codebook)}, settings)
        kind = type(self).__name__
        return fingerprint_text(kind, self.n_codebooks, self.codebook_size, self.frame_rate_hz, digest)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({Path(self.path).name}, {self.fingerprint}, {self.sample_rate_hz} Hz)"

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes of mono audio at `sample_rate_hz`.

        Args:
            audio: Shape (S,) or (B, S), float32, in [-1, 1].

        Returns:
            Shape (1, N) or (B, 1, N) with N = ceil(S / hop), dtype int64, on the device of the model.

        Raises:
            TypeError: If it is no tensor of floats.
            ValueError: If the shape is wrong, nothing is in it, or a number is NaN or far outside [-1, 1].
        """
        rows_BT = audio_batch(audio, self.device).to(self.model.codebook.dtype)
        with torch.autocast(self.device.type, enabled=False):
            codes_BQN = self.model.to_codes(rows_BT)[:, None]
        return codes_BQN[0] if audio.ndim == 1 else codes_BQN

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio of codes.

        Args:
            codes: Shape (1, N) or (B, 1, N), whole numbers in 0..C-1, N >= 0.

        Returns:
            Shape (N * hop,) or (B, N * hop), float32, in [-1, 1], on the device of the model.

        Raises:
            TypeError: If they are no tensor of whole numbers.
            ValueError: If the shape is wrong or a code is out of range.
        """
        codes_BQN = code_batch(codes, self.n_codebooks, self.codebook_size, self.device)
        if not codes_BQN.numel():
            audio_BT = torch.zeros(len(codes_BQN), codes_BQN.shape[2] * self.hop_length, device=self.device)
        else:
            with torch.autocast(self.device.type, enabled=False):
                audio_BT = self.model.to_audio(codes_BQN[:, 0]).float().clamp(-1.0, 1.0)
        return audio_BT[0] if codes.ndim == 2 else audio_BT

    def stream_decoder(
        self, *, block_frames: int | None = None, left_frames: int | None = None, right_frames: int | None = None
    ) -> WindowedStreamDecoder:
        """Return a fresh decoder for the frames of one stream.

        Args:
            block_frames: Frames whose audio is given out at once; None for half a second.
            left_frames: Frames of context before a block; None for two seconds.
            right_frames: Frames of context after it; None for half a second.

        Returns:
            The decoder; see `WindowedStreamDecoder` for latency and cost.
        """

        def frames(wanted: int | None, seconds: float) -> int:
            return max(1, round(seconds * self.frame_rate_hz)) if wanted is None else wanted

        return WindowedStreamDecoder(
            self.decode,
            self.n_codebooks,
            self.codebook_size,
            self.hop_length,
            block_frames=frames(block_frames, _BLOCK_SECONDS),
            left_frames=frames(left_frames, _LEFT_SECONDS),
            right_frames=frames(right_frames, _RIGHT_SECONDS),
            device=self.device,
        )

    def to_state(self) -> dict[str, Any]:
        """Return path, sizes and fingerprint; the weights stay in their file."""
        return {
            "version": STATE_VERSION,
            "class": type(self).__name__,
            "path": self.path,
            "config": self.config.to_dict(),
            "bandwidth_id": self.bandwidth_id,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Load the checkpoint that `to_state` named, on the CPU.

        Raises:
            ModuleNotFoundError: If transformers is not installed (extra `speech`).
            OSError: If the file is not there any more.
            ValueError: If the state is of something else, or the file holds another codec by now.
        """
        read_version(state, STATE_VERSION, "a codec")
        if state.get("class") != cls.__name__:
            raise ValueError(f"The saved state is of {state.get('class')!r}, not of {cls.__name__}. Use its own class.")
        codec = cls(state["path"], config=dict(state["config"]), bandwidth_id=state["bandwidth_id"])
        check_codec(codec, state["fingerprint"], f"The saved state of {state['path']}")
        return codec
