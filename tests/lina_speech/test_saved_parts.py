"""A checkpoint of LinaSpeechModule where a codec or a tokenizer is asked for, and files that are something else."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from lightning_adapt.lina_speech.codecs.codec import as_codec
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.saved_parts import saved_part
from lightning_adapt.lina_speech.text.characters import CharacterTokenizer
from lightning_adapt.lina_speech.text.tokenizer import as_tokenizer
from tests.lina_speech import wavtokenizer_parts
from tests.lina_speech.speech_parts import fit, module
from tests.lina_speech.test_module_checkpoints import codec

LETTERS = CharacterTokenizer("abcdefghijklmnopqrstuvwxyz ")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "base.ckpt"
    fit(module(codec=codec(), tokenizer=LETTERS)).save_checkpoint(path)
    return path


@pytest.mark.parametrize("form", [str, Path])
def test_a_checkpoint_gives_its_codec_and_its_tokenizer(checkpoint, form):
    found = as_codec(form(checkpoint))
    assert found.fingerprint == codec().fingerprint
    codes = torch.tensor([[1, 5, 0, 11]])
    assert torch.equal(found.decode(codes), codec().decode(codes))
    assert as_tokenizer(form(checkpoint)) == LETTERS


def test_the_ending_of_the_file_does_not_matter(checkpoint):
    Path("renamed.bin").write_bytes(checkpoint.read_bytes())
    assert as_codec("renamed.bin").fingerprint == codec().fingerprint
    assert as_tokenizer("renamed.bin") == LETTERS


def test_module_and_data_take_them_as_text(checkpoint):
    """As in YAML."""
    made = module(codec=str(checkpoint), tokenizer=str(checkpoint))
    assert made.codec.fingerprint == codec().fingerprint
    data = TextSpeechDataModule([], codec=str(checkpoint), tokenizer=str(checkpoint))
    assert data.codec.fingerprint == codec().fingerprint
    assert data.tokenizer == LETTERS
    again = LinaSpeechModule.load_from_checkpoint(checkpoint, weights_only=True, codec=str(checkpoint))
    assert again.tokenizer == LETTERS


def test_a_wavtokenizer_s_checkpoint_still_is_one(tmp_path):
    path = wavtokenizer_parts.checkpoint(tmp_path)
    assert saved_part(path, "codec") is None
    with pytest.raises(ValueError, match="the published WavTokenizers have"):  # this one is small
        as_codec(path)


@pytest.mark.parametrize(("name", "read"), [("codec", as_codec), ("tokenizer", as_tokenizer)])
def test_a_checkpoint_that_is_not_there_is_named_in_few_words(name, read):
    for value in ("base.ckpt", Path("base.ckpt")):
        with pytest.raises(FileNotFoundError) as told:
            read(value)
        assert str(told.value) == f"`{name}`: there is no file 'base.ckpt'; put the path of your checkpoint here."


def test_other_files_are_refused(checkpoint):
    content = checkpoint.read_bytes()
    Path("broken.ckpt").write_bytes(content[: len(content) // 2])
    Path("text.ckpt").write_text("nothing")
    torch.save({"state_dict": {"a": torch.ones(2)}}, "foreign.ckpt")
    for name in ("broken", "text", "foreign"):
        assert saved_part(f"{name}.ckpt", "codec") is None
        for read in (as_codec, as_tokenizer):
            with pytest.raises(ValueError, match=f"{name}.ckpt"):
                read(f"{name}.ckpt")


def test_what_a_pickle_would_run_is_not_run(checkpoint):
    class Runs:
        def __reduce__(self):
            return Path.touch, (Path("ran"),)

    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "more": Runs()}, "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        as_codec("evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        as_tokenizer("evil.ckpt")
    assert not Path("ran").exists()


def test_checkpoints_without_them_and_of_newer_releases_are_refused(checkpoint):
    fit(module()).save_checkpoint("bare.ckpt")
    for name, read in (("codec", as_codec), ("tokenizer", as_tokenizer)):
        with pytest.raises(
            ValueError, match=f"`{name}` must be a checkpoint of a model that has a {name}, but got 'bare"
        ):
            read("bare.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    content["lina_speech"]["version"] = 99
    torch.save(content, "newer.ckpt")
    for read in (as_codec, as_tokenizer):
        with pytest.raises(ValueError, match="Upgrade lightning-adapt"):
            read("newer.ckpt")


def test_parts_that_became_others_are_refused_by_both_names(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    for name, read in (("codec", as_codec), ("tokenizer", as_tokenizer)):
        changed = copy.deepcopy(content)
        changed["lina_speech"][name]["fingerprint"] = "another"
        torch.save(changed, "changed.ckpt")
        with pytest.raises(ValueError, match="another") as told:
            read("changed.ckpt")
        assert content["lina_speech"][name]["fingerprint"] in str(told.value)
