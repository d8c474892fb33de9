"""Vectors of the rows of a file: embedded in a stream to a memory map, or taken from a file of vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lightning_adapt._shared.checks import problem
from lightning_adapt.divconq.embed.cache import embed_texts
from lightning_adapt.divconq.embed.embedders import Embedder, PrecomputedEmbedder
from lightning_adapt.divconq.embed.vector_file import check_width
from lightning_adapt.divconq.offline.file_pool import Pool, Progress, SomeTexts
from lightning_adapt.divconq.text.rows import TextPart

__all__ = ["vectors_of"]

_BLOCK = 1024  # rows at a time; what embed_texts takes, so that a cache changes no number
Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def vectors_of(
    pool: Pool,
    rows: Rows,
    embedder: Embedder,
    *,
    text: TextPart,
    cache_dir: Path | None,
    folder: Path,
    progress: Progress,
) -> Vectors:
    """Return the vectors of some rows, as a memory map.

    Args:
        pool: The file.
        rows: Rows to embed, ascending.
        embedder: Its `fit` sees the same texts that are embedded.
        text: What of a row is embedded.
        cache_dir: Keeps embedded vectors for the next run; None: nothing is kept.
        folder: Where files without a name go; the system deletes them when this process ends, however it ends.
        progress: Called now and then.

    Returns:
        Shape (len(rows), D), float32.

    Raises:
        OSError: If the disk is full.
        ValueError: If there are vectors for another number of rows, or a vector is not finite.
    """
    if isinstance(embedder, PrecomputedEmbedder):
        return _some_of(embedder.vectors, rows, len(pool.keys), folder)
    view = pool.texts.view(text)
    embedder.fit(SomeTexts(view, rows, progress, "learning the words"))
    if cache_dir is None:
        return _mapped(_embedded(embedder, SomeTexts(view, rows, progress, "embedding")), len(rows), folder)
    # the key of the cache is a hash of all texts: they are read once before anything is embedded
    texts = SomeTexts(view, rows, progress, "embedding", quick_reads=len(rows))
    return embed_texts(embedder, texts, cache_dir=cache_dir, batch_size=_BLOCK)


def _embedded(embedder: Embedder, texts: SomeTexts) -> Iterator[Vectors]:
    blocks = -(-len(texts) // _BLOCK)
    return (embed_texts(embedder, texts, batch_size=_BLOCK, part=(block, blocks)) for block in range(blocks))


def _some_of(vectors: Vectors, rows: Rows, n: int, folder: Path) -> Vectors:
    if len(vectors) != n:
        raise ValueError(
            problem("embedder", f"{n:,} vectors, one per row", f"{len(vectors):,}", "Embed exactly the rows of --data.")
        )
    if len(rows) == n:
        return vectors
    return _mapped((vectors[rows[first : first + _BLOCK]] for first in range(0, len(rows), _BLOCK)), len(rows), folder)


def _mapped(blocks: Iterable[Vectors], length: int, folder: Path) -> Vectors:
    """Write blocks of rows to a file without a name, and return all of it as a memory map."""
    width = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in blocks:
            width = width or block.shape[1]
            check_width(block, width)
            file.write(np.ascontiguousarray(block).data)  # a full disk is an error here, in a map it is a crash
        file.flush()
        mapped: Vectors = np.memmap(file, dtype=np.float32, mode="r", shape=(length, width))
    return mapped
