"""Train 4 epochs == train 2, stop, load, train 2: sample order, weights and state, in 1 and 2 processes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.foreign import numbered_rows, trainer
from tests.registry import REGISTRY, TRAINED
from tests.registry_parts import Entry, Setup

# the resumed runs go without the callbacks that saved, and stock loaders are not resumable: both are meant
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning"),
]

EXACT = [name for name, entry in REGISTRY.items() if entry.resume == "exact"]
STOPS = ("end", "middle")


def checkpoints(folder: Path) -> dict[str, ModelCheckpoint]:
    """Saves after epoch 2 (the end of it) and 2 batches into epoch 3."""
    batches = 4  # of a round: 0.3 * 107 = 32 rows in batches of 8 (2 ranks: of 4)
    return {
        "end": ModelCheckpoint(folder, "end-{epoch}", every_n_epochs=2, save_top_k=-1, save_on_train_epoch_end=True),
        "middle": ModelCheckpoint(folder, "middle-{step}", every_n_train_steps=2 * batches + 2, save_top_k=-1),
    }


def run(setup: Setup, folder: Path, name: str, *, estimate: bool, ranks: int = 1, ckpt: str | None = None) -> list:
    """Train, and return what each rank saw and learnt."""
    module = setup.module(estimate_steps=estimate, record=str(folder / name))
    saves = list(checkpoints(folder / "saved").values()) if ckpt is None else []
    options = {"strategy": "ddp_fork", "devices": ranks} if ranks > 1 else {}
    trainer(folder, [*setup.callbacks, *saves], **options).fit(module, **setup.data, ckpt_path=ckpt, weights_only=True)
    return [json.loads((folder / f"{name}-rank{rank}.json").read_text()) for rank in range(ranks)]


def saved(folder: Path, stop: str) -> str:
    found = sorted((folder / "saved").glob("end-epoch=1*" if stop == "end" else "middle-step=10*"))
    assert len(found) == 1, found
    return str(found[0])


def rest_of(whole: dict, stop: str) -> list:
    return whole["seen"][8 if stop == "end" else 10 :]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Callable[..., tuple[Path, list]]:
    """The uninterrupted run of a name: its folder and what each rank saw and learnt; trained once for all cases."""

    @functools.cache
    def trained(name: str, estimate: bool, workers: int, ranks: int) -> tuple[Path, list]:
        folder = tmp_path_factory.mktemp(name)
        setup = REGISTRY[name].build(workers, 8 // ranks)
        return folder, run(setup, folder, "whole", estimate=estimate, ranks=ranks)

    return trained


# every two of these settings meet in each of their ways, in half of the runs that all three would take
@pytest.mark.parametrize(
    ("estimate", "workers", "ranks"), [(False, 0, 1), (False, 2, 2), (True, 0, 2), (True, 2, 1)], ids=str
)
@pytest.mark.parametrize("name", EXACT)
def test_resume_is_exact(name, estimate, workers, ranks, whole_run):
    folder, whole = whole_run(name, estimate, workers, ranks)
    assert [len(rank["seen"]) for rank in whole] == [16] * ranks
    for stop in STOPS:
        setup = REGISTRY[name].build(workers, 8 // ranks)
        resumed = run(setup, folder, stop, estimate=estimate, ranks=ranks, ckpt=saved(folder, stop))
        for there, here in zip(whole, resumed, strict=True):
            assert here["seen"] == rest_of(there, stop)
            assert here["weights"] == there["weights"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", EXACT)
def test_a_run_that_max_steps_ended_inside_an_epoch_goes_on_there(name, workers, tmp_path):
    """Lightning numbers the samplers one epoch ahead from then on. Bounded by epochs, it holds the epoch for done."""
    entry: Entry = REGISTRY[name]
    setup = entry.build(workers, 8)
    whole = setup.module()
    trainer(tmp_path, setup.callbacks).fit(whole, **setup.data)
    setup = entry.build(workers, 8)
    checkpoint = ModelCheckpoint(tmp_path / "cut", "cut")
    trainer(tmp_path, [*setup.callbacks, checkpoint], max_steps=10, max_epochs=-1).fit(setup.module(), **setup.data)
    setup = entry.build(workers, 8)
    resumed = setup.module()
    path, options = tmp_path / "cut" / "cut.ckpt", {"max_steps": 16, "max_epochs": -1}
    trainer(tmp_path, setup.callbacks, **options).fit(resumed, **setup.data, ckpt_path=path, weights_only=True)
    assert [rows for _, rows in resumed.seen] == [rows for _, rows in whole.seen[10:]]
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


@pytest.mark.parametrize("name", EXACT)
def test_kills_at_the_last_batches_of_two_epochs_train_no_epoch_twice(name, tmp_path):
    """Lightning does not count the epoch after such a checkpoint; the next kill would bring that to light."""
    ckpt, rows = None, []
    for epoch in (1, 2, 3):
        setup = REGISTRY[name].build(0, 8)
        module, saves = setup.module(), ModelCheckpoint(tmp_path, f"{epoch}", every_n_train_steps=4)
        runner = trainer(tmp_path, [*setup.callbacks, saves], max_epochs=epoch)
        runner.fit(module, **setup.data, ckpt_path=ckpt, weights_only=True)
        assert runner.global_step == 4 * epoch
        rows += module.seen
        ckpt = tmp_path / f"{epoch}.ckpt"
    setup = REGISTRY[name].build(0, 8)
    whole = setup.module()
    trainer(tmp_path, setup.callbacks, max_epochs=3).fit(whole, **setup.data)
    assert [batch for _, batch in rows] == [batch for _, batch in whole.seen]


class PassesOverTheLoader(Callback):
    """Reads the train loader in hooks around epochs, as a memory bank or statistics of BatchNorm do."""

    def on_train_start(self, trainer, pl_module) -> None:
        next(iter(trainer.train_dataloader))

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        next(iter(trainer.train_dataloader))


@pytest.mark.parametrize("steps", [4, 6, 8], ids=["last batch", "inside", "last batch of the second"])
@pytest.mark.parametrize("name", ["RS2DataModule", "SAADataModule", "RS2Callback"])
def test_passes_over_the_train_loader_are_not_taken_for_epochs(name, steps, tmp_path):
    saves = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    ckpt = None
    for epochs in (2, 4):
        setup = REGISTRY[name].build(0, 8)
        runner = trainer(
            tmp_path, [*setup.callbacks, PassesOverTheLoader(), *([] if ckpt else [saves])], max_epochs=epochs
        )
        runner.fit(setup.module(), **setup.data, ckpt_path=ckpt, weights_only=True)
        counted = runner.fit_loop.epoch_progress.total
        assert (counted.ready, counted.started, counted.processed) == (epochs,) * 3
        assert runner.global_step == 4 * epochs
        ckpt = tmp_path / f"step={steps}.ckpt"


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_resume_as_far_as_lightning_restores_their_state(workers, whole_run):
    for name in [name for name, entry in REGISTRY.items() if entry.resume == "loader"]:
        folder, (whole,) = whole_run(name, False, workers, 1)
        for stop in STOPS:
            path = saved(folder, stop)
            resumed = run(REGISTRY[name].build(workers, 8), folder, stop, estimate=False, ckpt=path)[0]
            assert resumed["seen"] == rest_of(whole, stop)
            assert resumed["weights"] == whole["weights"]


def test_bare_samplers_resume_at_the_end_of_an_epoch(whole_run):
    for name in [name for name, entry in REGISTRY.items() if entry.resume == "epoch"]:
        folder, (whole,) = whole_run(name, False, 0, 1)
        path = saved(folder, "end")
        resumed = run(REGISTRY[name].build(0, 8), folder, "end", estimate=False, ckpt=path)[0]
        assert resumed == {"seen": rest_of(whole, "end"), "weights": whole["weights"]}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("stop", STOPS)
def test_number_of_ranks_may_change_at_equal_global_batch(name, stop, whole_run):
    folder, whole = whole_run(name, False, 0, 2)
    alone = run(REGISTRY[name].build(0, 8), folder, f"alone-{stop}", estimate=False, ckpt=saved(folder, stop))[0]
    together = [sorted(a + b) for (_, a), (_, b) in zip(whole[0]["seen"], whole[1]["seen"], strict=True)]
    rest = together[8 if stop == "end" else 10 :]
    assert [sorted(rows) for _, rows in alone["seen"]] == rest


def test_stock_lightning_still_replays_epoch_zero_with_workers(tmp_path):
    """Lightning #21938. When this fails, it is fixed: see whether the lazy iterator is still needed."""

    def stock() -> Setup:
        sampler = DistributedSampler(numbered_rows(32), num_replicas=1, rank=0, seed=3)
        return Setup({"train_dataloaders": DataLoader(numbered_rows(32), 8, sampler=sampler, num_workers=2)})

    whole = run(stock(), tmp_path, "whole", estimate=False)[0]
    resumed = run(stock(), tmp_path, "end", estimate=False, ckpt=saved(tmp_path, "end"))[0]
    first_epoch = [rows for _, rows in whole["seen"][:4]]
    assert [rows for _, rows in resumed["seen"][:4]] == first_epoch
    assert resumed["seen"] != rest_of(whole, "end")


