"""LinaSpeechModule speaks: after validations, with adopted codecs and tokenizers, and as predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_adapt.lina_speech import samples
from lightning_adapt.lina_speech.inference.speaker import Speaker
from lightning_adapt.lina_speech.model.delay import delay_codes
from tests.lina_speech.speech_parts import QUIET, SMALL, Letters, Steps, fit, loader, module
from tests.lina_speech.test_module_checkpoints import codec


# -- what a validation shows ------------------------------------------------------------------------------------------
def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.suffix in (".wav", ".png"))


def test_speech_and_attention_are_logged_after_validations_of_a_fit(tmp_path):
    logger = CSVLogger(tmp_path, version=0)
    options = {"n_audio_samples": 2, "log_figure": True, "audio_every_n_epochs": 2, "max_seconds": 0.3}
    made = module(codec=Steps(), tokenizer=Letters(), **options)
    random = torch.get_rng_state()
    trainer = fit(made, val=loader(6), logger=logger, max_epochs=4, num_sanity_val_steps=2, log_every_n_steps=1)
    names = ["audio/lina-sample_0-step{}.wav", "audio/lina-sample_1-step{}.wav", "figures/lina-alignment-step{}.png"]
    assert files_in(logger.log_dir) == sorted(name.format(step) for name in names for step in (6, 12))
    assert 0 <= trainer.callback_metrics["lina/stopped_share"] <= 1
    assert torch.equal(random, torch.get_rng_state())
    trainer.validate(made, loader(6), verbose=False)
    assert len(files_in(logger.log_dir)) == 6


def test_showing_changes_nothing_in_training(tmp_path):
    weights = []
    for options in ({}, {"codec": Steps(), "tokenizer": Letters(), "n_audio_samples": 1, "max_seconds": 0.2}):
        made = module(**options, overrides={**SMALL, "dropout": 0.2})
        fit(made, val=loader(4), max_epochs=2, default_root_dir=tmp_path)
        weights.append(made.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_without_a_codec_it_says_so_once():
    with pytest.warns(UserWarning, match="No audio is logged after validation") as told:
        fit(module(n_audio_samples=1), val=loader(4), max_epochs=2)
    assert sum("No audio" in str(one.message) for one in told) == 1


@pytest.mark.parametrize("fault", ["logger", "weights"])
def test_a_sample_that_fails_is_a_warning_and_the_run_goes_on(fault, monkeypatch):
    made = module(codec=Steps(), tokenizer=Letters(), n_audio_samples=1, max_seconds=0.2)
    if fault == "logger":
        monkeypatch.setattr(samples, "log_audio", lambda *arguments: 1 / 0)
    else:
        monkeypatch.setattr(Speaker, "speak_ids", lambda *arguments, **options: [][0])
    with pytest.warns(UserWarning, match="No audio was logged after this validation"):
        trainer = fit(made, val=loader(4), max_epochs=2)
    assert trainer.global_step == 6
    assert "lina/stopped_share" not in trainer.callback_metrics


def test_one_process_does_not_speak_where_weights_are_sharded(monkeypatch, tmp_path):
    class FSDPStrategy(SingleDeviceStrategy):
        pass

    made = module(codec=Steps(), tokenizer=Letters(), n_audio_samples=1, max_seconds=0.2)
    with pytest.warns(UserWarning, match="No audio is logged after validation: weights are sharded"):
        fit(made, val=loader(4), strategy=FSDPStrategy("cpu"), accelerator="auto", default_root_dir=tmp_path)
    assert not files_in(tmp_path)


# -- where utterances start --------------------------------------------------------------------------------------------
def test_an_initial_state_is_used_in_training_evaluation_and_speech(tmp_path):
    made = module(codec=Steps(), tokenizer=Letters(), n_audio_samples=1, log_figure=True, max_seconds=0.3)
    made.eval().log = lambda *arguments, **options: None
    batch = next(iter(loader()))
    start = made.model.initial_state(1).map(lambda value: value + 0.5)
    learned = start.map(lambda value: value.clone().requires_grad_())
    plain = made.training_step(batch, 0)["loss"]
    made.initial_state = learned
    loss = made.training_step(batch, 0)["loss"]
    ids = delay_codes(batch["codes"], batch["code_lengths"])[:, :-1]
    places = (batch["text"], batch["text_lengths"], ids, batch["code_lengths"] + 1)
    assert torch.equal(made(*places, state=start), made.model(*places, state=start.expand(len(ids))).logits)
    assert not torch.equal(made(*places, state=start), made(*places))
    assert loss.item() != plain.item()
    loss.backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in learned.gla)
    other = module(codec=Steps(), tokenizer=Letters(), max_seconds=0.3)
    assert torch.equal(made.generate(["one two"])[0].audio, other.generate(["one two"], start)[0].audio)
    assert torch.equal(torch.cat(list(made.stream("one two"))), other.generate(["one two"], start)[0].audio)
    assert torch.equal(made.generate(["one two"])[0].alignment, other.generate(["one two"], start)[0].alignment)
    assert not torch.equal(made.generate(["one two"])[0].alignment, other.generate(["one two"])[0].alignment)
    made, losses = module(codec=Steps(), tokenizer=Letters(), n_audio_samples=1, log_figure=True), []
    for made.initial_state in (None, start):
        losses.append(Trainer(**QUIET).validate(made, loader(4), verbose=False)[0]["val_loss"])
        fit(made, val=loader(4), default_root_dir=tmp_path, limit_train_batches=1)
    assert losses[0] != losses[1]


# -- codec and tokenizer ----------------------------------------------------------------------------------------------
class Data(LightningDataModule):
    """A DataModule of somebody else's, with a codec and a tokenizer."""

    def __init__(self, codec=None, tokenizer=None):
        super().__init__()
        self.codec, self.tokenizer = codec, tokenizer

    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(6)

    def predict_dataloader(self):
        return loader(6)


