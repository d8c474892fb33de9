"""A tuning run goes on exactly where it stopped, and its checkpoints are those of the base."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_adapt._shared.state import check_plain
from lightning_adapt.lina_speech.tuning.callback import InitialStateTuning
from tests.foreign import trainer
from tests.foreign_gla import ChainData, Chains, ForeignGLA
from tests.lina_speech.tuning_parts import base, same, tuning, weights_of

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")

FIXTURE = Path(__file__).parents[1] / "fixtures" / "InitialStateTuning-v1.json"


class Resumable(ChainData):
    """Four batches of two voices, in an order that can be resumed anywhere."""

    def train_dataloader(self):
        return StatefulDataLoader(Chains(32, (0, 1)), batch_size=8)


def run(folder, *, ckpt=None, save=False, **options) -> tuple[InitialStateTuning, ForeignGLA, dict]:
    """Tune two voices for 4 epochs, validating twice in each."""
    callback, module = tuning(["ada", "bo"], **{"rank": 2, "patience": 50, **options}), base()
    saves = [
        ModelCheckpoint(folder, "end", every_n_epochs=2, save_on_train_epoch_end=True),
        ModelCheckpoint(folder, "middle", every_n_train_steps=9, save_top_k=-1),
    ]
    runner = trainer(folder, [callback, *(saves if save else [])], val_check_interval=2)
    runner.fit(module, Resumable(styles=(0, 1)), ckpt_path=ckpt, weights_only=True)
    return callback, module, runner.optimizers[0].state_dict()


@pytest.mark.parametrize("rank", [2, "full"])
def test_resume_is_exact_at_the_end_and_in_the_middle_of_an_epoch(rank, tmp_path):
    whole, module, optimizer = run(tmp_path, save=True, rank=rank)
    saved = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert {"end.ckpt", "middle.ckpt"} <= set(saved)
    for name in ("middle.ckpt",):
        step = torch.load(tmp_path / name, weights_only=True)["global_step"]
        assert step == 9
    for name in ("middle.ckpt", "end.ckpt"):
        resumed, again, theirs = run(tmp_path / "again", ckpt=tmp_path / name, rank=rank)
        here, there = resumed.state_dict()["run"], whole.state_dict()["run"]
        assert same(here.pop("values"), there.pop("values"))
        bests = [part.pop("best") for part in (here, there)]
        for one, other in zip(bests[0].pop("values"), bests[1].pop("values"), strict=True):
            assert same(one, other)
        assert bests[0] == bests[1], "losses, counters and the curve"
        assert here == there
        for voice, expected in zip(resumed.voices.values(), whole.voices.values(), strict=True):
            assert same(dict(voice.tensors), dict(expected.tensors))
            assert voice.held_out == expected.held_out
        for number, state in optimizer["state"].items():
            assert all(torch.equal(theirs["state"][number][key], value) for key, value in state.items())
        assert same(weights_of(again), weights_of(module))


def test_a_run_that_ran_out_of_patience_does_not_go_on_before_it_gets_more(tmp_path):
    class Stops(ModelCheckpoint):
        """Saves once the run is to stop."""

        def on_train_end(self, trainer, pl_module) -> None:
            trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    data = ChainData(n=8, styles=(1,), surprise=0.0)
    data.held_out = Chains(16, (0,), seed=99, surprise=0.0)  # of another style: whatever is learnt makes it worse

    def steps_and_waited(patience, ckpt=None):
        callback = tuning(patience=patience)
        runner = trainer(tmp_path, [callback, *([] if ckpt else [Stops(tmp_path)])], max_epochs=20)
        with pytest.warns(UserWarning, match="Nothing that was tuned was better"):
            runner.fit(base(), data, ckpt_path=ckpt, weights_only=True)
        return runner.global_step, callback.state_dict()["run"]["best"]["waited"]

    first = steps_and_waited(2)
    assert first[1] == 2
    assert steps_and_waited(2, tmp_path / "stopped.ckpt") == first
    assert steps_and_waited(4, tmp_path / "stopped.ckpt")[1] == 4


def test_a_run_that_starts_anew_instead_would_be_noticed(tmp_path):
    whole, *_ = run(tmp_path, save=True)
    saved = torch.load(tmp_path / "middle.ckpt", weights_only=True)
    key = "InitialStateTuning"
    values = saved["callbacks"][key]["run"]["values"]
    assert not same(values, whole.state_dict()["run"]["values"])
    saved["callbacks"][key]["run"] = None
    torch.save(saved, tmp_path / "without.ckpt")
    resumed, *_ = run(tmp_path / "again", ckpt=tmp_path / "without.ckpt")
    assert not same(resumed.state_dict()["run"]["values"], whole.state_dict()["run"]["values"])


def test_a_checkpoint_is_one_of_the_base(tmp_path):
    run(tmp_path, save=True)
    saved = torch.load(tmp_path / "middle.ckpt", weights_only=True)
    assert saved["state_dict"].keys() == base().state_dict().keys()
    again = ForeignGLA.load_from_checkpoint(tmp_path / "middle.ckpt", weights_only=True)
    assert same(weights_of(again), weights_of(base()))
    check_plain(saved["callbacks"]["InitialStateTuning"])


def test_another_scale_is_refused_where_values_are_multiplied_by_it(tmp_path):
    match = r"`scale` must be that of the saved run, 0\.02, but got 0\.2\. Go on with the settings of"
    for rank, other in ((2, pytest.raises(MisconfigurationException, match=match)), ("full", nullcontext())):
        folder = tmp_path / str(rank)
        run(folder, save=True, rank=rank)
        with other:
            run(folder / "again", ckpt=folder / "middle.ckpt", rank=rank, scale=0.2)


def test_more_epochs_with_the_same_trainer_go_on(tmp_path):
    callback, module, data = tuning(rank=2), base(), ChainData(n=32)
    runner = trainer(tmp_path, [callback], max_epochs=2)
    runner.fit(module, data)
    first = callback.state_dict()["run"]
    runner.fit_loop.max_epochs = 4
    runner.fit(module, data)
    second = callback.state_dict()["run"]
    assert second["best"]["curve"][:2] == first["best"]["curve"]
    assert len(second["best"]["curve"]) == 4
    assert second["best"]["losses"] < first["best"]["losses"]


def test_the_same_trainer_goes_on_after_an_error_in_the_first_epoch(tmp_path):
    class Raises(Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == 3 and not stopped:
                stopped.append(callback.state_dict()["run"]["values"])
                raise RuntimeError("no")

        def on_train_start(self, trainer, pl_module) -> None:
            begun.append(pl_module.tuned_initial_states.values())

    stopped, begun = [], []
    callback, module, data = tuning(rank=2), base(), ChainData(n=32)
    runner = trainer(tmp_path, [callback, Raises()], max_epochs=2)
    with pytest.raises(RuntimeError, match="no"):
        runner.fit(module, data)
    runner.fit(module, data)
    assert not same(begun[0], begun[1])
    assert same(begun[1], stopped[0])


def test_a_checkpoint_of_the_base_is_not_one_to_go_on_from(tmp_path):
    runner = trainer(tmp_path, [ModelCheckpoint(tmp_path, "base")], max_epochs=1)
    runner.fit(base(), ChainData(n=32))
    match = (
        r"`ckpt_path` must be a checkpoint of a run with InitialStateTuning, .* InitialStateTuning\(checkpoint=\.\.\.\)"
    )
    with pytest.raises(MisconfigurationException, match=match):
        trainer(tmp_path, [tuning()]).fit(base(), ChainData(n=32), ckpt_path=tmp_path / "base.ckpt", weights_only=True)


def test_a_state_of_an_earlier_release_gives_the_voices_it_held(tmp_path):
    stored = json.loads(FIXTURE.read_text())
    callback = tuning(stored["run"]["voices"], rank=stored["run"]["rank"])
    callback.load_state_dict(stored)
    stored["run"]["origin"]["model"] = None  # weights differ in the last digits from machine to machine
    module = base()
    rows = Chains(16, (0, 1), seed=99)
    trainer(tmp_path, [callback]).predict(module, torch.utils.data.DataLoader(rows, batch_size=16))
    best = callback.state_dict()["run"]["best"]
    assert best["losses"] == stored["run"]["best"]["losses"]
    for values, expected in zip(best["values"], stored["run"]["best"]["values"], strict=True):
        assert {name: value.tolist() for name, value in values.items()} == expected
