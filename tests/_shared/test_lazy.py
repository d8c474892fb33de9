"""Lazy public names: nothing is imported before it is used."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import lightning_adapt
from lightning_adapt._shared.lazy import attach


def test_names_are_imported_at_first_use(monkeypatch):
    package = types.ModuleType("toy_package")
    monkeypatch.setitem(sys.modules, "toy_package", package)
    get, names, public = attach("toy_package", {"sqrt": "math", "Path": "pathlib"})
    assert public == ["Path", "sqrt"]
    assert {"Path", "sqrt", "__name__"} <= set(names())
    assert "sqrt" not in vars(package)
    assert get("sqrt")(9) == 3
    assert vars(package)["sqrt"] is get("sqrt")
    with pytest.raises(AttributeError, match="module 'toy_package' has no attribute 'cube'"):
        get("cube")


def test_every_public_name_of_the_package_resolves():
    for name in lightning_adapt.__all__:
        assert getattr(lightning_adapt, name).__name__ == name
        assert name in dir(lightning_adapt)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lightning_adapt.nothing  # noqa: B018


def test_importing_the_package_imports_neither_torch_nor_lightning():
    code = (
        "import sys, lightning_adapt, lightning_adapt.rs2; "
        "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
