"""What acts in test and predict leaves training alone, predicts before it learns, and goes without a trace."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Timer
from torch.utils.data import DataLoader, default_collate

import lightning_adapt
from tests.contracts import serving_parts
from tests.contracts.serving_parts import clicks, entry_of
from tests.foreign import trainer
from tests.foreign_clicks import ClickNet, ClickSteps, click_stream
from tests.registry import REGISTRY, of_kind
from tests.registry_parts import Entry, Setup

# Lightning's advice against several processes in `test`, which is what is tested
pytestmark = pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")

# the small one keeps the contracts honest: it passes them all, and its faulty relatives below do not
SERVING: dict[str, Entry] = {name: REGISTRY[name] for name in of_kind("serving")}
SERVING["(intercept)"] = entry_of(serving_parts.Intercept)
NEUTRAL = [(name, how) for name, entry in SERVING.items() for how in entry.disabled]
N_SERVED = 40  # rows, in 5 batches of 8


def served(setup: Setup, folder: Path, *, fit: bool = False, rows: Any = None, **options: Any) -> Any:
    """Return the module after a stream went through `test`, and through `predict` in `predicted`."""
    module, runner = setup.module(), trainer(folder, setup.callbacks, **options)
    if fit:
        runner.fit(module, **setup.data)
        module.trained = {key: value.clone() for key, value in module.state_dict().items()}
        module.trained_on = list(module.seen)
    runner.test(module, click_stream(8, N_SERVED) if rows is None else rows, verbose=False)
    module.predicted = [part.tolist() for part in runner.predict(module, click_stream(8, N_SERVED))]
    return module


@functools.cache
def served_without() -> Any:
    """The module trained and served without any callback, which all others are compared with."""
    with tempfile.TemporaryDirectory() as folder:
        return served(clicks(None), Path(folder), fit=True)


def equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def relabelled(batch: int) -> list[Any]:
    """The stream with every label of one batch turned round."""
    batches = list(click_stream(8, N_SERVED))
    batches[batch]["label"] = 1 - batches[batch]["label"]
    return DataLoader(batches, batch_size=None)


# -- the contracts -----------------------------------------------------------------------------------------------------
def check_switched_off(setup: Setup, folder: Path) -> None:
    without, off = served_without(), served(setup, folder, fit=True)
    assert off.trained_on == without.trained_on
    assert equal_weights(off.trained, without.trained)
    assert equal_weights(off.state_dict(), without.state_dict())
    assert off.tested == without.tested
    assert off.predicted == without.predicted


def check_at_work(entry: Entry, folder: Path) -> None:
    without, at_work = served_without(), served(entry.build(0, 8), folder, fit=True)
    assert at_work.trained_on == without.trained_on
    assert equal_weights(at_work.trained, without.trained), "training was changed"
    assert at_work.tested[0] == without.tested[0], "there was nothing to know yet"
    assert at_work.tested[1:] != without.tested[1:], "the comparison would not notice a method that does nothing"
    assert [rows for rows, _ in at_work.tested] == [rows for rows, _ in without.tested]
    outputs = torch.tensor([output for _, outputs in at_work.tested for output in outputs])
    assert torch.isfinite(outputs).all()
    assert all(0 <= output <= 1 for part in at_work.predicted for output in part)


def check_no_label_is_used_before_its_prediction(entry: Entry, folder: Path) -> None:
    before = served(entry.build(0, 8), folder, rows=DataLoader(list(click_stream(8, N_SERVED)), batch_size=None)).tested
    for batch in range(4):
        after = served(entry.build(0, 8), folder, rows=relabelled(batch)).tested
        assert after[: batch + 1] == before[: batch + 1]
        assert batch > 0 or after[batch + 1 :] != before[batch + 1 :], "labels are not used at all"


def hooks(module: torch.nn.Module) -> list[int]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [len(getattr(part, kind)) for part in module.modules() for kind in kinds]


def check_it_leaves_no_trace(entry: Entry, folder: Path) -> None:
    setup = entry.build(0, 8)
    module, runner = setup.module(), trainer(folder, setup.callbacks)
    before, flags = hooks(module), [part.training for part in module.modules()]
    for run in (runner.validate, runner.test, runner.predict):
        run(module, click_stream(8, N_SERVED))
        assert hooks(module) == before, "a hook was left"
        assert [part.training for part in module.modules()] == flags
    runner.fit(module, **setup.data)
    assert hooks(module) == before, "a hook was left"

    setup = entry.build(0, 8)
    module, runner = setup.module(), trainer(folder, setup.callbacks)
    broken = default_collate([{"index": torch.tensor(0)}])  # no features: the step fails
    with pytest.raises(KeyError):
        runner.test(module, DataLoader([*click_stream(8, 16), broken], batch_size=None), verbose=False)
    assert hooks(module) == before, "a hook was left after an error"


def check_it_draws_no_global_random_numbers(entry: Entry, folder: Path) -> None:
    drawn = []
    for setup in (clicks(None), entry.build(0, 8)):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - the global state is what is looked at
        random.seed(0)
        served(setup, folder, fit=True)
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert drawn[0] == drawn[1]


def check_inference_mode_makes_no_difference(entry: Entry, folder: Path) -> None:
    usual = served(entry.build(0, 8), folder)
    without = served(entry.build(0, 8), folder, inference_mode=False)
    assert without.tested == usual.tested
    assert without.predicted == usual.predicted


def check_checkpoints_after_serving_are_plain(entry: Entry, folder: Path) -> None:
    setup = entry.build(0, 8)
    module, runner = setup.module(), trainer(folder, setup.callbacks)
    runner.test(module, click_stream(8, N_SERVED), verbose=False)
    runner.save_checkpoint(folder / "served.ckpt")
    assert torch.load(folder / "served.ckpt", weights_only=True)["callbacks"] is not None
    setup = entry.build(0, 8)
    options = {"ckpt_path": folder / "served.ckpt", "weights_only": True, "verbose": False}
    again = setup.module()
    trainer(folder, setup.callbacks).test(again, click_stream(8, N_SERVED), **options)
    assert len(again.tested) == 5


class SameState(Callback):
    """Inside the processes: what is kept is equal on all ranks, so a failure on rank 1 fails the test."""

    def on_test_end(self, trainer, pl_module) -> None:
        states = [callback.state_dict() for callback in trainer.callbacks if callback is not self]
        mine = json.dumps(
            states, sort_keys=True, default=lambda value: hashlib.sha256(value.contiguous().numpy()).hexdigest()
        )
        assert trainer.strategy.broadcast(mine, src=0) == mine


def check_two_processes_answer_as_one(entry: Entry, folder: Path) -> None:
    answers = []
    for ranks in (1, 2):
        setup, name = entry.build(0, 8 // ranks), str(folder / f"of-{ranks}")
        options = {"strategy": "ddp_fork", "devices": ranks} if ranks > 1 else {}
        runner = trainer(folder, [*setup.callbacks, SameState()], **options)
        runner.test(setup.module(record=name), click_stream(8 // ranks, N_SERVED), verbose=False)
        parts = [json.loads(Path(f"{name}-rank{rank}.json").read_text())["tested"] for rank in range(ranks)]
        answers.append({row: out for part in parts for rows, outs in part for row, out in zip(rows, outs, strict=True)})
    assert sorted(answers[0]) == sorted(answers[1]) == list(range(N_SERVED))
    assert answers[1] == pytest.approx(answers[0], abs=1e-5)


def check_training_of_two_processes_is_left_alone(entry: Entry, folder: Path) -> None:
    found = []
    for name, setup in {"without": clicks(None, 0, 4), "with": entry.build(0, 4)}.items():
        runner = trainer(folder, setup.callbacks, strategy="ddp_fork", devices=2)
        runner.fit(setup.module(record=str(folder / name)), **setup.data)
        found.append([json.loads((folder / f"{name}-rank{rank}.json").read_text()) for rank in range(2)])
    assert found[0] == found[1]
    assert all(len(rank["seen"]) == 16 for rank in found[0])


CONTRACTS = [value for name, value in globals().items() if name.startswith("check_") and name != "check_switched_off"]


@pytest.mark.parametrize(("name", "how"), NEUTRAL)
def test_switched_off_gives_bit_equal_weights_and_answers(name, how, tmp_path):
    check_switched_off(SERVING[name].disabled[how](), tmp_path)


@pytest.mark.parametrize("name", SERVING)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_keeps_the_contract(contract, name, tmp_path):
    contract(SERVING[name], tmp_path)


@pytest.mark.parametrize("name", SERVING)
def test_other_callbacks_make_no_difference_in_any_order(name, tmp_path):
    answers = []
    for order in (lambda ours, others: ours, lambda ours, others: ours + others, lambda ours, others: others + ours):
        setup = SERVING[name].build(0, 8)
        together = order(setup.callbacks, [Timer(), Callback()])
        answers.append(served(Setup(setup.data, together, setup.module), tmp_path).tested)
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("name", SERVING)
def test_under_the_trainer_of_pytorch_lightning(name, tmp_path):
    class Module(ClickSteps, pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seen, self.tested = ClickNet(), [], []

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    setup, module = SERVING[name].build(0, 8), Module()
    runner = trainer(tmp_path, setup.callbacks, pytorch_lightning.Trainer)
    runner.test(module, click_stream(8, N_SERVED), verbose=False)
    assert module.tested == served(SERVING[name].build(0, 8), tmp_path).tested
    module.seen.clear()  # some train in a test
    runner.fit(module, **setup.data)
    assert len(module.seen) == 16


# -- the contracts notice what is wrong --------------------------------------------------------------------------------
FAULTS = {
    serving_parts.Trains: "check_at_work",
    serving_parts.TrainsInCompany: "check_training_of_two_processes_is_left_alone",
    serving_parts.Idle: "check_at_work",
    serving_parts.Leaks: "check_no_label_is_used_before_its_prediction",
    serving_parts.KeepsItsHook: "check_it_leaves_no_trace",
    serving_parts.KeepsItsHookAfterErrors: "check_it_leaves_no_trace",
    serving_parts.Draws: "check_it_draws_no_global_random_numbers",
    serving_parts.EachForItself: "check_two_processes_answer_as_one",
    serving_parts.NotPlain: "check_checkpoints_after_serving_are_plain",
    serving_parts.NeedsInferenceMode: "check_inference_mode_makes_no_difference",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_breaks_its_contract(fault, tmp_path):
    with pytest.raises(Exception, match=r"assert|Assertion|weights_only"):
        globals()[FAULTS[fault]](entry_of(fault), tmp_path)


def test_one_that_cannot_be_switched_off_is_noticed(tmp_path):
    with pytest.raises(AssertionError):
        check_switched_off(entry_of(serving_parts.AlwaysOn).disabled["enabled=False"](), tmp_path)


def test_every_contract_is_broken_by_some_fault():
    assert set(FAULTS.values()) == {contract.__name__ for contract in CONTRACTS}


def test_every_serving_callback_can_be_switched_off():
    for name in of_kind("serving"):
        value = getattr(lightning_adapt, name)
        if inspect.isclass(value) and issubclass(value, Callback):
            assert "enabled=False" in REGISTRY[name].disabled, name
