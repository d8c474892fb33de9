"""A fingerprint of a module's weights: equal weights, equal text, on any device."""

from __future__ import annotations

import hashlib

import torch
from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["weights_fingerprint"]


def weights_fingerprint(module: nn.Module) -> str:
    """Return a hash of all parameters and persistent buffers of a module that are real numbers, with names and shapes.

    Args:
        module: Any module; lazy parameters that have no shape yet count by name.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> before = weights_fingerprint(layer)
        >>> _ = nn.init.constant_(layer.bias, 7.0)
        >>> weights_fingerprint(layer) == before
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            continue  # extra state of a submodule, or a counter, which moves without any training
        name = name.replace("_orig_mod.", "")  # torch.compile's wrapper: the weights are the same
        if is_lazy(value):
            digest.update(f"{name}: no shape yet".encode())
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(plain.numpy().data)
    return digest.hexdigest()
