"""LIMA's rows, cut short for a tiny model, with planted garbage: what the benchmarks of Diversify & Conquer train on.

LIMA (Zhou et al., 2023) is not part of this package. Its train.jsonl is looked for in lima/ of a folder that you name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.text.planted import planted_instructions

VARIABLE = "LIGHTNING_ADAPT_TEST_DATA"
PROMPT_WORDS, RESPONSE_WORDS = 16, 32  # rows of some 80 tokens, which is what a model of 64 dimensions can afford
GARBAGE_WORDS = 60
FOR_PRETRAINING = 250
_SPLIT, _MOST_CLEAN = 0xD1, 600

Row = dict[str, Any]


class Noise(NamedTuple):
    """How much of a pool is what.

    Attributes:
        clean: Rows of LIMA.
        garbage: Rows with random words for an answer.
        topics: Topics of these.
    """

    clean: int
    garbage: int
    topics: int


class Pool(NamedTuple):
    """The rows of one seed; no row is in two parts.

    Attributes:
        before: Clean rows that the model and its tokenizer know before the selection starts.
        rows: The pool to select from; clean rows first.
        held_out: Clean rows to measure the loss on.
    """

    before: list[Row]
    rows: list[Row]
    held_out: list[Row]


def chooser() -> argparse.ArgumentParser:
    """Return the option that says where LIMA is."""
    parser = argparse.ArgumentParser(add_help=False)
    default = os.environ.get(VARIABLE, "data")
    parser.add_argument("--data", metavar="DIR", default=default, help=f"folder with lima/train.jsonl (or {VARIABLE})")
    return parser


def read_lima(folder: str | Path) -> list[tuple[str, str]]:
    """Return prompt and answer of every row.

    Raises:
        FileNotFoundError: If LIMA is not there; says where it was looked for.
    """
    path = Path(folder) / "lima" / "train.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"LIMA is not at {path}. Put its train.jsonl there (huggingface.co/datasets/GAIR/lima, for which you must "
            f"accept a licence), or name the folder around lima/ by --data or {VARIABLE}."
        )
    with path.open(encoding="utf-8") as lines:
        turns = [json.loads(line)["conversations"] for line in lines]
    return [(said[0], said[1]) for said in turns if len(said) > 1]


def dictionary(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return all words of four letters and more, each once: what the answers of garbage rows are drawn from."""
    return sorted({word for pair in pairs for text in pair for word in re.findall(r"[a-z]{4,}", text.lower())})


def pool_of(pairs: Sequence[tuple[str, str]], noise: Noise, held_out: int, seed: int) -> Pool:
    """Return the rows of a seed.

    Args:
        pairs: Prompt and answer of LIMA's rows.
        noise: Sizes of the pool.
        held_out: Rows to measure on, the same for every noise of a seed.
        seed: Seed of the split and of the garbage.

    Returns:
        The rows.
    """
    order = torch.randperm(len(pairs), generator=generator(seed, _SPLIT)).tolist()
    clean = [_row(*pairs[place]) for place in order]
    start, tested = FOR_PRETRAINING, FOR_PRETRAINING + _MOST_CLEAN
    words = {"garbage_words": GARBAGE_WORDS, "vocabulary": dictionary(pairs)}
    garbage = planted_instructions(0, noise.garbage, garbage_topics=noise.topics, seed=seed, **words)
    made = [_row(*(message["content"] for message in one["messages"]), garbage=True) for one in garbage]
    return Pool(clean[:start], clean[start : start + noise.clean] + made, clean[tested : tested + held_out])


def _row(prompt: str, response: str, *, garbage: bool = False) -> Row:
    texts = _cut(prompt, PROMPT_WORDS), _cut(response, RESPONSE_WORDS)
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]
    return {"messages": messages, "garbage": garbage}


def _cut(text: str, words: int) -> str:
    return " ".join(text.split()[:words])
