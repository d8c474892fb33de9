"""InitialStateTuning on a LinaSpeechModule: voices of speech, one and several, that the module then speaks in."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_adapt._shared.fingerprint import weights_fingerprint
from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.voices.voice import Voice
from tests.foreign import trainer
from tests.lina_speech.entries import speech, training
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
