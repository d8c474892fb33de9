"""The benchmark of training: its claims can fail, the controls are what they say, and no learning is noticed."""

import json

import pytest
import torch

from lightning_adapt.lina_speech.module import LinaSpeechModule

LOSSES = {"unigram of the codes": 5.7, "bigram of the codes": 2.6, "the same, texts exchanged (control)": 2.4}


@pytest.fixture
def script(script_of):
    return script_of("lina_train")


@pytest.fixture
def training(script, script_of):
    return script_of("_lina_training")


@pytest.fixture
def small(script, training, monkeypatch):
    """Two voices of the built-in engine, and a few steps."""
    fit = training.Fit(steps=3, learning_rate=1e-3, warmup=1, tokens=600, join=0.0)
    setting = training.Setting(voices=2, utterances=6, codes=12, fit=fit, real=fit, spoken=2, seconds=0.5)
    monkeypatch.setattr(training, "ENGINE", "formant")
    for name in ("SETTING", "QUICK"):
        monkeypatch.setattr(script, name, setting)
    return setting


def study(script, ours=2.0, stopped=1.0, minutes=3.0, real=4.0, **others):
    t = script.t
    options = script.h.Options(False, True, None, (0,), "cpu", 1)
    made = script.h.Study("lina_train", "loss", {}, options)
    made.add(t.OURS, 0, {"loss": ours, "stopped": stopped, "wall": 60 * minutes})
    for row, loss in (LOSSES | others).items():
        made.add(row, 0, {"loss": loss})
    made.add(t.REAL, 0, {"loss": real})
    made.add(t.REAL_UNIGRAM, 0, {"loss": 4.5})
    return made


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"ours": 2.21, "the same, texts exchanged (control)": 2.5}, ["held-out loss <= 2.2"]),
        ({"unigram of the codes": 2.0}, ["unigram of the codes"]),
        ({"bigram of the codes": 1.9}, ["bigram of the codes"]),
        ({"the same, texts exchanged (control)": 2.05}, ["texts exchanged"]),
        ({"stopped": 0.85}, ["end by themselves"]),
        ({"minutes": 4.1}, ["minutes"]),
        ({"real": 4.6}, ["recorded speech"]),
    ],
)
def test_the_claims_hold_up_to_their_bounds(script, changed, failing):
    claims = [claim for claim in script.check(study(script, **changed), script.THRESHOLDS["full"]) if not claim.holds]
    assert len(claims) == len(failing)
    assert all(word in claim.text for word, claim in zip(failing, claims, strict=True))


def test_missing_rows_are_no_claims_that_hold(script):
    options = script.h.Options(False, True, None, (0,), "cpu", 1)
    empty = script.h.Study("lina_train", "loss", {}, options)
    claims = script.check(empty, script.THRESHOLDS["full"])
    assert len(claims) == 7
    assert not any(claim.holds for claim in claims)


def without_learning(setting, fit, seed):
    """The control: a model whose weights stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LinaSpeechModule("tiny", codebook_size=setting.codes, learning_rate=1e-12, warmup_steps=1)


def test_quick_fails_when_the_model_learns_nothing(script, small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "MAKE", without_learning)
    out = tmp_path / "train.json"
    assert script.main(["--quick", "--check", "--out", str(out)]) == 1
    found = {row["method"]: row["runs"][0] for row in json.loads(out.read_text())["rows"]}
    t = script.t
    assert set(found) == set(t.SYNTHETIC_ROWS)
    assert found[t.OURS]["loss"] == pytest.approx(found[t.UNTRAINED]["loss"], abs=1e-5)
    assert found[t.BIGRAM]["loss"] < found[t.UNIGRAM]["loss"] < found[t.UNTRAINED]["loss"]
    written = {path.name for path in tmp_path.glob("train*")}
    assert written == {"train.json", "train.png", "train-espeak.wav", "train-espeak-alignment.png"}
    assert "FAILS" in capsys.readouterr().out


def test_texts_are_exchanged_and_nothing_else(training):
    batch = {"text": torch.tensor([[1, 2], [3, 4], [5, 0]]), "text_lengths": torch.tensor([2, 2, 1])}
    batch |= {"codes": torch.arange(6).view(3, 1, 2)}
    (found,) = training.with_exchanged_texts([batch])
    assert found["text"].tolist() == [[5, 0], [1, 2], [3, 4]]
    assert found["text_lengths"].tolist() == [1, 2, 2]
    assert torch.equal(found["codes"], batch["codes"])


def test_every_eighth_recording_is_held_out(training):
    train, val = training.recorded(list(range(32)))
    assert val == [7, 15, 23, 31]
    assert sorted([*train, *val]) == list(range(32))


def test_held_out_sentences_were_not_trained_on(training, small):
    fresh = training.held_out_sentences(small, 0)
    assert len(fresh) == small.spoken
    assert not set(fresh) & set(training.synthesised(small, 0).texts)


def test_without_recordings_it_says_where_it_looked(script, tmp_path, capsys):
    assert script.recorded_rows(str(tmp_path)) is None
    assert str(tmp_path / "ljspeech-32") in capsys.readouterr().out.replace("\n", "")
