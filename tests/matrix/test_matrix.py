"""Every method with every foreign module: what the README says of a cell is what a run of it gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.matrix.cells import LEGEND, REASONS, WORKS, cell, reason
from tests.matrix.methods import METHODS
from tests.matrix.subjects import SUBJECTS
from tests.matrix.table import BEGIN, END, read_table, render, write_table

HERE = Path(__file__).parent


def said() -> dict[tuple[str, str], str]:
    """What the README says, by cell."""
    lines = read_table().split("\n\n")[0].splitlines()[2:]
    cells = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    titles = {subject.title: name for name, subject in SUBJECTS.items()}
    return {(titles[line[0]], method): words for line in cells for method, words in zip(METHODS, line[1:], strict=True)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_run_gives_what_the_readme_says(subject, method):
    assert cell(subject, method) == said()[subject, method], "if that is right: python -m tests.matrix"


def test_the_readme_holds_the_table_of_these_runs():
    assert read_table() == render(cell)


def test_every_word_of_the_table_is_explained_and_no_explanation_is_left_over():
    used = {cell(subject, method) for subject in SUBJECTS for method in METHODS} - {WORKS}
    assert used == set(LEGEND)


def test_every_method_works_with_some_foreign_module():
    for method in METHODS:
        assert any(cell(subject, method).startswith(WORKS) for subject in SUBJECTS), method


def test_foreign_modules_know_nothing_of_us():
    files = sorted(HERE.glob("modules_*.py"))
    assert len(files) >= 8
    for file in files:
        code = re.sub(r'^""".*?"""', "", file.read_text(encoding="utf-8"), count=1, flags=re.DOTALL)
        assert not re.search(r"lightning_adapt|tests\.matrix", code), file


def test_an_error_that_says_nothing_of_what_to_do_is_no_refusal():
    with pytest.raises(AssertionError, match="No clear error of ours: KeyError: 'x'"):
        reason(KeyError("x"))
    with pytest.raises(AssertionError, match="No clear error"):
        reason(ValueError("`image` must be an image, but got 1."))
    assert {f"refused: {words}" for words in REASONS.values()} >= {word for word in LEGEND if "refused" in word}


def test_the_table_is_written_between_its_markers_alone(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    write_table("| new |", path)
    assert path.read_text(encoding="utf-8") == f"# Before\n\n{BEGIN}\n| new |\n{END}\n\nAfter.\n"
    assert read_table(path) == "| new |"
    path.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="put them where the table should stand"):
        write_table("| new |", path)
