"""Keyed 64-bit hashing: turns (seed, epoch, ...) into independent keys and generators without any global state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15  # odd part of 2^64 / golden ratio: the increment of splitmix64
_MULTIPLY = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # finaliser of splitmix64 (Steele, Lea, Flood 2014)

UInt64Array = npt.NDArray[np.uint64]


def mix(value: int) -> int:
    """Return the splitmix64 finaliser of a whole number, in 0..2^64-1."""
    value = (int(value) + _STEP) & _MASK  # numbers of NumPy overflow
    value = ((value ^ (value >> 30)) * _MULTIPLY[0]) & _MASK
    value = ((value ^ (value >> 27)) * _MULTIPLY[1]) & _MASK
    return value ^ (value >> 31)


def mix_array(values: UInt64Array, key: int) -> UInt64Array:
    """Return `mix(value + key)` for an array, shape kept, dtype uint64 (sums wrap at 2^64)."""
    mixed = values + np.uint64((key + _STEP) & _MASK)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(_MULTIPLY[0])
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_MULTIPLY[1])
    mixed ^= mixed >> np.uint64(31)
    return mixed


def derive_key(seed: int, *parts: int) -> int:
    """Return a key in 0..2^64-1 from a seed and further numbers, such as an epoch.

    Unlike `seed + epoch`, neighbouring seeds do not share orders.

    Args:
        seed: Any whole number.
        parts: Further whole numbers; their order counts.

    Returns:
        The key.

    Example:
        >>> derive_key(0, 1) != derive_key(1, 0)
        True
    """
    key = mix(seed)
    for part in parts:
        key = mix(key ^ part)  # hashing between the parts makes their order count
    return key


def generator(seed: int, *parts: int) -> torch.Generator:
    """Return a CPU generator for (seed, parts...); the global generators stay untouched."""
    return torch.Generator().manual_seed(derive_key(seed, *parts) >> 1)  # manual_seed takes signed 64 bits


def uniform(positions: torch.Tensor, key: int) -> torch.Tensor:
    """Return numbers in [0, 1) that depend on position and key alone.

    Args:
        positions: Whole numbers >= 0. Any shape, dtype int64.
        key: A key.

    Returns:
        The numbers, same shape, dtype float64.
    """
    hashed = mix_array(positions.reshape(-1).numpy().astype(np.uint64), key)
    return torch.from_numpy((hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(positions.shape)
