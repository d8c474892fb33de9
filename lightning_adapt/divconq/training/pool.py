"""The rows that a training run can choose from: texts, hashes, vectors and quality, the same on every rank."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from lightning_adapt._shared.batch_planner import BatchPlanner
from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.collectives import gather_rows
from lightning_adapt._shared.loaders import conflict
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt._shared.sampling import EpochSampler
from lightning_adapt.divconq.embed.cache import embed_texts
from lightning_adapt.divconq.embed.embedders import FloatArray, PrecomputedEmbedder, check_vectors
from lightning_adapt.divconq.scoring.quality import ArrayQuality, as_quality
from lightning_adapt.divconq.text.conversation import conversation_key, response_of
from lightning_adapt.divconq.text.rows import TextPart, texts_of
from lightning_adapt.divconq.training.agreement import on_every_rank, on_rank_zero
from lightning_adapt.divconq.training.pool_texts import Documents, HeldTexts

__all__ = ["TrainingPool", "known_tokenizer", "rows_of_source"]

_EMBEDDED_AT_ONCE = 1024  # rows of a batch, which belongs to one rank; fixed, so that numbers do not depend on ranks


def rows_of_source(source: Any, method: str) -> Tensor | None:
    """Return the rows that a loader's sampler leaves to choose from.

    Args:
        source: What `inspect_loader` found: the data set, or a sampler of ours.
        method: Who asks, for the error text.

    Returns:
        Rows of the data set, shape (n,), dtype int64; None for all.

    Raises:
        LoaderConflictError: If another sampler of ours draws from the loader already.
    """
    if not isinstance(source, EpochSampler):
        return None
    if isinstance(source, RowSampler):
        return source.rows()
    if isinstance(source, BatchPlanner):
        return source.chosen_rows()
    remedy = (
        f"list {method} before RS2Callback, which then samples inside the selection; where a DataModule brings its own "
        "sampler, choose rows before training with `select_rows` and give it a `torch.utils.data.Subset` of them"
    )
    return conflict(method, "a loader without a sampler of its own", type(source).__name__, remedy)  # type: ignore[no-any-return]


def known_tokenizer(*owners: Any) -> Any:
    """Return the attribute `tokenizer` of the first owner that has one; None without any."""
    found = (getattr(owner, "tokenizer", None) for owner in owners)
    return next((tokenizer for tokenizer in found if tokenizer is not None), None)


class TrainingPool:
    """What a data set offers to the selection; looked at once per run.

    Args:
        dataset: The data set of the user's train loader.
        rows: Its rows that may be chosen, for a loader over a subset; None for all. Shape (n,), dtype int64.
        embedder: Turns texts into vectors, or holds the vectors; None where the method needs none.
        tokenizer: Puts tokenised rows back into text; may be None.

    Attributes:
        n: Rows to choose from; everything else here is numbered 0..n-1.
        texts: Their texts; None where there are none and nothing needs them.

    Raises:
        ValueError: If the data set has no texts and the embedder needs some.
    """

    def __init__(self, dataset: Any, rows: Tensor | None, embedder: Any, tokenizer: Any) -> None:
        self.whole, self.rows, self.embedder = len(dataset), rows, embedder
        self.dataset: Any = dataset if rows is None else Subset(dataset, rows.tolist())
        self.n = len(self.dataset)
        self.texts: HeldTexts | None
        try:
            self.texts = HeldTexts(texts_of(self.dataset, tokenizer))
        except (TypeError, ValueError):
            if embedder is not None and not isinstance(embedder, PrecomputedEmbedder):
                raise
            self.texts = None
        self.keys: list[bytes] | None = None
        self._empty: list[int] = []
        self._numbers = _numbers(dataset)

    def read(self, trainer: Any) -> dict[str, Any]:
        """Hash every row, and check that all ranks have the same data.

        Args:
            trainer: The Trainer.

        Returns:
            A fingerprint of the pool: plain values that change with the data set.

        Raises:
            ValueError: If a row cannot be read, or another rank has other data.
        """
        fingerprint = on_every_rank(trainer, self._read)
        first = on_rank_zero(trainer, lambda: fingerprint)

        def compare() -> None:
            if fingerprint != first:
                remedy = "Let every process load the same rows in the same order."
                raise ValueError(problem("train loader", f"the same on all ranks ({first})", fingerprint, remedy))

        on_every_rank(trainer, compare)
        return fingerprint

    def _read(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        if self.texts is not None:
            self.keys, self._empty = [], []
            for row in range(self.n):
                conversation = self.texts.conversation(row)
                self.keys.append(conversation_key(conversation))
                if not response_of(conversation).strip():
                    self._empty.append(row)
            digest.update(b"".join(self.keys))
        elif self.embedder is not None:
            vectors = self._given_vectors()
            for row in range(0, self.n, _EMBEDDED_AT_ONCE):
                digest.update(vectors[row : row + _EMBEDDED_AT_ONCE].tobytes())
        if self.rows is not None:
            digest.update(self.rows.numpy().tobytes())
        return {"n": self.n, "data": digest.hexdigest()}

    def empty_responses(self) -> str:
        """Return a line about rows without a response; "" where there are none, or where no row has one at all."""
        if self.texts is None or len(self._empty) in (0, self.n):
            return ""
        place = self.texts.place(self._empty[0])
        return f"{len(self._empty):,} of {self.n:,} rows have an empty response; the first is {place}."

    def forget_texts(self) -> None:
        """Hold no texts any more: they are read again where they are asked for."""
        if self.texts is not None:
            self.texts.forget()

    def fit(self, trainer: Any, embedder: Any) -> None:
        """Let an embedder learn from the prompts and responses of the pool.

        Args:
            trainer: The Trainer.
            embedder: The embedder; None: nothing is learnt.
        """
        if self.texts is not None and embedder is not None:
            texts = self.texts
            on_every_rank(trainer, lambda: embedder.fit(Documents(texts)))

    def vectors(self, trainer: Any, text: TextPart, cache_dir: Path | None) -> FloatArray:
        """Return the vectors of all rows; each rank embeds a part of them.

        Args:
            trainer: The Trainer.
            text: What of a row is embedded.
            cache_dir: Where vectors are kept between runs; None for nowhere.

        Returns:
            Vectors. Shape (n, D), dtype float32.

        Raises:
            ValueError: If there are no vectors for every row, or some are not finite.
        """
        if isinstance(self.embedder, PrecomputedEmbedder):
            return on_every_rank(trainer, self._given_vectors)
        if self.texts is None:
            raise ValueError(problem("embedder", "an array where rows have no texts", self.embedder, "Pass vectors."))
        view, part = self.texts.view(text), (trainer.global_rank, trainer.world_size)
        progress = trainer.is_global_zero and trainer.progress_bar_callback is not None
        options: dict[str, Any] = {"cache_dir": cache_dir, "batch_size": _EMBEDDED_AT_ONCE, "progress": progress}

        def embed() -> FloatArray:
            found = embed_texts(self.embedder, view, part=part, **options)
            check_vectors(np.asarray(found), "embedder")
            return found

        mine: FloatArray = on_every_rank(trainer, embed)
        if trainer.world_size == 1:
            return mine
        batches = [np.arange(row, min(row + _EMBEDDED_AT_ONCE, self.n)) for row in range(0, self.n, _EMBEDDED_AT_ONCE)]
        order = np.concatenate(
            [rows for rank in range(trainer.world_size) for rows in batches[rank :: trainer.world_size]]
        )
        gathered = gather_rows(trainer, torch.from_numpy(np.array(mine))).numpy()
        vectors: FloatArray = np.empty_like(gathered)
        vectors[order] = gathered
        return vectors

    def _given_vectors(self) -> FloatArray:
        vectors: FloatArray = self.embedder.vectors
        if len(vectors) == self.whole and self.rows is not None:
            chosen: FloatArray = vectors[self.rows.numpy()]
            return chosen
        if len(vectors) != self.n:
            remedy = "Pass one vector per row of the train data set, in its order."
            raise ValueError(problem("embedder", f"{self.whole} rows long", len(vectors), remedy))
        return vectors

    def quality(self, trainer: Any, value: Any) -> Tensor | None:
        """Return the quality of all rows; each rank works out a part of it.

        Args:
            trainer: The Trainer.
            value: The user's `quality`: what `as_quality` takes, one value per row of the data set for arrays.

        Returns:
            Quality. Shape (n,), dtype float64; None for None.

        Raises:
            ValueError: If it cannot be had for every row.
        """
        if value is None:
            return None
        rating, world = as_quality(value), trainer.world_size
        if self.rows is not None and isinstance(rating, ArrayQuality) and len(rating.values) == self.whole:
            rating = ArrayQuality(rating.values[self.rows])
        if self.texts is None and rating.needs_texts:
            remedy = "Rate the rows before, and pass one number per row."
            raise ValueError(problem("quality", "an array or a column where rows have no texts", value, remedy))
        part = (trainer.global_rank, world)
        mine = on_every_rank(trainer, lambda: rating(self.texts, self.dataset, part=part))
        quality = torch.empty(self.n, dtype=torch.float64)
        places = torch.cat([rating.rows(self.n, (rank, world)) for rank in range(world)])
        quality[places] = gather_rows(trainer, mine)
        return quality

    def check_same(self, dataset: Any, rows: Tensor | None) -> None:
        """Raise if loaders that were made anew are over other data, as far as can be seen without reading it.

        Args:
            dataset: Their data set.
            rows: Its rows that may be chosen, as in the constructor.

        Raises:
            ValueError: If its length, the rows of a `Subset` or those of the sampler are others.
        """
        remedy = "A selection names rows by their numbers: keep the data set in a run."
        if len(dataset) != self.whole:
            raise ValueError(problem("train loader", f"over {self.whole} rows, as before", len(dataset), remedy))
        if not (_equal(_numbers(dataset), self._numbers) and _equal(_sorted(rows), _sorted(self.rows))):
            raise ValueError(problem("train loader", "over the rows it had before", "other rows", remedy))

    def dataset_rows(self, rows: Tensor) -> Tensor:
        """Return the data set's numbers of rows of the pool, int64 of the same shape."""
        return rows if self.rows is None else self.rows[rows]

    def hashes(self, rows: Tensor) -> list[str | None]:
        """Return the hash of the text of some rows, 32 hexadecimal digits each; None where there is no text."""
        keys = self.keys
        return [None if keys is None else keys[row].hex() for row in rows.tolist()]


def _numbers(dataset: Any) -> Tensor | None:
    return torch.as_tensor(dataset.indices) if isinstance(dataset, Subset) else None


def _sorted(rows: Tensor | None) -> Tensor | None:
    return None if rows is None else rows.sort().values


def _equal(one: Tensor | None, two: Tensor | None) -> bool:
    return one is two if one is None or two is None else torch.equal(one, two)
