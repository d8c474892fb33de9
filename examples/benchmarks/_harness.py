"""What all benchmark scripts share: arguments, a resumable result file, the table, the figure and the verdict."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from lightning_adapt._shared import figures
from lightning_adapt._shared.files import whole_file

Run = dict[str, Any]  # the plain values that one run of one method gave
Measure = Callable[[str, int], Run]

console = Console(width=None if sys.stdout.isatty() else 140)  # a log file has no width; 80 would break the tables


@dataclass(frozen=True)
class Options:
    """The command line of a benchmark.

    Attributes:
        quick: Fewer seeds, steps and rows, looser thresholds; for CI.
        check: Exit with 1 when a claim fails.
        out: The JSON file, also the state to resume from; None keeps nothing.
        seeds: Seeds to run.
        device: "cpu" or "cuda".
        threads: Threads of torch inside an operation.
    """

    quick: bool
    check: bool
    out: Path | None
    seeds: tuple[int, ...]
    device: str
    threads: int

    @property
    def size(self) -> str:
        """Key of the thresholds that apply."""
        return "quick" if self.quick else "full"


def read_options(
    description: str, full_seeds: int, quick_seeds: int, argv: Sequence[str] | None = None, parents: Sequence[Any] = ()
) -> Options:
    """Read the command line; `argv` None means that of the process, `parents` bring options of one benchmark."""
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=shown, parents=parents)
    parser.add_argument("--quick", action="store_true", help="fewer seeds, steps and rows, and looser thresholds")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a claim fails")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="result file; a rerun continues it")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help=f"seeds (repeats) 0..N-1; full {full_seeds}, quick {quick_seeds}"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    # one thread by default: with two on two cores, any other busy process makes a step up to ten times slower
    parser.add_argument("--threads", type=int, default=1, help="torch threads inside an operation")
    given = parser.parse_args(argv)
    if given.seeds is not None and given.seeds < 1:
        parser.error(f"--seeds must be at least 1, but got {given.seeds}.")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, and torch sees none. Use --device cpu.")
    seeds = given.seeds or (quick_seeds if given.quick else full_seeds)
    return Options(given.quick, given.check, given.out, tuple(range(seeds)), given.device, given.threads)


def hardware(device: str) -> str:
    """Return processor, cores and device in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    gpu = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return f"{model}, {os.cpu_count()} cores{gpu}; device {device}"


def versions() -> dict[str, str]:
    """Return the versions that a timing or an accuracy may depend on."""
    packages = ("lightning-adapt", "torch", "lightning", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


class StudyMismatchError(ValueError):
    """The file given by --out holds results that may not be mixed with this run's."""


class Study:
    """The runs done so far, kept in a file after every single one.

    Args:
        name: Name of the benchmark.
        metric: Key of the run value that a row's mean and sd describe.
        settings: What must be equal for two runs to be comparable; plain values.
        options: The command line.

    Raises:
        StudyMismatchError: If the file was written by another benchmark, under other settings or elsewhere.
    """

    def __init__(self, name: str, metric: str, settings: Mapping[str, Any], options: Options) -> None:
        self.metric = metric
        self.path = options.out
        settings = {**settings, "size": options.size, "device": options.device, "threads": options.threads}
        self.head: dict[str, Any] = {
            "name": name,
            "hardware": hardware(options.device),
            "versions": versions(),
            "settings": json.loads(json.dumps(settings)),  # as it will be read back: tuples become lists
        }
        self._runs: dict[str, dict[int, Run]] = {}
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def _load(self, path: Path) -> None:
        saved = json.loads(path.read_text())
        for part, here in self.head.items():
            if saved.get(part) != here:
                raise StudyMismatchError(
                    f"`--out` must be a new file or one of this run, but {path} has another {part}: saved "
                    f"{_difference(saved.get(part), here)}. Give another file, or delete this one."
                )
        for row in saved["rows"]:
            for run in row["runs"]:
                self._runs.setdefault(row["method"], {})[run["seed"]] = run

    def has(self, method: str, seed: int) -> bool:
        """Say whether a run is done."""
        return seed in self._runs.get(method, {})

    def add(self, method: str, seed: int, run: Run) -> None:
        """Keep a run, on disk as well."""
        self._runs.setdefault(method, {})[seed] = {"seed": seed, **run}
        if self.path is not None:
            with whole_file(self.path) as unfinished:  # whoever stops here leaves the old file or the new one
                unfinished.write_text(json.dumps(self.as_dict(), indent=1))

    @property
    def methods(self) -> list[str]:
        """Methods with at least one run."""
        return list(self._runs)

    def runs(self, method: str) -> list[Run]:
        """Return the runs of a method, by seed."""
        return [run for _, run in sorted(self._runs.get(method, {}).items())]

    def values(self, method: str, key: str | None = None) -> list[float]:
        """Return one value per seed; the metric when no key is given."""
        return [run[key or self.metric] for run in self.runs(method)]

    def paired(self, method: str, other: str, key: str | None = None) -> list[tuple[float, float]]:
        """Return the values of two methods for every seed that both have."""
        first, second = self._runs.get(method, {}), self._runs.get(other, {})
        key = key or self.metric
        return [(first[seed][key], second[seed][key]) for seed in sorted(first) if seed in second]

    def differences(self, method: str, other: str, key: str | None = None) -> list[float]:
        """Return method minus other, paired by seed."""
        return [ours - theirs for ours, theirs in self.paired(method, other, key)]

    def ratios(self, method: str, other: str, key: str | None = None) -> list[float]:
        """Return method over other, paired by seed."""
        return [ours / theirs for ours, theirs in self.paired(method, other, key)]

    def as_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        keys = ("mean", "sd", "n")
        rows = [
            {"method": method, **dict(zip(keys, mean_sd(self.values(method)), strict=True)), "runs": self.runs(method)}
            for method in self.methods
        ]
        return {**self.head, "metric": self.metric, "rows": rows}


def _difference(saved: Any, here: Any) -> str:
    if isinstance(saved, dict) and isinstance(here, dict):
        keys = [key for key in {**saved, **here} if saved.get(key) != here.get(key)]
        return ", ".join(f"{key}={saved.get(key)!r}, here {here.get(key)!r}" for key in keys)
    return f"{saved!r}, here {here!r}"


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None, int]:
    """Return mean, sample standard deviation (None below two values) and count."""
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None, len(values)


