"""Utterances: rows as they were put in, joins, and batches filled up on the right."""

from __future__ import annotations

import pickle

import pytest
import torch

from lightning_adapt.lina_speech.data.code_cache import Codes
from lightning_adapt.lina_speech.data.utterances import Utterances
from tests.lina_speech.data_parts import Letters

LENGTHS = (3, 1, 5, 2)


def made(speakers=None):
    random = torch.Generator().manual_seed(0)
    flat = torch.randint(0, 500, (2, sum(LENGTHS)), generator=random).to(torch.int16)
    ends = torch.tensor([0, *LENGTHS]).cumsum(0)
    who = ("bob", "ann", "bob", "")
    rows = [{"id": f"i{n}", "text": "x" * (n + 1), "speaker": who[n], "key": f"k{n}"} for n in range(4)]
    return Utterances(rows, Codes(flat, ends, torch.arange(4).double()), Letters(), speakers), flat.long()


def test_a_row_is_what_was_put_in():
    utterances, flat = made()
    assert len(utterances) == 4
    assert utterances.frames.tolist() == list(LENGTHS)
    assert utterances.speakers == ("", "ann", "bob")
    row = utterances[2]
    assert torch.equal(row.pop("codes"), flat[:, 4:9])
    assert row == {"text": "xxx", "speaker": "bob", "id": "i2", "seconds": 2.0, "index": 2}
    assert utterances[-1]["index"] == 3
    with pytest.raises(IndexError):
        utterances[4]


def test_a_batch_of_joins():
    utterances, flat = made(speakers=("bob", "zoe"))
    batch = utterances[[(2, 0), (1,)]]
    assert all(value.dtype == torch.int64 for value in batch.values())
    encode = Letters().encode
    text = encode("xxx x")
    assert batch["text"].tolist() == [text, encode("xx") + [0] * (len(text) - 4)]
    assert batch["text_lengths"].tolist() == [len(text), 4]
    assert batch["codes"].shape == (2, 2, 8)
    assert torch.equal(batch["codes"][0], torch.cat([flat[:, 4:9], flat[:, 0:3]], dim=1))
    assert torch.equal(batch["codes"][1], torch.nn.functional.pad(flat[:, 3:4], (0, 7)))
    assert batch["code_lengths"].tolist() == [8, 1]
    assert batch["index"].tolist() == [2, 1]
    assert batch["speaker"].tolist() == [0, -1]


def test_the_digest_follows_recordings_and_texts():
    codes = Codes(torch.zeros(1, 2).long(), torch.tensor([0, 2]), torch.ones(1).double())
    row = {"id": "a", "text": "b", "speaker": "c", "key": "d"}
    digests = {Utterances([{**row, **change}], codes, Letters()).digest for change in ({}, {"text": "x"}, {"key": "x"})}
    assert len(digests) == 3
    assert Utterances([{**row, "id": "x"}], codes, Letters()).digest in digests  # a name changes nothing


def test_a_copy_in_another_process_is_the_same():
    utterances, _ = made()
    copied = pickle.loads(pickle.dumps(utterances))
    assert copied.digest == utterances.digest
    assert torch.equal(copied[[(0, 2)]]["codes"], utterances[[(0, 2)]]["codes"])


class Phonemes(Letters):
    """Stands in for a tokenizer that starts a program for what it does not remember."""

    def __init__(self):
        super().__init__()
        self.known, self.starts = set(), 0

    def phonemes(self, texts):
        new = set(texts) - self.known
        self.starts += bool(new)
        self.known |= new

    def encode_joined(self, texts):
        assert self.known.issuperset(texts)
        return [1, *(number for text in texts for number in (*self.encode(text)[1:-1], 9)), 2]

    def __getstate__(self):
        return {"known": set(), "starts": 0}


def test_a_tokenizer_with_a_memory_is_asked_once():
    codes = Codes(torch.zeros(1, 8).long(), torch.arange(0, 9, 2), torch.ones(4).double())
    rows = [{"id": f"i{n}", "text": "x" * (n + 1), "speaker": "", "key": f"k{n}"} for n in range(4)]
    utterances = Utterances(rows, codes, Phonemes())
    batch = utterances[[(2, 0), (1,)]]
    assert utterances.tokenizer.starts == 1
    x = Letters().encode("x")[1]
    assert batch["text"].tolist() == [[1, x, x, x, 9, x, 9, 2], [1, x, x, 9, 2, 0, 0, 0]]
    worker = pickle.loads(pickle.dumps(utterances))
    assert torch.equal(worker[[(2, 0), (1,)]]["text"], batch["text"])
    assert worker.tokenizer.starts == 1  # for the whole batch


@pytest.mark.parametrize(
    ("names", "voices"), [(["", "", ""], [0, 0, 0]), (["b", "", "a", "", "b"], [1, 3, 0, 5, 1]), (["a", "a"], [0, 0])]
)
def test_rows_of_unknown_speakers_are_joined_only_where_none_is_named(names, voices):
    rows = [{"id": f"i{n}", "text": "x", "speaker": name, "key": f"k{n}"} for n, name in enumerate(names)]
    codes = Codes(torch.zeros(1, len(rows)).long(), torch.arange(len(rows) + 1), torch.ones(len(rows)))
    found = Utterances(rows, codes, Letters()).voices.tolist()
    assert [found.index(voice) for voice in found] == [voices.index(voice) for voice in voices]
    assert min(found) >= 0
