"""The seconds are those of a clock that the tests move, split as the hooks say; training is not touched."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

from lightning_adapt import TimeToAccuracy
from lightning_adapt.rs2 import stopwatch
from tests.contracts.cli_parts import FOREIGN, NET, foreign  # noqa: F401 - a fixture
from tests.foreign import ForeignModule, loader, numbered_rows, trainer
from tests.rs2.timed import LOADING, TRAINING, VALIDATING, FakeClock, Slow, Timed, TimedTraining

EPOCH = 4 * (LOADING + TRAINING)  # seconds of training in an epoch
VALIDATION = 2 * VALIDATING


@pytest.fixture
def clock(monkeypatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(stopwatch, "perf_counter", fake)
    return fake


def fit(module: Any, *callbacks: Any, ckpt: Any = None, **options: Any) -> Any:
    runner = trainer(Path.cwd(), list(callbacks), **{"max_epochs": len(getattr(module, "values", [])) or 2, **options})
    runner.fit(module, ckpt_path=ckpt, weights_only=None if ckpt is None else True)
    return runner


def seconds(train: float, evaluation: float, selection: float = 0.0) -> dict[str, float]:
    return {"train": train, "evaluation": evaluation, "selection": selection}


# -- the split --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sanity", [0, 2])
def test_seconds_until_each_target_are_split_exactly(clock, sanity):
    tta = TimeToAccuracy("val_accuracy", [0.9, 0.5, 0.95], selection_seconds=7)
    fit(Timed(clock, [0.25, 0.9, 0.5]), tta, num_sanity_val_steps=sanity)
    curve = [
        (4, EPOCH, VALIDATION, 7, 0.25, 0),
        (8, 2 * EPOCH, 2 * VALIDATION, 7, 0.9, 1),
        (12, 3 * EPOCH, 3 * VALIDATION, 7, 0.5, 2),
    ]
    assert tta.curve == curve
    second = {**seconds(2 * EPOCH, 2 * VALIDATION, 7), "total": 2 * EPOCH + 2 * VALIDATION + 7, "step": 8, "epoch": 1}
    assert tta.seconds_to == {0.5: second, 0.9: second, 0.95: None}
    assert list(tta.seconds_to) == [0.5, 0.9, 0.95]
    clock.now += 100  # after the run the clock stands
    assert tta.seconds == seconds(3 * EPOCH, 3 * VALIDATION, 7)


def test_smaller_is_better_with_mode_min(clock):
    tta = TimeToAccuracy("val_accuracy", (2.0, 0.1), mode="min")
    fit(Timed(clock, [3.0, 2.0, 1.0]), tta)
    assert tta.seconds_to[2.0]["step"] == 8
    assert tta.seconds_to[0.1] is None


def test_nan_reaches_nothing_and_float32_numbers_count_as_printed(clock):
    highest, lowest = TimeToAccuracy("val_accuracy", 0.9), TimeToAccuracy("val_accuracy", 0.9, "min")
    fit(Timed(clock, [math.nan, 0.9]), highest, lowest)
    assert [tta.seconds_to[0.9]["step"] for tta in (highest, lowest)] == [8, 8]
    assert math.isnan(highest.curve[0].value)


def test_validation_inside_epochs_on_several_loaders(clock):
    class Several(Timed):
        def val_dataloader(self):
            one = super().val_dataloader()
            return [one, DataLoader(one.dataset, 1)]

    tta = TimeToAccuracy("val_accuracy", 0.5)
    fit(Several(clock, [0.1, 0.2, 0.3, 0.6]), tta, max_epochs=2, val_check_interval=0.5)
    assert [point[:3] for point in tta.curve] == [
        (2 * number, number * EPOCH / 2, number * 2 * VALIDATION) for number in (1, 2, 3, 4)
    ]
    assert tta.seconds_to[0.5]["epoch"] == 1


@pytest.mark.timed
def test_each_second_is_counted_once_in_real_time():
    class Sleeps(ForeignModule):
        def training_step(self, batch, batch_idx):
            time.sleep(0.02)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            time.sleep(0.1)
            return super().validation_step(batch, batch_idx)

        def on_train_epoch_start(self):
            with tta.selecting():
                time.sleep(0.05)

    tta = TimeToAccuracy("val_loss", 100.0, "min", selection_seconds=0.5)
    data = {"train_dataloaders": loader(n=40), "val_dataloaders": DataLoader(numbered_rows(16), 8)}
    start = time.perf_counter()
    trainer(Path.cwd(), [tta], max_epochs=2).fit(Sleeps(), **data)
    wall = time.perf_counter() - start
    spent = tta.seconds
    assert 0.6 <= spent["selection"] < 0.8
    assert 0.4 <= spent["evaluation"] < 0.8
    assert spent["train"] >= 0.2
    assert sum(spent.values()) - 0.5 <= wall


# -- selection --------------------------------------------------------------------------------------------------------
class Chooses(Callback):
    """Takes 3 s to choose data at the start of each epoch, and 5 s before training."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.selection_seconds = clock, 0.0

    def choose(self, took: float) -> None:
        self.clock.now += took
        self.selection_seconds += took

    def setup(self, *args: Any, **kwargs: Any) -> None:
        self.choose(5)

    def on_train_epoch_start(self, *args: Any) -> None:
        self.choose(3)


