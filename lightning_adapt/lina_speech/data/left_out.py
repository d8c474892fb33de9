"""What was left out of a data set and why, counted, listed, and as a JSON file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LeftOut", "Report"]


@dataclass(frozen=True)
class LeftOut:
    """A recording that is not used.

    Attributes:
        place: Where its row is, such as "metadata.csv, line 3".
        id: Its name.
        audio: Path of the file; "" for samples.
        reason: A few words, the same for all of the kind.
        detail: What was found.
    """

    place: str
    id: str
    audio: str
    reason: str
    detail: str = ""


@dataclass
class Report:
    """What was left out of the sources, and what was changed.

    Attributes:
        rows: Rows looked at.
        left_out: The recordings that are not used, in the order of their rows.
        notes: What was done to others, to how many, such as {"mixed down to mono": 3}.
        path: The JSON file with all this; "" if there is none.
    """

    rows: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    path: str = ""

    @property
    def reasons(self) -> dict[str, int]:
        """How many recordings were left out, by reason, the most frequent first."""
        return dict(Counter(entry.reason for entry in self.left_out).most_common())

    def add(self, note: str) -> None:
        """Count something that was done to a recording."""
        self.notes[note] = self.notes.get(note, 0) + 1

    def summary(self) -> str:
        """Return one line such as "2 silent, 1 cannot be read"."""
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file."""
        entries = [vars(entry) for entry in self.left_out]
        return {"rows": self.rows, "reasons": self.reasons, "notes": self.notes, "left_out": entries}

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False).encode(errors="backslashreplace")

    @classmethod
    def from_dict(cls, content: dict[str, Any], path: str = "") -> Report:
        """Return the report that `to_dict` wrote down."""
        entries = [LeftOut(**entry) for entry in content["left_out"]]
        return cls(content["rows"], entries, dict(content["notes"]), path)

    @classmethod
    def joined(cls, reports: Sequence[Report]) -> Report:
        """Return one report of several sources."""
        notes: Counter[str] = Counter()
        for report in reports:
            notes.update(report.notes)
        entries = [entry for report in reports for entry in report.left_out]
        path = next((report.path for report in reports if report.path), "")
        return cls(sum(report.rows for report in reports), entries, dict(notes), path)
