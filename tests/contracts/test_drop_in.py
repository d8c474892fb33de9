"""A user's module, data and other callbacks train unchanged; switched off, the method leaves the weights bit-equal."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from tests.foreign import ForeignModule, rows_of, trainer
from tests.registry import REGISTRY, TRAINED, of_kind, plain
from tests.registry_parts import Setup, validation

# for "serving", test_serving.py
NEUTRAL = [(name, how) for name, entry in REGISTRY.items() if entry.kind != "serving" for how in entry.disabled]


def fit(setup: Setup, folder, module=None, **options) -> ForeignModule:
    module = module or setup.module()
    trainer(folder, setup.callbacks, **options).fit(module, **setup.data)
    return module


def with_validation(setup: Setup) -> Setup:
    if "train_dataloaders" in setup.data:
        setup.data.setdefault("val_dataloaders", validation())
    return setup


def loss_of(results: list[dict[str, float]]) -> float:
    """The smallest: a serving callback logs some of its own beside the module's."""
    return min(value for name, value in results[0].items() if name.endswith("loss"))


def test_there_is_something_to_switch_off():
    callbacks = {name for name in of_kind("order") if name.endswith("Callback")}
    assert {name for name, _ in NEUTRAL} == callbacks | set(of_kind("training"))


@pytest.mark.parametrize(("name", "how"), NEUTRAL)
def test_switched_off_gives_bit_equal_weights(name, how, tmp_path):
    without = fit((REGISTRY[name].without or plain)(), tmp_path)
    switched_off = fit(REGISTRY[name].disabled[how](), tmp_path)
    at_work = fit(REGISTRY[name].build(0, 8), tmp_path)
    assert switched_off.seen == without.seen
    for key, value in without.state_dict().items():
        assert torch.equal(switched_off.state_dict()[key], value), key
    same = all(torch.equal(at_work.state_dict()[key], value) for key, value in without.state_dict().items())
    assert at_work.seen != without.seen or not same, "the comparison would not notice a method that does nothing"


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(
    "options",
    [
        {"fast_dev_run": 2},
        {"num_sanity_val_steps": 2, "accumulate_grad_batches": 2},
        {"precision": "bf16-mixed", "reload_dataloaders_every_n_epochs": 1},
        {"max_epochs": -1, "max_steps": 9, "check_val_every_n_epoch": None, "val_check_interval": 3},
        {"deterministic": True, "gradient_clip_val": 1.0},
    ],
    ids=lambda options: ",".join(options),
)
def test_trains_under_trainer_options(name, options, tmp_path):
    module = fit(with_validation(REGISTRY[name].build(0, 8)), tmp_path, **{"max_epochs": 2, **options})
    assert module.seen
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
    assert all(part.training for part in module.modules()), "a leftover eval() leaks into the next step"


@pytest.mark.parametrize("name", TRAINED)
def test_limit_train_batches(name, tmp_path):
    setup = REGISTRY[name].build(0, 8)
    if setup.callbacks and REGISTRY[name].kind == "order":
        with pytest.warns(UserWarning, match="limit_train_batches"):
            module = fit(setup, tmp_path, limit_train_batches=2)
    else:
        module = fit(setup, tmp_path, limit_train_batches=2)
    assert len(module.seen) == 2 * 4


@pytest.mark.parametrize("name", TRAINED)
def test_validate_test_and_predict_run_without_fit(name, tmp_path):
    setup = REGISTRY[name].build(0, 8)
    runner = trainer(tmp_path, setup.callbacks)
    module = setup.module()
    assert loss_of(runner.validate(module, **setup.stream, verbose=False)) > 0
    assert loss_of(runner.test(module, **setup.stream, verbose=False)) > 0
    assert sum(len(part) for part in runner.predict(module, **setup.stream)) == 16


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("first", [True, False], ids=["ours first", "ours last"])
def test_other_callbacks_keep_working_in_any_order(name, first, tmp_path):
    setup, monitor = with_validation(REGISTRY[name].build(0, 8)), REGISTRY[name].monitor
    checkpoint = ModelCheckpoint(tmp_path / "best", monitor=monitor, save_last=True)
    others = [EarlyStopping(monitor, patience=50), LearningRateMonitor(), checkpoint]
    callbacks = [*setup.callbacks, *others] if first else [*others, *setup.callbacks]
    options = {"logger": CSVLogger(tmp_path), "log_every_n_steps": 1, "max_epochs": 2}
    module = fit(replace(setup, callbacks=callbacks), tmp_path, **options)
    assert checkpoint.best_model_path
    assert [epoch for epoch, _ in module.seen][-1] == 1


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`:UserWarning")
@pytest.mark.parametrize("name", TRAINED)
def test_default_checkpoint_is_saved_without_validation_data(name, tmp_path):
    setup = REGISTRY[name].build(0, 8)
    module = setup.module()
    module.validation_step = None
    fit(setup, tmp_path, module, enable_checkpointing=True)
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


def test_a_module_comes_back_from_its_checkpoint(tmp_path):
    for name in of_kind("module"):
        setup = REGISTRY[name].build(0, 8)
        module = fit(setup, tmp_path / name, enable_checkpointing=True, max_epochs=1)
        (path,) = (tmp_path / name).rglob("*.ckpt")
        again = type(module).load_from_checkpoint(path, weights_only=True)
        assert len(again.state_dict()) == len(module.state_dict())
        for key, value in module.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("name", [name for name in of_kind("order") if name.endswith("Callback")])
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
@pytest.mark.parametrize("name", [name for name in of_kind("order", "data") if REGISTRY[name].resume != "epoch"])
def test_a_pass_over_the_train_loader_inside_an_epoch_changes_nothing(name, workers, tmp_path):
    """A memory bank, BatchNorm statistics: also where the user's loader had no persistent workers and we keep ours."""

    def peek(module) -> None:
        loader = module.trainer.train_dataloader
        loader = loader["unlabeled"] if isinstance(loader, dict) else loader
        peeked.append(sum(len(rows_of(batch)) for batch in loader))

    runs = {}
    for peeks in (False, True):
        peeked: list[int] = []
        setup = with_validation(REGISTRY[name].build(workers, 8))
        module = setup.module()
        if peeks:
            module.on_validation_epoch_start = partial(peek, module)
        options = {"check_val_every_n_epoch": None, "val_check_interval": 3, "max_epochs": 3}
        runs[peeks] = fit(setup, tmp_path, module, **options).seen
    assert peeked == [32] * 4
    assert runs[True] == runs[False]
