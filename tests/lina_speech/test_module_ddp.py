"""Two gloo processes: metrics over all targets, equal weights, speech on the first rank and its figures on both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment

from tests.lina_speech.speech_parts import QUIET, SMALL, Letters, Steps, batch_of, loader, module
from tests.lina_speech.test_module import losses_by_loop

# what Lightning says of any evaluation in several processes
pytestmark = pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")
RANKS = {"strategy": "ddp_fork", "devices": 2, "plugins": [LightningEnvironment()]}


class Expects(Callback):
    def __init__(self, expected):
        self.expected = expected

    def on_validation_end(self, trainer, pl_module):
        for name in ("val_loss", "lina/val_loss_q0"):
            assert trainer.callback_metrics[name].item() == pytest.approx(self.expected, rel=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_validation_weighs_every_target_once(ranks):
    made = module()
    sums, counts = losses_by_loop(made.eval(), batch_of(8))
    assert counts.std() > 0
    trainer = Trainer(**QUIET, **(RANKS if ranks > 1 else {}), callbacks=[Expects(sums.sum() / counts.sum())])
    trainer.validate(made.train(), loader(8, batch_size=2), verbose=False)


class Checks(Callback):
    """Inside the processes: weights and what was logged are equal; only the first rank speaks."""

    def on_train_end(self, trainer, pl_module):
        for name, value in pl_module.state_dict().items():
            assert torch.equal(trainer.strategy.broadcast(value, src=0), value), name
        for name in ("val_loss", "lina/stopped_share"):
            value = trainer.callback_metrics[name]
            assert torch.equal(trainer.strategy.broadcast(value, src=0), value), name
        losses = trainer.strategy.all_gather(pl_module.noted)
        assert not torch.equal(losses[0], losses[1])  # each rank has rows, and dropout, of its own

    def on_train_batch_end(self, trainer, pl_module, outputs, *arguments):
        pl_module.noted = outputs["sample_loss"].mean()


def test_ranks_train_together_and_the_first_speaks(tmp_path):
    options = {"n_audio_samples": 1, "max_seconds": 0.2, "overrides": {**SMALL, "dropout": 0.2}}
    made = module(codec=Steps(), tokenizer=Letters(), **options)
    trainer = Trainer(**{**QUIET, "max_epochs": 2, "default_root_dir": tmp_path}, **RANKS, callbacks=[Checks()])
    trainer.fit(made, loader(16, batch_size=2), loader(8, batch_size=2))
    assert len(list(Path(tmp_path).rglob("lina-sample_0-*.wav"))) == 2
    assert np.isfinite(trainer.callback_metrics["train_loss"].item())
