"""Safetensors files of ours: tensors and plain values with a checksum, whole or not at all, refused when damaged."""

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
from lightning_adapt._shared.state import check_plain
from lightning_adapt._shared.text_files import parse_json

__all__ = ["format_of", "read_tensor_file", "split_tensors", "write_tensor_file"]


def split_tensors(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a state, on the CPU and in one piece, and all else in it."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if not isinstance(value, Tensor)}


def write_tensor_file(
    path: str | os.PathLike[str], file_format: str, tensors: Mapping[str, Tensor], body: dict[str, Any]
) -> None:
    """Write tensors and plain values to a safetensors file, whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        file_format: What kind of file it is; only a reader of the same kind reads it.
        tensors: As `split_tensors` returns them.
        body: JSON values.

    Raises:
        OSError: If the file cannot be written.
        TypeError: If something in the body is not plain.
    """
    from safetensors.torch import save

    check_plain(body)
    text = json.dumps(body)
    metadata = {"format": file_format, "body": text, "sha256": _digest(tensors, text)}
    with whole_file(path) as unfinished:
        # not save_file: a process that is killed inside it leaves a temporary file under a name that is not ours
        unfinished.write_bytes(save(dict(tensors), metadata))


def read_tensor_file(
    path: str | os.PathLike[str], file_format: str, noun: str, *, foreign: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensor_file` wrote, tensors on the CPU.

    Args:
        path: The file.
        file_format: The kind of file wanted.
        noun: What it holds, for the error texts, such as "codec".
        foreign: What is said of a file of another kind, after its path, such as "was not written by us".

    Returns:
        Tensors and body.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is damaged or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    Path(path).open("rb").close()  # a missing file is an OSError of its own
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, RuntimeError) as error:
        if _header(path) is None:
            remedy = f"Pass a file that save() of a {noun} wrote."
            raise ValueError(f"{path} is no {noun} file (or is cut off). {remedy}") from error
        raise ValueError(f"{path} is no {noun} file, or is damaged: {error}. Save the {noun} again.") from error
    if metadata.get("format") != file_format:
        raise ValueError(f"{path} {foreign}. Pass a file that save() of a {noun} wrote.")
    text = metadata.get("body", "")
    if metadata.get("sha256") != _digest(tensors, text):
        raise ValueError(f"{path} is damaged: its content does not have the checksum it was saved with. Save it again.")
    body = parse_json(text, f"the body of {path}")
    if not isinstance(body, dict):
        raise ValueError(f"{path} {foreign}: its body is no object. Pass a file that save() of a {noun} wrote.")
    return tensors, body


def format_of(path: str | os.PathLike[str]) -> str | None:
    """Return what kind of file `write_tensor_file` wrote; safetensors need not be installed.

    Args:
        path: A file of any kind.

    Returns:
        The `file_format`; None if it is something else.

    Raises:
        OSError: If there is no such file.
    """
    try:
        found = json.loads(_header(path) or b"{}")["__metadata__"]["format"]
    except (LookupError, TypeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _header(path: str | os.PathLike[str]) -> bytes | None:
    """Return what a safetensors file begins with, a JSON object after its length; None if the file is no such one."""
    with Path(path).open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        header = file.read(length) if 0 < length <= size - 8 else b""
    return header if header.startswith(b"{") else None


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
