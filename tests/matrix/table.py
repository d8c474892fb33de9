"""The matrix as a Markdown table, and where it stands in the README."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.matrix.cells import LEGEND
from tests.matrix.methods import METHODS
from tests.matrix.subjects import SUBJECTS

__all__ = ["BEGIN", "END", "README", "read_table", "render", "write_table"]

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


def render(words: Callable[[str, str], str]) -> str:
    """Return the table, and a list of what its words stand for.

    Args:
        words: (subject, method) -> what a cell says.
    """
    lines = ["| a module written without knowing of us | " + " | ".join(way.title for way in METHODS.values()) + " |"]
    lines.append("|---" * (1 + len(METHODS)) + "|")
    for name, subject in SUBJECTS.items():
        lines.append(f"| {subject.title} | " + " | ".join(words(name, method) for method in METHODS) + " |")
    used = {words(name, method) for name in SUBJECTS for method in METHODS}
    return "\n".join([*lines, "", *(f"- {word}: {meaning}." for word, meaning in LEGEND.items() if word in used)])


def read_table(path: Path = README) -> str:
    """Return what the README says between the markers.

    Raises:
        ValueError: If a marker is missing.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{path} must have {BEGIN} and {END} once each: put them where the table should stand.")
    return text.split(BEGIN)[1].split(END)[0].strip()


def write_table(table: str, path: Path = README) -> None:
    """Put a table between the markers of the README, and leave the rest as it is."""
    read_table(path)
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")
