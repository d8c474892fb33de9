"""RS2Callback(validate=...): validation once per pass, and what depends on when it runs."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import WeightedRandomSampler

from lightning_adapt import RS2Callback
from tests.rs2.parts import Module, TrainOnly, row_loader, small_trainer


def fit(*callbacks, module=None, max_epochs=9, **options):
    trainer = small_trainer(*callbacks, max_epochs=max_epochs, **options)
    module = module or Module()
    trainer.fit(module, row_loader(), row_loader(8, shuffle=False))
    return trainer, module


@pytest.mark.parametrize(
    ("validate", "every", "expected"),
    [
        ("pass", 1, [3, 7, 8]),
        ("pass", 2, [7, 8]),
        ("round", 1, list(range(9))),
        ("round", 4, [3, 7]),
        (3, 1, [2, 5, 8]),
        (3, 2, [2, 5, 8]),
        (1, 4, list(range(9))),
        (100, 1, [8]),
        ("pass", 50, [8]),
    ],
)
def test_rounds_after_which_it_validates(validate, every, expected):
    trainer, module = fit(RS2Callback(0.25, validate=validate), check_val_every_n_epoch=every)
    assert module.validated_after == expected
    assert trainer.check_val_every_n_epoch == every  # given back


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.5, [1, 3, 5, 7, 8]), (0.4, [1, 3, 5, 7, 8]), (0.9, list(range(9))), (0.05, [8])]
)
def test_once_per_pass_is_every_one_over_ratio_rounds(ratio, expected):
    assert fit(RS2Callback(ratio))[1].validated_after == expected


def test_validation_counted_in_steps_stays_so():
    trainer, module = fit(RS2Callback(0.25), check_val_every_n_epoch=None, val_check_interval=10, max_epochs=4)
    assert module.validated_after == [1, 3]
    assert trainer.check_val_every_n_epoch is None


def test_the_first_validation_is_no_later_than_the_last_round():
    assert fit(RS2Callback(0.1), max_epochs=3)[1].validated_after == [2]


@pytest.mark.parametrize("first", ["early", "rs2"])
def test_early_stopping_counts_validations_in_both_orders(first):
    early, rs2 = EarlyStopping("val_loss", patience=2), RS2Callback(0.25)
    trainer, module = fit(*([early, rs2] if first == "early" else [rs2, early]), max_epochs=40)
    assert module.validated_after == [3, 7, 11]  # the loss gets worse after the first
    assert early.stopped_epoch == 11
    assert trainer.current_epoch == 12


@pytest.mark.parametrize("first", ["early", "rs2"])
def test_early_stopping_on_a_train_metric_works_without_validation(first):
    early, rs2 = EarlyStopping("train_loss", patience=2), RS2Callback(0.25)
    trainer = small_trainer(*([early, rs2] if first == "early" else [rs2, early]), max_epochs=12)
    trainer.fit(TrainOnly(), row_loader())
    assert trainer.current_epoch == 3


@pytest.mark.parametrize("order", [0, 1])
def test_reduce_on_plateau_follows_validation(order):
    module = Module(plateau={"monitor": "val_loss"})
    callbacks = [RS2Callback(0.25), EarlyStopping("val_loss", patience=50)]
    trainer, _ = fit(*callbacks[:: 1 - 2 * order], module=module, max_epochs=12)
    schedule = trainer.lr_scheduler_configs[0].scheduler
    assert module.validated_after == [3, 7, 11]
    assert schedule.last_epoch == 3  # stepped once per validation
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.1**2)


def test_reduce_on_plateau_set_to_the_users_own_cadence_follows_too():
    module = Module(plateau={"monitor": "val_loss", "frequency": 2})  # what check_val_every_n_epoch=2 needs
    trainer, _ = fit(RS2Callback(0.25), module=module, max_epochs=16, check_val_every_n_epoch=2)
    assert module.validated_after == [7, 15]
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 2


def test_a_plateau_schedule_on_a_train_metric_still_steps_every_round():
    module = Module(plateau={"monitor": "train_loss"})
    trainer, _ = fit(RS2Callback(0.25, validate="round"), module=module, max_epochs=4)
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 4


def test_other_schedules_keep_their_frequency():
    class Steps(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 1.0)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]

    trainer, _ = fit(RS2Callback(0.25), module=Steps(), max_epochs=4)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5**4


def test_the_sanity_check_and_other_stages_are_left_alone():
    trainer, module = fit(RS2Callback(0.25), num_sanity_val_steps=2, max_epochs=4)
    trainer.validate(module, row_loader(8, shuffle=False), verbose=False)
    assert module.rounds
    assert trainer.callback_metrics["val_loss"] >= 0
    assert trainer.check_val_every_n_epoch == 1


@pytest.mark.parametrize(
    ("accumulate", "max_steps", "expected"),
    [(1, 15, [2]), (1, 4, []), (1, 5, [0]), (2, 6, [1]), (2, 9, [2]), (1, 55, [9, 10])],
)
def test_a_run_bounded_by_steps_validates_in_its_last_round(accumulate, max_steps, expected):
    """5 batches a round: with accumulation over 2 batches, a round makes 3 steps; one that is cut has no end."""
    bounds = {"max_epochs": -1, "max_steps": max_steps, "accumulate_grad_batches": accumulate}
    trainer, module = small_trainer(RS2Callback(0.1), **bounds), Module()
    trainer.fit(module, row_loader(500, batch_size=10), row_loader(20, shuffle=False))
    assert module.validated_after == expected


def test_the_weights_of_the_last_round_are_saved(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    trainer = small_trainer(RS2Callback(0.25), checkpoint, max_epochs=6, enable_checkpointing=True)
    trainer.fit(Module(), row_loader(), row_loader(8, shuffle=False))
    assert torch.load(checkpoint.last_model_path, weights_only=True)["global_step"] == trainer.global_step


def test_checkpoints_that_would_hardly_come_are_warned_of(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, every_n_epochs=3)
    with pytest.warns(UserWarning, match=r"ModelCheckpoint\(every_n_epochs=3\)"):
        fit(RS2Callback(0.25), checkpoint, enable_checkpointing=True)


def test_early_stopping_is_given_back_as_it_was():
    early = EarlyStopping("train_loss", patience=100)
    fit(early, RS2Callback(0.25))
    assert early._check_on_train_epoch_end is True


def test_on_conflict_warn_leaves_early_stopping_alone():
    early = EarlyStopping("train_loss", patience=100)
    weighted = row_loader(sampler=WeightedRandomSampler([1.0] * 80, 80), shuffle=None)
    trainer = small_trainer(early, RS2Callback(0.25, on_conflict="warn"), max_epochs=3)
    with pytest.warns(UserWarning, match="does nothing in this run"):
        trainer.fit(Module(), weighted, row_loader(8, shuffle=False))
    assert early._check_on_train_epoch_end is True
    assert trainer.current_epoch == 3


@pytest.mark.parametrize("max_steps", [13, 24])
def test_a_last_round_that_is_cut_short_still_leaves_a_checkpoint(max_steps, tmp_path):
    trainer = small_trainer(
        RS2Callback(0.125), ModelCheckpoint(tmp_path), max_epochs=-1, max_steps=max_steps, enable_checkpointing=True
    )
    module = Module()
    trainer.fit(module, row_loader(160), row_loader(8, shuffle=False))
    assert module.validated_after == [max_steps // 5 - 1]  # the last round that was run to its end
    assert [path.stem.split("step=")[1] for path in tmp_path.glob("*.ckpt")] == [str(max_steps)]


def test_a_round_resumed_in_its_middle_validates_when_the_whole_run_does(tmp_path):
    def run(ckpt=None):
        saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer, module = (
            small_trainer(RS2Callback(0.125), saver, max_epochs=-1, max_steps=12, enable_checkpointing=True),
            Module(),
        )
        module.rounds.append([])  # no on_train_epoch_start in a round that goes on
        trainer.fit(module, row_loader(160), row_loader(8, shuffle=False), ckpt_path=ckpt)
        return module.validated_after

    assert run() == [1]
    assert run(tmp_path / "step=8.ckpt") == [1]
    assert run(tmp_path / "step=11.ckpt") == []
