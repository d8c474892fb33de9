"""The end of a fit: files that cannot be written, and the line that says what came out."""

from __future__ import annotations

import os

import pytest
from lightning.pytorch import Callback

from lightning_adapt.lina_speech.tuning import callback as callback_file
from lightning_adapt.lina_speech.tuning.ending import check_out
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.foreign import trainer
from tests.foreign_gla import ChainData
from tests.lina_speech.test_tuning_stopping import KEPT, OtherStyle
from tests.lina_speech.tuning_parts import base, fit, tuning


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def places(tmp_path):
    """A folder "taken", one with a folder in the place of a voice, and a file "note"."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "voices" / "bo.safetensors").mkdir(parents=True)
    (tmp_path / "note").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("voices", "out", "match"),
    [
        (["ada"], "taken", r"`out` must be a file for one voice, but got '.*taken'. .* is a folder: pass a file, such"),
        (["ada"], "note/ada.safetensors", "`out` must be a file for one voice, .*note' is a file: pass another path"),
        (["ada"], "note/deep/ada.safetensors", "note' is a file: pass another path"),
        (["ada", "bo"], "note", "`out` must be a folder for several voices, but got .*note' is a file"),
        (["ada", "bo"], "voices", r"bo.safetensors', where a file is needed, is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_run(voices, out, match, places):
    class Begins(Callback):
        def on_fit_start(self, *_) -> None:
            raise AssertionError("too late")

    module = base()
    with pytest.raises(OSError, match=match):
        fit(places, tuning(voices, out=places / out), module, ChainData(n=32, styles=(0, 1)), others=[Begins()])
    assert all(value.requires_grad for value in module.parameters())


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))
    match = r"`out` must be a file for one voice that can be written, .* You may not write to the folder"
    with pytest.raises(OSError, match=match):
        check_out(tmp_path / "new" / "ada.safetensors", ["ada"])


@pytest.mark.parametrize(("voices", "out"), [(["ada"], "new/ada.safetensors"), (["ada", "bo"], "new"), (["a"], "note")])
def test_places_that_can_be_written_and_stay_untouched(voices, out, places):
    check_out(places / out, voices)
    assert not (places / "new").exists()
    check_out(places / "taken", ["ada", "bo"])


def test_a_voice_that_could_not_be_written_is_not_lost(tmp_path):
    out = tmp_path / "ada.safetensors"

    class Takes(Callback):
        def on_train_end(self, *_) -> None:
            (out / "something").mkdir(parents=True)

    callback, module = tuning("ada", out=out), base()
    match = (
        r"'ada' could not be written to '.*ada.safetensors', .* it is in `callback.voices`, .*\['ada'\].save\(path\)"
    )
    with pytest.raises(OSError, match=match):
        fit(tmp_path, callback, module, others=[Takes()])
    callback.voices["ada"].save(tmp_path / "other.safetensors")
    assert Voice.load(tmp_path / "other.safetensors").held_out == callback.tuned.held_out
    assert all(value.requires_grad for value in module.parameters())


# -- what came out -----------------------------------------------------------------------------------------------------
@pytest.fixture
def lines(monkeypatch):
    told = []
    monkeypatch.setattr(callback_file, "rank_zero_info", told.append)
    return told


@pytest.mark.parametrize("consent", [None, "yes"])
def test_a_line_says_what_came_out(consent, tmp_path, lines):
    out = tmp_path / "ada.safetensors"
    callback = tuning("ada", out=out, consent=consent, max_steps=6)
    fit(tmp_path, callback, max_epochs=9)
    held_out = callback.tuned.held_out
    expected = (
        f"InitialStateTuning: voice 'ada', held-out loss untuned -> tuned {held_out['untuned']:.4f} -> "
        f"{held_out['tuned']:.4f} (best at step {callback.state_dict()['run']['best']['curve'][-1][0]:.0f}); stopped "
        f"after max_steps=6; written to {out}"
    )
    assert lines == [expected + ("; no consent is recorded in it." if consent is None else ".")]


@pytest.mark.filterwarnings(KEPT)
def test_it_says_that_patience_ran_out_and_the_base_was_kept(tmp_path, lines):
    fit(tmp_path, tuning("cy", rank="full", patience=2), base(), OtherStyle(), max_epochs=20)
    (line,) = lines
    loss = line.partition(" -> tuned ")[2].split()
    assert loss[0] == loss[2]
    assert "(the base is kept); stopped at step " in line
    assert line.endswith(" after 2 validations without a better one (patience).")


def test_it_names_every_voice_and_says_what_was_not_measured(tmp_path, lines):
    data = ChainData(n=32, styles=(0, 1))
    trainer(tmp_path, [tuning(["ada", "bo"])], max_epochs=1).fit(base(), data.train_dataloader())
    expected = "InitialStateTuning: voice 'ada', without held-out data; voice 'bo', without held-out data."
    assert lines == [expected]


def test_a_trial_run_says_nothing(tmp_path, lines):
    fit(tmp_path, tuning(), fast_dev_run=2)
    assert lines == []
