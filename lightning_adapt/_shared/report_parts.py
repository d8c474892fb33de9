"""What the demo of a method hands back: findings with their tables, figures and sounds, and how to use the method."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lightning_adapt._shared.checks import check_choice, problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

Kind = Literal["baseline", "control", "ours"]
Result = Literal["better", "level", "worse"]

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        name: Heading.
        unit: Unit of the numbers, shown in the heading; empty for counts.
        digits: Digits after the decimal point.
        better: "higher" or "lower" where one of them is; the heading says so.
    """

    name: str
    unit: str = ""
    digits: int = 1
    better: Literal["higher", "lower", ""] = ""

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
    """A line of a table.

    Args:
        name: What was trained.
        kind: "baseline", "control" or "ours".
        cells: A number per column.
    """

    name: str
    kind: Kind
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Score:
    """How a finding stands in the overview: one number of the method beside that of its baseline.

    Args:
        measure: What was measured, with its unit.
        baseline: Name of what it is compared with.
        without: Number of the baseline.
        ours: Number of the method.
        change: The difference, with its interval where there is one.
        result: "better", "worse", or "level" where the runs do not tell them apart.
        but: What was not gained, a few words.
    """

    measure: str
    baseline: str
    without: str
    ours: str
    change: str
    result: Result
    but: str

    def __post_init__(self) -> None:
        check_choice("result", self.result, ("better", "level", "worse"), "Say how the method did.")


@dataclass(frozen=True)
class Picture:
    """A figure; it is drawn once for light and once for dark pages.

    Args:
        name: File name without ending: a-z, 0-9, - and _.
        caption: What to see in it.
        alt: The same for those who do not see it, with the result.
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
class Finding:
    """One comparison: a table of baselines, controls and the method, and what it says.

    Args:
        caption: Heading of the table, a few words: phones show it whole while the table scrolls.
        columns: Columns of the table.
        rows: Lines of the table, a cell per column.
        setting: Data, network, seeds and steps, one or two sentences.
        gained: What was gained, one sentence with numbers of `rows`.
        not_gained: What was not, one sentence with numbers of `rows`.
        score: Line of the overview.
        pictures: Figures; the first stands beside the table.
        audio: Sounds.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    setting: str
    gained: str
    not_gained: str
    score: Score
    pictures: tuple[Picture, ...] = ()
    audio: tuple[Audio, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                remedy = f"Give {row.name!r} one per column."
                raise ValueError(problem("cells", f"of length {len(self.columns)}", len(row.cells), remedy))


@dataclass(frozen=True)
class Usage:
    """How to use a method; each text is code to copy.

    Args:
        command: For a shell.
        python: For a script.
        yaml: For a configuration file.
    """

    command: str
    python: str
    yaml: str


@dataclass(frozen=True)
class Section:
    """What the demo of one method found.

    Args:
        method: Folder name of the method; prefix of its files and anchor of its section.
        title: Name of the method for people: a short name, a colon, and what it is.
        problem: The user's problem, one sentence.
        findings: What was compared, the most important first.
        usage: How to use it.
        seconds: Wall time of the section; the demo fills it in.
    """

    method: str
    title: str
    problem: str
    findings: tuple[Finding, ...]
    usage: Usage
    seconds: float = 0.0

    @property
    def short_title(self) -> str:
        """The title up to its colon."""
        return self.title.partition(":")[0]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Figures of all findings."""
        return tuple(picture for finding in self.findings for picture in finding.pictures)

    @property
    def audio(self) -> tuple[Audio, ...]:
        """Sounds of all findings."""
        return tuple(sound for finding in self.findings for sound in finding.audio)

    def __post_init__(self) -> None:
        if not self.findings:
            raise ValueError(problem("findings", "one or more", self.findings, "Say what was found."))
        names = [picture.name for picture in self.pictures] + [sound.name for sound in self.audio]
        for name in (self.method, *names):
            if not _FILE_NAME.fullmatch(name):
                raise ValueError(problem("name", "made of a-z, 0-9, - and _", name, "It becomes a file name."))
