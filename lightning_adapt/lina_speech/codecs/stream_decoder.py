"""Streams for codecs that decode a whole at once: blocks of fixed place, each decoded with context on both sides."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer
from lightning_adapt.lina_speech.codecs.inputs import stream_codes

__all__ = ["WindowedStreamDecoder"]


class WindowedStreamDecoder:
    """Decodes block by block, each with the frames around it, and keeps the block's own samples.

    Block boundaries depend on frame numbers alone, so the joined audio is the same sample for sample however the
    frames are pushed. It equals one decode of all frames, but for rounding, where what a frame sounds like depends on
    no frame further away than the context; a decoder with a longer memory (an LSTM, attention) comes near it.

    Latency: audio starts after `block_frames + right_frames` frames. Cost: every frame is decoded
    `(left_frames + block_frames + right_frames) / block_frames` times.

    Args:
        decode: Codes of shape (Q, n), n >= 1, int64, to audio of shape (n * hop_length,).
        n_codebooks: Q.
        codebook_size: C.
        hop_length: Samples per frame.
        block_frames: Frames whose audio is given out at once.
        left_frames: Frames of context before a block.
        right_frames: Frames of context after it; 0 for a causal decoder.
        device: Where `decode` wants its codes.

    Raises:
        TypeError: If a number is no whole number.
        ValueError: If a number is out of range.

    Example:
        >>> def decode(codes):  # one sample per frame
        ...     return codes[0].float() / 10
        >>> stream = WindowedStreamDecoder(decode, 1, 10, 1, block_frames=2, left_frames=1, right_frames=1)
        >>> stream.push(torch.tensor([[1, 2, 3]])), stream.push(torch.tensor([[4]])), stream.finish()
        (tensor([0.1000, 0.2000]), tensor([]), tensor([0.3000, 0.4000]))
    """

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        n_codebooks: int,
        codebook_size: int,
        hop_length: int,
        *,
        block_frames: int,
        left_frames: int,
        right_frames: int,
        device: str | torch.device = "cpu",
    ) -> None:
        self._decode, self._sizes, self._hop = decode, (n_codebooks, codebook_size), hop_length
        remedy = "Pass a number of frames."
        self._block = check_integer("block_frames", block_frames, remedy, minimum=1)
        self._left = check_integer("left_frames", left_frames, remedy)
        self._right = check_integer("right_frames", right_frames, remedy)
        self._device = torch.device(device)
        self._frames = torch.zeros(n_codebooks, 0, dtype=torch.int64, device=self._device)  # context and what waits
        self._done = 0  # how many of them are context, that is, were given out
        self._finished = False

    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames and return the audio that is final now.

        Args:
            codes: Shape (Q, n), whole numbers in 0..C-1, n >= 0.

        Returns:
            Shape (S,), float32, in [-1, 1].

        Raises:
            RuntimeError: If the stream is finished.
            TypeError: If they are no tensor of whole numbers.
            ValueError: If the shape is wrong or a code is out of range.
        """
        if self._finished:
            raise RuntimeError("The stream is finished. Call stream_decoder() of the codec for the next one.")
        self._frames = torch.cat([self._frames, stream_codes(codes, *self._sizes, self._device)], 1)
        pieces = []
        while self._frames.shape[1] - self._done >= self._block + self._right:
            pieces.append(self._next())
        return self._joined(pieces)

    def finish(self) -> Tensor:
        """Return the rest of the audio, shape (S,), float32; afterwards the stream is closed."""
        pieces = []
        while self._frames.shape[1] > self._done:
            pieces.append(self._next())
        self._finished = True
        return self._joined(pieces)

    def _next(self) -> Tensor:
        start, end = self._done, min(self._done + self._block, self._frames.shape[1])
        audio = self._decode(self._frames[:, : end + self._right])
        kept = audio[start * self._hop : end * self._hop].float()
        forgotten = max(end - self._left, 0)
        self._frames, self._done = self._frames[:, forgotten:], end - forgotten
        return kept

    def _joined(self, pieces: list[Tensor]) -> Tensor:
        return (
            torch.cat(pieces).clamp(-1.0, 1.0) if pieces else torch.zeros(0, device=self._device, dtype=torch.float32)
        )
