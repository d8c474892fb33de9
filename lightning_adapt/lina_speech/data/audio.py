"""Audio as codecs take it: read with soundfile, mono, resampled, silence cut off at both ends; faults are named."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_adapt._shared.checks import check_integer, check_positive, problem
from lightning_adapt._shared.imports import require

__all__ = ["AudioError", "as_samples", "load_audio", "read_audio", "trim_silence"]

PIPELINE_VERSION = 1  # goes into the key of cached codes: raise it when samples come out differently

_SILENT = 1e-4  # peak of what counts as nothing at all, -80 dB of full scale
_MOST_TAPS = 2**27  # numbers in the filters of a resampling, half a gigabyte
_FRAME_SECONDS = 0.01
_MARGIN_SECONDS = 0.05


class AudioError(ValueError):
    """A recording that cannot be used.

    Attributes:
        reason: One of a few words, the same for all recordings of the kind, such as "cannot be read".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def load_audio(source: Any, sample_rate_hz: int, *, source_rate_hz: int | None = None) -> Tensor:
    """Return a recording as codecs take it.

    Args:
        source: Path of an audio file (wav, flac, ogg and what else soundfile reads), or samples as a tensor or an
            array: (S,), or with channels (C, S) or (S, C), the shorter side being the channels. Whole numbers are
            scaled by their type's largest value; uint8 is 8-bit PCM, with silence at 128.
        sample_rate_hz: Rate of the result.
        source_rate_hz: Rate of samples that are given; a file knows its own.

    Returns:
        Samples in [-1, 1], the mean of the channels; what goes beyond is scaled down as a whole. Shape (S,), float32.

    Raises:
        AudioError: If the file is not there or cannot be read, is empty, holds NaN or infinite samples, or is silent.
        ModuleNotFoundError: If soundfile or torchaudio is missing; names the extra.
        ValueError: If an argument is out of range.
    """
    check_integer("sample_rate_hz", sample_rate_hz, "Pass the codec's rate.", minimum=1)
    channels, rate = read_audio(source, source_rate_hz=source_rate_hz)
    return mono(channels, rate, sample_rate_hz)


