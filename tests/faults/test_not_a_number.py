"""A loss that is NaN from some step on: what each method makes of it, beside the same training without the method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping

from lightning_adapt.reloop2.callback import ErrorMemoryCallback
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.rs2.callback import RS2Callback
from tests.divconq.rounds_parts import by_group, fit, selection
from tests.foreign import ForeignModule, loader, trainer
from tests.foreign_clicks import ForeignClicks, click_data, click_stream
from tests.foreign_gla import ChainData, ForeignGLA
from tests.foreign_images import ForeignFixMatch
from tests.lina_speech.tuning_parts import base, same, tuning, weights_of
from tests.rs2.test_loss_rounds import LossModule, guided
from tests.saa.entries import data as image_data
from tests.saa.entries import selection as augmentation

NAN = float("nan")


class SometimesNaN(LossModule):
    """The losses of some rows are NaN, but not what is trained on."""

    def __init__(self, rows: Any) -> None:
        super().__init__()
        self.rows = torch.as_tensor(rows)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = super().training_step(batch, batch_idx)
        broken = torch.isin(outputs["rows"], self.rows)
        return {**outputs, "sample_loss": outputs["sample_loss"].masked_fill(broken, NAN)}


class TurnsNaN(ForeignModule):
    """Its loss is NaN from a step on, and so are its weights."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * NAN if self.global_step >= 5 else loss


# -- RS2 ---------------------------------------------------------------------------------------------------------------
def test_plain_rounds_do_not_look_at_losses(tmp_path):
    modules = [TurnsNaN(), ForeignModule()]
    for module in modules:
        trainer(tmp_path, [RS2Callback(0.3)]).fit(module, loader())
    assert modules[0].seen == modules[1].seen
    assert not torch.isfinite(modules[0].net[0].weight).any()


def test_losses_that_are_no_numbers_guide_nothing(tmp_path):
    rows = list(range(0, 107, 3))
    module, callback = SometimesNaN(rows), guided()
    trainer(tmp_path, [callback], max_epochs=6).fit(module, loader())
    latest = callback.sampler.guide.latest()
    assert not torch.isfinite(latest[rows]).any()
    assert torch.isfinite(latest).any()
    drawn = {row for _, batch in module.seen for row in batch}
    assert drawn & set(rows), "they are still trained on"


def test_a_round_without_a_single_number_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="some step of a round returns finite losses"):
        trainer(tmp_path, [guided()]).fit(SometimesNaN(range(107)), loader())


# -- SAA ---------------------------------------------------------------------------------------------------------------
class NaNFixMatch(ForeignFixMatch):
    """The consistency losses of even rows are NaN, but not what is trained on."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = super().training_step(batch, batch_idx)
        return {**outputs, "sample_loss": outputs["sample_loss"].masked_fill(outputs["index"] % 2 == 0, NAN)}


def test_the_history_leaves_out_what_is_no_number(tmp_path):
    callback = augmentation()
    trainer(tmp_path, [callback]).fit(NaNFixMatch(), image_data())
    history = callback.selection.history
    assert torch.isnan(history.losses[::2]).all()
    assert torch.isfinite(history.losses[1::2]).any()
    assert torch.isfinite(torch.tensor(history.threshold))
    assert not history.flags[::2].any(), "what nothing is known of keeps its views"


# -- error memory ------------------------------------------------------------------------------------------------------
def test_a_memory_refuses_a_model_that_gives_no_numbers(tmp_path):
    module, callback = ForeignClicks(), ErrorMemoryCallback(ErrorMemory(whiten=False))
    with torch.no_grad():
        module.net.layers[0].weight.fill_(NAN)
    with pytest.raises(ValueError, match="Look for NaN in the base model or its inputs"):
        trainer(tmp_path, [callback]).test(module, click_stream(), verbose=False)
    assert callback.memory.n_written == 0


def test_training_with_a_memory_goes_to_nan_as_without(tmp_path):
    class Broken(ForeignClicks):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch, batch_idx) * NAN

    data = {"train_dataloaders": click_data()["train_dataloaders"]}  # nothing is validated, so nothing is corrected
    module = Broken()
    trainer(tmp_path, [ErrorMemoryCallback()], max_epochs=1).fit(module, **data)
    assert not torch.isfinite(module.net.layers[0].weight).any()
    with pytest.raises(ValueError, match=r"`base` must be in \[0, 1\], but got nan"):
        trainer(tmp_path, [ErrorMemoryCallback()], max_epochs=1).fit(Broken(), **click_data())


# -- data selection ----------------------------------------------------------------------------------------------------
def test_rows_without_a_score_leave_the_clusters_their_weights(tmp_path):
    def nothing(examples: Any, module: Any) -> torch.Tensor:
        return torch.full((len(examples.rows),), NAN)

    callback = selection(rounds=3, scorer=nothing)
    with pytest.warns(UserWarning, match="the scorer rated none of the rows"):
        fit(tmp_path, [callback])
    assert callback.selection.done
    assert callback.selection.log_weights.unique().numel() == 1

    def some(examples: Any, module: Any) -> torch.Tensor:
        scores = by_group(examples, module)
        return scores.masked_fill(examples.rows % 4 == 3, NAN)

    callback = selection(rounds=3, scorer=some)
    fit(tmp_path, [callback])
    assert torch.isfinite(callback.selection.log_weights).all()
    assert torch.isnan(callback.selection.scores[3::4]).all()


def test_selection_goes_on_beside_weights_that_are_no_numbers(tmp_path):
    class Broken(ForeignModule):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch, batch_idx) * NAN

    callback, other = selection(rounds=3), selection(rounds=3)
    fit(tmp_path, [callback], Broken())
    fit(tmp_path, [other])
    assert torch.equal(callback.selection.rows, other.selection.rows)


# -- initial-state tuning ----------------------------------------------------------------------------------------------
class NaNAfter(ForeignGLA):
    """Its loss in training is NaN from the fourth step on."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * NAN if self.trainer.global_step >= 4 else loss


@pytest.mark.parametrize("first", [True, False])
def test_a_voice_is_the_best_before_the_loss_was_no_number(first, tmp_path):
    module, callback = NaNAfter(), tuning(rank=2)
    module.load_state_dict(base().state_dict())
    before = weights_of(module)
    options = {"val_check_interval": 1 if first else 1.0, "max_epochs": 2}
    with pytest.warns(UserWarning, match="Nothing that was tuned was better") if not first else _no_warning():
        trainer(tmp_path, [callback], **options).fit(module, ChainData(n=64 if not first else 32))
    assert same(weights_of(module), before)
    tensors = dict(callback.tuned.tensors)
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert callback.tuned.held_out["tuned"] <= callback.tuned.held_out["untuned"]


def _no_warning() -> Any:
    import contextlib

    return contextlib.nullcontext()


# -- Lightning's own guard ---------------------------------------------------------------------------------------------
def test_early_stopping_ends_such_a_run_beside_every_callback(tmp_path):
    stop = EarlyStopping("train_loss", check_finite=True, check_on_train_epoch_end=True)
    runner = trainer(tmp_path, [RS2Callback(0.3, validate="round"), stop], max_epochs=6)
    runner.fit(TurnsNaN(), loader())
    assert runner.current_epoch == 2
