"""A predictor comes back as it was saved, with its own model alone, and from checkpoints with their memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from lightning_adapt.reloop2.adaptive import AdaptiveErrorMemory
from lightning_adapt.reloop2.callback import ErrorMemoryCallback
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor, FeedbackResult
from lightning_adapt.reloop2.serving.predictor_state import memory_of_callback
from tests.foreign import trainer
from tests.reloop2.predictor_parts import MEMORIES, Clicks, calls, do, fixed_clicks, predictor, rows

FIXTURES = Path(__file__).parents[1] / "fixtures"


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("memory", MEMORIES)
def test_save_and_load_go_on_bit_by_bit(memory, tmp_path):
    one = predictor(memory)
    every = list(calls(20))
    for call in every[:25]:
        do(one, call)
    one.save(tmp_path / "state.safetensors")
    other = ErrorMemoryPredictor.load(tmp_path / "state.safetensors", Clicks())
    assert other.n_pending == one.n_pending > 0
    assert [do(other, call) for call in every[25:]] == [do(one, call) for call in every[25:]]


def test_saved_before_the_first_label_it_still_whitens_by_what_it_serves(tmp_path):
    one, whole = predictor("knn", calibration=()), predictor("knn", calibration=())
    for each in (one, whole):
        each.predict(rows(30, 1), range(30))
    one.save(tmp_path / "state.safetensors")
    one = ErrorMemoryPredictor.load(tmp_path / "state.safetensors", Clicks())
    for each in (one, whole):
        each.predict(rows(30, 2), range(30, 60))
        each.feedback(range(60), torch.arange(60) % 2)
    batch = rows(9, seed=3)
    assert torch.equal(one.predict(batch, range(9)), whole.predict(batch, range(9)))


def test_what_became_of_ids_is_remembered(tmp_path):
    one = predictor("knn", max_pending=3)
    one.predict(rows(3), ["a", "b", "c"])
    one.feedback(["a"], [1])
    one.predict(rows(2), ["d", "e"])
    one.save(tmp_path / "state.safetensors")
    again = ErrorMemoryPredictor.load(tmp_path / "state.safetensors", Clicks(), max_pending=3)
    answer = again.feedback(["a", "b", "c", "x"], [1, 1, 1, 1])
    assert answer == FeedbackResult(accepted=["c"], unknown=["x"], expired=["b"], duplicate=["a"])


def test_files_and_journals_of_version_1_keep_loading(tmp_path):
    for name in ("journal-v1.sqlite", "journal-v1.sqlite.snapshot.safetensors"):
        shutil.copy(FIXTURES / name, tmp_path)
    memory = ErrorMemory(k=5, capacity=40)
    stored = (
        ErrorMemoryPredictor.load(FIXTURES / "ErrorMemoryPredictor-v1.safetensors", fixed_clicks()),
        ErrorMemoryPredictor(fixed_clicks(), memory, journal=tmp_path / "journal-v1.sqlite"),
    )
    for one in stored:
        assert (one.memory.n_written, one.n_pending) == (5, 2)
        assert one.feedback(["1-0", "x"], [1, 1]) == FeedbackResult(duplicate=["1-0"], unknown=["x"])
        one.close()


def test_a_file_of_other_weights_is_refused(tmp_path):
    one = predictor("adaptive")
    one.save(path := tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match="must belong to the weights that are served"):
        ErrorMemoryPredictor.load(path, Clicks(seed=1))
    with torch.no_grad():
        one.module.out.bias += 1
    with pytest.raises(RuntimeError, match="weights have changed"):
        one.save(path)


def test_other_files_are_refused(tmp_path):
    one = predictor("knn")
    one.memory.save(tmp_path / "memory.safetensors")
    with pytest.raises(ValueError, match="holds 'ErrorMemory', not 'ErrorMemoryPredictor'"):
        ErrorMemoryPredictor.load(tmp_path / "memory.safetensors", Clicks())
    one.save(path := tmp_path / "state.safetensors")
    content = path.read_bytes()
    for damaged in (content[:-10], content[:-1] + b"x", b"nothing of the kind"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|no memory file"):
            ErrorMemoryPredictor.load(path, Clicks())


def test_bounds_may_change_between_runs(tmp_path):
    one = predictor("knn", max_pending=10)
    one.predict(rows(10), range(10))
    one.save(tmp_path / "state.safetensors")
    other = ErrorMemoryPredictor.load(tmp_path / "state.safetensors", Clicks(), max_pending=4)
    assert other.n_pending == 4
    assert other.feedback([5, 6], [1, 1]) == FeedbackResult(accepted=[6], expired=[5])


class History(nn.Module):
    """Ids looked up in one table: a history, or fields."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.seen, self.out = nn.Embedding(30, 4), nn.Linear(4, 1)

    def forward(self, batch):
        return self.out(self.seen(batch["history"]).mean(1))


