"""The matrix of compositions: no pair is missing, each cell is shown by a test, and the README has it as it is."""

from __future__ import annotations

import re

import pytest

from tests.compose.matrix import BEGIN, CELLS, END, PIECES, README, cell_of, pairs, render, written_into
from tests.compose.refusals import REFUSALS
from tests.compose.stacks import STACKS


def test_every_pair_is_there_once_and_nothing_else():
    assert sorted(map(sorted, CELLS)) == sorted(map(sorted, pairs()))
    assert len(CELLS) == len(PIECES) * (len(PIECES) - 1) // 2


@pytest.mark.parametrize("pair", pairs(), ids=" + ".join)
def test_each_cell_is_shown_by_a_test(pair):
    cell = cell_of(*pair)
    if cell.kind == "works":  # test_stacks.py runs every stack
        assert set(pair) <= set(STACKS[cell.by].pieces)
    elif cell.by:  # the test below runs every case
        assert cell.by in REFUSALS
    else:
        assert (cell.kind, cell.note) == ("apart", "two DataModules")
    assert cell.kind == "works" or cell.note, "what does not work has a reason"


def test_every_stack_is_in_the_matrix():
    assert {name for cell in CELLS.values() for name in [cell.by] if cell.kind == "works"} <= set(STACKS)
    for name, stack in STACKS.items():
        inside = [pair for pair in pairs() if set(pair) <= set(stack.pieces)]
        assert inside, name
        assert {cell_of(*pair).kind for pair in inside} == {"works"}, name


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_is_refused_in_words(name, tmp_path):
    run, kind, text = REFUSALS[name]
    with pytest.warns(kind, match=text) if issubclass(kind, Warning) else pytest.raises(kind, match=text):
        run(tmp_path)


def test_the_table_has_a_line_for_each_piece_and_explains_each_number():
    table, notes = render().split("\n\n")
    assert [line.count("|") for line in table.splitlines()] == [len(PIECES) + 1] * (len(PIECES) + 1)
    assert (
        len(set(re.findall(r"\((\d+)\)", table)))
        == len(notes.splitlines())
        == len({c.note for c in CELLS.values()} - {""})
    )
    words = re.findall(r"\b(yes|refused|apart)\b", table)
    assert len(words) == len(CELLS)


def test_a_table_is_written_between_its_marks_and_nowhere_else():
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert written_into(text) == f"above\n{BEGIN}\n{render()}\n{END}\nbelow\n"
    with pytest.raises(ValueError, match="must have"):
        written_into("no marks")


def test_the_readme_has_the_table_as_it_is():
    text = README.read_text()
    if BEGIN not in text:  # holds for a README without the section
        assert END not in text
        return
    assert written_into(text) == text, "run `python -m tests.compose.matrix`"
