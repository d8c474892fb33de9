"""Every private access to Lightning, against the real Trainer under both of its package names."""

from __future__ import annotations

import lightning.pytorch as one
import pytest
import pytorch_lightning as two
import torch
from pytorch_lightning.callbacks import EarlyStopping as OtherEarlyStopping
from pytorch_lightning.utilities import CombinedLoader as OtherCombinedLoader
from torch.utils.data import DataLoader

from lightning_adapt import RS2Callback
from lightning_adapt._shared import compat
from tests.rs2.parts import Module, row_loader

PACKAGES = pytest.mark.parametrize("package", [one, two], ids=["lightning", "pytorch_lightning"])


def trainer_of(package, *callbacks, **options):
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "logger": False, "max_epochs": 2, "num_sanity_val_steps": 0, **quiet, **options}
    return package.Trainer(callbacks=list(callbacks), **settings)


def module_of(package):
    """The recording module under the base class of a package."""
    body = {name: value for name, value in vars(Module).items() if not name.startswith("__")}

    class Recording(package.LightningModule):
        locals().update(body)

        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(1, 1)
            self.plateau, self.rounds, self.validated_after = None, [], []

    return Recording()


@PACKAGES
def test_transforms_run_in_order_and_are_taken_back(package):
    seen = []

    class Transforms(package.Callback):
        def setup(self, trainer, pl_module, stage):
            compat.add_train_loader_transform(trainer, "first", lambda loader: seen.append(("first", loader)) or middle)
            compat.add_train_loader_transform(trainer, "second", lambda loader: seen.append(("second", loader)) or last)
            compat.add_train_loader_transform(trainer, "gone", lambda loader: None)
            compat.remove_train_loader_transform(trainer, "gone")

        def teardown(self, trainer, pl_module, stage):
            compat.remove_train_loader_transform(trainer, "first")
            compat.remove_train_loader_transform(trainer, "second")
            compat.remove_train_loader_transform(trainer, "never there")

    users, middle, last = row_loader(80), row_loader(40), row_loader(20)
    module, trainer = module_of(package), trainer_of(package, Transforms())
    source = trainer.fit_loop._data_source
    before = set(vars(source))
    trainer.fit(module, users)
    assert seen == [("first", users), ("second", middle)]
    assert [len(batches) for batches in module.rounds] == [5, 5]
    assert set(vars(source)) == before
    assert source.dataloader() is users


@PACKAGES
def test_adding_again_replaces(package):
    trainer = trainer_of(package)
    source = trainer.fit_loop._data_source
    source.instance = row_loader()
    compat.add_train_loader_transform(trainer, "me", lambda loader: "old")
    compat.add_train_loader_transform(trainer, "me", lambda loader: "new")
    assert source.dataloader() == "new"
    compat.remove_train_loader_transform(trainer, "me")
    compat.remove_train_loader_transform(trainer, "me")
    assert source.dataloader() is source.instance


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning")
@PACKAGES
def test_batches_to_skip(package, tmp_path):
    counts = []
    trainer = trainer_of(package)

    def collate(samples):
        counts.append(compat.batches_to_skip(trainer))  # when the loader is asked for a batch
        return torch.stack(samples)

    module = module_of(package)

    def save(outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 0):
            trainer.save_checkpoint(tmp_path / "middle.ckpt")

    module.on_train_batch_end = save
    trainer.fit(module, row_loader(12, collate_fn=collate))
    assert counts == [0] * 6
    counts.clear()
    trainer = trainer_of(package)
    resumed = module_of(package)
    resumed.rounds = [[]]  # no on_train_epoch_start in an epoch that goes on
    trainer.fit(resumed, row_loader(12, collate_fn=collate), ckpt_path=tmp_path / "middle.ckpt")
    assert counts[0] == 1  # of three batches of the second epoch


def test_combined_loaders_of_both_packages():
    for kind in (one.utilities.CombinedLoader, OtherCombinedLoader):
        loaders = {"a": row_loader(20), "b": row_loader(40)}
        combined = kind(loaders, "min_size")
        assert compat.is_combined_loader(combined)
        assert compat.combined_loader_mode(combined) == "min_size"
        other = row_loader(8)
        changed = compat.with_iterables(combined, {"a": loaders["a"], "b": other})
        assert type(changed) is kind
        assert changed.iterables == {"a": loaders["a"], "b": other}
        assert combined.iterables == loaders
        iter(changed)
        assert len(list(changed)) == 2
    for plain in (row_loader(), {"a": row_loader()}, [row_loader()]):
        assert not compat.is_combined_loader(plain)
        assert compat.combined_loader_mode(plain) == "max_size_cycle"


