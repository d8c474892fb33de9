"""Runs that were stopped at the end of an epoch, after validation and inside an epoch go on as if they had not been."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_adapt import RS2Callback
from lightning_adapt._shared.state import check_plain
from tests.divconq.rounds_parts import Asks, Weights, fit, row_loader, seen_by_epoch, selection
from tests.foreign import trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*training ended in round:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*max_steps=. ends the run before:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning"),
]
EPOCHS = 5  # batches: 2, 4, 6, 6, 6


class Saves(Callback):
    """Saves a checkpoint in every hook of interest, named after epoch and batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"batch-{trainer.current_epoch}-{batch_idx}.ckpt")

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"validation-{trainer.current_epoch}.ckpt")


def checkpoints(folder: Path) -> list[Callback]:
    """Ours for the middle and validation, Lightning's for the end of epochs; after the callback, as Lightning sorts."""
    end = ModelCheckpoint(folder, "end-{epoch}", auto_insert_metric_name=False, save_top_k=-1)
    end._save_on_train_epoch_end = True
    return [Saves(folder), end]


def run(
    folder: Path, *, saves: bool = False, ckpt: Path | None = None, workers: int = 0, first: list | None = None, **kw
):
    """A run with validation; returns rows by epoch, log-weights by epoch, and the final weights."""
    options = {name: kw.pop(name) for name in ("max_steps", "max_epochs", "strategy") if name in kw}
    callback = selection(**{"rounds": 3, **kw})
    weights = Weights(callback)
    callbacks = [callback, *(first or []), weights, *(checkpoints(folder) if saves else [])]
    runner = trainer(folder, callbacks, **{"max_epochs": EPOCHS, "enable_checkpointing": saves, **options})
    module = Asks()
    loaders = row_loader(workers), row_loader(shuffle=False, n=8)
    runner.fit(module, *loaders, ckpt_path=ckpt, weights_only=True)
    return module, weights, callback


