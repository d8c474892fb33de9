"""DiversitySelectionCallback(round_init="restart"): what rounds begin with again, and the steps planned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import lr_scheduler

from tests.divconq.rounds_parts import Asks, fit, selection


def test_restart_begins_each_round_where_training_began(tmp_path):
    class Notes(Asks):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 0:
                group = self.optimizers().param_groups[0]
                momentum = [state.get("momentum_buffer") for state in self.optimizers().state.values()]
                weights = [value.detach().clone() for value in self.parameters()]
                self.starts = [*getattr(self, "starts", []), (weights, group["lr"], momentum)]

    def starts(**options):
        module = fit(tmp_path, [selection(rounds=3, **options)], Notes(), max_epochs=4)
        return module, [
            all(torch.equal(one, two) for one, two in zip(module.starts[0][0], weights, strict=True))
            and lr == module.starts[0][1]
            and not any(value is not None for value in momentum)
            for weights, lr, momentum in module.starts
        ]

    module, same = starts(round_init="restart")
    assert same == [True, True, True, False]
    assert module.planned == [12], "the steps of the last round, which the schedule begins anew with"
    last = module.lr_schedulers().get_last_lr()[0]
    assert last == pytest.approx(0.1 * 0.1), "so that it ends where it should"
    assert starts(round_init="continue")[1] == [True, False, False, False]


def test_restart_takes_back_running_statistics_and_leaves_frozen_weights(tmp_path):
    class Normed(Asks):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
            self.net[0].requires_grad_(False)

        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            self.means = [*getattr(self, "means", []), self.net[1].running_mean.clone()]
            with torch.no_grad():
                self.net[0].bias.add_(1)  # not trained: not ours to take back

    module = Normed()
    before = module.net[0].bias.clone()
    fit(tmp_path, [selection(rounds=2, round_init="restart")], module, max_epochs=3)
    assert torch.equal(module.means[1], module.means[0])
    assert not torch.equal(module.means[2], module.means[0])
    assert torch.allclose(module.net[0].bias, before + 3)


class OneCycle(Asks):
    """A schedule that raises when it is too short."""

    def configure_optimizers(self):
        super().configure_optimizers()
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return [optimizer], [
            {"scheduler": lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self.planned[-1]), "interval": "step"}
        ]


def test_a_dev_run_has_steps_though_it_has_no_last_round(tmp_path):
    module = fit(tmp_path, [selection(rounds=3, round_init="restart")], OneCycle(), fast_dev_run=2)
    assert module.planned == [2] == [module.trainer.global_step]


@pytest.mark.parametrize("epochs", [4, -1])
def test_max_steps_less_those_of_earlier_rounds_are_planned(epochs, tmp_path):
    """Of 10 steps, the first two rounds take 2 and 4."""
    module = fit(tmp_path, [selection(rounds=3, round_init="restart")], max_steps=10, max_epochs=epochs)
    assert module.planned == [4]
    schedule = module.lr_schedulers()
    assert schedule.last_epoch == 4
    assert schedule.get_last_lr()[0] == pytest.approx(0.1 * 0.1), "it ends where it should"


def test_a_run_that_ends_before_the_last_round_plans_all_its_steps(tmp_path):
    with pytest.warns(UserWarning, match=r"max_steps=5 ends the run before|training ended in round 2"):
        module = fit(tmp_path, [selection(rounds=3, round_init="restart")], OneCycle(), max_steps=5)
    assert module.planned == [5] == [module.trainer.global_step]


class Table:
    """A learning rate for each step."""

    def __init__(self) -> None:
        self.values, self.marks = np.linspace(1, 0.1, 30), {3, 7}

    def __call__(self, step: int) -> float:
        return float(self.values[min(step, 29)]) / (2 if step in self.marks else 1)


def sequential(optimizer):
    parts = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2), lr_scheduler.MultiStepLR(optimizer, [3, 5])]
    return lr_scheduler.SequentialLR(optimizer, parts, [2])


def chained(optimizer):
    return lr_scheduler.ChainedScheduler([sequential(optimizer), lr_scheduler.LambdaLR(optimizer, Table())])


@pytest.mark.parametrize(
    "make", [sequential, chained, lambda optimizer: lr_scheduler.LambdaLR(optimizer, Table())], ids=["one", "two", "it"]
)
def test_schedulers_inside_others_begin_again_too(make, tmp_path):
    class Notes(Asks):
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), 0.1)
            return [optimizer], [{"scheduler": make(optimizer), "interval": "step"}]

        def on_train_batch_start(self, batch, batch_idx):
            self.rates = [*getattr(self, "rates", []), self.optimizers().param_groups[0]["lr"]]

    options = {"round_init": "restart", "lr_horizon": "ignore"}
    rates = fit(tmp_path, [selection(rounds=3, **options)], Notes(), max_epochs=3).rates
    assert rates[:2] == rates[2:4] == rates[6:8]
    assert rates[2:6] == rates[6:10]
    assert len(set(rates[6:])) > 2


def test_a_state_that_cannot_be_kept_names_the_way_out(tmp_path):
    class OfPath(Table):
        def __init__(self):
            super().__init__()
            self.path = Path("rates.npy")

    class Module(Asks):
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), 0.1)
            return [optimizer], [lr_scheduler.LambdaLR(optimizer, OfPath())]

    with pytest.raises(MisconfigurationException, match=r'LambdaLR, but got .*Use round_init="continue".*PosixPath'):
        fit(tmp_path, [selection(rounds=3, round_init="restart")], Module(), max_epochs=3)
