"""CodeCache: codes of recordings on disk under a hash of what they depend on, many to a safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.files import whole_file
from lightning_adapt._shared.imports import require
from lightning_adapt.lina_speech.data.audio import AudioError, as_samples

__all__ = ["CodeCache", "Codes", "audio_key", "settings_key", "write_beside"]

VERSION = 2  # of the files; part of the folder's name, so that those of another release are not looked at
_FLUSH_UTTERANCES = 1024  # a file holds at most so many,
_FLUSH_SECONDS = 60.0  # and nothing waits longer than this to be written: an interruption costs no more
_READ_BYTES = 1 << 20


class Codes(NamedTuple):
    """Codes of several utterances, one after the other.

    Attributes:
        flat: Shape (Q, total number of frames), dtype int16 or int32.
        ends: Utterance i is `flat[:, ends[i]:ends[i + 1]]`. Shape (N + 1,), dtype int64.
        seconds: Length of each recording after trimming. Shape (N,), dtype float64.
    """

    flat: Tensor
    ends: Tensor
    seconds: Tensor


class CodeCache:
    """Codes of recordings in a folder, by a key of the recording; the settings are part of the folder's name.

    Codes are collected and written as safetensors files of up to 1,024 utterances, each whole or not at all. Work that
    is cut off goes on where the last file ended. Several processes may write into one folder. A file that cannot be
    read is left aside with a warning, and what it held is encoded again.

    Args:
        folder: The cache; a folder of the settings is made inside at the first write.
        settings: What codes depend on besides the recording: plain values.

    Attributes:
        folder: Where the files of these settings are.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        require("speech", "The cache of codes", "safetensors")
        self.settings = dict(settings)
        self.folder = Path(folder) / f"codes-{settings_key({**self.settings, 'format': VERSION})}"
        self._places: dict[str, tuple[str, int]] = {}  # key -> file, number in it
        self._seconds: dict[str, float] = {}
        self._waiting: dict[str, Tensor] = {}
        self._since = time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Look again which codes are there."""
        known = {name for name, _ in self._places.values()}
        for path in sorted(self.folder.glob("[!.]*.safetensors")) if self.folder.is_dir() else []:  # "." is unfinished
            if path.name in known:
                continue
            try:
                keys, seconds = _contents(path)
            except (OSError, ValueError, KeyError) as error:
                warnings.warn(f"{path} cannot be read; its utterances are encoded again. {error}", stacklevel=2)
                continue
            self._places.update({key: (path.name, number) for number, key in enumerate(keys)})
            self._seconds.update(dict(zip(keys, seconds, strict=True)))

    def __contains__(self, key: str) -> bool:
        return key in self._seconds

    def seconds(self, key: str) -> float:
        """Return the length of a recording after trimming."""
        return self._seconds[key]

    def put(self, key: str, codes: Tensor, seconds: float) -> None:
        """Take the codes of a recording; they are on disk after `flush`, or sooner.

        Args:
            key: Key of the recording.
            codes: Shape (Q, N), N >= 1, whole numbers.
            seconds: Length of the recording after trimming.

        Raises:
            OSError: If the folder cannot be written to.
        """
        self._waiting[key], self._seconds[key] = codes.detach().cpu(), float(seconds)
        overdue = time.monotonic() - self._since > _FLUSH_SECONDS
        if len(self._waiting) >= _FLUSH_UTTERANCES or overdue:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting.

        Raises:
            OSError: If the folder cannot be written to; the text names `cache_dir`.
        """
        self._since = time.monotonic()
        if not self._waiting:
            return
        from safetensors.torch import save

        keys = list(self._waiting)
        joined = torch.cat([self._waiting[key] for key in keys], dim=1)
        largest = int(joined.max()) if joined.numel() else 0
        tensors = {
            "codes": joined.to(torch.int16 if largest < 2**15 else torch.int32).contiguous(),
            "ends": torch.tensor([0, *(self._waiting[key].shape[1] for key in keys)]).cumsum(0),
            "seconds": torch.tensor([self._seconds[key] for key in keys], dtype=torch.float64),
        }
        about = {"version": str(VERSION), "keys": json.dumps(keys), "settings": json.dumps(self.settings)}
        about["digest"] = _digest(tensors)
        name = f"{hashlib.blake2b(''.join(keys).encode(), digest_size=8).hexdigest()}.safetensors"
        write_beside(self.folder / name, save(tensors, about))
        self._places.update({key: (name, number) for number, key in enumerate(keys)})
        self._waiting.clear()

    def read(self, keys: Sequence[str]) -> Codes:
        """Return the codes of recordings that are on disk.

        Args:
            keys: Their keys, at least one, in the order wanted.

        Raises:
            KeyError: If one is not there.
            OSError: If a file cannot be read (any more).
            ValueError: If a file was damaged; names it.
        """
        numbers: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            numbers.setdefault(self._places[key][0], []).append(place)
        parts: list[Tensor] = [torch.empty(0)] * len(keys)
        for name, places in numbers.items():
            tensors = _loaded(self.folder / name)
            ends, flat = tensors["ends"].tolist(), tensors["codes"]
            for place in places:
                number = self._places[keys[place]][1]
                parts[place] = flat[:, ends[number] : ends[number + 1]].clone()  # not a view: the file is let go
        lengths = torch.tensor([0, *(part.shape[1] for part in parts)])
        seconds = torch.tensor([self._seconds[key] for key in keys], dtype=torch.float64)
        return Codes(torch.cat(parts, dim=1), lengths.cumsum(0), seconds)


