"""What goes together with what: every pair of the methods' main pieces, and the table that the README shows.

`python -m tests.compose.matrix` writes the table into the README, between its two marks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from tests.compose.stacks import (
    LOSS,
    MEMORY,
    PIECES,
    RS2,
    RS2_DATA,
    SAA,
    SAA_DATA,
    SELECTION,
    SPEECH,
    TUNING,
)

Kind = Literal["works", "refused", "apart"]
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- compose: begin -->", "<!-- compose: end -->"
SHORT = {
    RS2: "RS2",
    LOSS: "RS2, loss",
    RS2_DATA: "RS2 data",
    MEMORY: "memory",
    SAA_DATA: "SAA data",
    SAA: "SAA",
    SELECTION: "selection",
    SPEECH: "speech data",
    TUNING: "tuning",
}


@dataclass(frozen=True)
class Cell:
    """What is known of two pieces.

    Attributes:
        kind: "works": together in one Trainer; "refused": an error says why and what to do; "apart": they have nothing
            to do with each other.
        by: What shows it: the name of a stack in `tests.compose.stacks` or of a case in `tests.compose.refusals`; ""
            for two things that no Trainer can be given at once.
        note: What a user should know, in a few words; "" for nothing.
    """

    kind: Kind
    by: str
    note: str = ""


def works(by: str, note: str = "") -> Cell:
    return Cell("works", by, note)


def refused(by: str, note: str) -> Cell:
    return Cell("refused", by, note)


FIRST = "list the selection before RS2: the other order raises"
UNLABELLED = 'name the loader: `loader="unlabeled"`'
ONE_OUTPUT = "the memory corrects one number a row, this model gives many"
INSIDE_FIT = "the memory serves after `fit`"
OWN_LOGIT = "with a module of one logit; of several outputs an error says so"

CELLS: dict[tuple[str, str], Cell] = {
    (RS2, LOSS): refused("two rs2", "one RS2Callback for each train loader"),
    (RS2, RS2_DATA): refused("rs2 over rs2 data", "one of the two"),
    (RS2, MEMORY): works("rs2, memory", INSIDE_FIT),
    (RS2, SAA_DATA): works("saa, rs2", UNLABELLED),
    (RS2, SAA): works("saa, rs2"),
    (RS2, SELECTION): works("selection, rs2", FIRST),
    (RS2, SPEECH): works("speech, rs2", "a round is a share of the planned batches"),
    (RS2, TUNING): works("tuning, rs2"),
    (LOSS, RS2_DATA): refused("rs2 over rs2 data", "one of the two"),
    (LOSS, MEMORY): works("guided rs2, memory", INSIDE_FIT),
    (LOSS, SAA_DATA): works("saa, guided rs2", UNLABELLED),
    (LOSS, SAA): works("saa, guided rs2", "both read `sample_loss`"),
    (LOSS, SELECTION): works("selection, guided rs2", FIRST),
    (LOSS, SPEECH): refused("guided speech", "losses choose rows, the planner of speech makes whole batches"),
    (LOSS, TUNING): works("tuning, guided rs2"),
    (RS2_DATA, MEMORY): works("rs2 data, memory", INSIDE_FIT),
    (RS2_DATA, SAA_DATA): works("saa, rs2 data", UNLABELLED),
    (RS2_DATA, SAA): works("saa, rs2 data"),
    (RS2_DATA, SELECTION): refused("selection over rs2 data", "use RS2Callback after the selection"),
    (RS2_DATA, SPEECH): works("speech, rs2 data", "a round is a share of the planned batches"),
    (RS2_DATA, TUNING): works("tuning, rs2 data"),
    (MEMORY, SAA_DATA): works("saa, memory", OWN_LOGIT),
    (MEMORY, SAA): works("saa, memory", OWN_LOGIT),
    (MEMORY, SELECTION): works("selection, memory", INSIDE_FIT),
    (MEMORY, SPEECH): refused("memory of speech", ONE_OUTPUT),
    (MEMORY, TUNING): refused("memory of letters", ONE_OUTPUT),
    (SAA_DATA, SAA): works("saa, rs2"),
    (SAA_DATA, SELECTION): refused(
        "selection of images", "choose before training: `select_rows`, and a `Subset` as `unlabeled`"
    ),
    (SAA_DATA, SPEECH): Cell("apart", "", "two DataModules"),
    (SAA_DATA, TUNING): refused("tuning of images", "the model has no recurrent states"),
    (SAA, SELECTION): works("saa, selection", "lower `min_coverage` to the selected share"),
    (SAA, SPEECH): Cell("apart", "saa of speech", "no strong views; a warning says so"),
    (SAA, TUNING): Cell("apart", "saa of letters", "no strong views; an error names the missing key"),
    (SELECTION, SPEECH): works("speech, selection, rs2", "`embedder=<array>`, one round; several are refused"),
    (SELECTION, TUNING): works("tuning, selection"),
    (SPEECH, TUNING): works("speech, tuning, rs2"),
}


def pairs() -> list[tuple[str, str]]:
    return list(combinations(PIECES, 2))


def cell_of(one: str, two: str) -> Cell:
    return CELLS[(one, two)] if (one, two) in CELLS else CELLS[(two, one)]


def render() -> str:
    """The matrix as Markdown: a table of all pairs, and the notes that its numbers point to."""
    notes: dict[str, int] = {}

    def shown(row: str, column: str) -> str:
        if PIECES.index(column) >= PIECES.index(row):
            return ""
        cell = cell_of(row, column)
        word = {"works": "yes", "refused": "refused", "apart": "apart"}[cell.kind]
        return word if not cell.note else f"{word} ({notes.setdefault(cell.note, len(notes) + 1)})"

    columns = PIECES[:-1]
    lines = ["| | " + " | ".join(SHORT[piece] for piece in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in PIECES[1:]:
        lines.append(f"| `{row}` | " + " | ".join(shown(row, column) for column in columns) + " |")
    lines += ["", *(f"{number}. {note[0].upper()}{note[1:]}." for note, number in notes.items())]
    return "\n".join(lines)


def written_into(text: str) -> str:
    """A README with the table between its marks.

    Raises:
        ValueError: If it has no such marks.
    """
    found = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{render()}\n{END}", text, flags=re.DOTALL)
    if found[1] != 1:
        raise ValueError(f"The README must have {BEGIN} and {END} once each.")
    return found[0]


if __name__ == "__main__":
    README.write_text(written_into(README.read_text()))
