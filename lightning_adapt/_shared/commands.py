"""What the commands share: errors of one line, warnings as lines, Ctrl-C, and what was written so far."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["NEEDED", "OPTIONAL", "one_line", "print_lines", "run_command", "say", "warnings_as_lines"]

STOPPED = 130  # the exit code of a command that Ctrl-C ended
MISTAKES = (ValueError, TypeError, OSError, ImportError, RuntimeError)  # shown as one line
OPTIONAL: dict[str, Any] = {"default": argparse.SUPPRESS}  # an argument whose help shows no default
NEEDED: dict[str, Any] = {**OPTIONAL, "required": True}


def run_command(
    name: str, options: argparse.Namespace, fail: Callable[[str], NoReturn], work: Callable[[list[Path]], None]
) -> int:
    """Do the work of a command, and say in one line what went wrong with it.

    Args:
        name: Of the command, as the user types it.
        options: What its parser read; `verbose` shows errors with their traceback.
        fail: Ends the program with a message of one line.
        work: Does everything; adds the files that it wrote to the list it is given.

    Returns:
        0 after success, 130 after Ctrl-C.
    """
    written: list[Path] = []
    try:
        with warnings_as_lines(name):
            work(written)
    except MISTAKES as problem:
        if options.verbose:
            raise
        fail(f"{name}: {one_line(problem)}{f' ({_listed(written)} was written)' if written else ''}")
    except KeyboardInterrupt:
        say(name, f"stopped, {_listed(written) or 'nothing'} was written.")
        return STOPPED
    return 0


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def one_line(error: object) -> str:
    """Return the text of an error or a warning without line breaks."""
    return " ".join(str(error).split())


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to the standard output as they are, however narrow the terminal is."""
    from rich.console import Console

    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def say(command: str, text: str) -> None:
    """Write a line of a command to the error stream."""
    sys.stderr.write(f"{command}: {text}\n")


@contextlib.contextmanager
def warnings_as_lines(command: str) -> Iterator[None]:
    """Show warnings as lines of a command, without their place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say(command, one_line(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
