"""`lightning-adapt select`: its arguments, its progress bars, its errors of one line and its summary."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lightning_adapt._shared.commands import NEEDED, OPTIONAL, print_lines, run_command

if TYPE_CHECKING:
    from lightning_adapt.divconq.offline.file_result import FileSelection

__all__ = ["HELP", "add_arguments", "run"]

# torch and all that is heavy is imported in `run`: the parser of every other command passes through here
HELP = "Choose the instruction data to train on, out of a file."
METHODS = ("random", "km_random", "km_closest", "k_center", "kmq")
FORMATS = ("auto", "alpaca", "sharegpt", "messages", "prompt-response")
QUOTAS = ("proportional", "equal")
TEXTS = ("prompt", "prompt+response")
DEDUPS = ("none", "exact", "near")
ENGINES = ("auto", "faiss", "torch", "sklearn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Args:
        parser: The parser of the command.
    """
    add = parser.add_argument
    kinds = "a .jsonl, .json or .parquet file, or a folder saved by the datasets library"
    add("--data", type=Path, metavar="FILE", help=kinds, **NEEDED)
    budgets = "rows to choose: 5000, or 0.05 or 5%% of all rows; 1 is one row, 1.0 is all"
    add("--budget", type=_budget, metavar="N", help=budgets, **NEEDED)
    add("--out", type=Path, metavar="FILE", help="where the chosen rows go, in the format of --data", **NEEDED)
    add("--method", choices=METHODS, default="kmq", help="how to choose")
    add("--k", type=_clusters, default="auto", metavar="K", help="clusters; 'auto' compares a few by their silhouette")
    add("--quota", choices=QUOTAS, default="proportional", help="rows per cluster: by its size, or the same for each")
    column = "column with a number per row, higher is better: kmq prefers high ones"
    add("--quality", metavar="COLUMN", **OPTIONAL, help=column)
    add("--tau", type=float, default=1.0, help="temperature of the quality; small: only the best of a cluster")
    models = "'tfidf' (no download), the name or folder of a model, or a .npy file with a vector per row"
    add("--embedder", default="tfidf", metavar="NAME", help=models)
    add("--text", choices=TEXTS, default="prompt", help="what the clusters are made of")
    add("--dedup", choices=DEDUPS, default="exact", help="copies to leave out: none, equal rows, nearly equal ones")
    add("--format", choices=FORMATS, default="auto", help="how a row holds its conversation; 'auto' reads its keys")
    add("--engine", choices=ENGINES, default="auto", help="what computes k-means")
    add("--seed", type=int, default=42, help="the same seed gives the same rows")
    kept = "keep the vectors here for the next run"
    add("--cache-dir", type=Path, metavar="DIR", **OPTIONAL, help=kept)
    add("--report", action=argparse.BooleanOptionalAction, default=True, help="write a page with figures beside --out")
    add("--force", action="store_true", help="replace output files that are there; a folder never is")
    add("--verbose", action="store_true", help="show errors with their traceback")


def run(options: argparse.Namespace, fail: Callable[[str], NoReturn]) -> int:
    """Run the command.

    Args:
        options: What the parser of `add_arguments` read.
        fail: Ends the program with a message of one line.

    Returns:
        0 after success, 130 after Ctrl-C.
    """
    given = {name: value for name, value in vars(options).items() if name not in ("command", "verbose")}
    kind = given.pop("format")

    def work(written: list[Path]) -> None:
        from lightning_adapt.divconq.offline.file_selection import select_file

        with _bars() as progress:
            chosen = select_file(given.pop("data"), format=None if kind == "auto" else kind, progress=progress, **given)
        written += [path for path in (chosen.out, chosen.indices, chosen.report) if path is not None]
        print_lines([*_summary(chosen), *(f"Wrote {path}" for path in written)])

    return run_command("select", options, fail, work)


def _budget(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return text  # a percentage, or what the selection refuses
    if 1 < number < math.inf and not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"a number of rows is written in digits only ({number:.0f}), but got {text!r}")
    return text


def _clusters(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number or 'auto', but got {text!r}") from None


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """Give a function (what, done, total) that shows one bar per step; it goes to the error stream."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def finish() -> None:
            for bar in bars.values():  # a step without a known length leaves a bar that would move on for ever
                done = max(progress.tasks[bar].completed, 1)
                progress.update(bar, completed=done, total=done)

        def show(what: str, done: int, total: int | None) -> None:
            if what not in bars:
                finish()
                bars[what] = progress.add_task(what, total=None)
            progress.update(bars[what], completed=done, total=total)

        yield show
        finish()


def _summary(chosen: FileSelection) -> list[str]:
    """Return what was read, left out and chosen, and what it took."""
    pairs = chosen.summary()
    width = max(len(what) for what, _ in pairs)
    return [
        *(f"{what:<{width}}  {value}" for what, value in pairs),
        *(f"Note: {note}" for note in chosen.results.notes),
    ]
