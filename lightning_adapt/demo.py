"""lightning-adapt demo: every method beside its baselines and controls, in a table and on a page."""

from __future__ import annotations

import importlib
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lightning_adapt import METHODS, __version__
from lightning_adapt._shared.checks import check_choice
from lightning_adapt._shared.imports import require
from lightning_adapt._shared.quiet import quiet_lightning
from lightning_adapt._shared.report import write_page
from lightning_adapt._shared.report_parts import Section

__all__ = ["DemoContext", "run"]

_STYLES = {"ours": "bold cyan", "control": "yellow", "baseline": "dim"}


@dataclass
class DemoContext:
    """What the demo of a method gets: a progress bar, and whether to run in the smallest form.

    Args:
        progress: Where bars are shown.
        quick: Run in seconds to show that it works; the numbers then mean little.
    """

    progress: Progress
    quick: bool = False
    _bar: TaskID | None = field(default=None, init=False)

    def start(self, total: int) -> None:
        """Begin the bar of this method.

        Args:
            total: Training steps of all rows together.
        """
        self._bar = self.progress.add_task("", total=total)

    def doing(self, what: str) -> None:
        """Say what the bar is at.

        Args:
            what: A few words.
        """
        if self._bar is not None:
            self.progress.update(self._bar, description=escape(what))

    def advance(self, steps: int = 1) -> None:
        """Move the bar.

        Args:
            steps: Training steps done since the last call.
        """
        if self._bar is not None:
            self.progress.advance(self._bar, steps)


def run(only: str | None = None, out: Path = Path("lightning_adapt_demo"), *, quick: bool = False) -> int:
    """Train every method beside its baselines and controls, print the tables and write a page.

    Args:
        only: Name of one method; None for all.
        out: Folder of the page; `index.html` in it opens from disk, without a network.
        quick: Run in seconds to show that it works; the numbers then mean little.

    Returns:
        0, the exit code.

    Raises:
        ValueError: If `only` names no method.
        ModuleNotFoundError: If matplotlib, or a package that `only` needs, is missing; names the extra.
    """
    if only is not None:
        check_choice("only", only, METHODS, "Leave it out to run all of them.")
    require("figures", "lightning-adapt demo", "matplotlib")  # now, rather than after minutes of training
    Path(out).mkdir(parents=True, exist_ok=True)  # likewise
    console = Console()
    sections, missing = _run_methods((only,) if only else METHODS, console, quick=quick, must_run=only is not None)
    for section in sections:
        _print_section(console, section)
    for line in missing:
        console.print(f"[yellow]Not run:[/] {escape(line)}")
    page = write_page(sections, Path(out), facts=_facts(quick), missing=missing)
    console.print("Page: ", end="")
    console.print(str(page.resolve()), soft_wrap=True, highlight=False, markup=False)
    return 0


def _run_methods(
    methods: Sequence[str], console: Console, *, quick: bool, must_run: bool
) -> tuple[list[Section], list[str]]:
    sections: list[Section] = []
    missing: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress, quiet_lightning():
        for method in methods:
            demo = importlib.import_module(f"lightning_adapt.{method}.demo")
            context, began = DemoContext(progress, quick), time.perf_counter()
            try:
                section: Section = demo.run(context)
                sections.append(replace(section, seconds=time.perf_counter() - began))
                context.doing(section.short_title)
            except ModuleNotFoundError as error:
                if must_run or "lightning-adapt[" not in str(error):  # only a missing extra may be passed over
                    raise
                missing.append(f"{method}: {error}")
    return sections, missing


def _print_section(console: Console, section: Section) -> None:
    for finding in section.findings:
        title = section.title if finding is section.findings[0] else finding.caption
        shown = Table(title=escape(title), title_style="bold", box=SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
        shown.add_column("variant", overflow="fold")
        shown.add_column("kind", no_wrap=True)
        for column in finding.columns:
            shown.add_column(escape(column.heading), justify="right")
        for row in finding.rows:
            numbers = [escape(column.show(cell)) for column, cell in zip(finding.columns, row.cells, strict=True)]
            shown.add_row(escape(row.name), row.kind, *numbers, style=_STYLES[row.kind])
        console.print(shown)
        console.print(escape(finding.setting), style="dim", highlight=False)
        for name, text in (("Gained", finding.gained), ("Not gained", finding.not_gained)):
            console.print(f"[bold]{name}:[/] {escape(text)}", highlight=False)
        console.print()


def _facts(quick: bool) -> str:
    import lightning
    import torch

    versions = f"lightning_adapt {__version__}, Lightning {lightning.__version__}, PyTorch {torch.__version__}"
    size = "Smallest form: it shows that everything works, its numbers mean little. " if quick else ""
    return f"{size}Trained on the CPU ({os.cpu_count()} cores, {platform.machine()}), {versions}."