def settings_key(settings: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that differ where plain settings differ."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def audio_key(audio: Any, sample_rate_hz: int | None = None) -> str:
    """Return a hash of a recording: of the bytes of its file, or of its samples.

    Args:
        audio: Path of a file, or samples as a tensor or an array.
        sample_rate_hz: Rate of given samples.

    Returns:
        32 hexadecimal digits.

    Raises:
        AudioError: If the file is not there or cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    if not isinstance(audio, (str, os.PathLike)):
        samples = as_samples(audio).detach().cpu().contiguous()
        digest.update(f"{sample_rate_hz} {samples.dtype} {tuple(samples.shape)}".encode())
        digest.update(samples.reshape(-1).view(torch.uint8).numpy().data if samples.numel() else b"")
        return digest.hexdigest()
    try:
        with Path(audio).open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except FileNotFoundError as error:
        raise AudioError("file not found", str(audio)) from error
    except OSError as error:
        raise AudioError("cannot be read", str(error)) from error
    return digest.hexdigest()


def write_beside(path: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all.

    Args:
        path: Where.
        content: What.

    Raises:
        OSError: If that fails; the text names `cache_dir`.
    """
    try:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        remedy = f"Pass another folder, or make room in it. The system says: {error}"
        raise OSError(problem("cache_dir", "a folder that can be written to", str(path.parent), remedy)) from error


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("codes", "ends", "seconds"):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _loaded(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file after checking that they are what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("codes", "ends", "seconds")}
            expected = file.metadata().get("digest")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}. Delete it, and what it holds is encoded again.") from error
    if _digest(tensors) != expected:
        raise ValueError(f"{path} is damaged: its checksum differs. Delete it, and what it holds is encoded again.")
    return tensors


def _contents(path: Path) -> tuple[list[str], list[float]]:
    """Return the keys and lengths of a file's utterances without reading the codes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            keys, seconds = json.loads(about["keys"]), file.get_tensor("seconds").tolist()
    except (SafetensorError, TypeError) as error:
        raise ValueError(str(error)) from error
    if about.get("version") != str(VERSION) or len(keys) != len(seconds):
        raise ValueError("It was not written by this release.")
    return keys, seconds
