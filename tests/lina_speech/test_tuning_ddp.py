"""Two processes: equal states everywhere, losses of all of them, and what one process finds on the same batches."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from lightning_adapt.lina_speech.voices.voice import Voice
from tests.foreign import trainer
from tests.foreign_gla import ChainData, Chains, ForeignGLA
from tests.lina_speech.tuning_parts import base, same, tuning, weights_of

TWO = {"strategy": "ddp_fork", "devices": 2}


class EvenLengths(ForeignGLA):
    """The mean over all letters of two halves is the mean of their means only if they have as many letters each."""

    def losses(self, batch):
        return super().losses({"letters": batch["letters"][:, :8]})

    def loss(self, batch):
        return self.losses(batch).mean()

    def sequence_losses(self, batch):
        losses = self.losses(batch)
        return losses.sum(1), torch.full((len(losses),), losses.shape[1])

    def sequence_seconds(self, batch):
        return torch.full((len(batch["letters"]),), 0.25)


class Data(ChainData):
    def __init__(self, ranks: int, speakers: tuple[str, ...] = ("me",)) -> None:
        super().__init__(n=32, styles=(0, 1), batch_size=8 // ranks)
        self.speakers = speakers

    def train_dataloader(self):
        here = {"num_replicas": self.trainer.world_size, "rank": self.trainer.global_rank, "shuffle": False}
        return DataLoader(self.train, batch_size=self.batch_size, sampler=DistributedSampler(self.train, **here))

    def val_dataloader(self):
        return DataLoader(self.held_out, batch_size=4)


class SameOnAllRanks(Callback):
    """Inside the processes, so that a failure on any of them fails the test."""

    def on_train_start(self, trainer, pl_module) -> None:
        self.before = weights_of(pl_module)

    def on_validation_end(self, trainer, pl_module) -> None:
        callback = trainer.callbacks[0]
        mine = str(callback.state_dict())
        assert trainer.strategy.broadcast(mine, src=0) == mine
        name = "lina/held_out_loss"
        logged = float(trainer.callback_metrics[name])
        assert trainer.strategy.broadcast(logged, src=0) == logged

    def on_fit_end(self, trainer, pl_module) -> None:
        assert same(weights_of(pl_module), self.before)


@pytest.mark.parametrize("voices", ["me", ("ada", "bo")])
def test_two_processes_find_what_one_does(voices, tmp_path):
    found = {}
    for ranks in (1, 2):
        module = EvenLengths()
        module.load_state_dict(base().state_dict())
        out = tmp_path / str(ranks) / "me.safetensors" if voices == "me" else tmp_path / str(ranks)
        callback = tuning(voices, rank=2, out=out)
        options = TWO if ranks == 2 else {}
        speakers = ("me",) if voices == "me" else ("ada", "bo", "cy")
        trainer(tmp_path, [callback, SameOnAllRanks()], max_epochs=3, **options).fit(module, Data(ranks, speakers))
        names = [out] if voices == "me" else [out / f"{name}.safetensors" for name in voices]
        found[ranks] = [Voice.load(path) for path in names]
    for one, two in zip(found[1], found[2], strict=True):
        for name, value in one.tensors.items():
            assert torch.allclose(value, two.tensors[name], rtol=1e-3, atol=1e-4), name
        assert two.held_out["untuned"] == pytest.approx(one.held_out["untuned"], rel=1e-6)
        assert two.held_out["tuned"] == pytest.approx(one.held_out["tuned"], rel=1e-4)
        assert one.held_out["tuned"] < one.held_out["untuned"]
        assert two.training_seconds == one.training_seconds == (8.0 if voices == "me" else 4.0)


def test_the_held_out_rows_of_all_processes_count(tmp_path):
    """Each process validates on every second row only: one of the style that is tuned, one of another."""

    class Mixed(Data):
        def __init__(self) -> None:
            super().__init__(2)
            self.held_out = Chains(16, (0, 1), seed=99)

    class Compares(Callback):
        def on_validation_end(self, trainer, pl_module) -> None:
            (batch,) = DataLoader(Chains(16, (0, 1), seed=99), batch_size=16)
            pl_module.use_initial_states(None)
            losses, counts = pl_module.sequence_losses(batch)
            expected = float(losses.sum() / counts.sum())
            logged = float(trainer.callback_metrics["lina/held_out_untuned"])
            assert logged == pytest.approx(expected, rel=1e-5)

    module = EvenLengths()
    module.load_state_dict(base().state_dict())
    trainer(tmp_path, [tuning(), Compares()], max_epochs=1, **TWO).fit(module, Mixed())
