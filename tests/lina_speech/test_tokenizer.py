"""Choosing a tokenizer by name, file or object, and its way through a checkpoint."""

import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch

from lightning_adapt.lina_speech.text.bpe import BPETokenizer
from lightning_adapt.lina_speech.text.characters import CharacterTokenizer
from lightning_adapt.lina_speech.text.tokenizer import (
    TextTokenizer,
    as_tokenizer,
    state_fingerprint,
    tokenizer_from_state,
    warn_unknown,
)

TOKENIZERS = [
    CharacterTokenizer(),
    CharacterTokenizer("abc helowrd", lowercase=False),
    BPETokenizer.train(["hello world"] * 4, vocab_size=80),
]


class Own:
    """A tokenizer of the user's own."""

    vocab_size = 5
    fingerprint = "own"

    def encode(self, text):
        return [1, *([4] * len(text)), 2]

    def decode(self, ids):
        return "x" * len(list(ids))

    def to_state(self):
        return {"kind": "own"}


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=repr)
def test_a_tokenizer_comes_back_from_a_checkpoint(tokenizer, tmp_path):
    torch.save(tokenizer.to_state(), tmp_path / "state.pt")
    again = tokenizer_from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again == tokenizer
    assert again.fingerprint == tokenizer.fingerprint
    assert hash(again) == hash(tokenizer)
    assert again.encode("hello") == tokenizer.encode("hello")


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=repr)
def test_a_tokenizer_travels_to_workers(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).encode("hello") == tokenizer.encode("hello")


def test_tokenizers_that_differ_are_not_equal():
    assert len({tokenizer.fingerprint for tokenizer in TOKENIZERS}) == len(TOKENIZERS)
    assert TOKENIZERS[0] != TOKENIZERS[1]
    assert TOKENIZERS[0] != TOKENIZERS[2]


@pytest.mark.parametrize("value", [None, "characters"])
def test_characters_are_the_default(value):
    assert as_tokenizer(value) == CharacterTokenizer()


def test_an_object_with_the_members_is_taken_as_it_is():
    own = Own()
    assert isinstance(own, TextTokenizer)
    assert as_tokenizer(own) is own


def test_files_of_either_kind_are_read(tmp_path):
    bpe = BPETokenizer.train(["hello world"] * 4, vocab_size=80)
    assert as_tokenizer(bpe.save(tmp_path / "bpe.json")) == bpe
    characters = CharacterTokenizer("abc")
    (tmp_path / "characters.json").write_text(json.dumps(characters.to_state()), encoding="utf-8")
    assert as_tokenizer(str(tmp_path / "characters.json")) == characters


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (7, TypeError, "`tokenizer` must be 'characters', 'phonemes'"),
        (Own, TypeError, "`tokenizer` must be"),  # the class, not an object of it
        ("character", FileNotFoundError, "an existing file"),
        (Path("missing.json"), FileNotFoundError, "missing.json"),
    ],
)
def test_what_is_no_tokenizer_is_refused(value, error, text):
    with pytest.raises(error, match=text):
        as_tokenizer(value)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{not json")
    with pytest.raises(ValueError, match="a JSON file"):
        as_tokenizer(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="cannot be read"):
        as_tokenizer(tmp_path / "b.json")


def test_a_state_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'characters', 'bpe', 'phonemes', but got 'own'"):
        tokenizer_from_state(Own().to_state())


def test_the_fingerprint_does_not_depend_on_the_order_of_a_state():
    assert state_fingerprint("a", {"x": 1, "y": 2}) == state_fingerprint("a", {"y": 2, "x": 1})
    assert state_fingerprint("a", {"x": 1}) != state_fingerprint("a", {"x": 2})


def test_a_character_is_warned_of_once():
    named: set[str] = set()
    with pytest.warns(UserWarning, match=r"does not know 'é' \(U\+00E9\); each becomes UNK. Do this."):
        warn_unknown("éé", named, "Do this.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unknown("é", named, "Do this.")
    with pytest.warns(UserWarning, match="know 'ü'"):
        warn_unknown("éü", named, "Do this.")