@PACKAGES
def test_the_mode_of_a_plain_collection_is_the_trainers(package):
    trainer = trainer_of(package, max_epochs=1)
    module = module_of(package)
    module.training_step = lambda batch, batch_idx: module.net(batch["a"]).mean()
    trainer.fit(module, {"a": row_loader(8), "b": row_loader(4)})
    assert trainer.fit_loop._combined_loader._mode == compat.combined_loader_mode({})


@PACKAGES
def test_early_stopping_follows_validation(package):
    kind = {one: one.callbacks.EarlyStopping, two: OtherEarlyStopping}[package]
    early = kind("val_loss", patience=0)

    class After(package.Callback):
        def on_train_start(self, trainer, pl_module):
            assert early._check_on_train_epoch_end is True  # decided in its own setup
            compat.thin_out_validation(trainer, "me", 3)

        def on_train_end(self, trainer, pl_module):
            assert early._check_on_train_epoch_end is False
            compat.restore_validation(trainer, "me")
            assert early._check_on_train_epoch_end is True

    module, trainer = module_of(package), trainer_of(package, early, After(), max_epochs=20)
    trainer.fit(module, row_loader(8), row_loader(4, shuffle=False))
    assert module.validated_after == [2, 5]
    assert early.stopped_epoch == 5


@PACKAGES
def test_the_callback_works_with_both_trainers(package):
    module, trainer = module_of(package), trainer_of(package, RS2Callback(0.25), max_epochs=4)
    trainer.fit(module, row_loader(), row_loader(4, shuffle=False))
    assert sorted(row for batches in module.rounds for batch in batches for row in batch) == list(range(80))
    assert module.validated_after == [3]
    assert trainer.check_val_every_n_epoch == 1


@PACKAGES
def test_an_error_in_a_transform_leaves_the_loader_class_as_it_was(package):
    def fail(loaders):
        raise RuntimeError("no such loader")

    trainer = trainer_of(package)
    before = DataLoader.__init__
    compat.add_train_loader_transform(trainer, "owner", fail)
    with pytest.raises(RuntimeError, match="no such loader"):
        trainer.fit(module_of(package), row_loader())
    assert DataLoader.__init__ is before


def test_validation_is_as_rare_as_the_rarest_wish_and_comes_back_when_all_have_left():
    trainer = trainer_of(one, check_val_every_n_epoch=2)
    compat.thin_out_validation(trainer, "first", 6)
    compat.thin_out_validation(trainer, "second", 20)
    assert (trainer.check_val_every_n_epoch, compat.users_check_val(trainer)) == (20, 2)
    compat.thin_out_validation(trainer, "second", 4)
    assert trainer.check_val_every_n_epoch == 6
    compat.restore_validation(trainer, "first")
    compat.restore_validation(trainer, "never asked")
    assert trainer.check_val_every_n_epoch == 4
    compat.restore_validation(trainer, "second")
    assert (trainer.check_val_every_n_epoch, compat.users_check_val(trainer)) == (2, 2)


def test_an_epoch_can_be_made_to_end_with_validation():
    trainer = trainer_of(one, check_val_every_n_epoch=50)
    for epoch in (0, 1, 6):
        trainer.fit_loop.epoch_progress.current.completed = epoch
        compat.validate_in_this_epoch(trainer)
        assert (epoch + 1) % trainer.check_val_every_n_epoch == 0


def test_checkpoints_that_miss_validation(tmp_path):
    kinds = [
        one.callbacks.ModelCheckpoint(tmp_path / str(number), every_n_epochs=number, save_on_train_epoch_end=at_end)
        for number, at_end in ((1, None), (2, None), (3, None), (4, True), (20, None))
    ]
    trainer = trainer_of(one, *kinds, check_val_every_n_epoch=10, enable_checkpointing=True)
    assert compat.checkpoints_that_miss_validation(trainer) == [2, 3]


