"""Steps planned over epochs of different lengths, against what the Trainer takes; and that nothing of it is left."""

from __future__ import annotations

import lightning.pytorch as one
import pytest
import pytorch_lightning as two
import torch

from lightning_adapt._shared import compat
from lightning_adapt._shared.planned_steps import batches_of_epochs, forget_plan, plan_steps
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt._shared.schedules import RunLength
from tests._shared.test_compat import PACKAGES, module_of, trainer_of
from tests.rs2.parts import row_loader

SIZES = [8, 20, 12, 12, 30]


def growing(package, sizes=SIZES, first_epoch=0):
    """A callback whose sampler has other rows in each epoch."""

    class Growing(package.Callback):
        def setup(self, trainer, pl_module, stage):
            self.sampler = RowSampler(range(sizes[0]), num_replicas=1, rank=0)
            plan_steps(trainer, "me", self.resize, first_epoch=first_epoch)

        def resize(self, epoch):
            now = self.now if epoch is None else epoch
            self.sampler.set_rows(range(sizes[now]))
            return sizes[now]

        now = 0

        def on_train_epoch_end(self, trainer, pl_module):
            self.now = min(trainer.current_epoch + 1, len(sizes) - 1)
            self.sampler.set_rows(range(sizes[self.now]))
            compat.reload_train_loader(trainer)

        def on_train_epoch_start(self, trainer, pl_module):
            compat.restore_reloading(trainer)

        def teardown(self, trainer, pl_module, stage):
            forget_plan(trainer, "me")

    return Growing()


def asking(package, **options):
    module = module_of(package)
    make = module.configure_optimizers

    def configure():
        module.planned = module.trainer.estimated_stepping_batches
        return make()

    module.configure_optimizers = configure
    return module


def run(package, callback, options, batch_size=4, drop_last=False):
    module, trainer = asking(package), trainer_of(package, callback, **{"max_epochs": 5, **options})
    callback.setup(trainer, module, "fit")
    loader = row_loader(40, batch_size, sampler=callback.sampler, drop_last=drop_last)
    callback.setup = lambda trainer, pl_module, stage: None
    trainer.fit(module, loader)
    return module, trainer


@PACKAGES
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2 + 5 + 3 + 3 + 8),
        ({"accumulate_grad_batches": 2}, 1 + 3 + 2 + 2 + 4),
        ({"accumulate_grad_batches": 3}, 1 + 2 + 1 + 1 + 3),
        ({"limit_train_batches": 3}, 2 + 3 * 4),
        ({"limit_train_batches": 0.5}, 1 + 2 + 1 + 1 + 4),
        ({"max_steps": 9}, 9),
        ({"max_epochs": 3}, 10),
    ],
)
def test_planned_steps_are_the_steps_taken(package, options, expected):
    module, trainer = run(package, growing(package), options)
    assert module.planned == expected == trainer.global_step


def test_a_dropped_rest_is_not_planned():
    module, trainer = run(one, growing(one), {}, batch_size=8, drop_last=True)
    assert module.planned == trainer.global_step == 1 + 2 + 1 + 1 + 3


def test_epochs_before_the_first_one_do_not_count():
    module, _ = run(one, growing(one, first_epoch=3), {})
    assert module.planned == 3 + 8


@pytest.mark.parametrize(("max_steps", "expected"), [(14, 4), (30, 11), (10, 10), (4, 4)])
def test_steps_before_the_first_epoch_are_part_of_max_steps(max_steps, expected):
    """Before it are 2 + 5 + 3, from there on 3 + 8; a run that ends before it has all of its steps."""
    callback = growing(one, first_epoch=3)
    lengths = []
    callback.on_train_end = lambda trainer, pl_module: lengths.append(RunLength.of(trainer))
    module, _ = run(one, callback, {"max_steps": max_steps})
    assert module.planned == expected
    assert lengths[0].optimizer_steps == expected
    module, _ = run(one, growing(one, first_epoch=3), {"max_steps": min(max_steps, 21), "max_epochs": -1})
    assert module.planned == expected


def test_the_plan_leaves_the_sampler_as_it_is():
    callback = growing(one)

    class Looks(one.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            before = callback.sampler.rows().tolist()
            assert trainer.estimated_stepping_batches == 21
            assert callback.sampler.rows().tolist() == before == list(range(SIZES[trainer.current_epoch]))

    trainer = trainer_of(one, callback, Looks(), max_epochs=5)
    callback.setup(trainer, None, "fit")
    callback.setup = lambda trainer, pl_module, stage: None
    trainer.fit(asking(one), row_loader(40, 4, sampler=callback.sampler))


@PACKAGES
def test_the_class_of_the_trainer_comes_back(package):
    class Own(package.Trainer):
        """A subclass, as users write them."""

    trainer = Own(logger=False, enable_progress_bar=False, accelerator="cpu")
    plan_steps(trainer, "one", lambda epoch: 1)
    plan_steps(trainer, "two", lambda epoch: 1)
    assert isinstance(trainer, Own)
    assert (type(trainer).__name__, type(trainer).__qualname__) == ("Own", Own.__qualname__)
    assert type(trainer).__bases__ == (Own,)
    forget_plan(trainer, "one")
    assert type(trainer) is not Own
    forget_plan(trainer, "two")
    forget_plan(trainer, "never there")
    assert type(trainer) is Own
    assert not [name for name in vars(trainer) if "lightning_adapt" in name]


def test_unbounded_and_unknown_runs_say_what_lightning_says():
    module, trainer = run(one, growing(one), {"max_epochs": -1, "max_steps": 4})
    assert module.planned == 4 == trainer.global_step
    assert batches_of_epochs(trainer_of(two)) is None

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(torch.rand(8, 1))

    callback, module = growing(one), asking(one)
    trainer = trainer_of(one, max_epochs=2, max_steps=3)
    callback.setup(trainer, None, "fit")
    trainer.fit(module, torch.utils.data.DataLoader(Stream(), 4))
    assert module.planned == 3


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("frequency", [1, 2])
def test_scheduler_steps_over_epochs_of_different_lengths(accumulate, frequency):
    def by_hand(limit):
        steps = done = epochs = 0
        for batches in (2, 5, 3, 8):
            for batch in range(1, batches + 1):
                if steps == limit:
                    return steps, done, epochs // frequency
                if batch % accumulate == 0 or batch == batches:
                    steps += 1
                    done += batch % frequency == 0
            epochs += 1
        return steps, done, epochs // frequency

    for limit in (100, 4, 1):
        length = RunLength(2, accumulate, max_epochs=4, max_steps=limit, lengths=(2, 5, 3, 8))
        expected = by_hand(limit)
        assert length.optimizer_steps == expected[0]
        assert length.scheduler_steps("step", frequency) == expected[1]
        assert length.scheduler_steps("epoch", frequency) == expected[2]
