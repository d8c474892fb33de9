"""The texts of a data set: every kind of row that is allowed, and the way out for the others."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset

from lightning_adapt.divconq.text.conversation import Turn, conversation_key
from lightning_adapt.divconq.text.readers import open_rows
from lightning_adapt.divconq.text.rows import texts_of

DATA = os.environ.get("LIGHTNING_ADAPT_TEST_DATA")
ROWS = [{"instruction": f"q{row}", "input": "", "output": f"a{row}"} for row in range(4)]


class Words:
    """A tokenizer: token n is a word, below 10 are special ones."""

    def decode(self, tokens, skip_special_tokens=False):
        return " ".join(f"w{token}" for token in tokens if token >= 10 or not skip_special_tokens)


class Own(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, row):
        return torch.zeros(3)

    def conversation(self, row):
        return [("user", f"q{row}"), ("assistant", f"a{row}")]


class InTorch(Own):
    conversation = None

    def __getitem__(self, row):
        return ROWS[row]


@pytest.mark.parametrize("dataset", [ROWS, tuple(ROWS), Own(), InTorch()], ids=["list", "tuple", "own", "torch"])
def test_prompts_responses_and_keys(dataset):
    texts = texts_of(dataset)
    assert len(texts) == 4
    assert texts_of(texts) is texts
    assert (texts.prompt(1), texts.response(1), texts[-1], texts[1:3]) == ("q1", "a1", "q3", ["q1", "q2"])
    assert texts.conversation(2) == (Turn("user", "q2"), Turn("assistant", "a2"))
    assert texts.key(2) == conversation_key(texts.conversation(2))
    assert list(texts.view("response")) == ["a0", "a1", "a2", "a3"]
    assert texts.view("prompt+response")[1:3] == ["q1\na1", "q2\na2"]
    with pytest.raises(IndexError, match="4 rows"):
        texts.prompt(4)
    with pytest.raises(ValueError, match="'prompt\\+response'"):
        texts.view("both")


def test_subsets_and_hugging_face_data_sets():
    datasets = pytest.importorskip("datasets")
    assert list(texts_of(Subset(Own(), [3, 1]))) == ["q3", "q1"]
    assert list(texts_of(Subset(Subset(ROWS, [3, 1, 0]), torch.tensor([2, 0])))) == ["q0", "q3"]
    assert list(texts_of(datasets.Dataset.from_list(ROWS).with_format("torch")).view("response")) == [
        "a0",
        "a1",
        "a2",
        "a3",
    ]


def test_only_the_rows_asked_for_are_read():
    read = []

    class Counted(InTorch):
        def __getitem__(self, row):
            read.append(row)
            return ROWS[row]

    texts = texts_of(Counted())
    texts.prompt(2), texts.response(2), texts.key(2)
    assert read == [0, 2]  # the first row, for the format; and one read for all three


def test_plain_strings_are_prompts():
    texts = texts_of(["a", "b\ud800"])
    assert (texts.prompt(1), texts.response(1)) == ("b\ufffd", "")
    with pytest.raises(ValueError, match="Row 1 must be a string"):
        texts_of(["a", 3]).prompt(1)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_tokenised_rows_become_text_again(kind):
    row = {
        "input_ids": kind([1, 11, 12, 13, 2, 14, 15, 2, 3, 31]),
        "labels": kind([-100, -100, -100, 13, 2, -100, 15, 2, -100, 31]),
        "attention_mask": kind([1, 1, 1, 1, 1, 1, 1, 1, 1, 0]),  # the last run kept is a special token: no turn
    }
    turns = (Turn("user", "w11 w12"), Turn("assistant", "w13"), Turn("user", "w14"), Turn("assistant", "w15"))
    assert texts_of([row], Words()).conversation(0) == turns
    assert texts_of([{"input_ids": kind([1, 11, 12])}], Words()).conversation(0) == (Turn("user", "w11 w12"),)
    padded = {"input_ids": kind([0, 0]), "labels": kind([0, 0]), "attention_mask": kind([0, 0])}
    assert texts_of([padded], Words()).conversation(0) == ()


def test_tokenised_rows_keep_the_ids_that_ask_for_the_last_answer():
    row = {
        "input_ids": [1, 11, 12, 13, 2, 14, 15, 2, 3, 31],
        "labels": [-100, -100, -100, 13, 2, -100, 15, 2, -100, 31],
        "attention_mask": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
    }
    asked = texts_of(Subset([row], [0]), Words()).conversation(0)
    assert list(asked.prompt_ids) == [1, 11, 12, 13, 2, 14]
    assert list(pickle.loads(pickle.dumps(asked)).prompt_ids) == list(copy.deepcopy(asked).prompt_ids)
    assert list(texts_of([{"input_ids": [1, 11, 12]}], Words()).conversation(0).prompt_ids) == [1, 11, 12]


def test_labels_without_a_mask_are_no_labels_and_this_is_said():
    rows = [{"input_ids": [1, 11, 12], "labels": [1, 11, 12]}, {"input_ids": [13], "labels": [13]}]
    with pytest.warns(UserWarning, match=r"not -100 anywhere.*Set the labels of the prompt's tokens to -100"):
        texts = texts_of(rows, Words())
    assert [(texts.prompt(row), texts.response(row)) for row in (0, 1)] == [("w11 w12", ""), ("w13", "")]


def test_texts_win_over_tokens():
    assert texts_of([{**ROWS[0], "input_ids": [1, 2]}]).prompt(0) == "q0"


class Endless(IterableDataset):
    def __iter__(self):
        yield "a"


@pytest.mark.parametrize(
    ("dataset", "tokenizer", "error", "parts"),
    [
        ([torch.zeros(2)], None, ValueError, ["`conversation(row)`", "`embedder=<array>`", "tensor"]),
        (
            [{"image": 1, "label": 2}],
            None,
            ValueError,
            ["image, label", "alpaca", "`embedder=<array>`", "rounds > 1", "`examples.rows`"],
        ),
        ([{"input_ids": [1]}], None, ValueError, ["tokenizer", "`embedder=<array>`"]),
        (Endless(), None, TypeError, ["length", "`embedder=<array>`"]),
        ([], None, ValueError, ["at least one row"]),
        ([ROWS[0], {"prompt": "a", "response": "b"}], None, ValueError, ["Row 1", "alpaca", "prompt, response"]),
        ([ROWS[0], 5], None, ValueError, ["Row 1", "mapping", "5"]),
        ([{"input_ids": [1]}, {"tokens": [1]}], Words(), ValueError, ["Row 1", "`input_ids`"]),
        ([{"input_ids": [1, 11], "labels": [1]}], Words(), ValueError, ["Row 0", "(2)", "got 1"]),
    ],
)
def test_other_rows_are_refused_with_the_way_out(dataset, tokenizer, error, parts):
    with pytest.raises(error) as caught:
        list(texts_of(dataset, tokenizer))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.skipif(not DATA, reason="LIGHTNING_ADAPT_TEST_DATA names no folder with LIMA")
def test_lima():
    path = Path(str(DATA)) / "lima" / "train.jsonl"
    texts = texts_of(open_rows(path))
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(texts) == len(rows) == 1030
    for row, expected in enumerate(rows):
        assert texts.prompt(row) == "\n".join(expected["conversations"][::2])
        assert texts.response(row) == "\n".join(expected["conversations"][1::2])
    assert max(len(texts.conversation(row)) for row in range(1030)) > 2
    assert len({texts.key(row) for row in range(1030)}) == 1030
