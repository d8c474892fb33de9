"""ErrorMemoryCallback on a module not written for it: what it corrects, when it learns, what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from lightning_adapt import (
    AdaptiveErrorMemory,
    ErrorMemory,
    ErrorMemoryCallback,
    ErrorMemoryPredictor,
    IncrementalTraining,
)
from tests.foreign import trainer
from tests.foreign_clicks import Clicks, ForeignClicks, click_data, click_stream


def knn(**options):
    return ErrorMemory(**{"k": 5, "whiten": False, "support_n0": 0.0, **options})


MEMORIES = {
    "auto": lambda: "auto",
    "knn": knn,
    "sketch": lambda: knn(backend="sketch", n_bits=6, n_tables=8),
    "faiss": lambda: knn(backend="faiss"),
}


def run(folder, memory, n=64, loader=None, module=None, **options):
    """Test a module with the callback; return (logits as test_step saw them, callback)."""
    callback = ErrorMemoryCallback(memory, **options)
    module = module or ForeignClicks()
    trainer(folder, [callback]).test(module, loader or click_stream(8, n), verbose=False)
    return torch.tensor([value for _, part in module.tested for value in part]), callback


def base(folder, n=64):
    module = ForeignClicks()
    trainer(folder, []).test(module, click_stream(8, n), verbose=False)
    return torch.tensor([value for _, part in module.tested for value in part])


@pytest.mark.parametrize("kind", MEMORIES)
def test_the_first_batch_is_the_base_models_and_the_later_ones_are_corrected(kind, tmp_path):
    plain, (corrected, callback) = base(tmp_path), run(tmp_path, MEMORIES[kind]())
    assert torch.equal(corrected[:8], plain[:8])
    assert (corrected[8:] != plain[8:]).float().mean() > 0.9
    assert callback.memory.n_written == 64


@pytest.mark.parametrize("kind", MEMORIES)
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_labels_of_a_batch_change_nothing_that_was_served_by_then(delay, kind, tmp_path):
    changed = Clicks(64)
    changed.columns["label"][16:24] = 1 - changed.columns["label"][16:24]  # batch 2
    one, _ = run(tmp_path, MEMORIES[kind](), delay=delay)
    two, _ = run(tmp_path, MEMORIES[kind](), loader=DataLoader(changed, 8), delay=delay)
    known = 8 * (3 + delay)
    assert torch.equal(one[:known], two[:known])
    assert not torch.equal(one[known:], two[known:])


def test_what_is_written_is_the_base_models_prediction_and_the_last_hidden_layer(tmp_path):
    module = ForeignClicks()
    _, callback = run(tmp_path, knn(), module=module)
    rows = next(iter(DataLoader(Clicks(64), 64)))
    features = torch.stack([rows[f"x{number}"] for number in range(6)], 1)
    with torch.no_grad():
        hidden = module.net.layers[:2](torch.cat([features, module.net.user(rows["user"])], 1))
        logits = module.net(rows)
    again = knn()
    again.write(hidden, rows["label"], torch.sigmoid(logits))
    assert torch.allclose(callback.memory.read(hidden).base, again.read(hidden).base, atol=1e-6)
    assert torch.equal(callback.memory.read(hidden).label, again.read(hidden).label)


def test_fields_and_key_spaces_of_the_default_are_found_in_the_module(tmp_path):
    _, callback = run(tmp_path, "auto")
    assert set(callback.memory.blend_weights()) == {"user", "embeddings", "hidden", "intercept"}


def test_further_fields_come_from_the_batch(tmp_path):
    _, callback = run(tmp_path, "auto", fields_fn=lambda batch: {"row": batch["index"] % 3})
    assert {"row", "user*row"} <= set(callback.memory.blend_weights())


@pytest.mark.parametrize("delay", [0, 2])
def test_all_labels_are_in_the_memory_when_the_test_is_over(delay, tmp_path):
    _, callback = run(tmp_path, knn(), n=60, delay=delay)
    assert callback.memory.n_written == 60


def test_stages_and_writing_as_asked(tmp_path):
    callback = ErrorMemoryCallback(knn(), stages=("predict",), write_in=())
    module, plain = ForeignClicks(), base(tmp_path)
    runner = trainer(tmp_path, [callback])
    runner.test(module, click_stream(8, 64), verbose=False)
    assert torch.equal(torch.tensor([value for _, part in module.tested for value in part]), plain)
    assert callback.memory.n_written == 0
    served = ErrorMemoryCallback(knn(), write_in=("predict",))
    out = torch.cat(trainer(tmp_path, [served]).predict(module, click_stream(8, 64)))
    assert served.memory.n_written == 64
    assert torch.equal(out[:8], plain[:8].sigmoid())
    assert not torch.equal(out[8:], plain[8:].sigmoid())
    before = torch.cat(trainer(tmp_path, [served]).predict(module, click_stream(8, 64)))  # reads what it has
    assert not torch.equal(before[:8], plain[:8].sigmoid())


def test_a_second_test_goes_on_with_what_the_first_learnt(tmp_path):
    callback, module = ErrorMemoryCallback(knn()), ForeignClicks()
    for _ in range(2):
        trainer(tmp_path, [callback]).test(module, click_stream(8, 64), verbose=False)
    assert callback.memory.n_written == 128
    assert torch.tensor(module.tested[8][1]).ne(torch.tensor(module.tested[0][1])).all()


# -- inside fit -------------------------------------------------------------------------------------------------------
def test_validation_inside_fit_uses_a_memory_of_its_own_and_training_is_untouched(tmp_path):
    modules = {}
    for name, callbacks in {"without": [], "with": [ErrorMemoryCallback(knn())]}.items():
        modules[name] = ForeignClicks()
        runner = trainer(tmp_path, callbacks, num_sanity_val_steps=2, max_epochs=2)
        runner.fit(modules[name], **click_data())
        if callbacks:
            assert callbacks[0].memory.n_written == 0
            assert "reloop2/validate_logloss" in runner.callback_metrics
            assert (
                runner.callback_metrics["reloop2/validate_auc"] != runner.callback_metrics["reloop2/validate_base_auc"]
            )
    for key, value in modules["without"].state_dict().items():
        assert torch.equal(modules["with"].state_dict()[key], value)


def test_keys_of_the_last_validation_whiten_the_memory_that_serves(tmp_path):
    callback, module = ErrorMemoryCallback(ErrorMemory(k=5)), ForeignClicks()
    trainer(tmp_path, [callback], max_epochs=2).fit(module, **click_data())
    assert callback.memory.is_calibrated
    again = ErrorMemory(k=5)
    rows = next(iter(DataLoader(Clicks(16), 16)))
    hidden = []
    module.net.layers[1].register_forward_hook(lambda *seen: hidden.append(seen[-1]))
    with torch.no_grad():
        module.eval().net(rows)
    again.calibrate(hidden[0])
    for memory in (again, callback.memory):
        memory.write(hidden[0], rows["label"], torch.full((16,), 0.5))
    assert torch.allclose(again.read(hidden[0]).label, callback.memory.read(hidden[0]).label, atol=1e-4)


def test_nothing_happens_in_the_sanity_check(tmp_path):
    class Asserts(ForeignClicks):
        def validation_step(self, batch, batch_idx):
            hooked = any(part._forward_hooks for part in self.net.modules())
            assert hooked != self.trainer.sanity_checking
            return super().validation_step(batch, batch_idx)

    trainer(tmp_path, [ErrorMemoryCallback()], num_sanity_val_steps=2, max_epochs=1).fit(Asserts(), **click_data())


class OneTable(ForeignClicks):
    """One table for three fields."""

    def __init__(self):
        super().__init__()
        self.net = nn.Module()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net.fields, self.net.out = nn.Embedding(15, 4), nn.Linear(12, 1)
        self.net.forward = self._logits

    def _logits(self, batch):
        row = batch["index"]
        ids = torch.stack([batch["user"], 7 + row % 5, 12 + row % 3], 1)
        return self.net.out(self.net.fields(ids).flatten(1)).squeeze(-1)


@pytest.mark.parametrize("experts", [["embeddings", "intercept"], ["fields[1]", "embeddings"], ["intercept"], "auto"])
def test_what_a_table_is_holds_from_stage_to_stage_whatever_the_experts(experts, tmp_path):
    callback, again = (ErrorMemoryCallback(AdaptiveErrorMemory(experts)) for _ in range(2))
    trainer(tmp_path, [callback], max_epochs=2).fit(module := OneTable(), **click_data())
    trainer(tmp_path, [callback]).test(module, click_stream(8, 64), verbose=False)
    again.load_state_dict(callback.state_dict())
    trainer(tmp_path, [again]).test(module, click_stream(8, 64), verbose=False)
    assert again.memory.n_written == 128
    state = callback.state_dict()  # of the first releases: what fields there were is known only where all are used
    del state["memory"]["_extra_state"]["layout"]["seen"]
    early = ErrorMemoryCallback(AdaptiveErrorMemory(experts))
    early.load_state_dict(state)
    trainer(tmp_path, [early]).test(module, click_stream(8, 64), verbose=False)
    assert early.memory.n_written == 128


# -- weights ----------------------------------------------------------------------------------------------------------
def test_changed_weights_reset_the_memory(tmp_path):
    callback, module = ErrorMemoryCallback(knn()), ForeignClicks()
    runner = trainer(tmp_path, [callback])
    runner.test(module, click_stream(8, 64), verbose=False)
    with torch.no_grad():
        module.net.layers[0].weight[0, 0] += 1e-3
    with pytest.warns(UserWarning, match="the weights have changed since the memory was written"):
        runner.test(module, click_stream(8, 16), verbose=False)
    assert callback.memory.n_written == 16
    kept = ErrorMemoryCallback(callback.memory, reset_on="never")
    with torch.no_grad():
        module.net.layers[0].weight[0, 0] += 1e-3
    trainer(tmp_path, [kept]).test(module, click_stream(8, 16), verbose=False)
    assert kept.memory.n_written == 32


def test_a_memory_that_begins_anew_is_whitened_by_the_keys_of_the_new_weights(tmp_path):
    def fresh(module):
        callback = ErrorMemoryCallback(knn(whiten=True))
        trainer(tmp_path, [callback]).test(module, click_stream(32, 64), verbose=False)
        return callback

    module = ForeignClicks()
    callback = fresh(module)
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(3.0)
    with pytest.warns(UserWarning, match="the weights have changed since the memory was written"):
        trainer(tmp_path, [callback]).test(module, click_stream(32, 64), verbose=False)
    expected = fresh(module).memory.state_dict()
    for name, value in callback.memory.state_dict().items():
        same = torch.equal(value, expected[name]) if isinstance(value, torch.Tensor) else value == expected[name]
        assert same, name


def test_soft_labels_need_no_metrics(tmp_path):
    def halves(batch):
        return torch.full((len(batch["label"]),), 0.75)

    with pytest.raises(
        ValueError, match=r"`label_fn` must be a function that returns 0 or 1 where log_base=True.*0\.75"
    ):
        run(tmp_path, knn(), label_fn=halves)
    assert run(tmp_path, knn(), label_fn=halves, log_base=False)[1].memory.n_written == 64


def test_a_memory_that_was_loaded_from_a_file_is_kept(tmp_path):
    callback, module = ErrorMemoryCallback(knn()), ForeignClicks()
    trainer(tmp_path, [callback]).test(module, click_stream(8, 64), verbose=False)
    callback.memory.save(tmp_path / "memory.safetensors")
    again = ErrorMemoryCallback(ErrorMemory.load(tmp_path / "memory.safetensors"))
    trainer(tmp_path, [again]).test(module, click_stream(8, 16), verbose=False)
    assert again.memory.n_written == 80


@pytest.mark.parametrize("first", [True, False], ids=["memory first", "training first"])
def test_beside_incremental_training_in_any_order(first, tmp_path):
    outcomes = []
    for _ in range(2):
        memory, training = ErrorMemoryCallback(knn()), IncrementalTraining(1e-2)
        module = ForeignClicks()
        callbacks = [memory, training] if first else [training, memory]
        trainer(tmp_path, callbacks).test(module, click_stream(8, 64), verbose=False)
        assert memory.memory.n_written == 64
        outcomes.append(torch.tensor([value for _, part in module.tested for value in part]))
        first = not first
    assert torch.equal(*outcomes)


# -- state ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", MEMORIES)
def test_a_checkpoint_gives_the_same_outputs_bit_by_bit(kind, tmp_path):
    callback, module = ErrorMemoryCallback(MEMORIES[kind]()), ForeignClicks()
    runner = trainer(tmp_path, [callback])
    runner.test(module, click_stream(8, 64), verbose=False)
    runner.save_checkpoint(tmp_path / "served.ckpt")
    torch.load(tmp_path / "served.ckpt", weights_only=True)
    expected = torch.cat(runner.predict(module, click_stream(8, 64)))
    again = ErrorMemoryCallback(MEMORIES[kind]())
    fresh = trainer(tmp_path, [again])
    served = torch.cat(fresh.predict(ForeignClicks(), click_stream(8, 64), ckpt_path=tmp_path / "served.ckpt"))
    assert torch.equal(served, expected)
    assert again.weights == callback.weights


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_server_goes_on_with_the_memory_of_a_checkpoint(kind, tmp_path):
    callback = ErrorMemoryCallback(MEMORIES[kind]())
    runner = trainer(tmp_path, [callback])
    runner.test(ForeignClicks(), click_stream(8, 64), verbose=False)
    runner.save_checkpoint(tmp_path / "served.ckpt")
    loader = click_stream(8, 24)
    expected = torch.cat(runner.predict(ForeignClicks(), loader))
    server = ErrorMemoryPredictor.from_checkpoint(
        ForeignClicks, tmp_path / "served.ckpt", forward=lambda module, batch: module.net(batch)
    )
    assert server.memory.n_written == 64
    served = torch.cat([server.predict(batch, batch["index"].tolist()) for batch in loader])
    assert torch.equal(served, expected)


# -- modules of all sorts ---------------------------------------------------------------------------------------------
class Sums(ForeignClicks):
    """A wide part and a deep part, added up."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(6, 1)
        self.whole = nn.Identity()
        net = self.net
        self.net = nn.Module()
        self.net.deep, self.net.forward = net, self._both

    def _both(self, batch):
        wide = self.wide(torch.stack([batch[f"x{number}"] for number in range(6)], 1)).squeeze(-1)
        return self.whole(self.net.deep(batch) + wide)