class KeepsItsCount(Chooses):
    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.selection_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.selection_seconds += state_dict["seconds"]


@pytest.mark.parametrize("first", [True, False], ids=["ours first", "ours last"])
def test_what_callbacks_report_is_moved_from_training_to_selection(clock, first):
    tta, chooses = TimeToAccuracy("val_accuracy", 0.5, selection_seconds=7), Chooses(clock)
    fit(Timed(clock, [0.1, 0.5]), *((tta, chooses) if first else (chooses, tta)))
    assert [point.selection for point in tta.curve] == [15, 18]
    assert tta.seconds == seconds(2 * EPOCH, 2 * VALIDATION, 18)


def test_other_attributes_of_that_name_are_left_alone(clock):
    class Odd(Callback):
        selection_seconds = "many"

    class Odder(Callback):
        selection_seconds = math.nan

    tta = TimeToAccuracy("val_accuracy", 0.5)
    fit(Timed(clock, [0.5]), tta, Odd(), Odder())
    assert tta.seconds == seconds(EPOCH, VALIDATION)


def test_selecting_inside_and_outside_of_training_and_validation(clock):
    class Own(Timed):
        def on_train_batch_start(self, batch, batch_idx):
            with tta.selecting():
                self.clock.now += 2
                with tta.selecting():
                    self.clock.now += 1

        def on_validation_epoch_start(self):
            with tta.selecting():
                self.clock.now += 4

    tta = TimeToAccuracy("val_accuracy", 0.5)
    with tta.selecting():
        clock.now += 100
    clock.now += 50
    fit(Own(clock, [0.1, 0.5]), tta)
    assert tta.seconds == seconds(2 * EPOCH, 2 * VALIDATION, 100 + 2 * (4 * 3 + 4))


def test_selecting_ends_with_the_error_inside(clock):
    tta = TimeToAccuracy("val_accuracy", 0.5)

    def fails():
        with tta.selecting():
            clock.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    clock.now += 1
    assert tta.seconds["selection"] == 1


# -- which values count -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("validates", [0, 1, 2])
@pytest.mark.parametrize("where", ["step", "epoch", "hook"])
def test_a_metric_of_training_is_read_at_the_end_of_each_epoch(clock, where, validates):
    """Also when validation runs beside it: in every epoch, or in every second one."""
    options = {"check_val_every_n_epoch": validates} if validates else {"limit_val_batches": 0}
    tta = TimeToAccuracy("train_accuracy", 0.5)
    fit(TimedTraining(clock, [0.25, 0.5, 0.75, 0.5], where), tta, **options)
    assert [(point.step, point.value) for point in tta.curve] == [(4, 0.25), (8, 0.5), (12, 0.75), (16, 0.5)]
    assert [point.train for point in tta.curve] == [EPOCH, 2 * EPOCH, 3 * EPOCH, 4 * EPOCH]
    assert tta.seconds_to[0.5]["epoch"] == 1
    assert tta.seconds_to[0.5]["evaluation"] == {0: 0, 1: 2, 2: 1}[validates] * VALIDATION


