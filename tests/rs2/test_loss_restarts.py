"""Loss-guided rounds where a fit is not simply begun once: learning-rate finders, second fits, late restores."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

from tests.foreign import ForeignData, loader, numbered_rows, trainer
from tests.rs2.test_loss_rounds import BATCHES, LossModule, Note, fit, guided, known, rounds_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:The `lr_find` call is expected:UserWarning"),
]


class TunableModule(LossModule):
    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


class SavesAfter(Callback):
    """Saves at the end of an epoch."""

    def __init__(self, path, epoch=3) -> None:
        self.path, self.epoch = path, epoch

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def test_a_learning_rate_finder_leaves_no_trace(tmp_path):
    whole, note, _, _ = fit(tmp_path, module=TunableModule(), callback=guided(warm_rounds=0.5))
    finder = LearningRateFinder(num_training_steps=30, update_attr=False)  # more rounds than the run has plain ones
    module, again, rs2, _ = fit(tmp_path, finder, module=TunableModule(), callback=guided(warm_rounds=0.5))
    assert rs2.sampler.guide.warm == 3
    assert module.seen[-6 * BATCHES :] == whole.seen
    assert known(again) == known(note)


def test_a_tuner_leaves_no_trace(tmp_path):
    whole, note, _, _ = fit(tmp_path, module=TunableModule())
    module, again = TunableModule(), Note()
    runner = trainer(tmp_path, [guided(), again], max_epochs=6)
    Tuner(runner).lr_find(module, loader(), num_training=30, update_attr=False)
    module.seen.clear()
    runner.fit(module, loader())
    assert module.seen == whole.seen
    assert known(again) == known(note)


class FindsInside(LearningRateFinder):
    """Searches again at the beginning of some epochs, as Lightning's documentation shows."""

    def on_fit_start(self, trainer, pl_module) -> None:
        pass

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch in (2, 4):
            self.lr_find(trainer, pl_module)


@pytest.mark.parametrize("first", ["finder", "rounds"])
def test_a_finder_inside_training_leaves_no_trace(first, tmp_path):
    whole, note, _, _ = fit(tmp_path, module=TunableModule())
    finder, rs2, again = FindsInside(num_training_steps=30, update_attr=False), guided(), Note()
    callbacks = [finder, rs2, again] if first == "finder" else [rs2, finder, again]
    module = TunableModule()
    trainer(tmp_path, callbacks, max_epochs=6).fit(module, loader())
    by_round = {}
    for epoch, rows in module.seen:
        by_round.setdefault(epoch, []).append(rows)
    expected = {}
    for epoch, rows in whole.seen:
        expected.setdefault(epoch, []).append(rows)
    assert {epoch: rows[-BATCHES:] for epoch, rows in by_round.items() if epoch < 6} == expected
    assert known(again) == known(note)


def rows_loader(n):
    features, _, labels = numbered_rows().tensors
    return DataLoader(TensorDataset(features[:n], torch.arange(n), labels[:n]), 8, shuffle=True)


def test_a_second_fit_on_fewer_rows_begins_anew_and_says_so(tmp_path):
    module, note = TunableModule(), Note()
    runner = trainer(tmp_path, [guided(), note], max_epochs=4)
    runner.fit(module, loader())
    runner.fit_loop.max_epochs = 6
    with pytest.warns(UserWarning, match="the train data changed while losses guide the rounds"):
        runner.fit(module, rows_loader(60))
    assert len(note.losses) == 60


class Shrinks(ForeignData):
    def train_dataloader(self):
        return rows_loader(107 if self.trainer.current_epoch < 3 else 60)


def test_reloaded_data_that_shrink_begin_anew_and_say_so(tmp_path):
    module, note = TunableModule(), Note()
    runner = trainer(tmp_path, [guided(), note], max_epochs=6, reload_dataloaders_every_n_epochs=1)
    with pytest.warns(UserWarning, match="the train data changed while losses guide the rounds"):
        runner.fit(module, datamodule=Shrinks())
    assert len(note.losses) == 60
    assert len(module.seen) == 3 * BATCHES + 3 * 2


def test_a_second_fit_goes_on_from_the_losses(tmp_path):
    whole, note, _, _ = fit(tmp_path, module=TunableModule())
    module, again = TunableModule(), Note()
    runner = trainer(tmp_path, [guided(), again], max_epochs=4)
    runner.fit(module, loader())
    runner.fit_loop.max_epochs = 6
    runner.fit(module, loader())
    assert module.seen == whole.seen
    assert known(again) == known(note)


def test_another_run_with_the_same_callback_begins_anew(tmp_path):
    rs2, runs = guided(), []
    for _ in range(2):
        module, note = LossModule(), Note()
        trainer(tmp_path, [rs2, note], max_epochs=5).fit(module, loader())
        runs.append((module.seen, known(note)))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("estimate", [False, True], ids=["", "estimated_stepping_batches"])
def test_a_strategy_that_restores_after_the_loaders_were_made(estimate, tmp_path):
    class Late(SingleDeviceStrategy):
        @property
        def restore_checkpoint_after_setup(self):
            return True

    path = tmp_path / "late.ckpt"
    whole, note, _, _ = fit(tmp_path, SavesAfter(path), module=LossModule(estimate_steps=estimate))
    options = {"strategy": Late(device=torch.device("cpu")), "accelerator": "auto"}
    resumed, again, _, _ = fit(tmp_path, module=LossModule(estimate_steps=estimate), ckpt=path, **options)
    assert resumed.seen == whole.seen[4 * BATCHES :]
    assert known(again) == known(note)


def test_a_longer_second_run_from_a_checkpoint_in_the_same_process(tmp_path):
    path = tmp_path / "saved.ckpt"
    rs2 = guided()
    whole, note, _, _ = fit(tmp_path, SavesAfter(path), callback=rs2)
    resumed, again, _, _ = fit(tmp_path, callback=rs2, ckpt=path)  # the callback of the first run, further on
    assert resumed.seen == whole.seen[4 * BATCHES :]
    assert known(again) == known(note)
    longer, _, _, _ = fit(tmp_path, callback=rs2, ckpt=path, max_epochs=8)
    assert longer.seen[: 2 * BATCHES] == resumed.seen
    assert len(rounds_of(longer)) == 8
