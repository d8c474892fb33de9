"""What `lightning-adapt select` costs end to end: seconds and peak memory, on a synthetic pool of instructions.

Every run is the command itself in a process of its own, from the .jsonl file to the chosen lines and the report page,
with the embedder that needs no download. "kmq" is the whole method; "random" reads, checks and writes the same file
without vectors: what is left is the cost of embedding and clustering. "cpu seconds" is the processor time of all cores
together, which other work on the machine does not change. Needs a system with `os.wait4`.

    python examples/benchmarks/divconq_select.py --threads 2 --out divconq_select.json --check
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import _harness as h
import numpy as np

METHODS = ("kmq", "random")
ROWS = {"full": 200_000, "quick": 5000}
BUDGET = 0.05
METRIC = "seconds"
THRESHOLDS = {"full": {"seconds": 180.0, "MiB": 1500.0}, "quick": {"seconds": 30.0, "MiB": 1000.0}}
TOPICS, WORDS, OWN_WORDS = 200, 20_000, 60  # of the pool: topics, words in all, words that a topic prefers
COPIES, EMPTY = 0.01, 0.005  # shares of exact copies and of empty responses
BLOCK = 2000  # rows made at a time
# the command, and what it says of its own memory: a parent's view would count the parent's memory, too
COMMAND = (
    "import sys; from pathlib import Path; from lightning_adapt.cli import main; code = main(sys.argv[2:]);"
    "from lightning_adapt.divconq.offline.file_result import peak_mib;"
    "Path(sys.argv[1]).write_text(str(peak_mib())); sys.exit(code)"
)


def pool(n: int, seed: int) -> Iterator[str]:
    """Yield the lines of a pool of n rows: each about one of 200 topics, some copied, some without a response.

    Half the words of a row come from its topic, the others from all words with the frequencies of natural text. Prompts
    have 8 to 60 words, responses 20 to 200.
    """
    draws = np.random.default_rng(seed)
    syllables = np.array([a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "is")])
    words = np.array(["".join(parts) for parts in draws.choice(syllables, (WORDS, 3))])
    common = np.cumsum(1 / np.arange(1, WORDS + 1))  # Zipf's law
    own = draws.choice(WORDS, (TOPICS, OWN_WORDS))
    for first in range(0, n, BLOCK):
        rows = []
        for topic in draws.integers(TOPICS, size=min(BLOCK, n - first)):
            asked, answered = int(draws.integers(8, 61)), int(draws.integers(20, 201))
            count = asked + answered
            any_word = np.searchsorted(common, draws.random(count) * common[-1]).clip(max=WORDS - 1)
            chosen = np.where(draws.random(count) < 0.5, draws.choice(own[topic], count), any_word)
            text = words[chosen]
            rows.append((" ".join(text[:asked]), " ".join(text[asked:])))
        fate = draws.random(len(rows))
        for place, (prompt, response) in enumerate(rows):
            if fate[place] < COPIES:
                prompt, response = rows[0]
            elif fate[place] < COPIES + EMPTY:
                response = ""
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            yield json.dumps({"messages": turns}) + "\n"


def measure(n: int, folder: Path, threads: int, method: str, seed: int) -> h.Run:
    """Run the command once in a process of its own and return what it took and gave."""
    data, out = folder / f"pool-{n}-{seed}.jsonl", folder / f"{method}-{seed}.jsonl"
    if not data.exists():
        with data.open("w", encoding="utf-8") as file:
            file.writelines(pool(n, seed))
    arguments = ["select", "--data", data, "--budget", str(BUDGET), "--method", method, "--out", out, "--force"]
    peak = folder / "peak"
    command = [sys.executable, "-c", COMMAND, str(peak), *map(str, arguments), "--seed", str(seed)]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **limits})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"The command ended with code {process.returncode}.")
    cpu = usage.ru_utime + usage.ru_stime
    mib = float(peak.read_text(encoding="ascii"))
    with out.open(encoding="utf-8") as file:
        chosen = len(set(file))
    return {"seconds": seconds, "cpu seconds": cpu, "MiB": mib, "chosen": chosen, "rows": n}


def check(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claims: seconds, peak memory, and exactly as many different rows as asked for."""
    bounds, n = THRESHOLDS[size], ROWS[size]
    claims = [
        h.at_most(f"kmq on {n:,} rows: {key} ({unit})", h.mean_sd(study.values("kmq", key))[0], bounds[key])
        for key, unit in ((METRIC, "end to end"), ("MiB", "peak of the process"))
    ]
    budget = round(BUDGET * n)
    counts = {count for method in study.methods for count in study.values(method, "chosen")}
    off = max((abs(count - budget) for count in counts), default=None)
    return [*claims, h.at_most(f"different rows chosen, distance to {budget:,}", off, 0)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print and check; return the exit code."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--rows", type=int, metavar="N", help="another size of the pool; then nothing is claimed")
    given, rest = own.parse_known_args(argv)
    options = h.read_options(__doc__.splitlines()[0], full_seeds=1, quick_seeds=1, argv=rest, parents=[own])
    n = given.rows or ROWS[options.size]
    if options.device != "cpu" or not hasattr(os, "wait4"):
        h.console.print("This benchmark measures the CPU, on Linux or macOS. Leave out --device.", markup=False)
        return 2
    try:
        study = h.Study("divconq_select", METRIC, {"rows": n, "budget": BUDGET}, options)
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        h.run_missing(study, METHODS, options.seeds, partial(measure, n, Path(folder), options.threads))
    keys = ((METRIC, 1), ("cpu seconds", 1), ("MiB", 0))
    table = [[method, *(h.show(study.values(method, key), digits) for key, digits in keys)] for method in study.methods]
    h.print_table(f"select on {n:,} rows", ["method", "seconds", "cpu seconds", "peak MiB"], table)
    return 0 if given.rows else h.verdict(check(study, options.size), options)


if __name__ == "__main__":
    sys.exit(main())
