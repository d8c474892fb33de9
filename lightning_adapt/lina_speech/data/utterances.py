"""Utterances: codes with their texts in memory, read one by one or as batches of joined rows; no Lightning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_adapt.lina_speech.data.batch_plan import Item
from lightning_adapt.lina_speech.data.code_cache import Codes

__all__ = ["Utterances", "describe_utterances", "pad_batch"]


class Utterances(Dataset[dict[str, Any]]):
    """Codes of recordings with what is said in them, in a few flat tensors (2 bytes per code).

    `utterances[3]` is {"codes": (Q, N) int64, "text": str, "speaker": str, "id": str, "seconds": float, "index": 3}.
    `utterances[[(0,), (4, 2)]]` is a batch (see `pad_batch`) of two items, the second of which is rows 4 and 2 joined:
    their texts with a space between, their codes one after the other. Its "index" is the first row of each item, its
    "speaker" the number of the speaker's name among the speakers, -1 for one that is not there.

    Args:
        rows: {"id", "text", "speaker", "key"} of each row.
        codes: Their codes.
        tokenizer: Turns texts into token ids; anything with `encode`. One that has them is asked for `phonemes` of all
            texts once, which it remembers, and for `encode_joined` of the texts of a join.
        speakers: Names of the speakers, sorted; None for those of the rows.

    Attributes:
        frames: Frames of each row. Shape (N,), dtype int64.
        seconds: Length of each recording. Shape (N,), dtype float64.
        speaker_numbers: Number of the speaker of each row. Shape (N,), dtype int64.
        voices: Rows of one number may be joined: a number per speaker, and where speakers are named, one of its own for
            each row without. Shape (N,), dtype int64.
        digest: Hash of recordings and texts, in order.
    """

    def __init__(
        self, rows: Sequence[dict[str, str]], codes: Codes, tokenizer: Any, speakers: Sequence[str] | None = None
    ) -> None:
        self.ids = [row["id"] for row in rows]
        self.texts = [row["text"] for row in rows]
        self._spoken_by = [row["speaker"] for row in rows]
        self.speakers = tuple(sorted(set(self._spoken_by)) if speakers is None else speakers)
        numbers = {name: number for number, name in enumerate(self.speakers)}
        self.speaker_numbers = torch.tensor([numbers.get(name, -1) for name in self._spoken_by])
        self.voices = _voices(self._spoken_by, self.speaker_numbers)
        self.tokenizer = tokenizer
        self._flat, self._ends, self.seconds = codes
        digest = hashlib.blake2b(digest_size=16)
        for row in rows:
            digest.update(json.dumps([row["key"], row["text"], row["speaker"]]).encode())
        self.digest = digest.hexdigest()
        self._prepare(self.texts)

    @property
    def frames(self) -> Tensor:
        """Frames of each row. Shape (N,), dtype int64."""
        return self._ends.diff()

    @property
    def n_codebooks(self) -> int:
        """Codebooks Q."""
        return len(self._flat)

    @property
    def codes(self) -> Tensor:
        """All codes, row after row. Shape (Q, total number of frames), dtype int16 or int32."""
        return self._flat

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | list[Item]) -> dict[str, Any]:
        if isinstance(index, list):
            self._prepare([self.texts[row] for rows in index for row in rows])  # a worker may have started afresh
            return pad_batch([self._item(rows) for rows in index])
        row = range(len(self))[index]
        return {
            "codes": self._codes(row),
            "text": self.texts[row],
            "speaker": self._spoken_by[row],
            "id": self.ids[row],
            "seconds": float(self.seconds[row]),
            "index": row,
        }

    def _codes(self, row: int) -> Tensor:
        return self._flat[:, self._ends[row] : self._ends[row + 1]].long()

    def _item(self, rows: Item) -> dict[str, Any]:
        return {
            "text": self._text_ids([self.texts[row] for row in rows]),
            "codes": torch.cat([self._codes(row) for row in rows], dim=1),
            "index": rows[0],
            "speaker": int(self.speaker_numbers[rows[0]]),
        }

    def _text_ids(self, texts: list[str]) -> Any:
        joined = getattr(self.tokenizer, "encode_joined", None)
        return self.tokenizer.encode(" ".join(texts)) if joined is None else joined(texts)

    def _prepare(self, texts: list[str]) -> None:
        remember = getattr(self.tokenizer, "phonemes", None)
        if remember is not None and texts:
            remember(texts)


def _voices(names: Sequence[str], numbers: Tensor) -> Tensor:
    unknown = torch.tensor([not name for name in names], dtype=torch.bool)
    if bool(unknown.all()):  # one voice, as in LJSpeech
        return torch.zeros_like(numbers)
    alone = int(numbers.max()) + 1 + torch.arange(len(numbers))
    return torch.where(unknown, alone, numbers)


def pad_batch(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Return a batch of items.

    Args:
        items: Each {"text": token ids (a list), "codes": shape (Q, N), "index": int, "speaker": int}.

    Returns:
        "text" (B, M) and "codes" (B, Q, N), 0 after the end of each, with "text_lengths" and "code_lengths" (B,),
        "index" and "speaker" (B,). All int64.

    Example:
        >>> items = [{"text": [1, 2], "codes": torch.ones(1, n), "index": 0, "speaker": 0} for n in (1, 3)]
        >>> pad_batch(items)["codes"].tolist()
        [[[1, 0, 0]], [[1, 1, 1]]]
    """
    text_lengths = torch.tensor([len(item["text"]) for item in items], dtype=torch.int64)
    code_lengths = torch.tensor([item["codes"].shape[1] for item in items], dtype=torch.int64)
    text = torch.zeros(len(items), int(text_lengths.max()), dtype=torch.int64)
    codes = torch.zeros(len(items), len(items[0]["codes"]), int(code_lengths.max()), dtype=torch.int64)
    for place, item in enumerate(items):
        text[place, : len(item["text"])] = torch.as_tensor(item["text"], dtype=torch.int64)
        codes[place, :, : item["codes"].shape[1]] = item["codes"]
    return {
        "text": text,
        "text_lengths": text_lengths,
        "codes": codes,
        "code_lengths": code_lengths,
        "index": torch.tensor([item["index"] for item in items], dtype=torch.int64),
        "speaker": torch.tensor([item["speaker"] for item in items], dtype=torch.int64),
    }


def describe_utterances(utterances: Utterances, codebook_size: int) -> dict[str, Any]:
    """Return figures of a set.

    Args:
        utterances: The set.
        codebook_size: Codes per codebook.

    Returns:
        "utterances", "seconds", "speakers" (names that occur), "frames", "characters" and "unigram_entropy": the
        entropy in nats of the codes of each codebook, taken one by one; what a model that knows only their frequencies
        pays per code.
    """
    entropies = []
    for codes in utterances.codes:
        counts = torch.bincount(codes.long(), minlength=codebook_size).double()
        shares = counts[counts > 0] / counts.sum()
        entropies.append(float(-(shares * shares.log()).sum()))
    return {
        "utterances": len(utterances),
        "seconds": float(utterances.seconds.sum()),
        "speakers": len(set(utterances.speaker_numbers.tolist())),
        "frames": int(utterances.frames.sum()),
        "characters": sum(len(text) for text in utterances.texts),
        "unigram_entropy": entropies,
    }