def test_lists_of_ids_stay_lists_after_a_restart(tmp_path):
    """The first batch decides whether (B, F) ids are F fields; a first batch of one row would decide otherwise."""
    batch = {"history": torch.randint(30, (40, 3), generator=torch.Generator().manual_seed(0))}
    one = ErrorMemoryPredictor(History(), calibration=[batch])
    one.predict(batch, range(40))
    one.feedback(range(40), torch.ones(40))
    one.save(tmp_path / "state.safetensors")
    again = ErrorMemoryPredictor.load(tmp_path / "state.safetensors", History())
    single = {"history": torch.tensor([[1, 5, 9]])}
    assert torch.equal(one.predict(single, ["x"]), again.predict(single, ["x"]))


def test_fields_of_one_table_stay_fields_after_a_restart_before_the_first_row(tmp_path):
    batch = {"history": torch.arange(24).reshape(3, 8).T}
    with ErrorMemoryPredictor(History(), calibration=[batch], journal=tmp_path / "journal") as one:
        names = one.memory.names()
    with ErrorMemoryPredictor(History(), calibration=[batch], journal=tmp_path / "journal") as again:
        assert len(again.predict({"history": torch.tensor([[1, 9, 17]])}, ["x"])) == 1
        assert again.memory.names() == names
        assert "seen[2]" in names


# -- checkpoints -------------------------------------------------------------------------------------------------------
class Lit(LightningModule):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Clicks(seed)

    def forward(self, batch):
        return self.net(batch)

    def test_step(self, batch, batch_idx):
        self(batch)


def served(tmp_path, callback):
    module = Lit()
    runner = trainer(tmp_path, [callback] if callback else [])
    stream = [
        {**rows(64, seed), "label": torch.rand(64, generator=torch.Generator().manual_seed(seed)).round()}
        for seed in range(3)
    ]
    runner.test(module, DataLoader(stream, batch_size=None), verbose=False)
    runner.save_checkpoint(tmp_path / "model.ckpt", weights_only=False)
    return module


def test_a_checkpoint_brings_its_memory(tmp_path):
    callback = ErrorMemoryCallback()
    module = served(tmp_path, callback)
    one = ErrorMemoryPredictor.from_checkpoint(Lit, tmp_path / "model.ckpt")
    assert one.memory.n_written == 192
    live = ErrorMemoryPredictor(module, callback.memory)
    batch = rows(8)
    assert torch.equal(one.predict(batch, range(8)), live.predict(batch, range(8)))
    fresh = ErrorMemoryPredictor.from_checkpoint(Lit, tmp_path / "model.ckpt", memory=ErrorMemory(whiten=False))
    assert fresh.memory.n_written == 0


def test_a_checkpoint_without_a_memory_begins_with_a_new_one(tmp_path):
    served(tmp_path, None)
    one = ErrorMemoryPredictor.from_checkpoint(Lit, tmp_path / "model.ckpt", timeout_s=5.0)
    assert isinstance(one.memory, AdaptiveErrorMemory)
    assert one.memory.n_written == 0
    served(tmp_path, ErrorMemoryCallback(enabled=False))
    assert ErrorMemoryPredictor.from_checkpoint(Lit, tmp_path / "model.ckpt").memory.n_written == 0


def test_a_checkpoint_whose_memory_is_of_other_weights_is_refused(tmp_path):
    served(tmp_path, ErrorMemoryCallback())
    saved = torch.load(tmp_path / "model.ckpt", weights_only=True)
    saved["state_dict"]["net.out.bias"] += 1
    torch.save(saved, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="the checkpoint's memory was written for others"):
        ErrorMemoryPredictor.from_checkpoint(Lit, tmp_path / "model.ckpt")


def test_the_settings_of_a_memory_in_a_checkpoint():
    one = predictor("knn")
    one.predict(rows(1), [0])
    one.feedback([0], [1])
    state = {"version": 1, "memory": one.memory.state_dict(), "weights": "w"}
    with pytest.raises(ValueError, match="does not say its settings"):
        memory_of_callback({"ErrorMemoryCallback": state}, "w")
    found = memory_of_callback({"ErrorMemoryCallback": {**state, "config": one.memory.config()}}, "w")
    assert found.config() == one.memory.config()
    assert found.n_written == 1