@PACKAGES
def test_train_loaders_are_reloaded_for_the_next_epoch_only(package):
    requests, starts = [], []

    class Reloads(package.Callback):
        def setup(self, trainer, pl_module, stage):
            compat.add_train_loader_transform(trainer, "me", lambda loader: requests.append(1) or row_loader(size()))

        def on_train_epoch_start(self, trainer, pl_module):
            compat.restore_reloading(trainer)
            compat.restore_reloading(trainer)
            starts.append((trainer.num_training_batches, trainer.reload_dataloaders_every_n_epochs))

        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch in (0, 2):
                compat.reload_train_loader(trainer)
                compat.reload_train_loader(trainer)

    def size():
        return 8 * len(requests)

    module, trainer = module_of(package), trainer_of(package, Reloads(), max_epochs=5)
    trainer.fit(module, row_loader(), row_loader(4, shuffle=False))
    assert starts == [(2, 0), (4, 0), (4, 0), (6, 0), (6, 0)]
    assert len(requests) == 3
    assert module.validated_after == [0, 1, 2, 3, 4]


def test_a_reload_is_certain_where_training_starts():
    class Reloads(one.Callback):
        def on_train_start(self, trainer, pl_module):
            compat.reload_train_loader(trainer)  # loaded in this very epoch

        def on_train_epoch_start(self, trainer, pl_module):
            compat.restore_reloading(trainer)

    requests = []
    trainer = trainer_of(one, Reloads(), max_epochs=2, reload_dataloaders_every_n_epochs=7)
    compat.add_train_loader_transform(trainer, "me", lambda loader: requests.append(1) or loader)
    trainer.fit(module_of(one), row_loader(8))
    assert len(requests) == 2
    assert trainer.reload_dataloaders_every_n_epochs == 7


@PACKAGES
def test_whether_an_epoch_is_complete(package):
    found = []

    class Looks(package.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            found.append(compat.epoch_is_complete(trainer))

    trainer_of(package, Looks(), max_steps=3, max_epochs=-1).fit(module_of(package), row_loader(8))
    assert found == [True, False]
    trainer_of(package, Looks(), max_epochs=1, limit_train_batches=1).fit(module_of(package), row_loader(8))
    assert found[2:] == [True]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning")
@PACKAGES
@pytest.mark.parametrize("mended", [True, False])
def test_a_longer_epoch_after_a_checkpoint_of_the_last_batch(package, mended, tmp_path):
    """When the half that is not mended fails, Lightning is: see whether `begin_after_last_batch` is still needed."""

    class Longer(package.Callback):
        def on_train_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                if mended:
                    compat.begin_after_last_batch(trainer)
                compat.add_train_loader_transform(trainer, "me", lambda loader: row_loader(24))
                compat.reload_train_loader(trainer)

    module = module_of(package)

    def save(outputs, batch, batch_idx):
        if batch_idx == 1:
            module.trainer.save_checkpoint(tmp_path / "last.ckpt")

    module.on_train_batch_end = save
    trainer_of(package, max_epochs=1).fit(module, row_loader(8))
    resumed = module_of(package)
    resumed.rounds = [[]]
    trainer_of(package, Longer(), max_epochs=2).fit(resumed, row_loader(8), ckpt_path=tmp_path / "last.ckpt")
    assert len(resumed.rounds[-1]) == (6 if mended else 4)


@PACKAGES
def test_a_run_that_only_tries_a_few_batches_is_known(package):
    assert compat.is_dev_run(trainer_of(package, fast_dev_run=2))
    assert not compat.is_dev_run(trainer_of(package))


@PACKAGES
def test_an_error_that_waits_for_its_use_is_handed_on(package):
    asked, waiting = [], compat.RaisesWhenUsed(ValueError("another order"))
    trainer = trainer_of(package)
    compat.add_train_loader_transform(trainer, "me", asked.append)
    trainer.fit_loop._data_source.instance = waiting
    assert trainer.fit_loop._data_source.dataloader() is waiting
    assert asked == []


@PACKAGES
def test_whether_a_batch_was_trained_on(package, tmp_path):
    found = []

    class Looks(package.Callback):
        def on_train_start(self, trainer, pl_module):
            found.append(compat.has_trained(trainer))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append((trainer.global_step, compat.has_trained(trainer)))

    trainer = trainer_of(package, Looks(), max_epochs=1, accumulate_grad_batches=2)
    trainer.fit(module_of(package), row_loader(8))
    assert found == [False, (0, True), (1, True)]
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    trainer_of(package, Looks()).fit(module_of(package), row_loader(8), ckpt_path=tmp_path / "end.ckpt")
    assert found[3] is True
