"""One progress bar for work that a class of ours does by itself, on the error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(title: str, total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on the terminal while the block runs.

    Args:
        title: What is done.
        total: Steps until the end; None if there is no telling.
        shown: False for none.

    Yields:
        A function that takes the number of steps done.
    """
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:  # stdout is for results
        task = bar.add_task("", total=total)
        yield lambda steps: bar.advance(task, steps)