def test_a_sum_of_outputs_is_warned_of_and_named(tmp_path):
    with pytest.warns(UserWarning, match="If the prediction is a sum of several of them, name the module"):
        run(tmp_path, knn(), module=Sums())
    _, callback = run(tmp_path, "auto", module=Sums(), output_module="whole", key_module="net.deep.layers.2")
    assert callback.memory.n_written == 64


class Probability(ForeignClicks):
    def __init__(self):
        super().__init__()
        self.chance = nn.Sigmoid()

    def validation_step(self, batch, batch_idx):
        chance = self.chance(self.net(batch))
        self.log("val_loss", nn.functional.binary_cross_entropy(chance, batch["label"]), batch_size=len(chance))
        return chance


def test_a_sigmoid_is_corrected_as_a_probability(tmp_path):
    chances, _ = run(tmp_path, knn(), module=Probability(), output_module="chance", key_module="net.layers.2")
    logits, _ = run(tmp_path, knn())
    assert torch.allclose(chances, logits.sigmoid(), atol=1e-6)


class Value(ForeignClicks):
    def validation_step(self, batch, batch_idx):
        value = self.net(batch)
        self.log("val_loss", nn.functional.mse_loss(value, batch["label"]), batch_size=len(value))
        return value


@pytest.mark.parametrize("memory", [knn(task="regression"), AdaptiveErrorMemory(task="regression")], ids=type)
def test_regression(memory, tmp_path):
    callback = ErrorMemoryCallback(memory)
    (result,) = trainer(tmp_path, [callback]).test(Value(), click_stream(8, 64), verbose=False)
    assert result["reloop2/test_mse"] < result["reloop2/test_base_mse"]


