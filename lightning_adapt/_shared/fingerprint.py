"""A fingerprint of a module's weights: equal weights, equal text, on any device."""

from __future__ import annotations

import hashlib
import weakref
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["known_fingerprint", "weights_fingerprint"]


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


class _Seen(NamedTuple):
    """What a module looked like when it was hashed last."""

    tensors: list[weakref.ref[torch.Tensor]]
    marks: list[tuple[int, int, str]]  # address, count of changes, some numbers
    fingerprint: str


_SEEN: weakref.WeakKeyDictionary[nn.Module, _Seen] = weakref.WeakKeyDictionary()
_PROBED = 16  # numbers of each tensor that are looked at


def known_fingerprint(module: nn.Module) -> str:
    """Return `weights_fingerprint`, without hashing again while the weights are the same.

    Weights count as the same while they are the same objects at the same place in memory, with the same count of
    changes, and some numbers of each tensor have not changed: `weight.data.mul_(2)` and `half().float()` are not
    counted as changes. What changes a few numbers of a large tensor through `.data` alone may go unnoticed.

    Args:
        module: Any module.

    Returns:
        32 hexadecimal digits.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(is_lazy(tensor) or tensor.is_inference() for tensor in tensors):  # without a shape, or without a count
        return weights_fingerprint(module)
    marks = [(tensor.data_ptr(), tensor._version, _probe(tensor)) for tensor in tensors]
    seen = _SEEN.get(module)
    if seen is None or seen.marks != marks or any(a() is not b for a, b in zip(seen.tensors, tensors, strict=True)):
        seen = _Seen([weakref.ref(tensor) for tensor in tensors], marks, weights_fingerprint(module))
        _SEEN[module] = seen
    return seen.fingerprint


def _probe(tensor: torch.Tensor) -> str:
    """Return the dtype and some numbers of a tensor, evenly spread, as text: NaN equals NaN then."""
    flat = tensor.detach().reshape(-1)
    return f"{tensor.dtype} {tuple(tensor.shape)} {flat[:: max(1, len(flat) // _PROBED)].tolist()}"
