"""RS2DataModule: the inner DataModule with another train loader, and nothing else changed."""

from __future__ import annotations

import pytest
import pytorch_lightning
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_adapt import RS2Callback, RS2DataModule, RS2Sampler
from lightning_adapt._shared.resumable_data import ResumableData
from tests.rs2.parts import Module, row_loader, small_trainer


class TrainData(LightningDataModule):
    n_classes = 4

    def train_dataloader(self):
        return row_loader()


class FullData(TrainData):
    def __init__(self):
        super().__init__()
        self.calls = []
        self.prepare_data_per_node = False
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.counter = 0

    def prepare_data(self):
        self.calls.append("prepare_data")

    def setup(self, stage):
        self.calls.append(f"setup {stage.value} {self.trainer.max_epochs}")

    def teardown(self, stage):
        self.calls.append(f"teardown {stage.value}")

    def on_exception(self, exception):
        self.calls.append(f"exception {exception}")

    def val_dataloader(self):
        return row_loader(8, shuffle=False)

    def test_dataloader(self):
        return row_loader(12, shuffle=False)

    def predict_dataloader(self):
        return row_loader(16, shuffle=False)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        self.calls.append("before")
        return batch

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        self.calls.append("transfer")
        return batch.to(device)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.calls.append("after")
        return batch

    def state_dict(self):
        return {"counter": self.counter}

    def load_state_dict(self, state):
        self.counter = state["counter"]


class Predicts(Module):
    def test_step(self, batch, batch_idx):
        self.log("rows", float(len(batch)), reduce_fx="sum", batch_size=1)

    def predict_step(self, batch, batch_idx):
        return batch


def planned(ratio, rounds, **options):
    sampler = RS2Sampler(80, ratio, round_to=4, **options)
    return [sampler.epoch_rows(t).reshape(-1, 4).tolist() for t in range(rounds)]


def test_fit_trains_on_rounds_and_uses_every_hook_of_the_inner_one():
    inner, module = FullData(), Predicts()
    data = RS2DataModule(inner, 0.25, seed=2)
    trainer = small_trainer(max_epochs=3)
    trainer.fit(module, datamodule=data)
    assert module.rounds == planned(0.25, 3, seed=2)
    assert module.validated_after == [0, 1, 2]
    assert inner.calls[:2] == ["prepare_data", "setup fit 3"]
    assert inner.calls[2:5] == ["before", "transfer", "after"]
    assert inner.calls[-1] == "teardown fit"
    assert inner.trainer is data.trainer is trainer
    assert trainer.test(module, datamodule=data, verbose=False)[0]["rows"] == 12
    assert torch.cat(trainer.predict(module, datamodule=data)).reshape(-1).tolist() == list(range(16))


def test_exceptions_reach_the_inner_one():
    class Fails(Module):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("boom")

    inner = FullData()
    with pytest.raises(RuntimeError, match="boom"):
        small_trainer(max_epochs=1).fit(Fails(), datamodule=RS2DataModule(inner, 0.25))
    assert "exception boom" in inner.calls


def test_hooks_that_the_inner_one_lacks_are_not_there():
    data = RS2DataModule(TrainData(), 0.25)
    for hook in ("val_dataloader", "test_dataloader", "predict_dataloader"):
        assert not is_overridden(hook, data, LightningDataModule)
        assert is_overridden(hook, RS2DataModule(FullData(), 0.25), LightningDataModule)
    assert is_overridden("train_dataloader", data, LightningDataModule)
    module = Module()
    small_trainer(max_epochs=2).fit(module, datamodule=data)
    assert module.validated_after == []


def test_settings_and_attributes_of_the_inner_one_count():
    data = RS2DataModule(FullData(), 0.25)
    assert data.prepare_data_per_node is False
    assert data.allow_zero_length_dataloader_with_multiple_devices is True
    assert data.n_classes == 4  # what a module reads as self.trainer.datamodule.n_classes


def test_the_state_of_the_inner_one_is_saved_and_restored(tmp_path):
    inner = FullData()
    inner.counter = 5
    trainer = small_trainer(max_epochs=1)
    trainer.fit(Module(), datamodule=RS2DataModule(inner, 0.25))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again, module = FullData(), Module()
    small_trainer(max_epochs=2).fit(
        module, datamodule=RS2DataModule(again, 0.25), ckpt_path=tmp_path / "one.ckpt", weights_only=True
    )
    assert again.counter == 5
    assert module.rounds == planned(0.25, 2)[1:]


