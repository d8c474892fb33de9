"""16-bit wave files of one channel as bytes, with the standard library alone."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["pcm16", "samples_of_wave", "wave_bytes"]

_HEAD = struct.Struct("<4sI4s4sIHHIIHH4sI")


def pcm16(audio: torch.Tensor) -> npt.NDArray[np.int16]:
    """Return sound in [-1, 1] as 16-bit samples; `samples / 32768` gives it back to within 1/65536."""
    return (audio.double() * 32768.0).round().clamp(-32768, 32767).to(torch.int16).numpy()


def wave_bytes(samples: npt.NDArray[np.int16], rate: int) -> bytes:
    """Return a whole wave file.

    Args:
        samples: One channel. Shape (S,), dtype int16.
        rate: Samples per second.

    Returns:
        The bytes of the file.
    """
    size = 2 * len(samples)
    head = (b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size)
    return _HEAD.pack(*head) + samples.astype("<i2").tobytes()


def samples_of_wave(content: bytes) -> tuple[npt.NDArray[np.int16], int]:
    """Return the samples and their rate in Hz from the bytes of a 16-bit wave file of one channel.

    Programs that write to a pipe cannot go back to fill in the length, so the length in the file is not believed.
    What is no such file gives no samples.
    """
    start = content.find(b"data", 12) + 8
    if content[:4] != b"RIFF" or start < _HEAD.size:
        return np.zeros(0, np.int16), 0
    rate = int.from_bytes(content[24:28], "little")
    count = (len(content) - start) // 2
    return np.frombuffer(content, np.dtype("<i2"), count, start).astype(np.int16), rate