class Both(TimedTraining):
    """Logs the metric in training and, lower, in validation."""

    def on_validation_epoch_end(self) -> None:
        self.log(self.name, 0.1)


@pytest.mark.parametrize("every", [1, 2])
def test_a_name_that_both_log_means_the_validation(clock, every):
    tta = TimeToAccuracy("train_accuracy", 0.5)
    fit(Both(clock, [0.9, 0.9, 0.9, 0.9], "epoch"), tta, check_val_every_n_epoch=every)
    assert {point.value for point in tta.curve} == {0.1}
    assert len(tta.curve) == 4 // every
    assert tta.seconds_to == {0.5: None}


def test_a_validation_that_does_not_log_the_metric_is_not_a_reading(clock):
    class Sometimes(Timed):
        def log_value(self, value):
            if value:
                super().log_value(value)

    tta = TimeToAccuracy("val_accuracy", 0.5)
    fit(Sometimes(clock, [0.25, 0, 0.5]), tta)
    assert [(point.step, point.value) for point in tta.curve] == [(4, 0.25), (12, 0.5)]


@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_a_missing_metric_is_an_error_that_names_the_others(clock, interval):
    module = TimedTraining(clock, [0.5, 0.5, 0.5], "epoch")
    with pytest.raises(MisconfigurationException, match=r"`monitor` must be a logged metric \(there are: something_el"):
        fit(module, TimeToAccuracy("accuracy", 0.5), val_check_interval=interval)
    assert module.trainer.current_epoch == 1, "found after the first epoch, where training may still log it"


def test_a_missing_metric_without_validation_is_a_warning(clock):
    tta = TimeToAccuracy("accuracy", 0.5)
    with pytest.warns(UserWarning, match="measured nothing: `accuracy` was never logged"):
        fit(Timed(clock, [0.5]), tta, limit_val_batches=0)
    assert tta.seconds == seconds(EPOCH, 0)


def test_nothing_is_counted_outside_of_fit(clock):
    tta = TimeToAccuracy("val_accuracy", 0.5)
    runner, module = trainer(Path.cwd(), [tta], max_epochs=1), Timed(clock, [0.5])
    runner.validate(module, verbose=False)
    runner.test(module, verbose=False)
    assert (tta.curve, tta.seconds) == ([], seconds(0, 0))
    runner.fit(module)
    runner.test(module, verbose=False)
    assert tta.seconds == seconds(EPOCH, VALIDATION)
    runner.fit_loop.max_epochs = 2
    module.values.append(0.75)
    runner.fit(module)
    assert [point[:2] for point in tta.curve] == [(4, EPOCH), (8, 2 * EPOCH)]


def test_an_error_stops_the_clock(clock):
    class Breaks(Timed):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 2:
                raise KeyError

    tta = TimeToAccuracy("val_accuracy", 0.5)
    with pytest.raises(KeyError):
        fit(Breaks(clock, [0.5]), tta)
    clock.now += 100
    assert tta.seconds == seconds(2 * TRAINING + 3 * LOADING, 0)


# -- it leaves training alone -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"fast_dev_run": 2}, {"val_check_interval": 3}], ids=str)
def test_weights_are_bit_equal_with_and_without(options):
    trained = []
    for callbacks in ([], [TimeToAccuracy("val_loss", [0.5, 0.1], "min", log_figure=True)]):
        module = ForeignModule()
        data = {"train_dataloaders": loader(), "val_dataloaders": DataLoader(numbered_rows(16), 8)}
        trainer(Path.cwd(), callbacks, **options).fit(module, **data)
        trained.append((module.seen, torch.cat([value.flatten() for value in module.state_dict().values()])))
    assert trained[0][0] == trained[1][0]
    assert torch.equal(trained[0][1], trained[1][1])
    assert callbacks[0].curve


def test_switched_off_it_measures_nothing(clock):
    tta = TimeToAccuracy("no such metric", 0.5, enabled=False, verbose=True, log_figure=True)
    with tta.selecting():
        clock.now += 1
    fit(Timed(clock, [0.5]), tta, Chooses(clock))
    assert (tta.curve, tta.seconds, tta.seconds_to) == ([], seconds(0, 0), {0.5: None})


