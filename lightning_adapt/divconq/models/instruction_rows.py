"""InstructionDataset: conversations as token rows in memory, with labels; and how rows become a batch; no Lightning."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_adapt.divconq.models.labels import ChatEncoder, Encoded
from lightning_adapt.divconq.text.conversation import Conversation, conversation_key, response_of
from lightning_adapt.divconq.text.rows import IGNORED, RowTexts, texts_of

__all__ = ["InstructionDataset", "PadRight", "WholeRounds"]

_ENCODED_AT_ONCE = 256


class InstructionDataset(Dataset[dict[str, Any]]):
    """Conversations of a pool, tokenised once and kept as whole numbers in a few flat arrays (5 bytes per token).

    Rows that would teach nothing are left out, so that every row of this data set can be trained on: those whose
    assistant turns are all empty ("no response"), and those with no supervised token within the length limit ("too
    long"). Items are {"input_ids", "labels", "attention_mask"} (int64 of shape (T,); labels are -100 where the
    assistant does not write) and "index", the row of this data set.

    Args:
        source: The pool: anything that `texts_of` reads.
        encoder: Makes token rows.
        rows: Rows of the pool to use, in this order. Shape (M,). None: all.

    Attributes:
        rows: Rows of the pool that were kept. Shape (N,), dtype int64.
        dropped: Why rows were left out, to how many.
        digest: Hash of the kept conversations, in order.

    Raises:
        ValueError: If a row cannot be read or the chat template refuses it; the text names the row.
    """

    def __init__(
        self, source: Any, encoder: ChatEncoder, rows: Sequence[int] | NDArray[np.int64] | None = None
    ) -> None:
        self._source = source
        self._texts: RowTexts | None = None
        self.tokenizer = encoder.tokenizer
        wanted = np.arange(len(self.texts)) if rows is None else np.asarray(rows, np.int64)
        self.dropped = {"no response": 0, "too long": 0}
        kept, ends, tokens, masks = [], [0], array("i"), bytearray()  # they grow, so that nothing is held twice
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, len(wanted), _ENCODED_AT_ONCE):
            for row, turns, encoded in self._encode(wanted[start : start + _ENCODED_AT_ONCE].tolist(), encoder):
                if not encoded.supervised.any():
                    self.dropped["too long"] += 1
                    continue
                digest.update(conversation_key(turns))
                kept.append(row)
                tokens.frombytes(encoded.input_ids.tobytes())
                masks += encoded.supervised.tobytes()
                ends.append(len(tokens))
        self.rows = np.asarray(kept, np.int64)
        self.digest = digest.hexdigest()
        self._ends = np.asarray(ends, np.int64)
        self._tokens = np.frombuffer(tokens, np.int32)
        self._masks = np.frombuffer(masks, bool)

    def _encode(self, rows: list[int], encoder: ChatEncoder) -> list[tuple[int, Conversation, Encoded]]:
        turns = {row: self.texts.conversation(row) for row in rows}
        answered = [row for row in rows if response_of(turns[row]).strip()]
        self.dropped["no response"] += len(rows) - len(answered)
        if not answered:
            return []
        try:
            encoded = encoder.encode([turns[row] for row in answered])
        except ValueError:
            encoded = [self._encode_one(row, turns[row], encoder) for row in answered]  # finds the one it is about
        return [(row, turns[row], made) for row, made in zip(answered, encoded, strict=True)]

    def _encode_one(self, row: int, turns: Conversation, encoder: ChatEncoder) -> Encoded:
        try:
            return encoder.encode([turns])[0]
        except ValueError as found:
            raise ValueError(f"{self.texts.place(row)}: {found}") from found

    @property
    def texts(self) -> RowTexts:
        """The texts of the whole pool."""
        if self._texts is None:
            self._texts = texts_of(self._source)
        return self._texts

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_texts": None}  # its functions cannot be pickled; made anew where it is needed

    def conversation(self, index: int) -> Conversation:
        """Return the turns of a row.

        Args:
            index: Row of this data set, 0..N-1.

        Returns:
            The turns, whole, whatever the length limit.
        """
        return self.texts.conversation(int(self.rows[index]))

    def record(self, index: int) -> Any:
        """Return the row of the pool behind a row of this data set, with all its columns."""
        return self._source[int(self.rows[index])]

    def place(self, index: int) -> str:
        """Return how to name a row of this data set to the user, such as "pool.jsonl, line 7"."""
        return self.texts.place(int(self.rows[index]))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every row. Shape (N,), dtype int64."""
        return np.diff(self._ends)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"Row {index} is outside the {len(self)} rows.")
        place = slice(int(self._ends[index]), int(self._ends[index + 1]))
        ids = torch.from_numpy(self._tokens[place].astype(np.int64))
        labels = torch.where(torch.from_numpy(self._masks[place]), ids, IGNORED)
        return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids), "index": int(index)}


class WholeRounds(Dataset[dict[str, Any]]):
    """A data set filled up to a multiple of the number of processes by rows without labels.

    A `DistributedSampler` would fill up by repeated rows, which then count twice in a mean over the set.

    Args:
        dataset: The data set.
        processes: Number of processes.
    """

    def __init__(self, dataset: InstructionDataset, processes: int) -> None:
        self.dataset = dataset
        self._length = -(-len(dataset) // processes) * processes

    def conversation(self, index: int) -> Conversation:
        """Return the turns of a row."""
        return self.dataset.conversation(index % len(self.dataset))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.dataset[index % len(self.dataset)]
        return row if index < len(self.dataset) else {**row, "labels": torch.full_like(row["labels"], IGNORED)}


class PadRight:
    """Makes a batch of rows by filling up the shorter ones on the right.

    Args:
        pad: Token id for the gaps; they are masked out and have no label.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the batch.

        Args:
            rows: Items of an `InstructionDataset`.

        Returns:
            "input_ids", "labels" and "attention_mask" of shape (B, T) and "index" of shape (B,), all int64.
        """
        width = max(len(row["input_ids"]) for row in rows)
        fills = {"input_ids": self.pad, "labels": IGNORED, "attention_mask": 0}
        batch = {name: torch.full((len(rows), width), fill, dtype=torch.int64) for name, fill in fills.items()}
        for place, row in enumerate(rows):
            for name, block in batch.items():
                block[place, : len(row[name])] = row[name]
        return {**batch, "index": torch.tensor([row["index"] for row in rows], dtype=torch.int64)}
