"""The text that tells one codec from every other: its sizes, and a hash of what a code sounds like."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["fingerprint_text", "tensors_digest"]


def tensors_digest(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> str:
    """Return a hash of tensors and settings that does not depend on the device or on the float type.

    Args:
        tensors: Name to tensor; floats are hashed as float32, whole numbers as int64.
        settings: JSON values.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> one = {"codebooks": torch.ones(2, 3)}
        >>> tensors_digest(one, {}) == tensors_digest({"codebooks": torch.ones(2, 3, dtype=torch.float64)}, {})
        True
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu()
        value = value.to(torch.float32 if value.dtype.is_floating_point else torch.int64).contiguous()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint_text(kind: str, n_codebooks: int, codebook_size: int, frame_rate_hz: float, digest: str) -> str:
    """Return a fingerprint that people can read, such as "KMeansMelCodec-4x256-50hz-0123456789abcdef".

    Args:
        kind: Class of the codec.
        n_codebooks: Codes per frame.
        codebook_size: Values of a code.
        frame_rate_hz: Frames per second.
        digest: Hash of what decides how a code sounds.

    Returns:
        The text.
    """
    return f"{kind}-{n_codebooks}x{codebook_size}-{frame_rate_hz:g}hz-{digest}"