def test_under_the_trainer_of_pytorch_lightning(clock):
    class Theirs(pytorch_lightning.LightningModule):
        training_step, validation_step = Timed.training_step, Timed.validation_step
        train_dataloader, val_dataloader = Timed.train_dataloader, Timed.val_dataloader
        configure_optimizers, on_validation_epoch_end = Timed.configure_optimizers, Timed.on_validation_epoch_end
        log_value = Timed.log_value

        def __init__(self):
            super().__init__()
            self.clock, self.values, self.name, self.net = clock, [0.25, 0.5], "val_accuracy", torch.nn.Linear(1, 1)

    tta = TimeToAccuracy("val_accuracy", 0.5)
    fit(Theirs(), tta, trainer_class=pytorch_lightning.Trainer)
    assert tta.seconds_to[0.5]["train"] == 2 * EPOCH


# -- resume -----------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning")
@pytest.mark.parametrize("stop", ["middle", "after validation", "end of the train epoch"])
@pytest.mark.parametrize("chooses", [Chooses, KeepsItsCount])
def test_a_resumed_run_goes_on_from_the_saved_seconds(clock, stop, chooses):
    saves = {
        "middle": {"every_n_train_steps": 6},
        "after validation": {"save_on_train_epoch_end": False, "every_n_epochs": 2},
        "end of the train epoch": {"save_on_train_epoch_end": True, "every_n_epochs": 2},
    }[stop]
    values = [0.25, 0.5, 0.75]
    whole = TimeToAccuracy("val_accuracy", [0.5, 0.75], selection_seconds=7)
    checkpoint = ModelCheckpoint("saved", save_top_k=-1, **saves)
    fit(Timed(clock, values), whole, chooses(clock), checkpoint)
    before = 1 if stop == "middle" else 2  # validations in the checkpoint
    path = min(Path("saved").glob("*.ckpt"), key=lambda path: torch.load(path, weights_only=True)["global_step"])

    clock.now += 10**6
    again = TimeToAccuracy("val_accuracy", [0.5, 0.75, 0.25], selection_seconds=7)
    fit(Timed(clock, values), again, chooses(clock), ckpt=path)
    more = 5  # the resumed run chose once more before training
    expected = [
        point._replace(selection=point.selection + more * (at >= before)) for at, point in enumerate(whole.curve)
    ]
    if stop == "middle":  # the epoch goes on without its start, and the loader from its beginning
        assert [point[:1] + point[2:] for point in again.curve] == [point[:1] + point[2:] for point in expected]
    else:
        assert again.curve == expected
    assert [point.train for point in again.curve] == [point.train for point in whole.curve]
    assert again.seconds_to[0.5]["step"] == 8
    assert again.seconds_to[0.25]["step"] == 4, "a new target is looked up in the saved curve"


