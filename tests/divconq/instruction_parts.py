"""Rows, a tiny model and an independent derivation of the labels, for the tests of instruction data and tuning."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lightning_adapt.divconq.models.tiny import tiny_language_model
from lightning_adapt.divconq.text.conversation import Turn

WORDS = ("red", "green", "blue", "round", "square", "small", "large", "warm", "cold", "old")


def pairs(count, *, start=0):
    """Short questions with answers of different lengths."""
    rows = []
    for number in range(start, start + count):
        answer = " ".join(WORDS[(number + step) % 10] for step in range(1 + number % 4))
        rows.append({"prompt": f"Say what number {number} is like.", "response": f"It is {answer}."})
    return rows


def talks():
    """Conversations of the awkward kinds: several turns, white space at the edges, a system turn, template words."""
    return [
        talk(("user", "Hello there"), ("assistant", "Hi!")),
        talk(
            ("system", "Be brief."), ("user", "2+2?"), ("assistant", "4"), ("user", "Sure?"), ("assistant", "Yes, 4.")
        ),
        talk(
            ("user", "a\n\n"), ("assistant", "\n\nstarts with line breaks\n"), ("user", " b "), ("assistant", "  c  ")
        ),
        talk(("user", "same"), ("assistant", "same"), ("user", "same"), ("assistant", "same")),
        talk(("user", "### Assistant:\nfake"), ("assistant", "### User:\nquote é 漢字 🙂")),
        talk(("user", "ends with a question"), ("assistant", "answer"), ("user", "unanswered")),
    ]


def talk(*turns):
    return tuple(Turn(*turn) for turn in turns)


@cache
def _tiny():
    texts = [f"{row['prompt']} {row['response']}" for row in pairs(60)]
    return tiny_language_model(texts, vocab_size=400, hidden_size=32, layers=2)


def tiny():
    """The model of the tests, a new copy each time, and its tokenizer."""
    import copy

    model, tokenizer = _tiny()
    return copy.deepcopy(model), copy.deepcopy(tokenizer)


def lima():
    """60 conversations of LIMA: all 30 with several turns, and others."""
    root = os.environ.get("LIGHTNING_ADAPT_TEST_DATA")
    path = Path(root or "") / "lima" / "train.jsonl"
    if root is None or not path.is_file():
        pytest.skip("LIMA is not there: set LIGHTNING_ADAPT_TEST_DATA to the folder around lima")
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line)["conversations"] for line in lines]
    chosen = sorted(rows, key=len, reverse=True)[:30] + rows[:30]
    return [talk(*((("user", "assistant")[i % 2], text) for i, text in enumerate(row))) for row in chosen]


def written_out(style, conversation, tokenizer):
    """A template's text by hand: pieces of text, and whether the assistant writes them."""
    end = tokenizer.eos_token
    if style == "tiny":
        return [
            piece
            for turn in conversation
            for piece in (
                (f"<|{turn.role}|>", False),
                (turn.content + (end if turn.role == "assistant" else ""), turn.role == "assistant"),
            )
        ]
    pieces = []
    for turn in conversation:
        if style == "plain":
            pieces.append((f"### {turn.role.capitalize()}:\n", False))
            pieces.append((turn.content + (end if turn.role == "assistant" else ""), turn.role == "assistant"))
        else:
            pieces.append((f"<|im_start|>{turn.role}\n", False))
            pieces.append((f"{turn.content}<|im_end|>", turn.role == "assistant"))
        pieces.append(("\n", False))
    return pieces


def reference(style, conversation, tokenizer):
    """Token ids and mask from character positions: a token counts if it overlaps what the assistant writes."""
    pieces = written_out(style, conversation, tokenizer)
    owner = np.concatenate([np.full(len(text), spoken) for text, spoken in pieces])
    made = tokenizer("".join(text for text, _ in pieces), add_special_tokens=False, return_offsets_mapping=True)
    mask = [bool(owner[start:end].any()) for start, end in made["offset_mapping"]]
    return np.asarray(made["input_ids"]), np.asarray(mask)
