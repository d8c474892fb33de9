"""The package keeps to the targets of its house style, and the measuring of them notices what would miss one."""

from __future__ import annotations

import ast
import statistics

import pytest

from tests.contracts import house_style as h

SOURCES = h.read_sources()


def source(text: str, name: str = "module.py") -> h.Source:
    return h.Source(name, text, ast.parse(text))


# -- the targets ------------------------------------------------------------------------------------------------------
def test_files_are_short_or_say_why_they_are_not():
    lines = [each.lines for each in SOURCES]
    assert statistics.median(lines) <= 200
    assert max(lines) <= h.MAX_LINES_WITH_REASON
    assert not [f"{each.name}: {each.lines}" for each in SOURCES if each.lines > h.MAX_LINES and not each.gives_reason]


def test_no_file_says_why_it_is_long_without_being_so():
    assert not [each.name for each in SOURCES if each.lines <= h.MAX_LINES and each.gives_reason]


def test_everything_public_is_documented_and_everything_is_typed():
    assert not h.undocumented(SOURCES)
    assert not h.untyped(SOURCES)


def test_nothing_is_asserted():
    """`python -O` would drop the check."""
    asserts = [f"{each.name}:{node.lineno}" for each in SOURCES for node in ast.walk(each.tree) if is_assert(node)]
    assert not asserts


def is_assert(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert)


def test_functions_fit_on_a_screen():
    assert not [place for lines, place in h.longest(SOURCES) if lines > h.LONGEST_FUNCTION]


def test_nothing_was_copied():
    assert not h.copied_blocks(SOURCES)
    assert not h.same_functions(SOURCES)


def test_nothing_is_dead():
    assert not h.dead(SOURCES)


# -- the measuring ----------------------------------------------------------------------------------------------------
def test_the_table_has_a_row_for_each_target():
    table = h.table(SOURCES[:30])
    rows = {name: (value, target) for name, value, target in table}
    assert rows["functions with full types"] == ("100.0%", "100%")
    assert rows["raise : assert"][0].endswith(": 0")
    assert len(rows) == len(table)


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# Over 300 lines: one public class, half of it documentation.", True),
        ("# Over 300 lines:", False),
        ("# Over 300 lines: long", False),
        ("", False),
    ],
)
def test_a_reason_is_a_sentence_below_the_docstring(comment, expected):
    assert source(f'"""A file."""\n\n{comment}\n\nimport os\n').gives_reason is expected
    assert not source('"""A file."""\n' + 9 * "\n" + f"{comment}\n").gives_reason


def test_missing_documentation_and_types_are_noticed():
    text = (
        'class Thing:\n    """A thing."""\n    def go(self, far, *, fast: bool): ...\n    def _own(self) -> None: ...\n'
    )
    assert h.undocumented([source(text)]) == ["module.py:3 go"]
    assert h.untyped([source(text)]) == ["module.py:3 go"]
    overridden = text.replace("    def go", "    @override\n    def go")
    assert not h.undocumented([source(overridden)])


def test_the_lines_of_a_docstring_are_no_lines_of_a_function():
    text = 'def go() -> None:\n    """Go.\n\n    Far.\n    """\n    x = 1\n    return x\n'
    assert h.longest([source(text)]) == [(3, "module.py go")]


def test_a_copied_block_is_noticed_wherever_it_is_and_however_it_is_broken():
    block = [f"    total_{name} = the_sum_of_all(first_{name}, second_{name}, of_it=True)" for name in "abcd"]
    one = "def one():\n" + "\n".join(block)
    two = "def two():\n    if True:\n" + "\n".join(f"    {line}  # why" for line in block)
    assert h.copied_blocks([source(one, "a.py"), source(two, "b.py")]) == ["a.py:2 = b.py:3"]
    assert h.copied_blocks([source(one, "a.py"), source("def other():\n    one()", "b.py")]) == []
    assert h.copied_blocks([source(one, "a.py"), source(two.replace("second_c", "third_c"), "b.py")]) == []


def test_the_same_function_twice_is_noticed():
    text = 'def {}(x):\n    """{}."""\n    if x:\n        x += 1\n    return x\n'
    found = h.same_functions([source(text.format("one", "One"), "a.py"), source(text.format("two", "Two"), "b.py")])
    assert found == ["a.py:1 one = b.py:1 two"]


def test_what_nothing_asks_for_is_noticed(tmp_path):
    text = '__all__ = ["kept", "lost"]\ndef kept(): ...\ndef lost(): ...\ndef hook(): ...\ndef named(): ...\nkept()\n'
    asked = tmp_path / "config.yaml"
    asked.write_text("class: module.named")
    assert h.unused([source(text)], [asked], {"hook"}) == ["module.py:3 lost"]