class Tuples(ForeignClicks):
    def test_step(self, batch, batch_idx):
        rows, labels = batch
        return super().test_step({**rows, "label": labels}, batch_idx)


def test_tuple_batches_and_labels_by_function(tmp_path):
    rows = [({name: row[name] for name in row if name != "label"}, row["label"]) for row in Clicks(64)]
    _, callback = run(tmp_path, knn(), loader=DataLoader(rows, 8), module=Tuples())
    assert callback.memory.n_written == 64
    named, _ = run(tmp_path, knn(), label_fn=lambda batch: 1 - batch["label"])
    usual, _ = run(tmp_path, knn())
    assert not torch.equal(named, usual)


class Twice(ForeignClicks):
    def test_step(self, batch, batch_idx):
        self.net(batch)
        return super().test_step(batch, batch_idx)


@pytest.mark.parametrize("kind", ["auto", "knn"])
def test_two_passes_over_a_batch_are_written_once(kind, tmp_path):
    twice, callback = run(tmp_path, MEMORIES[kind](), module=Twice())
    once, _ = run(tmp_path, MEMORIES[kind]())
    assert callback.memory.n_written == 64
    assert torch.equal(twice, once)


def test_several_loaders_are_one_stream(tmp_path):
    _, callback = run(tmp_path, knn(), loader=[click_stream(8, 24), click_stream(8, 16)], module=_Many())
    assert callback.memory.n_written == 40


