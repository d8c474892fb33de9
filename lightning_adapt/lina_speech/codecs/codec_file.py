"""Codecs on disk: one safetensors file with the plain values of the state and a checksum in its metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.state import check_plain

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
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    check_plain(plain)
    text = json.dumps(plain)
    with whole_file(path) as unfinished:
        save_file(tensors, unfinished, {"format": FORMAT, "body": text, "sha256": _digest(tensors, text)})


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
    from safetensors import SafetensorError, safe_open

    Path(path).open("rb").close()  # a missing file is an OSError of its own
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is no codec file, or is damaged: {error}. Save the codec again.") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is no codec file of lightning_adapt. Pass a file that save() of a codec wrote.")
    text = metadata.get("body", "")
    if metadata.get("sha256") != _digest(tensors, text):
        raise ValueError(f"{path} is damaged: its content does not have the checksum it was saved with. Save it again.")
    return {**json.loads(text), **tensors}


def is_other_safetensors(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a whole safetensors file, but not one that `write_codec_file` wrote."""
    require("speech", "A codec file", "safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") != FORMAT
    except (SafetensorError, RuntimeError):
        return False


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
