"""Memories on disk: one safetensors file with the settings, the plain state and a checksum in its metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from lightning_adapt._shared.imports import require
from lightning_adapt._shared.state import read_version
from lightning_adapt._shared.tensor_file import read_tensor_file, split_tensors, write_tensor_file

__all__ = ["FileMixin", "read_memory_extra", "read_memory_file", "write_memory_file"]

FORMAT, FILE_VERSION = "lightning_adapt memory", 1


def write_memory_file(
    path: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a memory to a safetensors file, whole or not at all.

    Args:
        path: The file; one that is there is replaced.
        kind: Class of the memory; only this one reads the file.
        config: Arguments that build the memory. JSON values.
        state: Its state dict: tensors, and extra states of JSON values.
        extra: What else is to be kept with it, such as a fingerprint of the base weights. JSON values.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        OSError: If the file cannot be written.
        TypeError: If something is not plain.
    """
    require("recsys", "A memory file", "safetensors")
    tensors, plain = split_tensors(state)
    body = {"kind": kind, "version": FILE_VERSION, "config": dict(config), "plain": plain, "extra": dict(extra or {})}
    write_tensor_file(path, FORMAT, tensors, body)


def read_memory_file(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_memory_file` wrote.

    Args:
        path: The file.
        kind: Class of the memory that is to be built.

    Returns:
        The arguments that build the memory, and its state dict.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        OSError: If there is no such file.
        ValueError: If the file is damaged, of something else, or of a newer release.
    """
    tensors, body = _read(path)
    if body.get("kind") != kind:
        raise ValueError(f"{path} holds {body.get('kind')!r}, not {kind!r}. Load it with the class that saved it.")
    return body["config"], {**tensors, **body["plain"]}


def read_memory_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what was kept beside a memory, after the same checks as `read_memory_file`.

    Args:
        path: The file.

    Returns:
        The argument `extra` of `write_memory_file`.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        OSError: If there is no such file.
        ValueError: If the file is damaged, of something else, or of a newer release.
    """
    return dict(_read(path)[1]["extra"])


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    require("recsys", "A memory file", "safetensors")
    tensors, body = read_tensor_file(path, FORMAT, "memory", foreign="was not written by lightning_adapt")
    read_version(body, FILE_VERSION, f"the file {path}")
    wrong = [name for name in ("config", "plain", "extra") if not isinstance(body.get(name), dict)]
    if wrong:
        raise ValueError(f"{path} is damaged: it has no {' and no '.join(wrong)}. Save it again.")
    return tensors, body


class FileMixin(nn.Module):
    """Gives a memory `save` and `load`; it must have `config()`, which returns the arguments that build it."""

    def config(self) -> dict[str, Any]:
        """Return the arguments that build an equal, empty memory; JSON values."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None) -> None:
        """Write the memory to a safetensors file, whole or not at all (extra `recsys`).

        Args:
            path: The file; one that is there is replaced.
            extra: What is to be kept beside it, for `read_memory_extra`. JSON values.

        Raises:
            ModuleNotFoundError: If safetensors is not installed.
            OSError: If the file cannot be written.
        """
        write_memory_file(path, type(self).__name__, self.config(), self.state_dict(), extra)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Build a memory from a file that `save` wrote; it gives the same outputs bit for bit.

        Args:
            path: The file.

        Returns:
            The memory, on the CPU.

        Raises:
            ModuleNotFoundError: If safetensors, or what the memory itself needs, is not installed.
            OSError: If there is no such file.
            ValueError: If the file is damaged, of something else, or of a newer release.
        """
        config, state = read_memory_file(path, cls.__name__)
        try:
            memory = cls(**config)
            memory.load_state_dict(state)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise ValueError(f"{path} does not hold a usable {cls.__name__}: {text} Save it again.") from error
        return memory