def saved(folder, data):
    trainer = small_trainer(max_epochs=1)
    trainer.fit(Module(), datamodule=data)
    trainer.save_checkpoint(folder / "one.ckpt")
    return {"ckpt_path": folder / "one.ckpt", "weights_only": True}


@pytest.mark.parametrize("other", [{"ratio": 0.5}, {"ratio": 0.25, "seed": 3}], ids=["ratio", "seed"])
def test_a_fit_after_a_test_of_another_checkpoint_is_free(other, tmp_path):
    ckpt = saved(tmp_path, RS2DataModule(FullData(), 0.25))
    data, module = RS2DataModule(FullData(), **other), Predicts()
    small_trainer().test(module, datamodule=data, verbose=False, **ckpt)
    small_trainer(max_epochs=2).fit(module, datamodule=data)
    assert module.rounds == planned(rounds=2, **other)
    with pytest.raises(MisconfigurationException, match="state of RS2DataModule belongs to another sample order"):
        small_trainer(max_epochs=2).fit(Module(), datamodule=RS2DataModule(FullData(), **other), **ckpt)


class Ordered(ResumableData, FullData):
    """Says what its order depends on."""

    def __init__(self, order=0):
        super().__init__()
        self.order = order

    def _fingerprint(self):
        return {"order": self.order}

    def train_dataloader(self):
        return self.misfit() or row_loader()


@pytest.mark.parametrize("loader", [None, "unlabeled"])
@pytest.mark.parametrize("kind", ["callback", "data module"])
def test_what_does_not_fit_the_inner_one_is_said_by_it(kind, loader, tmp_path):
    def fit(order, **ckpt):
        callbacks = [RS2Callback(0.25, loader=loader)] if kind == "callback" else []
        inner = Ordered(order)
        trainer = small_trainer(*callbacks, max_epochs=2)
        trainer.fit(Module(), datamodule=inner if callbacks else RS2DataModule(inner, 0.25, loader=loader), **ckpt)

    plain = {"callback": Ordered(), "data module": RS2DataModule(Ordered(), 0.25)}[kind]
    with pytest.raises(MisconfigurationException, match=r"state of Ordered .*order: saved 0, here 1.* same data set"):
        fit(1, **saved(tmp_path, plain))


def test_a_batch_size_finder_leaves_no_trace():
    class Sized(FullData):
        def __init__(self):
            super().__init__()
            self.batch_size = 8

        def train_dataloader(self):
            return row_loader(batch_size=self.batch_size)

    class Asks(Module):
        def configure_optimizers(self):
            _ = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    finder, module, data = BatchSizeFinder(max_trials=2, steps_per_trial=1), Asks(), RS2DataModule(Sized(), 0.25)
    small_trainer(finder, max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(module, datamodule=data)
    assert data.batch_size == 4
    assert module.rounds[-3:] == planned(0.25, 3)


def test_it_may_be_iterated_without_a_trainer():
    batches = list(RS2DataModule(TrainData(), 0.25).train_dataloader())
    assert [batch.reshape(-1).long().tolist() for batch in batches] == planned(0.25, 1)[0]


def test_one_of_several_loaders_stratified_in_another_mode():
    class Pair(LightningDataModule):
        def train_dataloader(self):
            return {"a": row_loader(4), "b": row_loader()}

    data = RS2DataModule(Pair(), 0.25, loader="b", stratify=True, mode="independent")
    sampler = data.train_dataloader()["b"].sampler
    assert sampler.mode == "independent"
    assert sampler.targets.tolist() == [row % 4 for row in range(80)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "shuffled"}, "`mode` must be one of"),
        ({"loader": 1.5}, "`loader` must be a dict key, a position or None"),
        ({"seed": 2**63}, "`seed` must be a whole number from 0 to"),
    ],
)
def test_arguments_are_checked_when_it_is_made(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        RS2DataModule(TrainData(), 0.25, **options)


def test_writing_an_attribute_of_the_inner_one_reaches_it():
    inner = TrainData()
    inner.batch_size, inner.seed = 4, 77
    outer = RS2DataModule(inner, 0.25, seed=3)
    outer.batch_size = 8  # as Tuner.scale_batch_size does
    assert (inner.batch_size, outer.batch_size) == (8, 8)
    outer.seed = 5
    assert (outer.seed, inner.seed) == (5, 77)


def test_a_data_module_of_pytorch_lightning_is_sent_to_the_callback():
    with pytest.raises(
        TypeError, match=r"must be a lightning.pytorch LightningDataModule.* Use RS2Callback, which works"
    ):
        RS2DataModule(pytorch_lightning.LightningDataModule())
    with pytest.raises(TypeError, match="use rs2_loader for a plain loader"):
        RS2DataModule([1, 2])
