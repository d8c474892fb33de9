"""Runs the benchmarks and prints every claim in one table: `python -m examples.benchmarks --check`.

Each script runs in a process of its own, in the quick form unless --full is given: two at a time then, one after the
other with --full. A claim that fails in a quick run is measured a second time, alone.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ALONE = {"saa_augment_speed"}  # two threads and two processes, by the clock; others count effects or processor time
CLAIM = re.compile(r"(holds|FAILS)  \((?:quick|full)\) (.+): (\S+|not measured)")  # as `_harness.verdict` prints it
NOT_RUN = re.compile(r"Not run: (.+)")

console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        benchmark: Name of the script.
        claim: What was claimed, or why there is nothing to claim.
        value: What was measured, as text.
        verdict: "holds", "fails" or "not run".
    """

    benchmark: str
    claim: str
    value: str
    verdict: str


@dataclass
class Job:
    """A script and what it left behind.

    Attributes:
        path: The script.
        arguments: Its command line.
        code: Exit code of the last run; None before it.
        lines: What it printed.
        seconds: How long all its runs took, by the clock.
    """

    path: Path
    arguments: list[str]
    code: int | None = None
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Name of the script without its ending."""
        return self.path.stem

    def rows(self) -> list[Row]:
        """Return the claims; a script that broke, or that says nothing, is a row as well."""
        found = [match.groups() for line in self.lines if (match := CLAIM.fullmatch(line.strip()))]
        rows = [Row(self.name, text, value, "holds" if word == "holds" else "fails") for word, text, value in found]
        lacking = [match[1] for line in self.lines if (match := NOT_RUN.fullmatch(line.strip()))]
        if not rows and lacking:
            return [Row(self.name, lacking[0], "", "not run")]
        if self.code != 0 and not any(row.verdict == "fails" for row in rows):
            last = next((line.strip() for line in reversed(self.lines) if line.strip()), "it printed nothing")
            rows.append(Row(self.name, f"runs to its end (exit code {self.code}: {last})", "", "fails"))
        return rows or [Row(self.name, "this run claims nothing", "", "not run")]

    def run(self) -> None:
        """Run the script once, line by line to the screen, with its name before each."""
        command, began = [sys.executable, "-u", str(self.path), *self.arguments], time.monotonic()
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        self.lines = []
        with subprocess.Popen(command, **options) as process:
            for line in process.stdout:
                self.lines.append(line.rstrip("\n"))
                print(f"{self.name}: {self.lines[-1]}", flush=True)
        self.code = process.returncode
        self.seconds += time.monotonic() - began


def scripts(folder: Path) -> dict[str, Path]:
    """Return the benchmarks in a folder by name; files that start with an underscore are parts of them."""
    paths = sorted(folder.glob("[a-z]*_*.py"))
    return {path.stem: path for path in paths}


def chosen(names: Sequence[str] | None, known: dict[str, Path], parser: argparse.ArgumentParser) -> list[Path]:
    """Return the scripts that --only names, by whole name or by the start of it, in order."""
    for name in names or ():
        if not any(script == name or script.startswith(f"{name}_") for script in known):
            parser.error(
                f"--only must name benchmarks or their method, but got {name!r}. There are {', '.join(known)}."
            )
    return [
        path
        for script, path in known.items()
        if not names or any(script == name or script.startswith(f"{name}_") for name in names)
    ]


def run_all(jobs: Sequence[Job], full: bool) -> Iterator[Job]:
    """Run the jobs and yield each when it is done: in the quick form two at a time, then what needs both cores."""
    together = [job for job in jobs if job.name not in ALONE and not full]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Job.run, together))
    for job in [*together, *(job for job in jobs if job not in together)]:
        if job not in together:
            job.run()
        if not full and any(row.verdict == "fails" for row in job.rows()):
            print(f"{job.name}: --- once more", flush=True)
            out = Path(job.arguments[job.arguments.index("--out") + 1])
            out.unlink(missing_ok=True)  # or it would go on from the values that failed
            job.run()
        yield job


def print_rows(jobs: Sequence[Job]) -> list[Row]:
    """Print the table of claims and return its rows."""
    table = Table(title="Claims", title_justify="left")
    for heading in ("benchmark", "claim", "measured", ""):
        table.add_column(heading, justify="right" if heading == "measured" else "left", overflow="fold")
    rows = [row for job in jobs for row in job.rows()]
    seconds = {job.name: job.seconds for job in jobs}
    before = ""
    for row in rows:
        name = "" if row.benchmark == before else f"{row.benchmark} ({seconds[row.benchmark]:.0f} s)"
        style = {"fails": "bold red", "not run": "yellow"}.get(row.verdict, "")
        table.add_row(name, row.claim, row.value, row.verdict, style=style)
        before = row.benchmark
    console.print(table, markup=False)
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("holds", "fails", "not run")}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), markup=False)
    return rows


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.benchmarks",
        description="Runs the benchmarks and prints their claims in one table.",
        epilog="What stands after -- goes to every script, e.g. --only rs2_loss_guided --full -- --net resnet",
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a claim fails or a script breaks")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these alone: rs2_scale, or rs2 for all of a method")
    parser.add_argument("--list", action="store_true", help="print the names and what each measures, run nothing")
    parser.add_argument("--full", action="store_true", help="the full runs (hours); stopped ones go on with --out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep results and figures here (full: benchmarks-full)")
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(argv), parser


def main(argv: Sequence[str] | None = None, folder: Path = HERE) -> int:
    """Run, print and check; return the exit code."""
    given, parser = parse(argv)
    paths = chosen(given.only, scripts(folder), parser)
    if given.list:
        for path in paths:
            console.print(f"{path.stem:24} {path.read_text().splitlines()[0].strip(chr(34))}", markup=False)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or (Path("benchmarks-full") if given.full else Path(temporary))
        out.mkdir(parents=True, exist_ok=True)
        common = ["--check", *([] if given.full else ["--quick"]), *given.arguments]
        jobs = [Job(path, [*common, "--out", str(out / f"{path.stem}.json")]) for path in paths]
        rows = print_rows(list(run_all(jobs, given.full)))
    failing = any(row.verdict == "fails" for row in rows)
    # in CI everything that a quick run needs is installed: what did not run there is a fault
    missing = os.environ.get("CI") == "true" and any(row.verdict == "not run" for row in rows)
    return int(given.check and (failing or missing))


if __name__ == "__main__":
    sys.exit(main())
