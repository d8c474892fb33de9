"""Optional packages: the flags agree with pyproject.toml, and a missing one names its extra."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lightning_utilities.core.imports import RequirementCache
from packaging.requirements import Requirement

from lightning_adapt._shared import imports
from lightning_adapt._shared.imports import EXTRAS, require


def declared_extras():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[project")[0]
    blocks = re.findall(r"^(\w+) = \[(.*?)\]\s*$", section, re.MULTILINE | re.DOTALL)
    return {name: {Requirement(line).name: line for line in re.findall(r'"([^"]+)"', body)} for name, body in blocks}


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_flag_asks_for_what_the_extra_declares(extra):
    declared = declared_extras()[extra]
    for package, flag in EXTRAS[extra].items():
        wanted, brought = Requirement(flag.requirement), Requirement(declared[package])
        assert wanted.name == brought.name
        assert wanted.specifier == brought.specifier


def test_require_is_silent_when_the_packages_are_there():
    require("figures", "A figure", "matplotlib")
    require("figures", "A figure")


def test_require_names_the_extra_and_what_is_missing(monkeypatch):
    missing = {"present": RequirementCache("torch>=2"), "absent": RequirementCache("no-such-package>=3")}
    monkeypatch.setitem(imports.EXTRAS, "toy", missing)
    require("toy", "The toy", "present")
    expected = (
        "The toy needs no-such-package>=3, which the extra 'toy' brings. Run: pip install \"lightning-adapt[toy]\""
    )
    for packages in ((), ("absent",), ("present", "absent")):
        with pytest.raises(ModuleNotFoundError) as caught:
            require("toy", "The toy", *packages)
        assert str(caught.value) == expected


def test_a_package_that_is_too_old_counts_as_missing(monkeypatch):
    monkeypatch.setitem(imports.EXTRAS, "toy", {"torch": RequirementCache("torch>=999")})
    with pytest.raises(ModuleNotFoundError, match="torch>=999"):
        require("toy", "The toy")