def read_audio(
    source: Any, *, source_rate_hz: int | None = None, longest_seconds: float | None = None
) -> tuple[Tensor, int]:
    """Return the channels of a recording as they are.

    Args:
        source: As in `load_audio`.
        source_rate_hz: As in `load_audio`.
        longest_seconds: Refuse a file that says it is longer, before it fills the memory.

    Returns:
        Samples of shape (C, S), float32, and their rate in Hz.

    Raises:
        AudioError: As in `load_audio`, and "too long".
    """
    if not isinstance(source, (str, os.PathLike)):
        return _given_samples(source), _given_rate(source_rate_hz)
    require("speech", "Reading audio files", "soundfile")
    import soundfile

    path = os.fspath(source)
    if not os.path.isfile(path):  # noqa: PTH113  # half the time of a Path, for a hundred thousand files
        raise AudioError("file not found", path)
    try:
        # as bytes: it would refuse a name that is not UTF-8
        with soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path) as file:
            seconds = file.frames / file.samplerate
            if longest_seconds is not None and seconds > longest_seconds:
                raise AudioError("too long", f"{seconds:.1f} s")
            samples = file.read(dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError("cannot be read", f"{path}: {error}") from error
    return torch.from_numpy(np.ascontiguousarray(samples.T)), rate


def mono(channels: Tensor, rate: int, sample_rate_hz: int) -> Tensor:
    """Mix channels down, check the samples, and change their rate.

    Args:
        channels: Samples of shape (C, S), float32.
        rate: Their rate in Hz.
        sample_rate_hz: Rate of the result.

    Returns:
        As `load_audio`.

    Raises:
        AudioError: If there are no samples, some are not finite, or all are nearly zero.
    """
    if channels.numel() == 0:
        raise AudioError("empty", "no samples")
    audio = channels.mean(dim=0)
    if not bool(torch.isfinite(audio).all()):
        raise AudioError("not finite", "NaN or infinite samples")
    peak = float(audio.abs().max())
    if peak < _SILENT:
        raise AudioError("silent", f"peak {peak:.1e}")
    if rate != sample_rate_hz:
        _check_rates(rate, sample_rate_hz)
        require("speech", "Resampling", "torchaudio")
        from torchaudio.functional import resample

        audio = resample(audio, rate, sample_rate_hz)
        peak = max(peak, float(audio.abs().max())) if audio.numel() else peak
    return audio / peak if peak > 1.0 else audio


def _check_rates(rate: int, sample_rate_hz: int) -> None:
    shared = math.gcd(rate, sample_rate_hz)
    if (rate // shared) * (sample_rate_hz // shared) > _MOST_TAPS:
        raise AudioError("odd sample rate", f"{rate} Hz; resampling it to {sample_rate_hz} Hz takes gigabytes")


def trim_silence(
    audio: Tensor, sample_rate_hz: int, *, threshold_db: float = 40.0, margin_seconds: float = _MARGIN_SECONDS
) -> Tensor:
    """Cut silence off at both ends.

    Args:
        audio: Samples of shape (S,), any float dtype.
        sample_rate_hz: Their rate.
        threshold_db: A stretch of 10 ms counts as silence if its energy is so far below that of the loudest one.
        margin_seconds: How much of the silence stays at each end.

    Returns:
        A part of `audio`, at least 10 ms (or all of a shorter one); silence all through is returned as it is.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> audio = torch.cat([torch.zeros(8000), torch.ones(8000), torch.zeros(8000)])
        >>> len(trim_silence(audio, 8000, margin_seconds=0.05)) / 8000
        1.1
    """
    check_positive("threshold_db", threshold_db, "Pass 40.")
    step = max(1, round(_FRAME_SECONDS * sample_rate_hz))
    if audio.numel() == 0:
        return audio
    padded = F.pad(audio.float(), (0, -len(audio) % step))
    energy = padded.reshape(-1, step).square().mean(dim=1)
    loudest = float(energy.max())
    if loudest <= 0.0:
        return audio
    loud = torch.nonzero(energy >= loudest * 10.0 ** (-threshold_db / 10.0)).flatten()
    margin = max(0, round(margin_seconds * sample_rate_hz))
    first = max(0, int(loud[0]) * step - margin)
    return audio[first : min(len(audio), (int(loud[-1]) + 1) * step + margin)]


def as_samples(source: Any) -> Tensor:
    """Return samples as a tensor, also of arrays that PyTorch does not take: read-only, reversed, or big-endian ones.

    Args:
        source: A tensor, an array, or a list of numbers.

    Returns:
        The samples. Same shape; dtype as given.

    Raises:
        TypeError: If it cannot be a tensor, as for ValueError and RuntimeError.
    """
    if isinstance(source, np.ndarray):
        native = source.astype(source.dtype.newbyteorder("="), copy=not source.flags.writeable)
        return torch.from_numpy(np.ascontiguousarray(native))
    samples: Tensor = torch.as_tensor(source)
    return samples


def _given_samples(source: Any) -> Tensor:
    remedy = "Pass a path, or samples of shape (S,) or (C, S)."
    try:
        samples = as_samples(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AudioError("cannot be read", problem("audio", "a path or samples", source, remedy)) from error
    if samples.ndim not in (1, 2) or samples.is_complex() or samples.dtype == torch.bool:
        raise AudioError("cannot be read", problem("audio", "samples of one or two dimensions", samples.shape, remedy))
    samples = samples.detach().cpu()
    if samples.dtype == torch.uint8:  # 8-bit PCM, whose silence is 128
        scaled = (samples.float() - 128.0) / 128.0
    else:
        scaled = samples.float() / (1.0 if samples.is_floating_point() else torch.iinfo(samples.dtype).max)
    if scaled.ndim == 1:
        return scaled[None]
    return scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T


def _given_rate(source_rate_hz: int | None) -> int:
    remedy = "Give the rate of the samples beside them."
    return check_integer("sample_rate_hz", source_rate_hz, remedy, minimum=1)
