"""Vectors of many texts: in batches, with a progress bar, kept on disk under a hash of what they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_adapt._shared.checks import check_flag, check_integer, problem
from lightning_adapt._shared.progress import progress_bar
from lightning_adapt.divconq.embed.embedders import Embedder, FloatArray, PrecomputedEmbedder, check_vectors
from lightning_adapt.divconq.embed.vector_file import VectorFile, check_width, read_vector_file

__all__ = ["cache_key", "embed_texts"]

Batch = tuple[int, int]  # first text, first text after it


def embed_texts(
    embedder: Embedder,
    texts: Sequence[str],
    *,
    cache_dir: str | Path | None = None,
    batch_size: int = 1024,
    progress: bool = False,
    part: tuple[int, int] = (0, 1),
) -> FloatArray:
    """Return the vectors of texts, from the cache where they are there.

    With a `cache_dir` the result is a memory map of `<cache_dir>/<key>.npy`, beside a small JSON file that says what it
    is. The key is a hash of the texts in their order and of `embedder.describe()`, so a changed text, model or setting
    never meets old vectors. Work that was cut off goes on where it was; a damaged file is made again, with a warning.

    Args:
        embedder: Fitted already, if it needs that. A `PrecomputedEmbedder` gives its rows, without a cache.
        texts: N texts; read in batches.
        cache_dir: Folder of the cache; None to keep the vectors in memory.
        batch_size: Texts handed to the embedder at a time.
        progress: Whether to show a progress bar.
        part: (rank, world): batch j is made by rank j % world, and only this rank's rows are returned, in the order of
            the texts. The batches are the same for every world, so the vectors are,
            too. Every rank has a file of its own in the cache; a whole one that is there serves all ranks.

    Returns:
        Shape (N, D), or (rows of this rank, D); dtype float32.

    Raises:
        OSError: If the cache cannot be written.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range, there is no text or every text is empty, precomputed rows are not as
            many as the texts, or the embedder gives another shape or numbers that are not finite.
    """
    check_flag("progress", progress, "Pass True for a progress bar.")
    rank, world = _checked_part(part)
    if not len(texts):
        raise ValueError(problem("texts", "at least one text long", "no text", "Check the data set."))
    batches = _batches(len(texts), batch_size, rank, world)
    if isinstance(embedder, PrecomputedEmbedder):
        return _precomputed(embedder, len(texts), batches, world)
    if not any(texts[row].strip() for row in range(len(texts))):  # mostly reads one
        remedy = "Embed another part of the rows, such as text='response', or look at how they are read."
        raise ValueError(problem("texts", "some text in at least one row", f"{len(texts)} empty ones", remedy))
    if cache_dir is None or not batches:
        return _in_memory(embedder, texts, batches, progress)
    description = embedder.describe()
    key = cache_key(texts, description)
    about = {"key": key, "texts": len(texts), "embedder": description}
    whole = Path(cache_dir) / f"{key}.npy"
    found = read_vector_file(whole, about, len(texts))
    if found is not None:
        return found if world == 1 else _rows_of(found, batches)
    if world == 1:
        return _on_disk(embedder, texts, batches, whole, about, progress)
    about |= {"rank": rank, "world": world, "batch_size": batch_size}
    path = Path(cache_dir) / f"{key}-{rank}of{world}by{batch_size}.npy"
    found = read_vector_file(path, about, _length(batches))
    return _on_disk(embedder, texts, batches, path, about, progress) if found is None else found


def cache_key(texts: Sequence[str], description: dict[str, Any]) -> str:
    """Return the name that vectors are kept under.

    Args:
        texts: The texts, in their order.
        description: `embedder.describe()`.

    Returns:
        64 hexadecimal digits, sha256.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


class _Memory:
    """Vectors in memory, filled as a `VectorFile` is."""

    def __init__(self, length: int) -> None:
        self.vectors, self._length = np.zeros((0, 0), dtype=np.float32), length

    def put(self, row: int, vectors: FloatArray) -> None:
        if not len(self.vectors):
            self.vectors = np.empty((self._length, vectors.shape[1]), dtype=np.float32)
        check_width(vectors, self.vectors.shape[1])
        self.vectors[row : row + len(vectors)] = vectors


def _in_memory(embedder: Embedder, texts: Sequence[str], batches: list[Batch], progress: bool) -> FloatArray:
    if not batches:  # more ranks than batches: the width is still to be known
        return _encoded(embedder, texts, (0, 1))[:0]
    memory = _Memory(_length(batches))
    _fill(memory.put, 0, embedder, texts, batches, progress)
    return memory.vectors


def _on_disk(
    embedder: Embedder, texts: Sequence[str], batches: list[Batch], path: Path, about: dict[str, Any], progress: bool
) -> FloatArray:
    length = _length(batches)
    with VectorFile(path, about, length) as file:
        _fill(file.put, file.rows_done, embedder, texts, batches, progress)
        return file.finish()


def _fill(
    put: Callable[[int, FloatArray], None],
    done: int,
    embedder: Embedder,
    texts: Sequence[str],
    batches: list[Batch],
    progress: bool,
) -> None:
    """Hand the vectors of every batch to `put`, but for the first `done` rows."""
    row = 0
    with progress_bar("Embedding texts", _length(batches), progress) as advance:
        for batch in batches:
            size = batch[1] - batch[0]
            if row + size > done:
                put(row, _encoded(embedder, texts, batch))
            row += size
            advance(size)


def _encoded(embedder: Embedder, texts: Sequence[str], batch: Batch) -> FloatArray:
    start, stop = batch
    vectors = np.asarray(embedder.encode([texts[row] for row in range(start, stop)]), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != stop - start or not vectors.shape[1]:
        raise ValueError(
            problem(
                "embedder",
                f"an object whose `encode` gives one row for each of the {stop - start} texts",
                f"an array of shape {vectors.shape}",
                "Return shape (n, D).",
            )
        )
    check_vectors(vectors, "embedder", start)
    return vectors


def _precomputed(embedder: PrecomputedEmbedder, length: int, batches: list[Batch], world: int) -> FloatArray:
    if len(embedder.vectors) != length:
        raise ValueError(
            problem(
                "embedder",
                f"vectors with one row for each of the {length} examples",
                f"{len(embedder.vectors)} rows",
                "Pass the vectors of this data set, in its order.",
            )
        )
    return embedder.vectors if world == 1 else _rows_of(embedder.vectors, batches)


def _rows_of(vectors: FloatArray, batches: list[Batch]) -> FloatArray:
    return np.concatenate([vectors[:0], *(vectors[start:stop] for start, stop in batches)])


def _batches(length: int, batch_size: int, rank: int, world: int) -> list[Batch]:
    size = check_integer("batch_size", batch_size, "Pass 1024 for the default.", minimum=1)
    return [(start, min(start + size, length)) for start in range(rank * size, length, world * size)]


def _length(batches: list[Batch]) -> int:
    return sum(stop - start for start, stop in batches)


def _checked_part(part: Any) -> tuple[int, int]:
    try:
        rank, world = map(int, part)
    except (TypeError, ValueError):
        rank, world = 0, 0
    if not 0 <= rank < world:
        raise ValueError(problem("part", "(rank, world) with 0 <= rank < world", part, "Pass (0, 1) for one process."))
    return rank, world
