"""The embedder that needs no download: TF-IDF of hashed words, made dense by a truncated SVD."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.hashing import derive_key, uniform
from lightning_adapt._shared.imports import require
from lightning_adapt.divconq.embed.embedders import FloatArray, unit_rows
from lightning_adapt.divconq.text.conversation import clean_text

__all__ = ["TfidfEmbedder"]

_FEATURES = 2**18
_CHUNK = 4096  # texts held as a sparse matrix at a time
_SVD_SAMPLE = 20_000
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"  # written without spaces: every character is a word
_WORD = rf"[^\W{_CJK}]+|[{_CJK}]"


class TfidfEmbedder:
    """Latent semantic analysis: 2^18 hashed words with sublinear counts and idf, then a truncated SVD.

    The idf is counted over all documents, a chunk at a time. The SVD is fitted on a seeded sample of at most 20,000
    documents, and its directions are used for all. The same documents, seed and versions give the same vectors. Words
    that the sample does not have count for nothing; a text of nothing but such words becomes a row of zeros.

    Args:
        dimensions: Length D of the vectors; columns beyond the rank of a small pool stay zero.
        ngrams: Shortest and longest run of words that counts as a feature.
        seed: Seed of the sample and of the randomised SVD.

    Attributes:
        name: "tfidf".

    Raises:
        ModuleNotFoundError: If scikit-learn is missing; names the extra.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range.

    Example:
        >>> embedder = TfidfEmbedder(2)
        >>> embedder.fit(["red apple", "green apple", "fast car", "slow car"])
        >>> vectors = embedder.encode(["red apple", "green apple", "slow car"])
        >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
        True
    """

    name = "tfidf"

    def __init__(self, dimensions: int = 256, *, ngrams: tuple[int, int] = (1, 1), seed: int = 0) -> None:
        require("llm", "TfidfEmbedder", "scikit-learn")
        self.dimensions = check_integer("dimensions", dimensions, "Pass 256 for the default.", minimum=1)
        self.ngrams = _checked_ngrams(ngrams)
        self.seed = check_integer("seed", seed, "Pass a whole number.", minimum=0)
        self._columns: npt.NDArray[np.int64] | None = None  # hashed words that the SVD knows
        self._directions: FloatArray | None = None  # right singular vectors. Shape (columns, rank)
        self._idf: FloatArray | None = None
        self._documents = ""  # digest of what it was fitted on

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has been called."""
        return self._directions is not None

    def fit(self, documents: Sequence[str]) -> None:
        """Count document frequencies, and fit the SVD on a sample.

        Args:
            documents: Texts of the pool, prompts and responses; read twice, never held at once.

        Raises:
            ValueError: If there is no document, or none has a word.
        """
        if not len(documents):
            raise ValueError("TfidfEmbedder needs at least one document to be fitted on, but got none.")
        frequencies, digest = np.zeros(_FEATURES, dtype=np.int64), hashlib.sha256()
        for chunk in _chunks(documents):
            for text in chunk:
                data = text.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "little") + data)
            frequencies += np.bincount(self._counts(chunk).indices, minlength=_FEATURES)
        if not frequencies.any():
            raise ValueError(f"None of the {len(documents)} documents has a word; TF-IDF has nothing to go by.")
        self._documents = digest.hexdigest()
        self._idf = (np.log((1 + len(documents)) / (1 + frequencies)) + 1).astype(np.float32)
        self._fit_directions(documents)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors of texts.

        Args:
            texts: n texts, of the pool or not.

        Returns:
            Shape (n, D), dtype float32, rows of length 1 or 0.

        Raises:
            RuntimeError: If `fit` has not been called.
        """
        if self._columns is None or self._directions is None:
            raise RuntimeError("TfidfEmbedder must be fitted first: call `fit` with the texts of the pool.")
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        start = 0
        for chunk in _chunks(texts):
            weights = self._weights(chunk)[:, self._columns]
            vectors[start : start + len(chunk), : self._directions.shape[1]] = weights @ self._directions
            start += len(chunk)
        return unit_rows(vectors)

    def describe(self) -> dict[str, Any]:
        """Return the settings and a digest of the documents it was fitted on.

        Returns:
            Plain values.
        """
        import sklearn

        return {
            "name": self.name,
            "dimensions": self.dimensions,
            "ngrams": list(self.ngrams),
            "seed": self.seed,
            "documents": self._documents,
            "scikit-learn": str(sklearn.__version__),
        }

    def _fit_directions(self, documents: Sequence[str]) -> None:
        from sklearn.utils.extmath import randomized_svd

        rows = _sample(len(documents), self.seed)
        weights = self._weights(documents[row] for row in rows)
        # columns that the sample does not have get nothing from the SVD: leave them out of its dense matrices
        columns = np.unique(weights.indices).astype(np.int64)
        rank = min(self.dimensions, len(rows), len(columns))
        _, _, directions = randomized_svd(weights[:, columns], rank, n_iter=4, random_state=self.seed % 2**32)
        self._columns, self._directions = columns, np.ascontiguousarray(directions.T, dtype=np.float32)

    def _counts(self, texts: Iterable[str]) -> Any:
        """Return how often each hashed word occurs: CSR of shape (n, 2^18), float32, each column once per row."""
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(
            n_features=_FEATURES,
            ngram_range=self.ngrams,
            token_pattern=_WORD,
            alternate_sign=False,
            norm=None,
            dtype=np.float32,
        )
        return vectorizer.transform(map(clean_text, texts))

    def _weights(self, texts: Iterable[str]) -> Any:
        """Return (1 + log count) * idf with rows of length 1, as CSR."""
        from sklearn.preprocessing import normalize

        counts = self._counts(texts)
        np.log(counts.data, out=counts.data)
        counts.data += 1
        if self._idf is not None:
            counts.data *= self._idf[counts.indices]
        return normalize(counts, copy=False)


def _sample(size: int, seed: int) -> list[int]:
    if size <= _SVD_SAMPLE:
        return list(range(size))
    rows: list[int] = uniform(torch.arange(size), derive_key(seed)).topk(_SVD_SAMPLE).indices.sort().values.tolist()
    return rows


def _chunks(items: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield [items[place] for place in range(start, min(start + _CHUNK, len(items)))]


def _checked_ngrams(ngrams: Any) -> tuple[int, int]:
    try:
        shortest, longest = ngrams
    except (TypeError, ValueError):
        shortest, longest = 0, 0
    if not (isinstance(shortest, int) and isinstance(longest, int) and 1 <= shortest <= longest):
        raise ValueError(
            problem("ngrams", "two whole numbers, 1 <= shortest <= longest", ngrams, "Pass (1, 1) for single words.")
        )
    return shortest, longest