def test_a_state_written_while_the_clock_runs_holds_the_running_part(clock):
    states = []

    class Saves(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            states.append(json.loads(json.dumps(tta.state_dict()))["seconds"])

        def on_validation_batch_end(self, *args: Any) -> None:
            states.append(tta.state_dict()["seconds"])

    tta = TimeToAccuracy("val_accuracy", 0.5)
    fit(Timed(clock, [0.5]), tta, Saves())
    assert states == [
        *(seconds(batch * (TRAINING + LOADING), 0) for batch in (1, 2, 3, 4)),
        seconds(EPOCH, VALIDATING),
        seconds(EPOCH, 2 * VALIDATING),
    ]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_training_values_before_the_first_validation_survive_a_resume(clock):
    options = {"check_val_every_n_epoch": 3}
    values = [0.5, 0.25, 0.25]
    saves = ModelCheckpoint("saved", save_on_train_epoch_end=True, save_top_k=-1)
    whole = TimeToAccuracy("train_accuracy", 0.5)
    fit(TimedTraining(clock, values, "epoch"), whole, saves, **options)
    again = TimeToAccuracy("train_accuracy", 0.5)
    fit(TimedTraining(clock, values, "epoch"), again, ckpt="saved/epoch=0-step=4.ckpt", **options)
    assert again.curve == whole.curve
    assert again.seconds_to[0.5]["step"] == 4


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_who_logs_the_metric_is_remembered_in_a_resumed_run(clock):
    saves = ModelCheckpoint("saved", save_top_k=-1)
    options = {"check_val_every_n_epoch": 2}
    whole, again = TimeToAccuracy("train_accuracy", 0.5), TimeToAccuracy("train_accuracy", 0.5)
    fit(Both(clock, [0.9, 0.9, 0.9], "epoch"), whole, saves, **options)
    fit(Both(clock, [0.9, 0.9, 0.9], "epoch"), again, ckpt="saved/epoch=1-step=8.ckpt", **options)
    assert [point.step for point in whole.curve] == [8]
    assert again.curve == whole.curve


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
def test_testing_an_early_checkpoint_does_not_take_back_the_result(clock):
    tta, module = TimeToAccuracy("val_accuracy", 0.5), Timed(clock, [0.25, 0.5])
    runner = fit(module, tta, ModelCheckpoint("saved", save_top_k=-1))
    measured = tta.state_dict()
    runner.test(module, ckpt_path="saved/epoch=0-step=4.ckpt", verbose=False, weights_only=True)
    assert tta.state_dict() == measured
    fresh = TimeToAccuracy("val_accuracy", 0.5)
    trainer(Path.cwd(), [fresh]).test(module, ckpt_path="saved/epoch=0-step=4.ckpt", verbose=False, weights_only=True)
    assert [point.step for point in fresh.curve] == [4], "who has measured nothing may look at a saved result"


def test_another_run_with_the_same_callback_begins_anew(clock):
    tta = TimeToAccuracy("val_accuracy", 0.5, selection_seconds=7)
    fit(Timed(clock, [0.5, 0.6]), tta)
    fit(Timed(clock, [0.25, 0.7]), tta)
    assert [point[:4] for point in tta.curve] == [
        (4, EPOCH, VALIDATION, 7),
        (8, 2 * EPOCH, 2 * VALIDATION, 7),
    ]
    assert tta.seconds_to[0.5]["step"] == 8


def test_choosing_between_two_runs_counts_in_the_second(clock):
    tta = TimeToAccuracy("val_accuracy", 0.5)
    for took in (3, 5):
        with tta.selecting():
            clock.now += took
        clock.now += 100
        fit(Timed(clock, [0.6]), tta)
        assert tta.seconds["selection"] == took


def test_the_same_run_with_more_epochs_goes_on(clock):
    tta, module = TimeToAccuracy("val_accuracy", 0.9), Timed(clock, [0.25, 0.5, 0.9])
    runner = fit(module, tta, max_epochs=2)
    runner.fit_loop.max_epochs = 3
    runner.fit(module)
    assert [point.step for point in tta.curve] == [4, 8, 12]
    assert tta.seconds_to[0.9]["train"] == 3 * EPOCH


# -- several processes ------------------------------------------------------------------------------------------------
class UnequalRanks(Timed):
    """Rank 1 takes three times as long, and nobody syncs the metric."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.clock.now += 2 * TRAINING * self.global_rank
        return super().training_step(batch, batch_idx)

    def log_value(self, value: float) -> None:
        self.log(self.name, value, rank_zero_only=True)  # rank 1 does not even have it

    def on_train_epoch_end(self) -> None:
        self.clock.now += 3 * TRAINING * self.global_rank

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Slow(self.clock, 8, LOADING), 1)


class WritesResult(Callback):
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        (tta,) = (callback for callback in trainer.callbacks if isinstance(callback, TimeToAccuracy))
        result = {"state": tta.state_dict(), "to": list(tta.seconds_to.items())}
        Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(result))


@pytest.mark.filterwarnings("ignore:It is recommended to use `self.log.'val_accuracy', ..., sync_dist=True:UserWarning")
def test_clock_and_metric_of_rank_zero_decide(clock):
    tta = TimeToAccuracy("val_accuracy", [0.5, 0.9])
    options = {"strategy": "ddp_fork", "devices": 2, "plugins": [LightningEnvironment()]}
    fit(UnequalRanks(clock, [0.25, 0.5]), tta, Chooses(clock), WritesResult(), **options)
    first, second = (json.loads(Path(f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["state"]["seconds"] == seconds(2 * EPOCH, 2 * VALIDATION / 2, 5 + 2 * 3)  # a batch each
    assert first["to"][0][1]["step"] == 8
    assert first["to"][1] == [0.9, None]


# -- logs, table, figure ----------------------------------------------------------------------------------------------
def test_a_reached_target_is_logged_once_and_drawn(clock):
    tta = TimeToAccuracy("val_accuracy", [0.5, 0.6, 0.9], log_figure=True, verbose=False)
    loggers = [CSVLogger("csv"), TensorBoardLogger("board")]
    fit(Timed(clock, [0.25, 0.75, 0.75]), tta, logger=loggers)
    lines = [line.split(",") for line in Path(loggers[0].log_dir, "metrics.csv").read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    logged = [(name, row["step"], row[name]) for row in rows for name in lines[0] if "time_to" in name and row[name]]
    total = str(2 * EPOCH + 2 * VALIDATION)
    assert sorted(logged) == [("time_to/val_accuracy/0.5", "8", total), ("time_to/val_accuracy/0.6", "8", total)]
    assert [path.name for path in Path("csv").rglob("*.png")] == ["time_to-val_accuracy-step12.png"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(loggers[1].log_dir).Reload()
    assert board.Tags()["images"] == ["time_to/val_accuracy"]
    assert [(event.step, event.value) for event in board.Scalars("time_to/val_accuracy/0.5")] == [(8, float(total))]


def test_the_table_is_printed_when_asked_for(clock, capsys):
    fit(Timed(clock, [0.5]), TimeToAccuracy("val_accuracy", [0.5, 0.9], verbose=True))
    printed = capsys.readouterr().out
    assert "seconds until val_accuracy >= target" in printed
    assert "never" in printed
    assert f"{EPOCH:.2f}" in printed
    fit(Timed(clock, [0.5]), TimeToAccuracy("val_accuracy", [0.5, 0.9]))
    assert "never" not in capsys.readouterr().out


# -- the command line -------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("targets", ["0.75", "[1, 0.5]"])
def test_targets_on_the_command_line(targets, capsys):
    pytest.importorskip("jsonargparse")
    from lightning_adapt import cli

    Path("my_module.py").write_text(
        FOREIGN.replace("return self.layer", "self.log('loss', 1.0)\n        return self.layer")
    )
    chosen = ["--trainer.callbacks=TimeToAccuracy", "--trainer.callbacks.monitor=loss", "--trainer.callbacks.mode=min"]
    chosen += [f"--trainer.callbacks.targets={targets}", "--trainer.callbacks.verbose=true"]
    assert cli.main(["fit", *NET, *chosen]) == 0
    printed = capsys.readouterr().out
    assert printed.count("never") == 1  # the loss stays at 1
    assert "loss <= target" in printed


# -- arguments --------------------------------------------------------------------------------------------------------
def test_instances_for_several_metrics_have_states_of_their_own(clock):
    instances = [TimeToAccuracy("a", 1), TimeToAccuracy("b", 1), TimeToAccuracy("a", 1, "min")]
    assert len({each.state_key for each in instances}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"monitor": ""}, "`monitor` must be the name"),
        ({"monitor": None}, "`monitor` must be the name"),
        ({"targets": []}, "`targets` must be one or several"),
        ({"targets": [0.5, 0.5]}, "`targets` must be one or several different"),
        ({"targets": [0.5, math.inf]}, "`targets` must be one or several different finite"),
        ({"targets": math.nan}, "`targets` must be"),
        ({"targets": "0.5"}, "`targets` must be"),
        ({"targets": True}, "`targets` must be"),
        ({"targets": [0.5, "0.6"]}, "`targets` must be"),
        ({"targets": None}, "`targets` must be"),
        ({"mode": "auto"}, "`mode` must be one of 'max', 'min'"),
        ({"selection_seconds": -1}, "`selection_seconds` must be a number >= 0, but got -1"),
        ({"selection_seconds": math.inf}, "`selection_seconds` must be"),
        ({"selection_seconds": "1"}, "`selection_seconds` must be"),
        ({"enabled": 1}, "`enabled` must be"),
        ({"log_figure": 1}, "`log_figure` must be"),
        ({"verbose": 1}, "`verbose` must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TimeToAccuracy(**{"monitor": "val_accuracy", "targets": [0.5], **arguments})
