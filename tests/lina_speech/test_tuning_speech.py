"""InitialStateTuning on a LinaSpeechModule: voices of speech, one and several, that the module then speaks in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.foreign import trainer
from tests.lina_speech.entries import cache_folder, kmeans_codec, rows, speech, training
from tests.lina_speech.tuning_parts import same, tuning, weights_of

# one voice for the data of three speakers
pytestmark = pytest.mark.filterwarnings("ignore:InitialStateTuning.* learns one voice from 3 speakers:UserWarning")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A module that was trained for an epoch, and its data of three speakers."""
    folder, module, data = tmp_path_factory.mktemp("base"), training(), speech()
    trainer(folder, max_epochs=1).fit(module, data)
    return module, data


def test_a_voice_of_speech(spoken, tmp_path):
    module, data = spoken
    before, weights = weights_fingerprint(module), weights_of(module)
    callback = tuning("anna", rank=2, out=tmp_path / "anna.safetensors")
    trainer(tmp_path, [callback], max_epochs=4).fit(module, data)
    assert weights_fingerprint(module) == before
    assert same(weights_of(module), weights)
    voice = Voice.load(tmp_path / "anna.safetensors")
    assert set(voice.matrices()) == {"gla.0", "gla.1"}, "every layer, and not the text positions"
    assert voice.model_fingerprint == weights_fingerprint(module.model)
    assert voice.codec_fingerprint == module.codec.fingerprint
    assert voice.sample_rate_hz == module.codec.sample_rate_hz
    assert voice.held_out["tuned"] < voice.held_out["untuned"]
    frames = sum(int(batch["code_lengths"].sum()) for batch in data.train_dataloader())
    assert voice.training_seconds == pytest.approx(frames / module.codec.frame_rate_hz, rel=1e-6)
    state = voice.state(module.model)
    assert torch.allclose(state.gla[0][0], voice.matrices()["gla.0"], atol=1e-6)
    assert not state.position.any()
    (found,) = module.generate(["number 1"], voice=voice, max_seconds=0.2)
    assert found.seconds > 0


def test_test_and_predictions_use_the_voice(spoken, tmp_path):
    module, data = spoken
    callback = tuning("anna", rank=2)
    trainer(tmp_path, [callback], max_epochs=4).fit(module, data)
    losses = {}
    for callbacks in ([], [callback]):
        (found,) = trainer(tmp_path, callbacks).validate(module, data, verbose=False)
        losses[len(callbacks)] = found["val_loss"]
        assert sum(len(part) for part in trainer(tmp_path, callbacks).predict(module, data)) == 16
    assert losses[0] == pytest.approx(callback.tuned.held_out["untuned"], rel=1e-5)
    assert losses[1] == pytest.approx(callback.tuned.held_out["tuned"], rel=1e-5)


def test_the_name_of_one_speaker_is_not_given_to_a_blend(spoken, tmp_path):
    module, data = spoken
    match = (
        r"`voice` must be several names, or that of the only speaker, where the data has 3, but got 'voice 1'. .* Pass "
        r"the rows of 'voice 1' alone, or tune several speakers at once by their names: voice=\['voice 0', 'voice 1'"
    )
    with pytest.raises(MisconfigurationException, match=match):
        trainer(tmp_path, [tuning("voice 1")]).fit(module, data)
    assert all(value.requires_grad for value in module.parameters())


def test_speakers_of_the_data_tuned_together(spoken, tmp_path):
    module, data = spoken
    callback = tuning(["voice 2", "voice 0", "voice 1"], rank="full", positional_state=True)
    trainer(tmp_path, [callback], max_epochs=3).fit(module, data)
    assert set(callback.voices["voice 0"].matrices()) == {"gla.0", "gla.1", "position"}
    assert all(voice.held_out["tuned"] < voice.held_out["untuned"] for voice in callback.voices.values())
    batch = next(iter(data.val_dataloader()))
    voices = [callback.voices[data.speakers[number]] for number in batch["speaker"].tolist()]
    names = voices[0].matrices()
    together = {name: torch.stack([voice.matrices()[name] for voice in voices]) for name in names}
    module.eval()
    with torch.no_grad():
        module.use_initial_states(together)
        losses, _ = module.sequence_losses(batch)
        for row, voice in enumerate(voices):
            module.use_initial_states({name: value[None] for name, value in voice.matrices().items()})
            alone, _ = module.sequence_losses(batch)
            assert losses[row].item() == pytest.approx(alone[row].item(), rel=1e-5)
    module.use_initial_states(None)
    module.train()


