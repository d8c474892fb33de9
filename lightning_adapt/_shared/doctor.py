"""What is installed and what of it works: the tables of `lightning-adapt doctor`."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

from lightning_adapt._shared.imports import EXTRAS

# package -> module, where they differ
_MODULES = {"scikit-learn": "sklearn", "faiss-cpu": "faiss", "fla-core": "fla", "pyyaml": "yaml"}
_CORE = ("lightning_adapt", "torch", "lightning", "torchmetrics", "numpy")
# what a package raises at import when it was built for another torch, CUDA or NumPy
_BROKEN = (ImportError, OSError, RuntimeError, AttributeError)


def report(console: Console | None = None) -> None:
    """Print the versions of this installation and, for each extra, whether its packages really import.

    Args:
        console: Where to print; None: standard output.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)  # a pipe or a log file is not 80 columns wide
    console.print(_machine())
    console.print(_extras())


def _machine() -> Table:
    table = Table("What", "Version or value", title="Installation")
    table.add_row("python", f"{platform.python_version()} ({platform.system()} {platform.machine()})")
    for package in _CORE:
        table.add_row(package, installed(package) or "not installed")
    table.add_row("CUDA available", _cuda())
    table.add_row("logical cores", str(os.cpu_count()))
    return table


def _extras() -> Table:
    table = Table("Extra", "Usable", "Package", "Installed", "Needed", "Imports", title="Extras")
    for extra, flags in EXTRAS.items():
        rows = []
        for package, flag in flags.items():
            here = installed(package)
            reason = "not installed" if here is None else import_problem(_MODULES.get(package, package))
            if reason is None and not flag:
                reason = "too old"
            rows.append((package, here or "-", str(flag.requirement), "yes" if reason is None else f"no: {reason}"))
        usable = "yes" if all(row[-1] == "yes" for row in rows) else "no"
        for position, row in enumerate(rows):
            head = (extra, usable) if position == 0 else ("", "")
            # Text of packages may contain [brackets], which rich would take for markup
            table.add_row(*head, *(cell.replace("[", "\\[") for cell in row), end_section=position == len(rows) - 1)
    return table


def installed(package: str) -> str | None:
    """Return the version of an installed package, None when there is none.

    Args:
        package: Its name on the package index.

    Returns:
        The version as its metadata says.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def import_problem(module: str) -> str | None:
    """Import a module and return why that fails, in one line.

    Args:
        module: Its full name.

    Returns:
        None when it imports, the reason otherwise.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except _BROKEN as problem:
        first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        return first if len(first) <= 160 else first[:157] + "..."
    return None


def _cuda() -> str:
    reason = import_problem("torch")
    if reason is not None:
        return f"no: torch does not import: {reason}"
    import torch

    if not torch.cuda.is_available():
        return "no"
    return f"yes: {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
