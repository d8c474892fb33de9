"""When tuning stops, and which states it keeps: never worse than the base on held-out data."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging
from torch.utils.data import DataLoader

from lightning_adapt.lina_speech.tuning.best_states import BestStates
from tests.foreign import trainer
from tests.foreign_gla import ChainData, Chains, ForeignGLA
from tests.lina_speech.tuning_parts import base, fit, loss_of, tuning


class Losses(Callback):
    """Notes what was logged after each validation, and the steps there were."""

    def __init__(self) -> None:
        self.logged, self.steps = [], []

    def on_validation_end(self, trainer, pl_module) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("lina/")}
        if found:
            self.logged.append(found)
            self.steps.append(trainer.global_step)


class OtherStyle(ChainData):
    """Trains on a style that the held-out texts are not of: whatever is learnt makes them worse."""

    def __init__(self, n: int = 8) -> None:
        super().__init__(n=n, styles=(1,), surprise=0.0)
        self.held_out = Chains(16, (0,), seed=99, surprise=0.0)


KEPT = "ignore:Nothing that was tuned was better than the base:UserWarning"


def test_the_base_is_kept_when_nothing_helps(tmp_path):
    losses, module = Losses(), base()
    callback = tuning("cy", rank="full", patience=None)
    match = r"Nothing that was tuned was better than the base on the held-out data of 'cy': .* Tune on more data"
    with pytest.warns(UserWarning, match=match):
        fit(tmp_path, callback, module, OtherStyle(), others=[losses], max_epochs=6)
    assert losses.logged[-1]["lina/held_out_ratio"] > 1.0, "or there was nothing to keep the base from"
    voice = callback.tuned
    assert not any(matrix.any() for matrix in voice.matrices().values())
    assert voice.held_out["tuned"] == voice.held_out["untuned"]
    assert voice.held_out["untuned"] == pytest.approx(losses.logged[0]["lina/held_out_untuned"], rel=1e-6)
    states = {name: value[None] for name, value in voice.matrices().items()}
    assert loss_of(module, 0, states) == loss_of(module, 0)
    last = callback.state_dict()["run"]["values"]
    assert all(value.any() for value in last.values()), "a run that goes on goes on from its last states"


def test_of_a_run_that_overfits_the_best_states_are_kept(tmp_path):
    losses, module = Losses(), base()
    data = ChainData(n=3, surprise=0.9, styles=(0,))  # three texts with hardly a rule in them
    callback = tuning(rank="full", learning_rate=0.2)
    fit(tmp_path, callback, module, data, others=[losses], max_epochs=40)
    curve = [found["lina/held_out_loss"] for found in losses.logged]
    assert curve[-1] > min(curve) + 0.02, "or it did not overfit"
    voice = callback.tuned
    assert voice.held_out["tuned"] == pytest.approx(min(curve), rel=1e-6)
    assert min(curve) <= voice.held_out["untuned"]
    states = {name: value[None] for name, value in voice.matrices().items()}
    seen = loss_of(module, 0, states)
    assert seen == pytest.approx(min(curve), rel=1e-5)
    assert seen <= loss_of(module, 0)


@pytest.mark.filterwarnings("ignore:Swapping scheduler:UserWarning")
@pytest.mark.parametrize("first", [True, False])
def test_averages_at_the_end_do_not_take_the_place_of_the_best_states(first, tmp_path):
    callback, module = tuning(rank=2), base()
    others = [StochasticWeightAveraging(0.05, swa_epoch_start=0.5)]
    callbacks = [callback, *others] if first else [*others, callback]
    trainer(tmp_path, callbacks, max_epochs=6).fit(module, ChainData(n=32))
    states = {name: value[None] for name, value in callback.tuned.matrices().items()}
    assert loss_of(module, 0, states) == pytest.approx(callback.tuned.held_out["tuned"], rel=1e-5)


@pytest.mark.filterwarnings(KEPT)
def test_the_base_starts_from_zeros_as_its_voice_does(tmp_path):
    class Begins(ForeignGLA):
        def use_initial_states(self, states) -> None:
            own = {"layers.1": torch.full((1, 2, 4, 8), 0.5)}
            super().use_initial_states(own if states is None else states)

    module, callback = Begins(), tuning(rank="full", learning_rate=1e-12)
    module.load_state_dict(base().state_dict())
    fit(tmp_path, callback, module)
    states = {name: value[None] for name, value in callback.tuned.matrices().items()}
    assert loss_of(module, 0, states) != pytest.approx(loss_of(module, 0), rel=1e-4)
    assert callback.tuned.held_out["untuned"] == pytest.approx(loss_of(module, 0, {}), rel=1e-5)
    assert callback.tuned.held_out["tuned"] == pytest.approx(loss_of(module, 0, states), rel=1e-5)


@pytest.mark.filterwarnings(KEPT)
@pytest.mark.parametrize("patience", [1, 3])
def test_patience_counts_validations_without_a_better_state(patience, tmp_path):
    losses = Losses()
    fit(tmp_path, tuning(patience=patience), base(), OtherStyle(), others=[losses], max_epochs=20)
    curve = [found["lina/held_out_loss"] for found in losses.logged]
    best = [losses.logged[0]["lina/held_out_untuned"], *curve]
    waited = len(best) - 1 - best.index(min(best))
    assert waited == patience
    assert len(curve) < 20


@pytest.mark.filterwarnings(KEPT)
def test_patience_stops_inside_an_epoch(tmp_path):
    losses = Losses()
    options = {"val_check_interval": 2, "max_epochs": 5}
    fit(tmp_path, tuning(patience=2), base(), OtherStyle(n=80), others=[losses], **options)
    assert losses.steps == [2, 4]


def test_max_steps_end_the_run_with_a_validation(tmp_path):
    losses, module = Losses(), base()
    runner = trainer(tmp_path, [tuning(max_steps=6), losses], max_epochs=10)
    runner.fit(module, ChainData(n=32))
    assert runner.global_step == 6
    assert losses.steps == [4, 6]
    runner = trainer(tmp_path, [tuning(max_steps=3)], max_epochs=10, accumulate_grad_batches=2)
    runner.fit(module, ChainData(n=32))
    assert runner.global_step == 3, "steps of the optimizer, not batches"


def test_losses_are_those_of_sequence_losses_with_and_without_the_states(tmp_path):
    losses, module, callback = Losses(), base(), tuning(rank=2, max_steps=4)
    fit(tmp_path, callback, module, others=[losses])
    states = {name: value[None] for name, value in callback.tuned.matrices().items()}
    logged = losses.logged[0]
    assert logged["lina/held_out_loss"] == pytest.approx(loss_of(module, 0, states), rel=1e-5)
    assert logged["lina/held_out_untuned"] == pytest.approx(loss_of(module, 0), rel=1e-5)
    ratio = logged["lina/held_out_loss"] / logged["lina/held_out_untuned"]
    assert logged["lina/held_out_ratio"] == pytest.approx(ratio, rel=1e-5)


def test_means_are_over_targets_not_over_batches(tmp_path):
    losses, module = Losses(), base()
    data = ChainData(n=32)
    data.val_dataloader = lambda: DataLoader(data.held_out, batch_size=5)  # the last one is of one text
    fit(tmp_path, tuning(max_steps=4), module, data, others=[losses])
    assert losses.logged[0]["lina/held_out_untuned"] == pytest.approx(loss_of(module, 0), rel=1e-5)


def test_several_loaders_count_as_one_set(tmp_path):
    losses, module = Losses(), base()

    class TakesTwo(ForeignGLA):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            assert self.beginning

    data = ChainData(n=32)
    halves = [torch.utils.data.Subset(data.held_out, range(*part)) for part in ((0, 4), (4, 16))]
    data.val_dataloader = lambda: [DataLoader(half, batch_size=4) for half in halves]
    two = TakesTwo()
    two.load_state_dict(module.state_dict())
    fit(tmp_path, tuning(max_steps=4), two, data, others=[losses])
    assert losses.logged[0]["lina/held_out_untuned"] == pytest.approx(loss_of(module, 0), rel=1e-5)


def test_the_sanity_check_does_not_count(tmp_path):
    kept = []
    for steps in (0, 2):
        callback, losses = tuning(rank=2), Losses()
        fit(tmp_path, callback, others=[losses], num_sanity_val_steps=steps)
        kept.append((callback.tuned.held_out, losses.logged))
    assert kept[0] == kept[1]
    assert len(kept[0][1]) == 2


def test_without_validation_the_last_states_are_kept_and_patience_says_so(tmp_path):
    data = ChainData(n=32)
    voices = {}
    for patience in (None, 5):
        callback = tuning(patience=patience)
        runner = trainer(tmp_path, [callback], max_epochs=2)
        if patience is None:
            runner.fit(base(), data.train_dataloader())
        else:
            with pytest.warns(UserWarning, match=r"InitialStateTuning\(patience=5\) had no held-out data of 'voice'"):
                runner.fit(base(), data.train_dataloader())
        voices[patience] = callback.tuned
        assert callback.tuned.held_out is None
    assert voices[None].matrices()["layers.0"].any()


@pytest.mark.filterwarnings(KEPT)
def test_states_that_end_in_nan_give_the_best_before(tmp_path):
    class Breaks(Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 2:
                for value in pl_module.tuned_initial_states.parameters():
                    value.data.fill_(math.nan)

    callback = tuning(rank=2)
    fit(tmp_path, callback, others=[Breaks()], max_epochs=4)
    assert callback.tuned.held_out["tuned"] < callback.tuned.held_out["untuned"]
    with pytest.raises(ValueError, match="Tuning that ended in NaN gives no voice"):
        trainer(tmp_path, [tuning(), Breaks()], max_epochs=4).fit(base(), ChainData(n=32).train_dataloader())


def test_validations_between_two_steps_do_not_cost_patience():
    best = BestStates(1)
    best.begin([1.0])
    for step in (0, 0, 1, 1, 1, 2):
        best.offer(step, [2.0], lambda number: {})
    assert best.waited == 2
    best.offer(3, [0.5], lambda number: {})
    assert best.waited == 0


def test_the_ratio_is_on_the_progress_bar(tmp_path):
    class Shown(Callback):
        def on_validation_end(self, trainer, pl_module) -> None:
            if not trainer.sanity_checking:
                shown.append({name for name in trainer.progress_bar_metrics if name.startswith("lina/")})

    shown = []
    fit(tmp_path, tuning(), others=[Shown()])
    assert shown == [{"lina/held_out_ratio"}] * 2


def test_callbacks_of_others_can_watch_what_is_logged(tmp_path):
    stopping = EarlyStopping("lina/held_out_loss", patience=50)
    fit(tmp_path, tuning(), others=[stopping])
    assert stopping.best_score > 0
