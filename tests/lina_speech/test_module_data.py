"""LinaSpeechModule with TextSpeechDataModule: every stage, exact resume inside an epoch, two processes."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment

from lightning_adapt.lina_speech.data.datamodule import TextSpeechDataModule
from lightning_adapt.lina_speech.module import LinaSpeechModule
from tests.lina_speech.speech_parts import QUIET, SMALL

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning"),
]
RATE = 22_050


def rows(count, start=0):
    """Noise of different lengths, with texts."""
    made = []
    for row in range(start, start + count):
        audio = torch.rand(4410 + 1500 * (row % 5), generator=torch.Generator().manual_seed(row)) - 0.5
        made.append({"audio": audio, "sample_rate_hz": RATE, "text": "one two three four"[: 4 + row % 12]})
        made[-1] |= {"speaker": "ab"[row % 2], "id": f"{row:03d}"}
    return made


def data(cache, **options):
    sizes = {"codebook_size": 12, "tokens_per_batch": 120, "min_seconds": 0.1, "cache_dir": cache, "progress": False}
    return TextSpeechDataModule(rows(20), **{"val": rows(5, 50), "test": rows(3, 60), **sizes, **options})


def module(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropout = {"dropout": 0.2, "attention_dropout": 0.2}
        defaults = {"learning_rate": 5e-3, "warmup_steps": 3, "n_audio_samples": 0, "max_seconds": 0.2}
        return LinaSpeechModule(codebook_size=12, overrides={**SMALL, **dropout}, **{**defaults, **options})


def test_every_stage_and_exact_resume_inside_an_epoch(tmp_path):
    def trainer(**options):
        return Trainer(**{**QUIET, "max_epochs": 3, "default_root_dir": tmp_path, **options})

    saves = ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = module(n_audio_samples=1)
    run = trainer(callbacks=[saves], enable_checkpointing=True)
    run.fit(whole, datamodule=data(tmp_path))
    assert run.callback_metrics["val_loss"].isfinite()
    per_epoch = run.num_training_batches
    assert per_epoch > 2
    for step in (per_epoch, per_epoch + 2):
        resumed = module()
        path = str(tmp_path / "saved" / f"step={step}.ckpt")
        trainer().fit(resumed, datamodule=data(tmp_path), ckpt_path=path, weights_only=True)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name
    loaded = LinaSpeechModule.load_from_checkpoint(path, weights_only=True)
    assert loaded.codec.fingerprint == whole.codec.fingerprint
    predicted = trainer().predict(loaded, datamodule=data(tmp_path))
    assert [speech.text for batch in predicted for speech in batch] == [row["text"].strip() for row in rows(5, 50)]
    assert trainer().validate(loaded, datamodule=data(tmp_path), verbose=False)[0]["val_loss"] > 0
    assert trainer().test(loaded, datamodule=data(tmp_path), verbose=False)[0]["test_loss"] > 0


class SameWeights(Callback):
    def on_train_end(self, trainer, pl_module):
        assert pl_module.codec.fingerprint == trainer.strategy.broadcast(pl_module.codec.fingerprint, src=0)
        for name, value in pl_module.state_dict().items():
            assert torch.equal(trainer.strategy.broadcast(value, src=0), value), name


def test_two_processes(tmp_path):
    ranks = {
        "strategy": "ddp_fork",
        "devices": 2,
        "plugins": [LightningEnvironment()],
        "use_distributed_sampler": False,
    }
    trainer = Trainer(**{**QUIET, "max_epochs": 1, "default_root_dir": tmp_path}, **ranks, callbacks=[SameWeights()])
    trainer.fit(module(n_audio_samples=1), datamodule=data(tmp_path))
    assert {"val_loss", "lina/stopped_share"} <= set(trainer.callback_metrics)
