"""A user's module, data and other callbacks train unchanged; switched off, the method leaves the weights bit-equal."""

from __future__ import annotations

import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from tests.foreign import ForeignModule, numbered_rows, trainer
from tests.registry import REGISTRY, Setup, plain

NEUTRAL = [(name, how) for name, entry in REGISTRY.items() for how in entry.disabled]


def fit(setup: Setup, folder, module=None, **options) -> ForeignModule:
    module = module or ForeignModule()
    trainer(folder, setup.callbacks, **options).fit(module, **setup.data)
    return module


def validation() -> DataLoader:
    return DataLoader(numbered_rows(16), 8)


def test_there_is_something_to_switch_off():
    assert {name for name, _ in NEUTRAL} == {name for name in REGISTRY if name.endswith("Callback")}


@pytest.mark.parametrize(("name", "how"), NEUTRAL)
def test_switched_off_gives_bit_equal_weights(name, how, tmp_path):
    without = fit(plain(), tmp_path)
    switched_off = fit(REGISTRY[name].disabled[how](), tmp_path)
    at_work = fit(REGISTRY[name].build(0, 8), tmp_path)
    assert switched_off.seen == without.seen
    for key, value in without.state_dict().items():
        assert torch.equal(switched_off.state_dict()[key], value), key
    assert at_work.seen != without.seen, "the comparison would not notice a method that does nothing"


@pytest.mark.parametrize("name", sorted(REGISTRY))
@pytest.mark.parametrize(
    "options",
    [
        {"num_sanity_val_steps": 2},
        {"fast_dev_run": 2},
        {"accumulate_grad_batches": 2},
        {"precision": "bf16-mixed"},
        {"max_epochs": -1, "max_steps": 9},
        {"check_val_every_n_epoch": None, "val_check_interval": 3},
        {"reload_dataloaders_every_n_epochs": 1},
        {"deterministic": True, "gradient_clip_val": 1.0},
    ],
    ids=lambda options: ",".join(options),
)
def test_trains_under_trainer_options(name, options, tmp_path):
    setup = REGISTRY[name].build(0, 8)
    if "train_dataloaders" in setup.data:
        setup.data["val_dataloaders"] = validation()
    module = fit(setup, tmp_path, **options)
    assert module.seen
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
    assert all(part.training for part in module.modules()), "a leftover eval() leaks into the next step"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_limit_train_batches(name, tmp_path):
    setup = REGISTRY[name].build(0, 8)
    if setup.callbacks:
        with pytest.warns(UserWarning, match="limit_train_batches"):
            module = fit(setup, tmp_path, limit_train_batches=2)
    else:
        module = fit(setup, tmp_path, limit_train_batches=2)
    assert len(module.seen) == 2 * 4


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_validate_test_and_predict_run_without_fit(name, tmp_path):
    setup = REGISTRY[name].build(0, 8)
    runner = trainer(tmp_path, setup.callbacks)
    module = ForeignModule()
    assert runner.validate(module, validation(), verbose=False)[0]["val_loss"] > 0
    assert runner.test(module, validation(), verbose=False)[0]["val_loss"] > 0
    assert sum(len(part) for part in runner.predict(module, validation())) == 16


@pytest.mark.parametrize("name", sorted(REGISTRY))
@pytest.mark.parametrize("first", [True, False], ids=["ours first", "ours last"])
def test_other_callbacks_keep_working_in_any_order(name, first, tmp_path):
    setup = REGISTRY[name].build(0, 8)
    if "train_dataloaders" in setup.data:
        setup.data["val_dataloaders"] = validation()
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor="val_loss", save_last=True)
    others = [EarlyStopping("val_loss", patience=50), LearningRateMonitor(), checkpoint]
    callbacks = [*setup.callbacks, *others] if first else [*others, *setup.callbacks]
    module = fit(Setup(setup.data, callbacks), tmp_path, logger=CSVLogger(tmp_path), log_every_n_steps=1, max_epochs=6)
    assert checkpoint.best_model_path
    assert [epoch for epoch, _ in module.seen][-1] == 5


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`:UserWarning")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_default_checkpoint_is_saved_without_validation_data(name, tmp_path):
    class NoValidation(ForeignModule):
        validation_step = None

    fit(REGISTRY[name].build(0, 8), tmp_path, NoValidation(), enable_checkpointing=True)
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


@pytest.mark.parametrize("name", [name for name in sorted(REGISTRY) if name.endswith("Callback")])
def test_under_the_trainer_of_pytorch_lightning(name, tmp_path):
    class Module(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(6, 2)
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen += batch[1].tolist()
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[2])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    setup, module = REGISTRY[name].build(0, 8), Module()
    trainer(tmp_path, setup.callbacks, pytorch_lightning.Trainer).fit(module, **setup.data)
    ours = ForeignModule()
    fit(REGISTRY[name].build(0, 8), tmp_path, ours)
    assert module.seen == [row for _, rows in ours.seen for row in rows]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if entry.resume != "epoch"])
def test_a_pass_over_the_train_loader_inside_an_epoch_changes_nothing(name, workers, tmp_path):
    """A memory bank, BatchNorm statistics: also where the user's loader had no persistent workers and we keep ours."""

    class Peeks(ForeignModule):
        def on_validation_epoch_start(self) -> None:
            peeked.append(sum(len(batch[1]) for batch in self.trainer.train_dataloader))

    runs = {}
    for module_class in (ForeignModule, Peeks):
        peeked: list[int] = []
        setup = REGISTRY[name].build(workers, 8)
        if "train_dataloaders" in setup.data:
            setup.data["val_dataloaders"] = validation()
        options = {"check_val_every_n_epoch": None, "val_check_interval": 3}
        runs[module_class] = fit(setup, tmp_path, module_class(), **options).seen
    assert peeked == [32] * 5
    assert runs[Peeks] == runs[ForeignModule]
