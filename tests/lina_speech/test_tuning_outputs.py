"""What a tuning run reads and writes: the checkpoint of its base, files of voices, and a figure."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.tuning.best_states import BestStates
from lightning_adapt.lina_speech.tuning.figure import tuning_figure
from lightning_adapt.lina_speech.tuning.fit_checks import check_fit
from lightning_adapt.lina_speech.tuning.initial_states import InitialStates
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.foreign import trainer
from tests.foreign_gla import ChainData, ForeignGLA
from tests.lina_speech.tuning_parts import base, fit, same, tuning, weights_of


class Knows(ForeignGLA):
    """Says how long its texts are and what a voice belongs to."""

    def sequence_seconds(self, batch):
        return (batch["letters"] >= 0).sum(1) / 10

    def voice_origin(self):
        return {"model": "a model", "codec": "a codec", "sample_rate_hz": 8000}


# -- voices ------------------------------------------------------------------------------------------------------------
def test_a_voice_is_written_with_what_is_known_of_it(tmp_path):
    path = tmp_path / "new" / "ada.safetensors"
    module, data = Knows(), ChainData(n=32)
    callback = tuning("ada", rank=2, out=path, consent="Ada, 1 May 2026, for these tests")
    fit(tmp_path, callback, module, data, max_epochs=3)
    voice = Voice.load(path)
    assert (voice.name, voice.rank, voice.kind) == ("ada", 2, "tuned")
    assert voice.consent == "Ada, 1 May 2026, for these tests"
    assert (voice.model_fingerprint, voice.codec_fingerprint, voice.sample_rate_hz) == ("a model", "a codec", 8000)
    expected = sum(float((row["letters"] >= 0).sum()) / 10 for row in data.train.rows)
    assert voice.training_seconds == pytest.approx(expected, rel=1e-6), "each text once, not once per epoch"
    assert voice.held_out == callback.tuned.held_out
    assert same(dict(voice.tensors), dict(callback.tuned.tensors))


def test_several_voices_become_files_of_a_folder(tmp_path):
    data = ChainData(n=32, styles=(0, 1))
    callback = tuning(["ada", "bo"], out=tmp_path / "voices")
    fit(tmp_path, callback, base(), data)
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == ["ada.safetensors", "bo.safetensors"]
    for name, voice in callback.voices.items():
        assert same(dict(Voice.load(tmp_path / "voices" / f"{name}.safetensors").tensors), dict(voice.tensors))


def test_a_voice_that_ends_in_nan_does_not_take_the_others_with_it(tmp_path):
    class Breaks(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            for value in pl_module.tuned_initial_states.parameters():
                value.data[1] = math.nan

    callback = tuning(["ada", "bo"], out=tmp_path / "voices")
    rows = ChainData(n=32, styles=(0, 1)).train_dataloader()  # nothing is held out
    with pytest.raises(ValueError, match=r"Voice 'bo': .* Tuning that ended in NaN gives no voice"):
        trainer(tmp_path, [callback, Breaks()], max_epochs=1).fit(base(), rows)
    assert list(callback.voices) == ["ada"]
    assert [path.name for path in (tmp_path / "voices").iterdir()] == ["ada.safetensors"]


def test_a_voice_is_saved_and_loaded_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    callback = tuning("ada", out="~/ada.safetensors")
    fit(tmp_path, callback, base(), max_epochs=1)
    assert (tmp_path / "home" / "ada.safetensors").is_file()
    assert Voice.load("~/ada.safetensors").name == "ada"
    callback.tuned.save("~/again.safetensors")
    assert (tmp_path / "home" / "again.safetensors").is_file()


def test_a_trial_run_writes_nothing(tmp_path):
    callback = tuning(out=tmp_path / "out" / "v.safetensors", log_figure=True, patience=2)
    fit(tmp_path, callback, fast_dev_run=2)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.png"))


def test_nor_does_a_run_that_failed(tmp_path):
    module = base()
    module.on_train_end = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, tuning(out=tmp_path / "out" / "v.safetensors"), module)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("shift", "kept"), [(-100.0, True), (math.inf, False)])
def test_losses_below_zero_are_losses_and_infinite_ones_are_left_out(shift, kept, tmp_path):
    class Shifted(ForeignGLA):
        def sequence_losses(self, batch):
            losses, counts = super().sequence_losses(batch)
            return losses + (0.0 if self.beginning and not kept else shift) * counts, counts

    callback = tuning(out=tmp_path / "v.safetensors")
    fit(tmp_path, callback, Shifted())
    held_out = Voice.load(tmp_path / "v.safetensors").held_out
    assert held_out == callback.tuned.held_out
    assert (held_out is not None and held_out["tuned"] < held_out["untuned"] < -90) == kept


# -- the base ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def checkpoint(tmp_path):
    module = base()
    module.head.bias.data.fill_(0.125)
    runner = trainer(tmp_path, [ModelCheckpoint(tmp_path, "base")], max_epochs=0)
    runner.fit(module, ChainData(n=32))
    runner.save_checkpoint(tmp_path / "base.ckpt")
    return module, tmp_path / "base.ckpt"


def test_the_weights_of_a_checkpoint_are_loaded_first(checkpoint, tmp_path):
    saved, path = checkpoint

    class Loads(ForeignGLA):
        def on_load_checkpoint(self, checkpoint):
            loaded.append(sorted(checkpoint))

    loaded: list[list[str]] = []
    module, callback = Loads(), tuning(checkpoint=str(path))
    fit(tmp_path, callback, module)
    assert same(weights_of(module), weights_of(saved))
    assert callback.tuned.model_fingerprint == weights_fingerprint(saved)
    assert "state_dict" in loaded[0]


def test_what_cannot_be_loaded(checkpoint, tmp_path):
    _, path = checkpoint
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*none.ckpt, which `checkpoint` names"):
        fit(tmp_path, tuning(checkpoint=tmp_path / "none.ckpt"))
    (tmp_path / "noise.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(MisconfigurationException, match="cannot be read as a checkpoint"):
        fit(tmp_path, tuning(checkpoint=tmp_path / "noise.ckpt"))
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(MisconfigurationException, match="`checkpoint` must be a checkpoint of Lightning"):
        fit(tmp_path, tuning(checkpoint=tmp_path / "list.ckpt"))
    module = ForeignGLA(batch_norm=True)
    before = weights_of(module)
    with pytest.raises(MisconfigurationException, match=r"is not of this module: .* Missing key"):
        fit(tmp_path, tuning(checkpoint=path), module)

    class Misses(ForeignGLA):
        def on_load_checkpoint(self, checkpoint):
            checkpoint["config"]

    with pytest.raises(MisconfigurationException, match=r"base.ckpt, .* is not of this module: KeyError: 'config'"):
        fit(tmp_path, tuning(checkpoint=path), Misses())
    assert before.keys() == weights_of(module).keys()
    assert all(value.requires_grad for value in module.parameters())


# -- checks that need no run -------------------------------------------------------------------------------------------
def test_strategies_that_cut_weights_into_pieces_are_refused():
    class FSDPStrategy:
        pass

    class Runner:
        strategy = FSDPStrategy()

    with pytest.raises(
        ValueError, match=r"`strategy` must be one that keeps the weights whole .* but got 'FSDPStrategy'"
    ):
        check_fit(tuning().options, Runner(), base())


def test_averages_of_weights_are_refused_before_the_run(tmp_path):
    match = "`callbacks` must be without averages of weights beside InitialStateTuning, but got 'EMAWeightAveraging'"
    with pytest.raises(MisconfigurationException, match=match):
        fit(tmp_path, tuning(), others=[EMAWeightAveraging()])


@pytest.mark.parametrize(
    ("options", "extra"), [({"out": "v.safetensors"}, "speech"), ({"log_figure": True}, "figures")]
)
def test_a_missing_package_is_told_before_the_run(options, extra, tmp_path, monkeypatch):
    from lightning_adapt._shared import imports

    monkeypatch.setattr(imports, "EXTRAS", {extra: dict.fromkeys(imports.EXTRAS[extra], Missing())})
    with pytest.raises(ModuleNotFoundError, match=rf"lightning-adapt\[{extra}\]"):
        fit(tmp_path, tuning(**options))


class Missing:
    requirement = "something"

    def __bool__(self) -> bool:
        return False


# -- figure ------------------------------------------------------------------------------------------------------------
def test_a_figure_is_logged_at_the_end(tmp_path):
    fit(tmp_path, tuning(log_figure=True))
    (path,) = tmp_path.rglob("*.png")
    assert path.name == "lina-tuning-step8.png"
    assert path.stat().st_size > 5000
    fit(tmp_path / "without", tuning())
    assert not list((tmp_path / "without").rglob("*.png"))


def test_the_figure_shows_losses_with_the_base_and_sizes_of_the_states():
    best = BestStates(2)
    best.begin([3.0, 2.0])
    best.offer(10, [2.5, 2.1], lambda number: {})
    best.offer(20, [2.6, 1.9], lambda number: {})
    states = InitialStates({"gla.0": (1, 2, 3), "gla.1": (1, 2, 3)}, n_voices=2, rank="full")
    with torch.no_grad():
        for number, value in enumerate(states.parameters()):
            value[0].fill_(1.0 + number)
    figure = tuning_figure(["ada", "bo"], best, states)
    left, right = figure.axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert curves["ada"] == [[0, 3.0], [10, 2.5], [20, 2.6]]
    assert curves["bo"] == [[0, 2.0], [10, 2.1], [20, 1.9]]
    dashed = [line.get_ydata()[0] for line in left.lines if line.get_linestyle() == "--"]
    assert dashed == [3.0, 2.0]
    sizes = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert sizes["ada"] == pytest.approx([6**0.5, 2 * 6**0.5])
    assert sizes["bo"] == [0.0, 0.0]
    assert [text.get_text() for text in right.get_xticklabels()] == ["gla.0", "gla.1"]


def test_the_figure_of_a_run_without_held_out_data_says_so():
    figure = tuning_figure(["ada"], BestStates(1), InitialStates({"gla.0": (1, 2, 3)}))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no held-out data"]
    assert figure.axes[1].lines[0].get_ydata()[0] > 0
