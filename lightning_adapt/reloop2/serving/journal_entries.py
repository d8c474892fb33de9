"""What a journal consists of: entries, places in their chain, and the head that says what they belong to."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lightning_adapt._shared.state import read_version
from lightning_adapt.reloop2.serving.row_ids import RowId

__all__ = ["Entry", "Place", "Row", "check_head", "head_of", "pack", "unpack"]

FORMAT, VERSION = "lightning_adapt journal", 1
Row = tuple[int, str, float, str, bytes, bytes]  # seq, kind, time, ids, tensors, digest


@dataclass(frozen=True)
class Entry:
    """One call of `predict` or `feedback`.

    Attributes:
        kind: Which of them.
        time: When, in seconds.
        ids: The rows: all that were predicted, or those whose labels were accepted.
        tensors: What waits for the labels, or the labels. Shape (B, ...) each, on the CPU.
    """

    kind: Literal["predict", "feedback"]
    time: float
    ids: Sequence[RowId]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Place:
    """A place in a journal: after an entry, and all that led there.

    Attributes:
        journal: Which journal.
        seq: Number of the entry; 0 for the beginning.
        digest: Hash of that entry and all before it, hexadecimal.
    """

    journal: str
    seq: int
    digest: str

    def next(self, kind: str, time: float, ids: str, tensors: bytes) -> Place:
        """Return the place after one more entry, given as it is stored."""
        digest = hashlib.blake2b(bytes.fromhex(self.digest), digest_size=16)
        parts = (kind.encode(), ids.encode(), tensors)
        digest.update(struct.pack("<qdqqq", self.seq + 1, time, *(len(part) for part in parts)))
        for part in parts:
            digest.update(part)
        return Place(self.journal, self.seq + 1, digest.hexdigest())


def pack(entry: Entry, place: Place) -> tuple[Row, Place]:
    """Return an entry as it is stored.

    Args:
        entry: The entry.
        place: Where it goes.

    Returns:
        The row, and the place after it.
    """
    from safetensors.torch import save

    ids, tensors = json.dumps(list(entry.ids)), save(dict(entry.tensors))
    after = place.next(entry.kind, entry.time, ids, tensors)
    return (after.seq, entry.kind, entry.time, ids, tensors, bytes.fromhex(after.digest)), after


def unpack(row: Row, place: Place) -> tuple[Entry, Place] | None:
    """Return a stored entry.

    Args:
        row: The row.
        place: The place before it.

    Returns:
        The entry and the place after it; None if that is not what was written there.
    """
    from safetensors.torch import load

    seq, kind, time, ids, tensors, digest = row
    try:
        after = place.next(kind, time, ids, tensors)
    except (AttributeError, TypeError, struct.error):  # values of other types
        return None
    if (after.seq, bytes.fromhex(after.digest)) != (seq, digest):
        return None
    return Entry(kind, time, json.loads(ids), load(tensors)), after  # type: ignore[arg-type]


def head_of(place: Place, owner: Mapping[str, Any]) -> dict[str, str]:
    """Return what is kept about a journal.

    Args:
        place: The place up to which a snapshot stands for the entries.
        owner: What the entries belong to. JSON values.

    Returns:
        Name -> text.
    """
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "owner": json.dumps(owner),
        "journal": place.journal,
        "seq": str(place.seq),
        "digest": place.digest,
    }


def check_head(path: Path, head: Mapping[str, str], owner: Mapping[str, Any]) -> Place:
    """Check what `head_of` wrote.

    Args:
        path: The journal, for errors.
        head: Name -> text.
        owner: What the entries have to belong to.

    Returns:
        The place up to which a snapshot stands for the entries.

    Raises:
        ValueError: If it is no journal, damaged, of a newer release, or of another owner.
    """
    if head.get("format") != FORMAT:
        raise ValueError(f"{path} is no journal of lightning_adapt. Pass the path of one, or of a new file.")
    try:
        version, place = int(head["version"]), Place(head["journal"], int(head["seq"]), head["digest"])
        saved, here = dict(json.loads(head["owner"])), json.loads(json.dumps(owner))
        bytes.fromhex(place.digest)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        remedy = "Put back a copy from before, or begin with a new journal."
        raise ValueError(f"{path} is damaged: its head lacks or garbles {error}. {remedy}") from error
    read_version({"version": version}, VERSION, f"the journal {path}")
    wrong = [f"{name} {saved.get(name)}, here {here[name]}" for name in here if saved.get(name) != here[name]]
    if wrong:
        raise ValueError(
            f"`journal` must be one of this model and memory, but {path} was written for {'; '.join(wrong)}. "
            "Serve what it was written for, or begin a new journal."
        )
    return place