def same_weights(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


STOPS = ["end-0", "end-1", "end-3", "validation-0", "validation-1", "validation-2"]
STOPS += ["batch-0-0", "batch-0-1", "batch-1-1", "batch-1-3", "batch-2-4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, saves=True)


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_run_goes_on_exactly(whole, stop, tmp_path):
    folder, module, weights, callback = whole
    resumed, after, theirs = run(tmp_path, ckpt=folder / f"{stop}.ckpt")
    rest = len(module.seen) - len(resumed.seen)
    assert [rows for _, rows in resumed.seen] == [rows for _, rows in module.seen[rest:]]
    kind, epoch, *batch = stop.split("-")
    done = (
        sum((2, 4, 6, 6, 6)[: int(epoch) + 1]) if kind != "batch" else sum((2, 4, 6)[: int(epoch)]) + int(batch[0]) + 1
    )
    assert rest == done
    assert after.log_weights == {key: weights.log_weights[key] for key in after.log_weights}
    assert after.rows == {key: weights.rows[key] for key in after.rows}
    assert theirs.selection.rows.tolist() == callback.selection.rows.tolist()
    assert same_weights(resumed, module)
    assert resumed.planned == module.planned == [24]


class Late(SingleDeviceStrategy):
    """Reads checkpoints after the optimizers were made, as sharding strategies do: the loader is there already."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True


@pytest.mark.parametrize("stop", ["end-0", "end-3", "validation-1", "batch-1-1", "batch-2-4"])
def test_a_checkpoint_that_is_read_late(whole, stop, tmp_path):
    folder, module, *_ = whole
    resumed, *_ = run(tmp_path, ckpt=folder / f"{stop}.ckpt", strategy=Late(torch.device("cpu")))
    assert [rows for _, rows in resumed.seen] == [rows for _, rows in module.seen[-len(resumed.seen) :]]
    assert len(resumed.seen) == 24 - {"end-0": 2, "end-3": 18, "validation-1": 6, "batch-1-1": 4, "batch-2-4": 11}[stop]
    assert same_weights(resumed, module)


def test_each_row_comes_once_in_each_epoch_across_the_stop(whole, tmp_path):
    folder, module, *_ = whole
    resumed, *_ = run(tmp_path, ckpt=folder / "batch-2-1.ckpt")
    before = seen_by_epoch(module)[2][: 2 * 4]
    together = before + seen_by_epoch(resumed)[2]
    assert len(together) == len(set(together)) == 24


@pytest.mark.parametrize("stop", ["end-0", "validation-1", "batch-1-1"])
def test_with_workers(whole, stop, tmp_path):
    folder, module, *_ = whole
    resumed, *_ = run(tmp_path, ckpt=folder / f"{stop}.ckpt", workers=2)
    assert resumed.seen == module.seen[-len(resumed.seen) :]


@pytest.mark.parametrize("stop", ["end-0", "end-1", "validation-1", "batch-1-2"])
def test_with_restarts(stop, tmp_path):
    module, *_ = run(tmp_path / "whole", saves=True, round_init="restart")
    resumed, *_ = run(tmp_path, ckpt=tmp_path / "whole" / f"{stop}.ckpt", round_init="restart")
    assert resumed.seen == module.seen[-len(resumed.seen) :]
    assert same_weights(resumed, module)


@pytest.mark.parametrize("stop", ["end-1", "validation-0", "batch-2-2"])
def test_below_rs2(stop, tmp_path):
    def options():
        return {"first": [RS2Callback(0.5, validate="round")]}

    module, *_ = run(tmp_path / "whole", saves=True, **options())
    resumed, *_ = run(tmp_path, ckpt=tmp_path / "whole" / f"{stop}.ckpt", **options())
    assert resumed.seen == module.seen[-len(resumed.seen) :]
    assert same_weights(resumed, module)


@pytest.mark.parametrize("max_steps", [1, 2, 4, 6, 9])
def test_a_run_that_max_steps_ended_goes_on_with_more(whole, max_steps, tmp_path):
    """Inside an epoch, and exactly at the end of one, where nothing was scored for a round that did not come."""
    _, module, *_ = whole
    short = {"max_steps": max_steps, "max_epochs": -1}
    run(tmp_path / "cut", saves=True, **short)
    path = max((tmp_path / "cut").glob("end-*.ckpt"), key=lambda path: path.stat().st_mtime)
    resumed, *_ = run(tmp_path, ckpt=path, max_steps=24, max_epochs=-1)
    assert [rows for _, rows in resumed.seen] == [rows for _, rows in module.seen[max_steps:]]


def test_a_run_that_was_told_to_stop_inside_an_epoch_goes_on_there(whole, tmp_path):
    """Counted in steps, the resumed run continues the epoch, so that its rows must not be those of the next round."""

    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = True

    _, module, *_ = whole
    end, options = ModelCheckpoint(tmp_path, "end", save_on_train_epoch_end=True), {"max_steps": 24, "max_epochs": -1}
    fit(tmp_path, [selection(rounds=3), Stops(), end], enable_checkpointing=True, **options)
    resumed = fit(tmp_path, [selection(rounds=3)], ckpt=tmp_path / "end.ckpt", **options)
    assert [rows for _, rows in resumed.seen] == [rows for _, rows in module.seen[1:]]


def test_a_round_that_was_missed_when_a_run_was_stopped_is_made_up_for(tmp_path):
    """Stopped by `should_stop` inside an epoch, Lightning holds the epoch for done."""

    class Stops(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = True

    end = ModelCheckpoint(tmp_path, "end", save_on_train_epoch_end=True)
    fit(tmp_path, [selection(rounds=3), Stops(), end], max_epochs=4, enable_checkpointing=True)
    callback = selection(rounds=3)
    module = fit(tmp_path, [callback], ckpt=tmp_path / "end.ckpt", max_epochs=4)
    assert [len(rows) for rows in seen_by_epoch(module).values()] == [16, 24, 24]
    assert module.batches == [4, 6, 6]


def test_rounds_that_were_never_trained_on_are_named(tmp_path):
    """One is, after a run without the callback; two are, where rounds became shorter."""

    def end(name):
        return ModelCheckpoint(tmp_path, name + "-{epoch}", save_top_k=-1, save_on_train_epoch_end=True)

    fit(tmp_path, [end("without")], max_epochs=1, enable_checkpointing=True)
    callback = selection(rounds=3)
    with pytest.warns(UserWarning, match="goes on at epoch 1, but 1 round before it are missing"):
        fit(tmp_path, [callback], ckpt=tmp_path / "without-epoch=0.ckpt", max_epochs=4)
    assert callback.selection.done
    long = selection(rounds=4, epochs_per_round=3)
    fit(tmp_path, [long, end("long")], max_epochs=10, enable_checkpointing=True)
    with pytest.warns(UserWarning, match="goes on at epoch 3, but 2 rounds before it are missing"):
        fit(tmp_path, [selection(rounds=4, lr_horizon="ignore")], ckpt=tmp_path / "long-epoch=2.ckpt", max_epochs=4)


def test_the_state_is_plain_and_another_data_set_is_refused(whole, tmp_path):
    folder, *_ = whole
    saved = torch.load(folder / "end-1.ckpt", weights_only=True)["callbacks"]
    state = next(value for key, value in saved.items() if key.startswith("DiversitySelectionCallback"))
    check_plain(state)
    assert state["version"] == 1
    assert state["rounds"]["version"] >= 1
    with pytest.raises(MisconfigurationException, match=r"data set has changed.* had 60 rows, here there are 56"):
        fit(tmp_path, [selection(rounds=3, embedder=_vectors(56))], data=row_loader(n=56), ckpt=folder / "end-1.ckpt")
    with pytest.raises(MisconfigurationException, match="other rows, or another order"):
        fit(tmp_path, [selection(rounds=3, embedder=_vectors(60).flip(0))], ckpt=folder / "end-1.ckpt")
    with pytest.raises(MisconfigurationException, match="global batch: saved 4, here 8"):
        fit(tmp_path, [selection(rounds=3)], data=row_loader(batch_size=8), ckpt=folder / "end-1.ckpt")
    with pytest.raises(MisconfigurationException, match="seed"):
        fit(tmp_path, [selection(rounds=3, seed=1)], ckpt=folder / "end-1.ckpt")


def test_a_second_fit_on_other_data_speaks_of_no_checkpoint(tmp_path):
    callback = selection(rounds=3)
    runner = trainer(tmp_path, [callback], max_epochs=3)
    runner.fit(Asks(), row_loader())
    runner.fit_loop.max_epochs, callback.embedder = 6, _vectors(40)
    with pytest.raises(MisconfigurationException, match=r"since the selection was made: it had 60.*with a new Trainer"):
        runner.fit(Asks(), row_loader(n=40))


def _vectors(n: int) -> torch.Tensor:
    from tests.divconq.rounds_parts import vectors

    return vectors(n)


def test_round_files_of_a_resumed_run_are_the_same_bytes(whole, tmp_path):
    folder, *_ = whole
    run(tmp_path, out_dir=tmp_path / "straight")
    run(tmp_path, out_dir=tmp_path / "resumed", ckpt=folder / "validation-0.ckpt")
    for path in (tmp_path / "straight").iterdir():
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes(), path.name


def test_a_test_of_an_older_checkpoint_leaves_what_training_knows(tmp_path):
    class Tested(Asks):
        def test_step(self, batch, batch_idx):
            self.log("test_rows", float(len(batch)))

    callback = selection(rounds=3, round_init="restart")
    runner = trainer(tmp_path, [callback, *checkpoints(tmp_path)], max_epochs=3, enable_checkpointing=True)
    runner.fit(Tested(), row_loader(), row_loader(shuffle=False, n=8))
    known = str(callback.state_dict())
    rows = row_loader(shuffle=False, n=8)
    runner.test(ckpt_path=tmp_path / "end-0.ckpt", dataloaders=rows, verbose=False, weights_only=True)
    assert str(callback.state_dict()) == known
