"""TextSpeechDataModule in two processes: one encodes, the batches are shared out, evaluation counts every row once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

from tests.lina_speech.data_parts import QUIET, LoudnessCodec, data, rows


class Noted(LoudnessCodec):
    """Writes a line for every recording that it encodes, in whatever process."""

    def encode(self, audio):
        with Path("encoded.txt").open("a") as file:
            file.write("one\n")
        return super().encode(audio)


class Ranks(LightningModule):
    """Both processes together see every row once; assertions in the hooks fail the test on either rank."""

    def __init__(self, expected):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.expected = expected
        self.batches, self.checked = [], []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch["index"].tolist())
        return (self.weight * batch["codes"].float().mean()).sum()

    def on_train_epoch_end(self):
        sampler = self.trainer.train_dataloader.sampler
        plan = sampler.plan(self.trainer.current_epoch)
        mine = [[item[0] for item in plan.batch(n)] for n in range(self.global_rank, len(plan.batches), 2)]
        assert self.batches == mine
        rows = sampler.epoch_rows(self.trainer.current_epoch)
        assert len(set(rows.tolist())) == len(rows) >= self.expected["train"] - 1
        self.batches = []

    def validation_step(self, batch, batch_idx):
        self.checked += batch["index"].tolist()

    def on_validation_epoch_end(self):
        counts = torch.zeros(self.expected["val"])
        counts[self.checked] += 1
        total = self.all_gather(counts).sum(dim=0)
        assert total.tolist() == [1.0] * self.expected["val"], total
        self.checked = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def two(**options):
    ranks = {"strategy": "ddp_fork", "devices": 2, "plugins": [LightningEnvironment()], "num_sanity_val_steps": 0}
    return Trainer(**{**QUIET, **ranks, "max_epochs": 2, **options})


def test_two_processes_share_the_batches_and_one_encodes():
    made = data(rows(40), val=rows(5, start=40), codec=Noted())
    two().fit(Ranks({"train": 40, "val": 5}), datamodule=made)
    assert len(Path("encoded.txt").read_text().splitlines()) == 45


def test_a_process_that_finds_nothing_says_where_it_looked(tmp_path):
    made = data(rows(4), cache=tmp_path / "nowhere")

    class Second:
        local_rank, world_size, global_rank = 1, 2, 1

    made.trainer = Second()
    with pytest.raises(RuntimeError, match=r"The codes of `data` cannot be found in cache_dir='.*nowhere'"):
        made.setup("fit")
    made.trainer = None
    made.setup("fit")
    again = data(rows(4), cache=tmp_path / "nowhere")
    again.trainer = Second()
    again.setup("fit")
    assert again.codec.calls == 0
    assert len(again.train_set) == 4
