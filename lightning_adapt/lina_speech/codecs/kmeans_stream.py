"""Codes of `KMeansMelCodec` to audio, block by block as the frames come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_adapt.lina_speech.codecs.griffin_lim import BLOCK_FRAMES, LOOK_AHEAD_FRAMES, BlockGriffinLim
from lightning_adapt.lina_speech.codecs.inputs import stream_codes

if TYPE_CHECKING:
    from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec

__all__ = ["KMeansMelStreamDecoder"]


class KMeansMelStreamDecoder:
    """Decodes one stream block by block; block boundaries depend on frame numbers alone, not on the pushes.

    Args:
        codec: The codec; it must stay on its device meanwhile.
    """

    def __init__(self, codec: KMeansMelCodec) -> None:
        self._codec = codec
        self._synthesis = BlockGriffinLim(codec.mel.n_fft, codec.hop_length, codec.device)
        self._waiting = torch.zeros(codec.n_codebooks, 0, dtype=torch.int64, device=codec.device)
        self._to_drop = (codec.mel.n_fft - codec.hop_length) // 2  # samples of the first window before the audio
        self._end = self._to_drop
        self._finished = False

    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames and return the audio that is final now.

        Args:
            codes: Shape (Q, n), whole numbers in 0..C-1, n >= 0.

        Returns:
            Shape (S,), float32, in [-1, 1]; nothing before 12 frames have come.

        Raises:
            RuntimeError: If the stream is finished.
            TypeError: If they are no tensor of whole numbers.
            ValueError: If the shape is wrong or a code is out of range.
        """
        if self._finished:
            raise RuntimeError("The stream is finished. Call stream_decoder() of the codec for the next one.")
        codec = self._codec
        fresh = stream_codes(codes, codec.n_codebooks, codec.codebook_size, codec.device)
        self._waiting = torch.cat([self._waiting, fresh], 1)
        pieces = []
        while self._waiting.shape[1] >= BLOCK_FRAMES + LOOK_AHEAD_FRAMES:
            pieces.append(self._block())
        return self._joined(pieces)

    def finish(self) -> Tensor:
        """Return the rest of the audio, shape (S,), float32; afterwards the stream is closed."""
        pieces = []
        frames_came = bool(self._waiting.shape[1])
        while self._waiting.shape[1]:
            pieces.append(self._block())
        if frames_came and not self._finished:
            pieces.append(self._synthesis.tail()[self._to_drop : self._end])
        self._finished = True
        return self._joined(pieces)

    @torch.no_grad()
    def _block(self) -> Tensor:
        window = self._waiting[:, : BLOCK_FRAMES + LOOK_AHEAD_FRAMES]
        n_final = min(BLOCK_FRAMES, window.shape[1])
        codec = self._codec
        with torch.autocast(codec.device.type, enabled=False):
            # the block's own product: one over all frames would round each frame by how many there are
            samples = self._synthesis.block(codec.mel.magnitudes(codec.log_mel(window)), n_final)
        self._waiting = self._waiting[:, n_final:]
        kept = samples[self._to_drop :]
        self._to_drop -= len(samples) - len(kept)
        return kept

    def _joined(self, pieces: list[Tensor]) -> Tensor:
        if not pieces:
            return torch.zeros(0, device=self._codec.device, dtype=torch.float32)
        return torch.cat(pieces).clamp(-1.0, 1.0)