def show(values: Sequence[float], digits: int = 2) -> str:
    """Write values as mean ± sd, or as the one value there is."""
    mean, sd, _ = mean_sd(values)
    return "-" if mean is None else f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean of paired differences (Student); infinite below two values."""
    from scipy.stats import t as student

    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    half = float(student.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def run_missing(study: Study, methods: Sequence[str], seeds: Sequence[int], measure: Measure) -> None:
    """Run what the study lacks: seeds outside, methods inside, so that a slow hour of the machine hits all alike."""
    for seed in seeds:
        # every other seed in reverse order, so that none profits from its place in the queue
        for method in methods if seed % 2 == 0 else list(reversed(methods)):
            if not study.has(method, seed):
                started = time.perf_counter()
                study.add(method, seed, measure(method, seed))
                value, took = study.runs(method)[-1], time.perf_counter() - started
                text = f"seed {seed}  {method}: {study.metric} {value[study.metric]:.2f}  [{took:.0f} s]"
                console.print(text, markup=False)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


class Claim(NamedTuple):
    """One thing that the benchmark asserts.

    Attributes:
        text: The claim, with its bound.
        value: What was measured; None when a row is missing.
        holds: Whether it is so.
    """

    text: str
    value: float | None
    holds: bool


def at_least(text: str, values: Sequence[float], bound: float) -> Claim:
    """Claim that a mean reaches a bound."""
    mean = mean_sd(values)[0]
    return Claim(f"{text} >= {bound:g}", mean, mean is not None and mean >= bound)


def at_most(text: str, value: float | None, bound: float) -> Claim:
    """Claim that a value stays below a bound."""
    return Claim(f"{text} <= {bound:g}", value, value is not None and value <= bound)


def verdict(claims: Sequence[Claim], options: Options) -> int:
    """Print every claim and return the exit code: 1 if one fails under --check."""
    for claim in claims:
        value = "not measured" if claim.value is None else f"{claim.value:.3f}"
        line = f"{'holds' if claim.holds else 'FAILS'}  ({options.size}) {claim.text}: {value}"
        console.print(line, markup=False, soft_wrap=True)
    return 1 if options.check and not all(claim.holds for claim in claims) else 0


def now(device: str) -> float:
    """Return the time in seconds, after the device has done what was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def spent(device: str) -> float:
    """Return the seconds of work so far, whatever else the machine does meanwhile.

    On the CPU with one thread the processor time of this process, which is what a clock shows on an idle machine;
    otherwise the clock, as `now`. Work of other processes (workers) is not in it.
    """
    if device == "cpu" and torch.get_num_threads() == 1:
        return time.process_time()
    return now(device)


class ClockedHooks:
    """Mix-in before a callback: notes the seconds that its hooks take after each batch and each epoch."""

    device = "cpu"
    seconds = 0.0

    def on_train_batch_end(self, *arguments: Any) -> None:
        began = spent(self.device)
        super().on_train_batch_end(*arguments)  # type: ignore[misc]
        self.seconds += spent(self.device) - began

    def on_train_epoch_end(self, *arguments: Any) -> None:
        began = spent(self.device)
        super().on_train_epoch_end(*arguments)  # type: ignore[misc]
        self.seconds += spent(self.device) - began


@contextmanager
def bench_settings(threads: int) -> Iterator[None]:
    """Set torch's threads and silence what Lightning says at every one of many short runs; put both back."""
    before, logger = torch.get_num_threads(), logging.getLogger("lightning.pytorch")
    level = logger.level
    torch.set_num_threads(threads)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # the workers are chosen for the comparison, not for speed
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # benchmarks evaluate by themselves, once
            warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
            # Lightning 2.6.6 beside torch 2.11 and newer; nothing that a benchmark does calls it
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
            yield
    finally:
        torch.set_num_threads(before)
        logger.setLevel(level)


def save_figure(draw: Callable[[], Any], options: Options) -> None:
    """Draw the figure beside the result file, where there is one and matplotlib is installed."""
    try:
        if options.out is not None:
            figures.save_figure(draw(), options.out.with_suffix(".png"))
    except ModuleNotFoundError as missing:
        console.print(f"No figure: {missing}", markup=False)
