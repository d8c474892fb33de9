"""Codecs on disk: one safetensors file with the plain values of the state and a checksum in its metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lightning_adapt._shared.imports import require
from lightning_adapt._shared.tensor_file import read_tensor_file, split_tensors, write_tensor_file

__all__ = ["is_other_safetensors", "read_codec_file", "write_codec_file"]

FORMAT = "lightning_adapt codec"


def write_codec_file(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write the state of a codec to a safetensors file, whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        state: Tensors and JSON values by name.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        OSError: If the file cannot be written.
        TypeError: If something is not plain.
    """
    require("speech", "A codec file", "safetensors")
    write_tensor_file(path, FORMAT, *split_tensors(state))


def read_codec_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state that `write_codec_file` wrote, tensors on the CPU.

    Args:
        path: The file.

    Returns:
        The state.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        OSError: If there is no such file.
        ValueError: If the file is damaged or of something else.
    """
    require("speech", "A codec file", "safetensors")
    tensors, plain = read_tensor_file(path, FORMAT, "codec", foreign="is no codec file of lightning_adapt")
    return {**plain, **tensors}


def is_other_safetensors(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a whole safetensors file, but not one that `write_codec_file` wrote."""
    require("speech", "A codec file", "safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") != FORMAT
    except (SafetensorError, RuntimeError):
        return False