class _Many(ForeignClicks):
    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.tested.append(([], self.net(batch).tolist()))


def test_bf16(tmp_path):
    callback, module = ErrorMemoryCallback(), ForeignClicks()
    (result,) = trainer(tmp_path, [callback], precision="bf16-mixed").test(module, click_stream(8, 64), verbose=False)
    assert callback.memory.n_written == 64
    assert result["reloop2/test_logloss"] > 0


def test_rows_that_share_an_id_are_all_measured(tmp_path):
    callback, module = ErrorMemoryCallback(knn()), _Many()
    loaders = [click_stream(8, 24), click_stream(8, 24)]  # each counts its rows from 0
    (first, *_) = trainer(tmp_path, [callback]).test(module, loaders, verbose=False)
    labels = torch.cat([Clicks(24).columns["label"]] * 2)
    chances = torch.tensor([value for _, part in module.tested for value in part]).sigmoid()
    expected = nn.functional.binary_cross_entropy(chances, labels)
    assert first["reloop2/test_logloss"] == pytest.approx(float(expected), abs=1e-5)


def test_a_module_without_output_is_told_before_it_trains(tmp_path):
    module = NoOutput()
    with pytest.raises(MisconfigurationException, match="`output_module` must be given"):
        trainer(tmp_path, [ErrorMemoryCallback()], max_epochs=1).fit(module, **click_data())
    assert module.seen == []


