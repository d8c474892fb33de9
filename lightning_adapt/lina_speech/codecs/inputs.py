"""Checks of what goes into a codec: audio and codes."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem

_LOUDEST = 8.0  # resampling overshoots 1 a little; 16-bit numbers that were not divided by 32768 are far beyond this
_MONO = "Mix stereo down with .mean(0), and give one row per recording."


def audio_batch(audio: Tensor, device: torch.device, name: str = "audio") -> Tensor:
    """Check mono audio and bring it to the form that codecs compute with.

    Args:
        audio: Shape (S,) or (B, S), any float dtype, in [-1, 1], S >= 1.
        device: Where the codec is.
        name: Name of the argument, for the error text.

    Returns:
        Shape (B, S), with B = 1 for one recording, dtype float32, on the device, without a graph.

    Raises:
        TypeError: If it is no tensor of floats.
        ValueError: If the shape is wrong, nothing is in it, or a number is NaN, infinite or far too large.
    """
    wanted = "float audio of shape (samples,) or (batch, samples)"
    if not isinstance(audio, Tensor) or not audio.dtype.is_floating_point:
        raise TypeError(
            problem(name, wanted, getattr(audio, "dtype", audio), "Pass a float32 tensor with values in [-1, 1].")
        )
    if audio.ndim not in (1, 2) or (audio.ndim == 2 and audio.shape[1] < audio.shape[0]):
        raise ValueError(problem(name, wanted, tuple(audio.shape), _MONO))
    if audio.numel() == 0:
        raise ValueError(problem(name, wanted, tuple(audio.shape), "Leave empty recordings out."))
    rows = audio.detach().to(device, torch.float32).reshape(-1, audio.shape[-1])
    loudest = float(rows.abs().max())  # NaN if there is one
    if not loudest < _LOUDEST:
        remedy = "Leave the recording out if it is broken; divide 16-bit numbers by 32768."
        raise ValueError(problem(name, "finite and in [-1, 1]", f"a largest value of {loudest:g}", remedy))
    return rows


def one_recording(audio: Tensor, name: str) -> Tensor:
    """Check the audio of one recording.

    Args:
        audio: Shape (S,), any float dtype, in [-1, 1], S >= 1.
        name: What it is, for the error text.

    Returns:
        Shape (1, S), dtype float32, on the CPU.

    Raises:
        TypeError: If it is no tensor of floats.
        ValueError: If the shape is wrong, nothing is in it, or a number is NaN, infinite or far too large.
    """
    if isinstance(audio, Tensor) and audio.ndim != 1:
        raise ValueError(problem(name, "mono audio of shape (samples,)", tuple(audio.shape), _MONO))
    return audio_batch(audio, torch.device("cpu"), name)


def code_batch(codes: Tensor, n_codebooks: int, codebook_size: int, device: torch.device) -> Tensor:
    """Check codes and bring them to the form that codecs compute with.

    Args:
        codes: Shape (Q, N) or (B, Q, N), any whole-number dtype, N >= 0.
        n_codebooks: Q of the codec.
        codebook_size: C of the codec.
        device: Where the codec is.

    Returns:
        Shape (B, Q, N), with B = 1 for codes of two dimensions, dtype int64, on the device.

    Raises:
        TypeError: If they are no tensor of whole numbers.
        ValueError: If the shape is wrong or a code is outside 0..C-1.
    """
    wanted = f"whole numbers of shape ({n_codebooks}, frames) or (batch, {n_codebooks}, frames)"
    if not isinstance(codes, Tensor) or codes.dtype.is_floating_point or codes.dtype.is_complex:
        raise TypeError(problem("codes", wanted, getattr(codes, "dtype", codes), "Pass an int64 tensor."))
    if codes.dtype == torch.bool:
        raise TypeError(problem("codes", wanted, codes.dtype, "Pass an int64 tensor."))
    if codes.ndim not in (2, 3) or codes.shape[-2] != n_codebooks:
        remedy = "Give one row per codebook, of the codec that made the codes."
        raise ValueError(problem("codes", wanted, tuple(codes.shape), remedy))
    batch = codes.detach().to(device, torch.int64)
    batch = batch if codes.ndim == 3 else batch[None]
    if batch.numel():
        low, high = (int(bound) for bound in batch.aminmax())
        if low < 0 or high >= codebook_size:
            remedy = "Take the offset of the special ids away first, and cut at the end of the speech."
            raise ValueError(problem("codes", f"in 0..{codebook_size - 1}", f"{low} to {high}", remedy))
    return batch


def stream_codes(codes: Tensor, n_codebooks: int, codebook_size: int, device: torch.device) -> Tensor:
    """Check the next frames of one stream.

    Args:
        codes: Shape (Q, n), any whole-number dtype, n >= 0.
        n_codebooks: Q of the codec.
        codebook_size: C of the codec.
        device: Where the codec is.

    Returns:
        Shape (Q, n), dtype int64, on the device.

    Raises:
        TypeError: If they are no tensor of whole numbers.
        ValueError: If the shape is wrong or a code is outside 0..C-1.
    """
    if isinstance(codes, Tensor) and codes.ndim != 2:
        remedy = "A stream decoder is for one stream: make one for each row of a batch."
        raise ValueError(problem("codes", f"of shape ({n_codebooks}, frames)", tuple(codes.shape), remedy))
    return code_batch(codes, n_codebooks, codebook_size, device)[0]
