"""What the neural codecs have in common: shapes, autocast, exact lengths, the fingerprint, streams and states."""

# Dimension suffixes: B batch, T audio samples, Q codebooks, N frames.
# ruff: noqa: N803, N806 - tensor names carry their dimensions

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from lightning_adapt.lina_speech.codecs.codec import STATE_VERSION, check_codec, check_state
from lightning_adapt.lina_speech.codecs.fingerprint import fingerprint_text, tensors_digest
from lightning_adapt.lina_speech.codecs.inputs import audio_batch, code_batch
from lightning_adapt.lina_speech.codecs.stream_decoder import WindowedStreamDecoder

__all__ = ["NeuralCodec"]


class NeuralCodec(ABC):
    """A codec around a network: what is left to a kind of network is to turn whole batches into codes and back.

    Attributes:
        model: The network, in evaluation mode.
        sample_rate_hz: Rate of the audio.
        frame_rate_hz: Frames per second.
        hop_length: Samples of a frame.
        n_codebooks: Q, numbers per frame.
        codebook_size: C; codes are 0..C-1.
    """

    model: Any
    sample_rate_hz: int
    frame_rate_hz: float
    hop_length: int
    n_codebooks: int
    codebook_size: int

    # -- left to the kind of network -----------------------------------------------------------------------------------
    @abstractmethod
    def _codebooks(self) -> dict[str, Tensor]:
        """Return the centers of the codebooks in use, by names that sort in their order."""

    @abstractmethod
    def _to_codes(self, audio_BT: Tensor) -> Tensor:
        """Return the codes of audio, shape (B, Q, N), N = ceil(T / hop)."""

    @abstractmethod
    def _to_audio(self, codes_BQN: Tensor) -> Tensor:
        """Return the audio of codes, shape (B, T); what lacks at its end becomes silence."""

    @abstractmethod
    def _stream_frames(self) -> tuple[int, int, int]:
        """Return the usual frames of a stream's block, and of the context before and after it."""

    @abstractmethod
    def _source(self) -> dict[str, Any]:
        """Return what finds the weights again, as plain values; `_from_source` takes it."""

    @classmethod
    @abstractmethod
    def _from_source(cls, state: Mapping[str, Any]) -> tuple[Self, str]:
        """Build the codec that `_source` described; return it and the name of its weights."""

    def _kind(self) -> str | None:
        """Return the kind of network where one class has several."""
        return None

    # -- what every codec offers ---------------------------------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Where the codec computes and where its results are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device, in place, and return the codec."""
        self.model.to(device)
        return self

    @property
    def fingerprint(self) -> str:
        """Class, Q, C, frame rate and a hash of geometry and codebooks; the same on every device.

        Of the codebooks the signs of all numbers are hashed: they do not change when a model is converted to another
        float type, and another training has others.
        """
        name, kind = type(self).__name__, self._kind()
        settings: dict[str, Any] = {"sample_rate_hz": self.sample_rate_hz, "hop_length": self.hop_length}
        if kind is not None:
            name, settings = f"{name}.{kind}", {**settings, "model": kind}
        signs = {key: torch.signbit(book.detach()) for key, book in self._codebooks().items()}
        digest = tensors_digest(signs, settings)
        return fingerprint_text(name, self.n_codebooks, self.codebook_size, self.frame_rate_hz, digest)

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Return the codes of mono audio at `sample_rate_hz`.

        Args:
            audio: Shape (S,) or (B, S), float32, in [-1, 1].

        Returns:
            Shape (Q, N) or (B, Q, N) with N = ceil(S / hop), dtype int64, on the device of the model.

        Raises:
            TypeError: If it is no tensor of floats.
            ValueError: If the shape is wrong, nothing is in it, or a number is NaN or far outside [-1, 1].
        """
        rows_BT = audio_batch(audio, self.device)
        with torch.autocast(self.device.type, enabled=False):
            codes_BQN = self._to_codes(rows_BT).long()
        return codes_BQN[0] if audio.ndim == 1 else codes_BQN

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the audio of codes.

        Args:
            codes: Shape (Q, N) or (B, Q, N), whole numbers in 0..C-1, N >= 0.

        Returns:
            Shape (N * hop,) or (B, N * hop), float32, in [-1, 1], on the device of the model.

        Raises:
            TypeError: If they are no tensor of whole numbers.
            ValueError: If the shape is wrong or a code is out of range.
        """
        codes_BQN = code_batch(codes, self.n_codebooks, self.codebook_size, self.device)
        n_samples = codes_BQN.shape[2] * self.hop_length
        if codes_BQN.numel():
            with torch.autocast(self.device.type, enabled=False):
                audio_BT = self._to_audio(codes_BQN)[:, :n_samples].float().clamp(-1.0, 1.0)
            audio_BT = F.pad(audio_BT, (0, n_samples - audio_BT.shape[1]))
        else:
            audio_BT = torch.zeros(len(codes_BQN), n_samples, device=self.device)
        return audio_BT[0] if codes.ndim == 2 else audio_BT

    def stream_decoder(
        self, *, block_frames: int | None = None, left_frames: int | None = None, right_frames: int | None = None
    ) -> WindowedStreamDecoder:
        """Return a fresh decoder for the frames of one stream.

        Args:
            block_frames: Frames whose audio is given out at once; None for what the model calls for.
            left_frames: Frames of context before a block; None likewise.
            right_frames: Frames of context after it; None likewise (none where the model is causal).

        Returns:
            The decoder; see `WindowedStreamDecoder` for latency and cost.
        """
        block, left, right = self._stream_frames()
        return WindowedStreamDecoder(
            self.decode,
            self.n_codebooks,
            self.codebook_size,
            self.hop_length,
            block_frames=block if block_frames is None else block_frames,
            left_frames=left if left_frames is None else left_frames,
            right_frames=right if right_frames is None else right_frames,
            device=self.device,
        )

    def to_state(self) -> dict[str, Any]:
        """Return where the weights came from, with settings and fingerprint; the weights themselves stay there."""
        about = {"version": STATE_VERSION, "class": type(self).__name__}
        return {**about, **self._source(), "fingerprint": self.fingerprint}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Load the weights that `to_state` named, on the CPU.

        Raises:
            ModuleNotFoundError: If transformers is not installed (extra `speech`).
            OSError: If the weights are not there any more.
            ValueError: If the state is of something else, names no weights, or they are others by now.
        """
        check_state(state, cls.__name__)
        codec, name = cls._from_source(state)
        check_codec(codec, state["fingerprint"], f"The saved state of {name}")
        return codec
