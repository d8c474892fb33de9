"""Checkpoints of LinaSpeechModule: they speak by themselves, refuse other codecs and tokenizers, and resume exactly."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_adapt.lina_speech.codecs.kmeans_mel import KMeansMelCodec
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.text.tokenizer import as_tokenizer
from tests.lina_speech.speech_parts import SMALL, Letters, Steps, fit, loader, module

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


def codec(seed=0):
    noise = [torch.rand(22_050, generator=torch.Generator().manual_seed(seed)) - 0.5]
    return KMeansMelCodec.fit(noise, codebook_size=12)


def complete(**options):
    """A module with a codec and a tokenizer of this package."""
    return module(**{"codec": codec(), "tokenizer": "characters", "text_vocab_size": 256, **options})


def saved(made, path="made.ckpt"):
    fit(made).save_checkpoint(path)
    return path


def test_a_checkpoint_speaks_by_itself():
    made = complete(max_seconds=0.3)
    path = saved(made)
    content = torch.load(path, weights_only=True)
    assert set(content["lina_speech"]) == {"version", "codec", "tokenizer"}
    assert all(name.startswith("model.") for name in content["state_dict"])
    assert not {"codec", "tokenizer"} & set(content["hyper_parameters"])
    loaded = LinaSpeechModule.load_from_checkpoint(path, weights_only=True)
    assert loaded.codec.fingerprint == made.codec.fingerprint
    assert loaded.tokenizer.fingerprint == made.tokenizer.fingerprint
    assert loaded.hparams == made.hparams
    for one, two in zip(made.generate(["one", "two two"]), loaded.generate(["one", "two two"]), strict=True):
        assert torch.equal(one.codes, two.codes)
        assert torch.equal(one.audio, two.audio)
    again = LinaSpeechModule.load_from_checkpoint(path, weights_only=True, codec=codec())
    assert again.codec.fingerprint == made.codec.fingerprint


@pytest.mark.parametrize("by", ["load_from_checkpoint", "fit"])
@pytest.mark.parametrize("name", ["codec", "tokenizer"])
def test_another_codec_or_tokenizer_is_refused_by_both_names(by, name):
    made = complete()
    path = saved(made)
    other = codec(1) if name == "codec" else Letters()
    theirs = {"codec": made.codec, "tokenizer": made.tokenizer}[name].fingerprint
    load = {
        "fit": lambda: fit(complete(**{name: other}), max_epochs=2, ckpt_path=path),
        "load_from_checkpoint": lambda: LinaSpeechModule.load_from_checkpoint(path, weights_only=True, **{name: other}),
    }[by]
    with pytest.raises(ValueError, match=f"`{name}` must be that of the checkpoint, {theirs}, but got") as told:
        load()
    assert other.fingerprint in str(told.value)


def test_a_checkpoint_without_codec_loads_and_takes_one():
    path = saved(module())
    loaded = LinaSpeechModule.load_from_checkpoint(path, weights_only=True)
    assert loaded.codec is None
    assert loaded.tokenizer is None
    given = {"codec": codec(), "tokenizer": Letters()}
    loaded = LinaSpeechModule.load_from_checkpoint(path, weights_only=True, **given)
    assert loaded.generate(["one"], max_seconds=0.1)[0].text == "one"


def test_files_of_other_modules_and_releases_are_refused():
    path = saved(complete())
    content = torch.load(path, weights_only=True)
    for change, text in [(None, "no valid `version`"), ({"version": 99}, "Upgrade lightning-adapt")]:
        broken = copy.copy(content)
        broken["lina_speech"] = change
        torch.save(broken, "broken.ckpt")
        with pytest.raises(ValueError, match=text):
            LinaSpeechModule.load_from_checkpoint("broken.ckpt", weights_only=True)


def test_a_codec_that_cannot_be_built_has_to_be_given():
    class Unknown(KMeansMelCodec):
        def to_state(self):
            return {**super().to_state(), "class": "Unknown"}

    path = saved(complete(codec=Unknown(codec().codebooks)))
    with pytest.raises(ValueError, match="Pass the codec itself"):
        LinaSpeechModule.load_from_checkpoint(path, weights_only=True)
    loaded = LinaSpeechModule.load_from_checkpoint(path, weights_only=True, codec=Unknown(codec().codebooks))
    assert type(loaded.codec) is Unknown


def test_a_state_that_could_not_be_read_back_is_refused_when_it_is_saved(tmp_path):
    class Odd(Steps):
        def to_state(self):
            return {"rates": [np.float64(1.0)]}

    with pytest.raises(TypeError, match=r"lina_speech\.codec\.state\.rates\[0\]"):
        fit(module(codec=Odd())).save_checkpoint(tmp_path / "a.ckpt")


def test_a_codec_may_be_a_file(tmp_path):
    codec().save(tmp_path / "codec.safetensors")
    made = module(codec=str(tmp_path / "codec.safetensors"), tokenizer=as_tokenizer(), text_vocab_size=256)
    assert made.codec.fingerprint == codec().fingerprint
    path = saved(made)
    (tmp_path / "codec.safetensors").unlink()
    assert LinaSpeechModule.load_from_checkpoint(path, weights_only=True).codec.fingerprint == codec().fingerprint


def test_compiled_runs_save_the_same_names(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    made = module(compile_model=True)
    path = saved(made)
    assert set(torch.load(path, weights_only=True)["state_dict"]) == set(module().state_dict())
    assert LinaSpeechModule.load_from_checkpoint(path, weights_only=True).hparams["compile_model"]
    copy.deepcopy(made)


@pytest.mark.parametrize("steps", [3, 4, 6])
def test_a_run_with_dropout_resumes_exactly(steps, tmp_path):
    options = {"overrides": {**SMALL, "dropout": 0.2, "text_dropout": 0.2, "attention_dropout": 0.2}}
    keep = ModelCheckpoint(str(tmp_path), "{step}", every_n_train_steps=steps, save_top_k=-1)
    run = {"max_epochs": 3, "enable_checkpointing": True, "default_root_dir": tmp_path}
    torch.manual_seed(0)
    whole = module(**options)
    fit(whole, _Goes(loader(12)), loader(4), callbacks=[keep], **run)
    torch.manual_seed(1)
    resumed = module(**options)
    fit(resumed, _Goes(loader(12)), loader(4), ckpt_path=str(tmp_path / f"step={steps}.ckpt"), **run)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


class _Goes:
    """The simplest loader that resumes inside an epoch: the same batches in every one, with a position as state."""

    def __init__(self, batches):
        self.batches, self.position, self.start = list(batches), 0, 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        start, self.start = self.start, 0
        for place in range(start, len(self.batches)):
            self.position = place + 1
            yield self.batches[place]

    def state_dict(self):
        return {"position": self.position % len(self.batches)}

    def load_state_dict(self, state):
        self.start = state["position"]
