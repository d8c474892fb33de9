"""The full form: `python -m tests.faults --kills 20` kills each method so often, alone and with two processes.

Writes a JSON report and prints the same as a Markdown table; exits with 1 if a run ended other than one that was never
killed, or a file was half written.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.faults.cases import CASES
from tests.faults.chains import Counts, chain, uninterrupted
from tests.faults.serving import MEMORIES, serve
from tests.faults.victims import train

__all__ = ["main", "table", "works"]

KILLS_PER_CHAIN = 4
_COLUMNS = ("what", "processes", "kills", "of which inside a write", "runs", "divergences", "half-written files")


def works(ranks: tuple[int, ...] = (1, 2)) -> dict[tuple[str, int], Callable[[Path], None]]:
    """All there is to kill: (name, processes) -> what a victim does."""
    found = {(name, n): partial(train, case, ranks=n) for n in ranks for name, case in CASES.items()}
    served = {(f"ErrorMemoryPredictor with a journal, {name}", 1): partial(serve, memory=name) for name in MEMORIES}
    return {**(served if 1 in ranks else {}), **found}  # type: ignore[dict-item]


def killed(work: Callable[[Path], None], folder: Path, kills: int, seed: int) -> Counts:
    """Kill runs until there are so many kills; every one of the runs is brought to its end."""
    counts, draw, number = Counts(), random.Random(seed), 0
    whole = uninterrupted(work, folder)
    while counts.total < kills and not (counts.divergences and number > kills):
        chain(work, whole, folder / f"chain-{number}", draw, min(KILLS_PER_CHAIN, kills - counts.total), counts)
        number += 1
    return counts


def row_of(name: str, ranks: int, counts: Counts) -> dict[str, Any]:
    """What is reported of a method."""
    inside = counts.total - counts.kills["any time"]
    values = (name, ranks, counts.total, inside, counts.chains, len(counts.divergences), len(counts.half_written))
    found = {"found": counts.divergences, "unreadable": counts.half_written, "temporary": dict(counts.temporary)}
    return {**dict(zip(_COLUMNS, values, strict=True)), "left in the end": dict(counts.left), **found}


def table(rows: list[dict[str, Any]]) -> str:
    """The report as Markdown."""
    sums = [sum(int(row[name]) for row in rows) for name in _COLUMNS[2:]]
    lines = [[str(row[name]) for name in _COLUMNS] for row in rows] + [["together", "", *map(str, sums)]]
    head = [list(_COLUMNS), ["---"] * len(_COLUMNS)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [*head, *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kills of each method and number of processes")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--only", default="", help="a part of a name")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="JSON file; rows are added as they are done")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # threads of this process would be missing in those that are forked
    rows: list[dict[str, Any]] = []
    for (name, ranks), work in works(tuple(options.ranks)).items():
        if options.only not in name:
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(name, ranks, killed(work, Path(folder), options.kills, options.seed)))
        last = rows[-1]
        told = f"{name}, {ranks}: {last['kills']} kills in {time.monotonic() - begun:.0f} s {last['found']}"
        print(told, last["unreadable"], file=sys.stderr, flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    return int(any(row["divergences"] or row["half-written files"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
