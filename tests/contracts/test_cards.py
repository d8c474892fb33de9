"""Every method has its card with the fixed headings, its configs, example and benchmark; the README keeps its word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lightning_adapt

ROOT = Path(__file__).parents[2]
HEADINGS = [
    "In one line",
    "Attach it",
    "Arguments",
    "How it works",
    "Support table",
    "Measured here",
    "Differences from paper and from authors' code",
    "Cost",
    "Cite",
]


@pytest.mark.parametrize("method", lightning_adapt.METHODS)
def test_card_has_the_fixed_headings_in_order(method):
    text = (ROOT / "lightning_adapt" / method / "README.md").read_text()
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == HEADINGS
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert len(section.split("\n", 1)[1].strip()) > 40, f"empty section: {section.splitlines()[0]}"


@pytest.mark.parametrize("method", lightning_adapt.METHODS)
def test_method_is_whole(method):
    short = method.removesuffix("_speech")
    for path in (f"configs/{method}/overlay.yaml", f"configs/{method}/demo.yaml", f"examples/{method}_script.py"):
        assert (ROOT / path).is_file(), path
    assert list((ROOT / "examples/benchmarks").glob(f"{short}_*.py"))
    assert len((ROOT / f"examples/{method}_script.py").read_text().splitlines()) <= 80


def test_readme_commands_are_the_ones_ci_runs():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    commands = re.findall(r"^pip install -c constraints\.txt .*$", readme, flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert command in ci, f"{command!r} is not what .ci/run runs"


def test_links_in_markdown_lead_somewhere():
    for path in [ROOT / "README.md", *ROOT.glob("lightning_adapt/*/README.md"), *ROOT.glob("examples/**/README.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_claims_link_their_benchmark_row():
    for path in [ROOT / "README.md", *ROOT.glob("lightning_adapt/*/README.md")]:
        for line in path.read_text().splitlines():
            if re.search(r"\d\.\d ?%|\d\.\d pt|\d\.\d points", line) and not line.startswith(("|", "    ")):
                assert "benchmarks" in line or "demo" in line or "arXiv" in line, f"{path}: {line}"


def test_every_extra_is_known_to_the_import_flags():
    import tomllib  # Python 3.11, which CI runs

    from lightning_adapt._shared.imports import EXTRAS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) - {"all", "dev"} == set(EXTRAS)
    for extra, flags in EXTRAS.items():
        for name, flag in flags.items():
            listed = [item.replace("[signatures]", "") for item in extras[extra]]
            assert flag.requirement.replace("[signatures]", "") in listed, f"{extra}: {name}"
