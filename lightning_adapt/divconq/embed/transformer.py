"""Embeddings by a transformer: mean of its token states, long texts in pieces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt._shared.forward import evaluating
from lightning_adapt.divconq.embed.embedders import FloatArray, check_vectors, unit_rows
from lightning_adapt.divconq.embed.text_model import Pooling, default_device, load_text_model
from lightning_adapt.divconq.text.conversation import clean_text

__all__ = ["TransformerEmbedder"]

_WINDOW = 1024  # texts sorted by length together
Piece = tuple[int, list[int], int]  # text it belongs to, tokens, weight


class TransformerEmbedder:
    """Vectors of texts by any model of transformers: the mean of the last states, with the attention mask as weights.

    A text that is longer than `max_length` tokens is cut into pieces; its vector is the mean of theirs, weighted by
    their tokens. (The authors' code divides by the number of characters of another piece, so that lengths, and with
    them the clusters, are arbitrary.) All vectors have length 1 and dtype float32. For short texts they equal those of
    sentence-transformers.

    Args:
        model: A name on the hub, a folder (of sentence-transformers, too), a loaded model of transformers, or a
            `SentenceTransformer`. A loaded model stays on its device and in its precision, and is used in eval mode.
        pooling: "mean" or "cls"; None for what a sentence-transformers folder says, else the mean.
        max_length: Most tokens of a piece, special ones included; the model's own limit counts, too.
        batch_size: Pieces in a forward pass.
        device: Where a model that is loaded here goes; None for the GPU if there is one. Such as "cuda:1".
        revision: Of a model on the hub.
        prefix: Put before every text, such as "query: " for E5.
        tokenizer: Of a loaded model of transformers.

    Attributes:
        name: "transformer".

    Raises:
        ModuleNotFoundError: If transformers is missing; names the extra.
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range, or the model cannot be loaded.
    """

    name = "transformer"

    def __init__(
        self,
        model: Any,
        *,
        pooling: Pooling | None = None,
        max_length: int = 256,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        revision: str | None = None,
        prefix: str = "",
        tokenizer: Any = None,
    ) -> None:
        self.batch_size = check_integer("batch_size", batch_size, "Pass 32 for the default.", minimum=1)
        length = check_integer("max_length", max_length, "Pass 256 for the default.", minimum=1)
        if not isinstance(prefix, str):
            raise TypeError(problem("prefix", "a string", prefix, "Leave it out for none."))
        self.prefix = prefix
        self._model = load_text_model(model, tokenizer, pooling, revision)
        self._own = isinstance(model, (str, Path))
        self._device = device
        self.max_length = min(length, self._model.max_length or length)
        self._head, self._tail = self._special_tokens()
        if self.max_length <= len(self._head) + len(self._tail):
            need = f"a whole number above {len(self._head) + len(self._tail)}, the model's special tokens"
            raise ValueError(problem("max_length", need, max_length, "Pass 256 for the default."))
        self._fingerprint = ""

    def fit(self, documents: Sequence[str]) -> None:
        """Do nothing: the model is trained.

        Args:
            documents: Not used.
        """

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return the vectors of texts.

        Args:
            texts: n texts.

        Returns:
            Shape (n, D), dtype float32, rows of length 1; a text without any token is a row of zeros.

        Raises:
            ValueError: If the model gives NaN or infinite numbers; names the rows.
        """
        if self._own:  # not before: a process that has touched a GPU cannot be forked, and its rank is known later
            self._model.module.to(self._device or default_device())
        starts = range(0, len(texts), _WINDOW)
        with evaluating(self._model.module):
            parts = [
                self._window([texts[row] for row in range(start, min(start + _WINDOW, len(texts)))], start)
                for start in starts
            ]
        return np.concatenate(parts) if parts else np.zeros((0, self._width()), dtype=np.float32)

    def describe(self) -> dict[str, Any]:
        """Return hashes of weights, architecture and tokenizer, and the settings; not where they came from.

        Returns:
            Plain values.
        """
        if not (self._own and self._fingerprint):  # a model of the user's may have been trained on
            self._fingerprint = weights_fingerprint(self._model.module)
        return {
            "name": self.name,
            "model": type(self._model.module).__name__,
            "architecture": _digest([repr(self._model.module), _config(self._model.module)]),
            "tokenizer": _digest(_rules(self._model.tokenizer)),
            "weights": self._fingerprint,
            "pooling": self._model.pooling,
            "max_length": self.max_length,
            "lower": self._model.lower,
            "prefix": self.prefix,
        }

    def _window(self, texts: list[str], first_row: int) -> FloatArray:
        pieces = sorted(self._pieces(texts), key=lambda piece: -len(piece[1]))  # the longest first: memory fails early
        sums: Tensor | None = None
        for start in range(0, len(pieces), self.batch_size):
            batch = pieces[start : start + self.batch_size]
            vectors = self._forward([tokens for _, tokens, _ in batch])
            if sums is None:
                sums = torch.zeros(len(texts), vectors.shape[1], dtype=torch.float64)
            weights = torch.tensor([weight for _, _, weight in batch], dtype=torch.float64)
            sums.index_add_(0, torch.tensor([row for row, _, _ in batch]), vectors.double() * weights[:, None])
        if sums is None:
            return np.zeros((len(texts), self._width()), dtype=np.float32)
        sums /= sums.new_tensor(_weights(pieces, len(texts))).clamp(min=1)[:, None]
        means = sums.float().numpy()
        check_vectors(means, "embedder", first_row)
        return unit_rows(means)

    def _pieces(self, texts: list[str]) -> Iterator[Piece]:
        size = self.max_length - len(self._head) - len(self._tail)
        for row, tokens in enumerate(self._tokens(texts)):
            for start in range(0, max(len(tokens), 1), size):
                piece = tokens[start : start + size]
                whole = [*self._head, *piece, *self._tail]
                if whole:
                    yield row, whole, max(len(piece), 1)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        prepared = [self.prefix + clean_text(text) for text in texts]
        if self._model.lower:
            prepared = [text.lower() for text in prepared]
        # verbose: no advice about texts longer than the model takes, they are cut into pieces here
        encoded = self._model.tokenizer(prepared, add_special_tokens=False, verbose=False, truncation=False)
        tokens: list[list[int]] = encoded["input_ids"]
        return tokens

    def _forward(self, rows: list[list[int]]) -> Tensor:
        device = next(self._model.module.parameters()).device
        padding = self._model.tokenizer.pad_token_id or 0  # masked: which token it is does not matter
        tokens = torch.full((len(rows), max(map(len, rows))), padding)
        mask = torch.zeros_like(tokens)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return self._model.pooled(tokens.to(device), mask.to(device)).cpu()

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """Return what the tokenizer puts before and after a text."""
        plain = self._model.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self._model.tokenizer("a")["input_ids"]
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start], whole[start + len(plain) :]
        raise ValueError(
            problem("model", "one whose tokenizer only adds tokens around a text", whole, "Pass another model.")
        )

    def _width(self) -> int:
        return self._forward([[self._model.tokenizer.pad_token_id or 0]]).shape[1]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _config(module: torch.nn.Module) -> dict[str, Any]:
    """Return the settings of the model of transformers in a module, without paths and versions."""
    configs = (getattr(part, "config", None) for part in module.modules())
    config = next((found for found in configs if hasattr(found, "to_dict")), None)
    values = {} if config is None else config.to_dict()
    return {name: value for name, value in values.items() if name[0] != "_" and name != "transformers_version"}


def _rules(tokenizer: Any) -> Any:
    """Return what decides about the tokens of a text: all of a fast tokenizer, vocabulary and switches of another."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        return [tokenizer.get_vocab(), {name: v for name, v in tokenizer.init_kwargs.items() if isinstance(v, bool)}]
    rules = json.loads(inner.to_str())
    return {name: rule for name, rule in rules.items() if name not in ("truncation", "padding")}  # set by each call


def _weights(pieces: list[Piece], length: int) -> list[int]:
    """Return the sum of the weights of every text's pieces."""
    sums = [0] * length
    for row, _, weight in pieces:
        sums[row] += weight
    return sums
