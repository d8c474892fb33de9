"""The default codec: fitted to some minutes of the training recordings, kept beside the codes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.progress import progress_bar
from lightning_adapt._shared.text_files import read_json
from lightning_adapt.lina_speech.data.audio import AudioError
from lightning_adapt.lina_speech.data.code_cache import audio_key, settings_key, write_beside
from lightning_adapt.lina_speech.data.encode import Preparation, check_spoken
from lightning_adapt.lina_speech.data.sources import Source
from lightning_adapt.lina_speech.data.split import split_order, split_sizes

__all__ = ["FIT_SAMPLE_RATE_HZ", "FIT_SECONDS", "find_fitted", "fit_codec"]

FIT_SECONDS = 600.0  # ten minutes: more does not change the centres of a few hundred clusters by much
FIT_SAMPLE_RATE_HZ = 22050
VERSION = 1


def find_fitted(source: Source, folder: Path, preparation: Preparation, options: dict[str, Any]) -> Any:
    """Return the codec that an earlier `fit_codec` with the same arguments left; None if there is none."""
    try:
        name = read_json(_pointer(source, folder, preparation, options))["codec"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _load(folder / name)


def fit_codec(
    source: Source, folder: Path, preparation: Preparation, options: dict[str, Any], *, progress: bool = False
) -> Any:
    """Fit a `KMeansMelCodec` to at most ten minutes of the training recordings.

    The recordings are drawn by a hash of seed and id from those that are not validated on, whatever their order in the
    source. The codec is kept under a hash of the samples it was fitted to.

    Args:
        source: The recordings.
        folder: The cache folder.
        preparation: How recordings are prepared.
        options: "n_codebooks", "codebook_size", "seed" and "val": the share to validate on; None for no share.
        progress: Whether to show a progress bar.

    Returns:
        The codec.

    Raises:
        OSError: If the cache cannot be written to.
        ValueError: If no recording is usable.
    """
    audios = _sample(source, preparation, options, progress)
    digest = hashlib.blake2b(json.dumps([VERSION, _arguments(options)]).encode(), digest_size=16)
    for audio in audios:
        digest.update(audio_key(audio, FIT_SAMPLE_RATE_HZ).encode())
    path = folder / f"codec-{digest.hexdigest()}.safetensors"
    codec = _fitted(path, audios, options, progress)
    content = json.dumps({"codec": path.name, "fingerprint": codec.fingerprint}).encode()
    write_beside(_pointer(source, folder, preparation, options), content)
    return codec


def _fitted(path: Path, audios: Iterable[Tensor], options: dict[str, Any], progress: bool) -> Any:
    from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec

    found = _load(path)
    if found is not None:
        return found
    with progress_bar("Fitting the codec", None, progress):
        codec = KMeansMelCodec.fit(audios, sample_rate_hz=FIT_SAMPLE_RATE_HZ, **_arguments(options))
    found = _load(path)
    if found is not None:  # of another run meanwhile: two runs of one cache are to have one codec, to the last bit
        return found
    try:
        codec.save(path)
    except OSError as error:
        remedy = f"Pass another folder, or make room in it. The system says: {error}"
        raise OSError(problem("cache_dir", "a folder that can be written to", str(path.parent), remedy)) from error
    return codec


def _load(path: Path) -> Any:
    """Return a codec that was kept; None if there is none, or it is damaged and has to be fitted again."""
    from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec

    try:
        return KMeansMelCodec.load(path)
    except (OSError, ValueError):
        return None


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("n_codebooks", "codebook_size", "seed")}


def _pointer(source: Source, folder: Path, preparation: Preparation, options: dict[str, Any]) -> Path:
    about = {**options, **vars(preparation), "source": source.identity, "version": VERSION}
    return folder / f"fit-{settings_key(about)}.json"


def _sample(source: Source, preparation: Preparation, options: dict[str, Any], progress: bool) -> list[Tensor]:
    order = split_order([source[index].id for index in range(len(source))], options["seed"])
    shares = options["val"] is not None and len(order) > 1
    held_out = split_sizes(len(order), options["val"]) if shares else 0
    with progress_bar("Reading seconds of audio for the codec", None, progress) as advance:
        while True:
            beyond = order[_past_validation(source, order, preparation, held_out) :]
            audios = _read_until(source, beyond[::-1], preparation, advance)
            if audios or held_out <= 1:
                break
            held_out //= 2  # so few are usable that validation will take fewer, too
    if not audios:
        what = f"None of the {len(source)} recordings of `{source.argument}` can be used to fit a codec."
        raise ValueError(f"{what} {_fault(source, preparation)}")
    return audios


def _fault(source: Source, preparation: Preparation) -> str:
    """Return what is wrong with the first recording, in a sentence."""
    first = source[0]
    try:
        check_spoken(first)
        preparation.prepared(first, FIT_SAMPLE_RATE_HZ)
    except AudioError as error:
        return f"The first one, {first.place}: {error}."
    return "Pass more recordings."


def _past_validation(source: Source, order: list[int], preparation: Preparation, wanted: int) -> int:
    """Return how far validation may reach into the order: until so many usable recordings have gone by."""
    for place, row in enumerate(order):
        if wanted == 0:
            return place
        wanted -= _usable(source, row, preparation) is not None
    return len(order)


def _read_until(
    source: Source, rows: list[int], preparation: Preparation, advance: Callable[[int], None]
) -> list[Tensor]:
    audios, seconds = [], 0.0
    for row in rows:
        audio = _usable(source, row, preparation)
        if audio is None:
            continue
        audios.append(audio)
        seconds += len(audio) / FIT_SAMPLE_RATE_HZ
        advance(round(len(audio) / FIT_SAMPLE_RATE_HZ))
        if seconds >= FIT_SECONDS:
            break
    return audios


def _usable(source: Source, row: int, preparation: Preparation) -> Tensor | None:
    try:
        recording = source[row]
        check_spoken(recording)
        return preparation.prepared(recording, FIT_SAMPLE_RATE_HZ)
    except AudioError:
        return None
