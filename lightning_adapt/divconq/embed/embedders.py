"""What an embedder is, vectors that are there already, and how an argument becomes an embedder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from lightning_adapt._shared.checks import describe, problem
from lightning_adapt._shared.imports import require
from lightning_adapt.divconq.embed.array_file import open_array

__all__ = ["Embedder", "FloatArray", "PrecomputedEmbedder", "as_embedder", "check_vectors", "unit_rows"]

FloatArray = npt.NDArray[np.float32]
_BLOCK_BYTES = 2**26
_VECTOR_FILES = (".npy", ".safetensors")


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of unit length.

    Attributes:
        name: Short name for logs and reports.
    """

    name: str

    def fit(self, documents: Sequence[str]) -> None:
        """Learn from the texts of the pool, prompts and responses; does nothing for pretrained models."""
        ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors of texts. Shape (n, D), dtype float32, rows of length 1; rows of zeros stay zero."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return everything that the vectors depend on besides the texts; plain JSON values."""
        ...


class PrecomputedEmbedder:
    """Vectors made elsewhere, one row per example of the pool; used as they are, whatever their length.

    Args:
        vectors: Array or tensor of shape (N, D) with any float dtype, or a file: `.npy` (memory-mapped) or
            `.safetensors` with one tensor.

    Attributes:
        vectors: The rows; a memory map where they came from a `.npy` file of float32. Shape (N, D), dtype float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another kind, or a row is not finite.
    """

    name = "precomputed"

    def __init__(self, vectors: Any) -> None:
        self.path = Path(vectors) if isinstance(vectors, (str, Path)) else None
        found = _as_array(vectors) if self.path is None else _read_vectors(self.path)
        if found.ndim != 2 or 0 in found.shape or found.dtype.kind != "f":
            raise ValueError(
                problem(
                    "embedder",
                    "vectors of shape (N, D) with a float dtype",
                    f"{found.dtype} of shape {found.shape}",
                    "Pass one row of numbers per example.",
                )
            )
        self.vectors: FloatArray = found.astype(np.float32, copy=False)
        check_vectors(self.vectors, "embedder")

    def fit(self, documents: Sequence[str]) -> None:
        """Do nothing: the vectors are there.

        Args:
            documents: Not used.
        """

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Refuse: there is no model to embed new texts with.

        Args:
            texts: Not used.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"Precomputed vectors cannot embed new texts ({len(texts)} came). Pass an embedder with a model, or a "
            "scorer that needs none."
        )

    def describe(self) -> dict[str, Any]:
        """Return shape and digest of the vectors.

        Returns:
            Plain values.
        """
        digest = hashlib.sha256()
        for start, stop in _blocks(self.vectors):
            digest.update(np.ascontiguousarray(self.vectors[start:stop]).data)
        return {"name": self.name, "shape": list(self.vectors.shape), "sha256": digest.hexdigest()}


def as_embedder(value: Any) -> Embedder:
    """Return the embedder that an argument stands for.

    Args:
        value: None for `TfidfEmbedder`; an array, tensor or `.npy`/`.safetensors` file for `PrecomputedEmbedder`; any
            other string or path for `TransformerEmbedder`; an object with `fit`, `encode`, `describe` and `name` as is.

    Returns:
        The embedder.

    Raises:
        ModuleNotFoundError: If the package it needs is missing; names the extra.
        TypeError: If it is none of these.
    """
    if value is None:
        from lightning_adapt.divconq.embed.tfidf import TfidfEmbedder

        return TfidfEmbedder()
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return PrecomputedEmbedder(value)
    if isinstance(value, (str, Path)):
        if Path(value).suffix in _VECTOR_FILES:
            return PrecomputedEmbedder(value)
        from lightning_adapt.divconq.embed.transformer import TransformerEmbedder

        return TransformerEmbedder(value)
    if not isinstance(value, type) and isinstance(value, Embedder):
        return value
    raise TypeError(
        problem(
            "embedder",
            "None, an array, a file of vectors, a model's name or folder, or an object with fit, encode, describe and "
            "name",
            value,
            "Leave it out for TF-IDF, which needs no download.",
        )
    )


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Divide every row by its length, in place; rows of zeros stay zero.

    Args:
        vectors: Shape (n, D), dtype float32.

    Returns:
        The same array.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    vectors /= np.where(lengths > 0, lengths, 1.0).astype(np.float32)[:, None]
    return vectors


def check_vectors(vectors: FloatArray, argument: str, first_row: int = 0) -> None:
    """Refuse vectors with NaN or infinite numbers.

    Args:
        vectors: Shape (n, D), dtype float32; read in blocks.
        argument: Name of the argument they came from.
        first_row: Number of the first row, for the error text.

    Raises:
        ValueError: If a row is not finite; says how many and names the first ones.
    """
    bad: list[int] = []
    for start, stop in _blocks(vectors):
        finite = np.isfinite(vectors[start:stop]).all(axis=1)
        bad += (np.flatnonzero(~finite) + start + first_row).tolist()
    if bad:
        named = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            problem(
                argument,
                "finite in every row",
                f"{len(bad)} rows with NaN or infinite numbers: {named}",
                "Look at the texts of these rows, or at the model's precision.",
            )
        )


def _blocks(vectors: FloatArray) -> list[tuple[int, int]]:
    step = max(1, _BLOCK_BYTES // max(1, vectors.shape[1] * vectors.itemsize))
    return [(start, min(start + step, len(vectors))) for start in range(0, len(vectors), step)]


def _as_array(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().float().numpy()
    return np.asarray(value)


def _read_vectors(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(
            problem("embedder", "a file that is there", str(path), "Check the path of the vectors.")
        )
    if path.suffix == ".npy":
        return open_array(path)
    require("llm", "Reading vectors from a .safetensors file", "safetensors")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable .safetensors file: {error}") from error
    if len(tensors) != 1:
        names = describe(", ".join(tensors))
        raise ValueError(f"{path} must hold one tensor, but it holds {len(tensors)}: {names}.")
    return _as_array(next(iter(tensors.values())))
