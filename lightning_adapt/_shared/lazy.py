"""Lazy public names (PEP 562): importing the package costs nothing until a name is used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def attach(package: str, exports: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for a package whose names live in modules imported at first use.

    Args:
        package: `__name__` of the package.
        exports: Public name to the full name of the module that defines it.

    Returns:
        The three values to assign in the package.
    """

    def get(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(exports[name]), name)
        setattr(sys.modules[package], name, value)  # the next access is an ordinary one
        return value

    names = sorted(exports)
    return get, lambda: sorted({*vars(sys.modules[package]), *names}), names