def test_stock_lightning_still_drops_loader_state_after_estimated_stepping_batches(tmp_path):
    """Lightning #20550. When this fails, it is fixed: rs2_loader can then be called exact everywhere."""
    restored = {}
    for estimate in (False, True):
        folder = tmp_path / str(estimate)
        setup = Setup({"train_dataloaders": StatefulDataLoader(numbered_rows(32), 8)})
        whole = run(setup, folder, "whole", estimate=estimate)[0]
        path = saved(folder, "middle")
        again = Setup({"train_dataloaders": StatefulDataLoader(numbered_rows(32), 8)})
        resumed = run(again, folder, "middle", estimate=estimate, ckpt=path)[0]
        restored[estimate] = resumed["seen"] == rest_of(whole, "middle")
    assert restored == {False: True, True: False}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("estimate", [False, True], ids=["", "estimated_stepping_batches"])
@pytest.mark.parametrize("name", EXACT)
def test_a_changed_run_is_refused(name, estimate, stop, whole_run):
    folder, _ = whole_run(name, estimate, 0, 1)
    with pytest.raises(MisconfigurationException, match="global batch: saved 8, here 16"):
        run(REGISTRY[name].build(0, 16), folder, "changed", estimate=estimate, ckpt=saved(folder, stop))


def test_checkpoints_are_plain(whole_run):
    for name in TRAINED:
        folder, _ = whole_run(name, False, 0, 1)
        for path in (folder / "saved").glob("*.ckpt"):
            assert torch.load(path, weights_only=True)["epoch"] >= 0