def test_a_checkpoint_of_the_tuning_run_loads_as_the_base(spoken, tmp_path):
    module, data = spoken
    runner = trainer(tmp_path, [tuning()], max_epochs=1)
    module.on_train_end = lambda: runner.save_checkpoint(tmp_path / "run.ckpt")
    try:
        runner.fit(module, data)
    finally:
        del module.on_train_end
    again = LinaSpeechModule.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert same(weights_of(again), weights_of(module))
    fresh = tuning(checkpoint=tmp_path / "run.ckpt")
    trainer(tmp_path, [fresh], max_epochs=1).fit(training(), data)
    assert fresh.tuned.model_fingerprint == weights_fingerprint(module.model)


def of_speaker(number: int) -> list[dict[str, Any]]:
    return [row for row in rows(16, 50) if row["speaker"] == f"voice {number}"]


def alone(number: int, **sets: Any) -> TextSpeechDataModule:
    """Data of one speaker, whose number among its speakers is 0."""
    options = {"codec": kmeans_codec(), "tokenizer": training().tokenizer, "cache_dir": cache_folder()}
    return TextSpeechDataModule(of_speaker(number), **sets, **options, min_seconds=0.05, trim_silence_db=None)


def test_other_data_number_their_speakers_in_their_own_way(spoken, tmp_path):
    """Each voice is evaluated with its own state: after a fit, from a checkpoint, in stages without the first data."""
    module, data = spoken
    names = ["voice 0", "voice 1", "voice 2"]
    callback = tuning(names, rank=2)
    runner = trainer(tmp_path, [callback], max_epochs=3)
    runner.fit(module, data)
    runner.save_checkpoint(tmp_path / "run.ckpt")
    for number in (2, 1):
        states = {name: value[None] for name, value in callback.voices[names[number]].matrices().items()}
        module.use_initial_states(states)
        (expected,) = trainer(tmp_path).validate(module, alone(number, val=of_speaker(number)), verbose=False)
        module.use_initial_states(None)
        (found,) = trainer(tmp_path, [callback]).validate(module, alone(number, val=of_speaker(number)), verbose=False)
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-6)
        loaded = trainer(tmp_path, [tuning(names, rank=2)])
        only_test, options = alone(number, val=None, test=of_speaker(number)), {"verbose": False, "weights_only": True}
        (found,) = loaded.test(module, only_test, ckpt_path=tmp_path / "run.ckpt", **options)
        assert found["test_loss"] == pytest.approx(expected["val_loss"], rel=1e-6)


def test_all_of_several_voices_must_be_in_the_data_of_a_fit(spoken, tmp_path):
    module, _ = spoken
    match = r"`voice` must be names among .* 'voice 1', but got \['anna'\]"
    with pytest.raises(MisconfigurationException, match=match):
        trainer(tmp_path, [tuning(["voice 1", "anna"])]).fit(module, alone(1, val=None))


def test_epochs_from_a_checkpoint_of_a_last_batch_are_counted_and_heard_once(spoken, tmp_path):
    """Killed twice after the last batch of an epoch: no epoch is trained a second time, no second counted twice."""
    module, data = spoken
    ckpt, heard = None, []
    for epoch in (1, 2, 3):
        callback, saves = tuning("anna"), ModelCheckpoint(tmp_path, f"{epoch}", every_n_train_steps=4)
        runner = trainer(tmp_path, [callback, saves], max_epochs=epoch)
        runner.fit(module, data, ckpt_path=ckpt, weights_only=True)
        heard.append(callback.tuned.training_seconds)
        assert runner.global_step == 4 * epoch
        ckpt = tmp_path / f"{epoch}.ckpt"
    assert heard == [heard[0]] * 3


def test_nothing_is_spoken_while_several_voices_are_tuned(tmp_path):
    spoken = {}
    for callbacks in ([], [tuning(["voice 0", "voice 1", "voice 2"])]):
        runner = trainer(tmp_path, callbacks, max_epochs=1)
        runner.fit(training(n_audio_samples=1), speech())
        spoken[len(callbacks)] = "lina/stopped_share" in runner.callback_metrics
    assert spoken == {0: True, 1: False}