def test_an_output_that_never_runs_is_told(tmp_path):
    class Bypassed(ForeignClicks):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 1)

    with pytest.warns(UserWarning, match="the output module did not run in this batch"):
        run(tmp_path, knn(), module=Bypassed(), output_module="head")


def test_whitening_from_fit_is_in_the_checkpoint_and_a_memory_that_is_replaced_is_told(tmp_path):
    callback, module = ErrorMemoryCallback(ErrorMemory(k=5)), ForeignClicks()
    runner = trainer(tmp_path, [callback], max_epochs=1)
    runner.fit(module, **click_data())
    runner.save_checkpoint(tmp_path / "fit.ckpt")
    here, there = (ErrorMemoryCallback(ErrorMemory(k=5)) for _ in range(2))
    here.load_state_dict(callback.state_dict())
    saved = {"ckpt_path": tmp_path / "fit.ckpt", "verbose": False}
    trainer(tmp_path, [there]).test(ForeignClicks(), click_stream(8, 64), **saved)
    trainer(tmp_path, [here]).test(module, click_stream(8, 64), verbose=False)
    probe = torch.randn(9, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(here.memory.read(probe).label, there.memory.read(probe).label)
    with pytest.warns(UserWarning, match="the checkpoint's memory replaces one with 64 rows"):
        trainer(tmp_path, [there]).test(module, click_stream(8, 8), **saved)


# -- errors -----------------------------------------------------------------------------------------------------------
class NoOutput(ForeignClicks):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 2))