def test_both_are_adopted_and_speak():
    made = module(max_seconds=0.3)
    with pytest.raises(ValueError, match=r"`codec` must be given.*Pass codec=\.\.\. to LinaSpeechModule"):
        made.generate(["one"])
    data = Data(Steps(), Letters())
    Trainer(**QUIET, max_epochs=1).fit(made, datamodule=data)
    assert made.codec is data.codec
    assert made.tokenizer is data.tokenizer
    whole = made.generate(["one", "two"], seed=2)
    assert torch.equal(torch.cat(list(made.stream("one", seed=2, chunk_frames=2))), whole[0].audio)
    assert max(speech.codes.shape[1] for speech in whole) <= 15
    assert made.generate(["one"], max_seconds=0.02)[0].codes.shape == (1, 1)
    with pytest.raises(ValueError, match="`tokenizer` must be given"):
        module(codec=Steps()).stream("one")


def test_predictions_are_speech_and_do_not_depend_on_the_batches():
    made = module(codec=Steps(), tokenizer=Letters(), max_seconds=0.3)
    for batch_size in (4, 6):
        predicted = Trainer(**QUIET).predict(made, loader(6, batch_size=batch_size))
        spoken = [speech for batch in predicted for speech in batch]
        assert [speech.text for speech in spoken] == loader(6).dataset.texts
        for row in range(6):
            alone = made.generate([spoken[row].text], seed=row)[0]
            assert torch.equal(spoken[row].codes, alone.codes)
            assert torch.equal(spoken[row].audio, alone.audio)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_predictions_in_every_precision(precision):
    made = module(codec=codec(), tokenizer=Letters(), max_seconds=0.3)
    predicted = Trainer(**QUIET, precision=precision).predict(made, loader(6))
    spoken = [speech for batch in predicted for speech in batch]
    assert all(speech.audio.dtype == speech.alignment.dtype == torch.float32 for speech in spoken)
    for speech in spoken:  # Lightning runs this with another default type of floats
        torch.testing.assert_close(speech.audio, made.codec.decode(speech.codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (Data(Steps(2), Letters()), r"`codec.n_codebooks` must be 1.*got 2\. Pass n_codebooks=2"),
        (Data(Steps(codebook_size=9)), "Pass codebook_size=9"),
        (Data("encodec_24khz.bin", Letters()), "`codec` must be a codec"),
        (Data(Steps(), object()), "`tokenizer` must be"),
        (Data(Steps(name="b")), "that of the model, Steps-1x12-a, but got 'Steps-1x12-b'"),
    ],
)
def test_a_data_module_that_does_not_fit_is_refused(data, text):
    own = {"codec": Steps()} if "that of the model" in text else {}
    made = module(**own)
    with pytest.raises(MisconfigurationException, match=text):
        Trainer(**QUIET, max_epochs=1).fit(made, datamodule=data)
    assert made.codec is own.get("codec")


def test_a_codec_that_is_a_module_is_no_part_of_the_weights():
    class Neural(Steps, torch.nn.Module):
        def __init__(self):
            torch.nn.Module.__init__(self)
            Steps.__init__(self)
            self.weight = torch.nn.Parameter(torch.zeros(3))

    assert set(module(codec=Neural()).state_dict()) == set(module().state_dict())
