"""Mel frames: audio to the logarithms of mel magnitudes, and back to magnitudes of a linear spectrum."""

# Dimension suffixes: B batch, T audio samples, N frames, M mel bands, F bins of the linear spectrum.
# ruff: noqa: N803, N806 - tensor names carry their dimensions

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_adapt._shared.imports import require

__all__ = ["MelFrames", "frames_of"]

# magnitudes below are silence. Two decades higher, recordings lose their quiet consonants; lower, k-means spends its
# centers on the noise of pauses
FLOOR = 1e-3
_SECONDS = 0.046  # length of a window: long enough to tell the partials of a voice apart
_FAINTEST = 1e-6  # what the inverse gives instead of numbers below 0


def frames_of(n_samples: int, hop_length: int) -> int:
    """Return how many frames a recording gives: ceil(samples / hop); the last one is filled up with silence.

    Example:
        >>> frames_of(441, 441), frames_of(442, 441)
        (1, 2)
    """
    return -(-n_samples // hop_length)


class MelFrames:
    """Windowed spectra in mel bands. Frame i has its center in the middle of the samples i * hop .. (i + 1) * hop - 1.

    Args:
        sample_rate_hz: Rate of the audio.
        hop_length: Samples per frame.
        n_mels: Mel bands (Slaney's scale, each of unit area).
        n_fft: Samples of a window (Hann); None for the power of two nearest to 46 ms that holds two frames.

    Raises:
        ModuleNotFoundError: If torchaudio is not installed.
    """

    def __init__(self, sample_rate_hz: int, hop_length: int, n_mels: int, n_fft: int | None = None) -> None:
        require("speech", "A mel codec", "torchaudio")
        from torchaudio.transforms import MelSpectrogram

        self.hop_length = hop_length
        self.n_fft = n_fft or _window_length(sample_rate_hz, hop_length)
        settings: dict[str, Any] = {"n_fft": self.n_fft, "hop_length": hop_length, "n_mels": n_mels, "power": 1.0}
        settings |= {"center": False, "norm": "slaney", "mel_scale": "slaney"}
        self._transform = MelSpectrogram(sample_rate_hz, **settings)
        bands_FM: Tensor = self._transform.mel_scale.fb
        self._inverse_MF = torch.linalg.pinv(bands_FM.double()).float()
        self._loudest = math.log(self.n_fft)  # no audio in [-1, 1] reaches it, but a sum of unfit codes may

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self._transform.to(device)
        self._inverse_MF = self._inverse_MF.to(device)

    def analyse(self, audio_BT: Tensor) -> Tensor:
        """Return the log mel magnitudes of audio, silence before and after it.

        Args:
            audio_BT: Shape (B, T), float32, T >= 1.

        Returns:
            Shape (B, ceil(T / hop), M), float32. Silence after a recording does not change its own frames.
        """
        n_samples = audio_BT.shape[1]
        before = (self.n_fft - self.hop_length) // 2
        filled = frames_of(n_samples, self.hop_length) * self.hop_length - n_samples
        padded = F.pad(audio_BT, (before, self.n_fft - self.hop_length - before + filled))
        mel_BMN: Tensor = self._transform(padded)
        return mel_BMN.clamp(min=FLOOR).log().mT

    def magnitudes(self, log_mel_NM: Tensor) -> Tensor:
        """Return magnitudes of the linear spectrum with these mel bands, as near as the pseudo-inverse comes.

        Args:
            log_mel_NM: Shape (N, M), float32.

        Returns:
            Shape (N, F), float32, above 0.
        """
        mel_NM = log_mel_NM.clamp(max=self._loudest).exp()
        linear_NF: Tensor = mel_NM @ self._inverse_MF
        return linear_NF.clamp(min=_FAINTEST)


def _window_length(sample_rate_hz: int, hop_length: int) -> int:
    near = round(math.log2(_SECONDS * sample_rate_hz))
    return int(2 ** max(near, math.ceil(math.log2(2 * hop_length))))
