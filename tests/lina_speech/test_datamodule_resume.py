"""TextSpeechDataModule: a resumed run sees the batches of the uninterrupted one; other data are refused."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.lina_speech.data_parts import QUIET, Letters, LoudnessCodec, data, rows


class Watcher(LightningModule):
    """Writes down what its batches hold."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append({name: value.tolist() for name, value in batch.items()})
        return (self.weight * batch["codes"].float().mean()).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def run(datamodule, ckpt_path=None, **options):
    module, trainer = Watcher(), Trainer(**{**QUIET, "max_epochs": 2, **options})
    trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path)
    return module, trainer


def steps_per_epoch():
    made = data()
    made.setup("fit")
    return len(made.train_dataloader())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("extra", [0, 3])
def test_a_run_resumes_exactly_at_the_end_of_an_epoch_and_inside_one(extra, workers, tmp_path):
    steps = steps_per_epoch() + extra

    def keep():
        return ModelCheckpoint(str(tmp_path), "{step}", every_n_train_steps=steps, save_top_k=-1)

    options = {"enable_checkpointing": True}
    whole = run(data(num_workers=workers), callbacks=[keep()], **options)[0].seen
    path = str(tmp_path / f"step={steps}.ckpt")
    resumed = run(data(num_workers=workers), ckpt_path=path, callbacks=[keep()], **options)[0].seen
    assert resumed == whole[steps:]
    assert len(whole) == 2 * steps_per_epoch()
    assert whole[: len(whole) // 2] != whole[len(whole) // 2 :]


def test_workers_change_nothing():
    assert run(data())[0].seen == run(data(num_workers=2))[0].seen


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source": rows(61)}, "rows: saved 60, here 61"),
        ({"source": rows(60, start=1)}, "utterances"),
        ({"codec": LoudnessCodec(name="other")}, "codec: saved 'loudness-2x16', here 'other-2x16'"),
        ({"tokenizer": Letters("runes")}, "tokenizer: saved 'letters', here 'runes'"),
        ({"tokens_per_batch": 150}, "tokens of a global batch: saved 200, here 150"),
        ({"max_batch_size": 2}, "global batch: saved 64, here 2"),
        ({"join_probability": 0.0}, "join_probability"),
        ({"max_joined": 2}, "max_joined"),
        ({"max_seconds": 5.0}, "max_frames"),
        ({"seed": 3}, "seed"),
    ],
)
def test_a_resume_with_other_data_is_refused(change, named):
    _, trainer = run(data(), max_epochs=1)
    trainer.save_checkpoint("stopped.ckpt")
    torch.load("stopped.ckpt", weights_only=True)
    with pytest.raises(MisconfigurationException, match=named):
        run(data(**change), ckpt_path="stopped.ckpt")


def test_a_fit_after_a_test_of_another_checkpoint_is_free():
    _, trainer = run(data(), max_epochs=1)
    trainer.save_checkpoint("stopped.ckpt")

    class Tested(Watcher):
        def test_step(self, batch, batch_idx):
            pass

    other = data(seed=1, test=rows(3))
    Trainer(**QUIET).test(Tested(), datamodule=other, ckpt_path="stopped.ckpt", verbose=False)
    assert len(run(other, max_epochs=1)[0].seen) > 0


def test_a_state_of_a_newer_release_is_refused():
    with pytest.raises(ValueError, match="TextSpeechDataModule has version 2"):
        data().load_state_dict({"version": 2, "fingerprint": {}})


def test_overfit_batches_is_refused_before_anything_is_encoded():
    with pytest.raises(MisconfigurationException, match=r"`overfit_batches` must be 0 .*Use `limit_train_batches`"):
        run(data(), overfit_batches=2)


def test_limited_and_accumulated_batches():
    module, _ = run(data(), max_epochs=2, limit_train_batches=4, accumulate_grad_batches=2)
    assert len(module.seen) == 8
    first, second = module.seen[:4], module.seen[4:]
    assert first != second