@pytest.mark.parametrize(
    ("options", "module", "message"),
    [
        ({}, NoOutput, r"`output_module` must be given where the model has no Linear\(., 1\)"),
        ({"output_module": "head"}, ForeignClicks, "`output_module` must be the name of a submodule"),
        ({"key_module": "head"}, ForeignClicks, "`key_module` must be the name of a submodule"),
        ({"output_kind": "regression"}, ForeignClicks, "`output_kind` must be 'logit' or 'probability'"),
        ({"label_fn": lambda _: None}, ForeignClicks, "`label_fn` must be given where labels are not found"),
    ],
)
def test_trouble_with_the_module_is_explained(options, module, message, tmp_path):
    with pytest.raises(MisconfigurationException, match=message):
        run(tmp_path, knn(), module=module(), **options)


def test_after_an_error_no_hook_is_left(tmp_path):
    class Fails(ForeignClicks):
        def test_step(self, batch, batch_idx):
            if batch_idx == 1:
                raise RuntimeError("the user's own")
            return super().test_step(batch, batch_idx)

    module = Fails()
    with pytest.raises(RuntimeError, match="the user's own"):
        run(tmp_path, "auto", module=module)
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "knn"}, "`memory` must be 'auto', an ErrorMemory or an AdaptiveErrorMemory"),
        ({"key_from": "middle"}, "`key_from` must be one of 'input', 'output'"),
        ({"output_kind": "score"}, "`output_kind` must be one of"),
        ({"label_fn": "label"}, "`label_fn` must be a function of a batch"),
        ({"delay": -1}, "`delay` must be a whole number >= 0"),
        ({"stages": "test"}, "`stages` must be a list of stages"),
        ({"write_in": ["fit"]}, "`write_in` must be one of 'validate', 'test', 'predict'"),
        ({"reset_on": "epoch"}, "`reset_on` must be one of 'weights', 'never'"),
        ({"log_base": 1}, "`log_base` must be True or False"),
        ({"enabled": None}, "`enabled` must be True or False"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ErrorMemoryCallback(**options)


def test_keys_too_long_to_be_added_up_are_explained_and_not_written(tmp_path):
    rows, callback = Clicks(24), ErrorMemoryCallback(ErrorMemory(k=5), key_module="net.layers.0", key_from="output")
    rows.columns["x0"][9] = 1e22
    with (
        pytest.warns(UserWarning, match="whitened by the statistics of the first 8 rows"),
        pytest.raises(ValueError, match=r"`keys` must be rows of length 1e\+12 at most, but got .*unscaled numbers"),
    ):
        trainer(tmp_path, [callback]).test(ForeignClicks(), DataLoader(rows, 8), verbose=False)
    assert callback.memory.n_written == 8


def test_labels_that_do_not_fit_are_explained(tmp_path):
    with pytest.raises(ValueError, match=r"`label_fn` must be a function that returns \[8\] labels, but got 4"):
        run(tmp_path, knn(), label_fn=lambda batch: batch["label"][:4])
    with pytest.raises(TypeError, match=r"`label_fn` must be a function that returns a tensor \(B,\)"):
        run(tmp_path, knn(), label_fn=lambda batch: batch["label"].tolist())
