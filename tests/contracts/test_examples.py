"""Every example is short, says how it is run, is linked, and is run by CI; the lint finds no broken one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import lightning_adapt

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CI = (ROOT / ".ci/run").read_text()


def imported_from_us(tree: ast.AST) -> set[str]:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if node.module == "lightning_adapt" for alias in node.names}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_how_it_is_run(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 80
    assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(text))
    assert 'if __name__ == "__main__":' in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_uses_what_is_public(path):
    names = imported_from_us(ast.parse(path.read_text()))
    assert names <= set(lightning_adapt.__all__)
    assert names or "lightning_adapt" in path.read_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_can_be_found(path):
    pages = [ROOT / "README.md", *(ROOT / "lightning_adapt").glob("*/README.md")]
    assert any(f"examples/{path.name})" in page.read_text() for page in pages), "no README links it"


def test_ci_runs_all_of_them():
    assert """printf '%s\\n' "$PWD"/examples/*.py | grep -v reloop2_serve |""" in CI
    benchmark = (ROOT / "examples/benchmarks/reloop2_serving.py").read_text()
    assert re.search(r'EXAMPLE = .*"reloop2_serve.py"', benchmark), "the one that CI leaves out is run by its benchmark"
    assert "python -m examples.benchmarks --check" in CI
