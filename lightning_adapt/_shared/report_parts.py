"""What the demo of a method hands back: rows of tables, figures, audio and words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lightning_adapt._shared.checks import problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

Kind = Literal["baseline", "control", "ours"]

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        name: Heading.
        unit: Unit of the numbers, shown in the heading; empty for counts.
        digits: Digits after the decimal point.
    """

    name: str
    unit: str = ""
    digits: int = 1

    @property
    def heading(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def show(self, cell: Cell | None) -> str:
        """Return a cell as text.

        Args:
            cell: The number; None for one that nobody measured.

        Returns:
            Mean ± standard deviation, the number alone when it was measured once, or "not measured".
        """
        if cell is None:
            return "not measured"
        text = f"{cell.value:,.{self.digits}f}"
        return text if cell.sd is None else f"{text} ± {cell.sd:.{self.digits}f}"


@dataclass(frozen=True)
class Cell:
    """A measured number.

    Args:
        value: The number, or the mean over seeds.
        sd: Standard deviation over seeds; None when there was one measurement.
    """

    value: float
    sd: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of a section's table.

    Args:
        name: What was trained.
        kind: "baseline", "control" or "ours".
        cells: A number per column.
    """

    name: str
    kind: Kind
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Table:
    """A further table of a section, with what it says.

    Args:
        caption: Heading of the table, a few words.
        columns: Columns.
        rows: Lines, a cell per column.
        setting: What was measured, one or two sentences.
        verdict: What was gained and what was not, from the numbers of `rows`.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    setting: str = ""
    verdict: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                remedy = f"Give {row.name!r} one per column."
                raise ValueError(problem("cells", f"of length {len(self.columns)}", len(row.cells), remedy))


@dataclass(frozen=True)
class Picture:
    """A figure; it is drawn once for light and once for dark pages.

    Args:
        name: File name without ending: a-z, 0-9, - and _.
        caption: What to see in it.
        alt: The same for those who do not see it.
        draw: Draws it under the current matplotlib settings, which hold the colours.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[[], MatplotlibFigure]


@dataclass(frozen=True)
class Audio:
    """A sound.

    Args:
        name: File name without ending: a-z, 0-9, - and _.
        caption: What is heard; for speech, the words.
        wav: Content of a WAV file.
    """

    name: str
    caption: str
    wav: bytes


@dataclass(frozen=True)
class Section:
    """What the demo of one method found.

    Args:
        method: Folder name of the method; prefix of its files and anchor of its section.
        title: Name of the method for people.
        problem: The user's problem, one sentence.
        setting: Data, network, seeds and steps, one sentence.
        table_caption: Heading of the table, a few words: phones show it whole while the table scrolls.
        columns: Columns of the table.
        rows: Lines of the table.
        verdict: What was gained and what was not, from the numbers of `rows`.
        usage: How to use it: pairs of a heading and a text of code.
        seconds: Wall time of the section.
        pictures: Figures.
        audio: Sounds.
        more: Further tables, below the verdict.
    """

    method: str
    title: str
    problem: str
    setting: str
    table_caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    verdict: str
    usage: tuple[tuple[str, str], ...]
    seconds: float
    pictures: tuple[Picture, ...] = ()
    audio: tuple[Audio, ...] = ()
    more: tuple[Table, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables with what they say, the section's own first."""
        return (Table(self.table_caption, self.columns, self.rows, self.setting, self.verdict), *self.more)

    def __post_init__(self) -> None:
        names = [picture.name for picture in self.pictures] + [sound.name for sound in self.audio]
        self.tables  # noqa: B018  # refuses rows that do not fit
        for name in (self.method, *names):
            if not _FILE_NAME.fullmatch(name):
                raise ValueError(problem("name", "made of a-z, 0-9, - and _", name, "It becomes a file name."))
