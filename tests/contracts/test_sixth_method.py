"""The README's checklist for a sixth method is true: a copy of the project gets one by it, and the contracts hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.sixth_method_parts import EDITS, NAME, NEW

ROOT = Path(__file__).parents[2]
COPIED = ("lightning_adapt", "tests", "configs", "examples", ".ci", "README.md", "CHANGELOG.md", "pyproject.toml")
WHOLE = "test_cards or test_registry or test_examples"  # what they say of all methods at once


def add_the_method(project: Path) -> None:
    """The steps of the checklist."""
    for path, text in NEW.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    for path, edits in EDITS.items():
        text = (project / path).read_text()
        for before, added in edits:
            assert before in text, f"{path}: {before}"
            text = text.replace(before, added + before, 1)
        (project / path).write_text(text)


def run(project: Path, *arguments: str) -> str:
    """Run Python in the copy; the copy's package comes before the installed one."""
    environment = {**os.environ, "PYTHONPATH": str(project)}
    environment = {key: value for key, value in environment.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    copy = tmp_path_factory.mktemp("project")
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, copy / name, **({"ignore": skip} if source.is_dir() else {})
        )
    add_the_method(copy)
    run(copy, "-m", "tests.contracts.support")
    return copy


def test_the_checklist_names_what_was_done():
    section = (ROOT / "README.md").read_text().split("## Add a sixth method")[1].split("\n## ")[0]
    steps = [line for line in section.splitlines() if re.match(r"\d+\. ", line)]
    named = {path.replace("NAME", NAME) for line in steps for path in re.findall(r"`([\w/.]+\.(?:py|md|yaml))`", line)}
    assert named == set(NEW) | set(EDITS)


def test_the_contracts_hold_for_it(project):
    tests = f"GradientCentering or {NAME} or {WHOLE} or (test_readme and (tables or support or places))"
    quiet = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
    shown = run(project, "-m", "pytest", *quiet, "tests/contracts", f"lightning_adapt/{NAME}", "-k", tests)
    passed = re.search(r"(\d+) passed", shown)
    assert int(passed[1]) >= 200, shown[-2000:]


def test_its_section_of_the_demo_is_made(project, tmp_path):
    run(project, "-c", f"from lightning_adapt import demo; demo.run({NAME!r}, out={str(tmp_path)!r}, quick=True)")
    assert "Gradient centering" in (tmp_path / "index.html").read_text()
