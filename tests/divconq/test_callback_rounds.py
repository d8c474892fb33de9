"""DiversitySelectionCallback over several rounds: rows, lengths, planned steps, scores, restarts, files."""

from __future__ import annotations

import json
import multiprocessing

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, EarlyStopping

from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.rounds import SelectionRounds
from lightning_adapt.divconq.training.round_files import read_round
from tests.divconq.rounds_parts import (
    GROUPS,
    Asks,
    N,
    RowData,
    Weights,
    WithLoader,
    by_group,
    fit,
    row_loader,
    seen_by_epoch,
    selection,
    vectors,
)
from tests.foreign import trainer


def by_hand(rounds: int = 3, **options) -> list[SelectionRounds]:
    """The rounds as the plain class gives them without any Trainer; a state for each round."""
    state = SelectionRounds(24, "km_random", rounds=rounds, k=GROUPS, engine="torch", **options)
    state.begin(vectors())
    found = []
    for _ in range(rounds):
        copy = SelectionRounds(24, "km_random", rounds=rounds, k=GROUPS, engine="torch", **options)
        copy.load_state_dict(state.state_dict())
        found.append(copy)
        if not state.done:
            state.advance(state.new_rows, (state.new_rows % GROUPS).double())
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["loader", "datamodule", "module"])
def test_indices_lengths_and_planned_steps(where, workers, tmp_path):
    module = WithLoader(workers=workers) if where == "module" else Asks()
    data = {"loader": row_loader(workers), "datamodule": RowData(workers=workers), "module": None}[where]
    fit(tmp_path, [selection(rounds=3)], module, data, max_epochs=4)
    plan = by_hand()
    expected = [plan[min(epoch, 2)].rows.tolist() for epoch in range(4)]
    assert [sorted(rows) for rows in seen_by_epoch(module).values()] == expected
    assert module.batches == [2, 4, 6, 6]
    assert module.planned == [18] == [module.trainer.global_step]


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"epochs_per_round": 2}, [0, 0, 1, 1, 2, 2]),
        ({"train_on": "new"}, [0, 1, 2, 2, 2, 2]),
        ({"update": "softmax", "drop_below": 0.05, "initial_weights": "proportional", "seed": 5}, [0, 1, 2, 2, 2, 2]),
    ],
)
def test_arguments_reach_the_rounds(options, trained, tmp_path):
    module = fit(tmp_path, [selection(rounds=3, **options)], max_epochs=6)
    plan = by_hand(**{name: value for name, value in options.items() if name != "epochs_per_round"})
    expected = [plan[number].rows.tolist() for number in trained]
    assert [sorted(rows) for rows in seen_by_epoch(module).values()] == expected
    assert module.planned == [module.trainer.global_step]


def test_scores_move_the_weights_and_are_not_asked_for_after_the_last_round(tmp_path):
    calls = []

    def scorer(examples, module):
        calls.append(examples.rows.tolist())
        assert not module.training
        assert not torch.is_grad_enabled()
        torch.rand(3)  # a scorer that draws random numbers leaves the run as it is
        return by_group(examples, module)

    callback = selection(rounds=3, scorer=scorer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = Weights(callback)
        module = fit(tmp_path, [callback, weights], max_epochs=5)
        after = torch.rand(1)
        torch.manual_seed(0)
        fit(tmp_path, [selection(rounds=3)], max_epochs=5)
        assert torch.equal(torch.rand(1), after)
    plan = by_hand()
    assert sorted(row for batch in calls for row in batch) == plan[1].rows.tolist()
    assert max(map(len, calls)) <= 8
    assert [weights.log_weights[epoch] for epoch in (0, 1, 2)] == [state.log_weights.tolist() for state in plan]
    assert all(part.training for part in module.modules())


def test_what_is_logged(tmp_path):
    class Notes(Weights):
        def on_train_epoch_start(self, trainer, pl_module):
            self.seen = [*getattr(self, "seen", []), dict(trainer.callback_metrics)]

    callback = selection(rounds=3)
    notes = Notes(callback)
    fit(tmp_path, [callback, notes], max_epochs=4)
    plan = by_hand()
    for epoch in (0, 1, 2):
        found = notes.seen[epoch + 1]
        assert float(found["divconq/round"]) == epoch
        assert float(found["divconq/selected"]) == len(plan[epoch].rows)
        assert float(found["divconq/weight_entropy"]) == pytest.approx(plan[epoch].history[-1]["entropy"], rel=1e-5)
    rows = plan[1].new_rows
    assert float(notes.seen[2]["divconq/mean_score"]) == pytest.approx(float((rows % GROUPS).double().mean()))


@pytest.mark.parametrize("max_steps", [1, 2, 5])
def test_max_steps_may_end_it_anywhere(max_steps, tmp_path):
    with pytest.warns(UserWarning, match="round") as told:
        module = fit(tmp_path, [selection(rounds=3)], max_steps=max_steps)
    first, last = [str(warning.message) for warning in told if "DiversitySelection" in str(warning.message)]
    assert f"max_steps={max_steps} ends the run before its last round of 3, which begins after 6 steps" in first
    number, rows = (1, 8) if max_steps < 3 else (2, 16)
    assert f"training ended in round {number} of 3, so that {rows} of the 24 rows of `budget`" in last
    assert module.trainer.global_step == max_steps
    assert module.planned == [max_steps]


def test_a_scorer_that_rates_nothing_is_named_and_weights_stay(tmp_path):
    callback = selection(rounds=2, scorer=lambda examples, module: [float("nan")] * len(examples))
    with pytest.warns(UserWarning, match="rated none of the rows"):
        fit(tmp_path, [callback], max_epochs=2)
    assert callback.selection.history[0]["weights"] == pytest.approx(callback.selection.history[1]["weights"])


def test_scores_of_earlier_rounds_move_nothing_again(tmp_path):
    def scorer(examples, module):
        return by_group(examples, module) * (1.0 if module.current_epoch == 0 else float("nan"))

    callback = selection(rounds=3, scorer=scorer)
    with pytest.warns(UserWarning, match="rated none of the rows, so that the clusters keep their weights"):
        fit(tmp_path, [callback], max_epochs=3)
    first, second, third = [entry["weights"] for entry in callback.selection.history]
    assert second != first
    assert third == second


@pytest.mark.parametrize("when", ["train", "validation"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_nothing_is_scored_for_a_round_that_early_stopping_prevents(when, epochs, tmp_path):
    """It looks after our hook (`train`) or before it; and is not followed before `min_epochs`."""
    stop = EarlyStopping("val_loss", divergence_threshold=-1.0, check_on_train_epoch_end=when == "train")
    calls = []

    def scorer(examples, module):
        calls.append(len(examples))
        return by_group(examples, module)

    class Validated(Asks):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", 1.0)

    callback, module = selection(rounds=3, scorer=scorer, out_dir=tmp_path / "out"), Validated()
    runner = trainer(tmp_path, [stop, callback], max_epochs=4, min_epochs=epochs)
    with pytest.warns(UserWarning, match=f"ended in round {epochs} of 3, so that {8 * epochs} of the 24 rows"):
        runner.fit(module, row_loader(), row_loader(shuffle=False, n=8))
    assert module.batches == [2, 4][:epochs]
    assert calls == [8] * (epochs - 1)
    assert len(list((tmp_path / "out").iterdir())) == 2 * epochs
    assert (stop.wait_count, stop.stopped_epoch, runner.should_stop) == (0, epochs - 1, True)


def test_round_files_hold_the_rounds_and_are_the_same_bytes_again(tmp_path):
    for name in ("first", "again"):
        fit(tmp_path, [selection(rounds=3, out_dir=tmp_path / name)], max_epochs=3)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == [f"round-{number}.{kind}" for number in range(3) for kind in ("json", "parquet")]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    plan = by_hand()
    for number in range(3):
        summary, table = read_round(tmp_path / "first", number)
        state = plan[number]
        assert table["index"] == state.rows.tolist()
        assert summary["rows"] == state.new_rows.tolist()
        assert summary["weights"] == pytest.approx(state.history[-1]["weights"], rel=1e-5)
        assert table["cluster"] == state.labels[state.rows].tolist()
        assert table["w"] == pytest.approx(
            [state.history[-1]["weights"][label] for label in table["cluster"]], rel=1e-5
        )
        scored = {row for row, score in zip(table["index"], table["S"], strict=True) if score is not None}
        assert scored == set(plan[number - 1].rows.tolist() if number else [])
        assert table["q"] == table["row_hash"] == [None] * len(state.rows)
    text = (tmp_path / "first" / "round-0.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["settings"]["seed"] == 42


def test_the_papers_preset_is_that_of_the_scripts_and_can_be_changed():
    callback = DiversitySelectionCallback.paper_wizardlm(quality="score")
    assert callback.settings["budget"] == "5%"
    assert [callback.settings[name] for name in ("method", "rounds", "k", "update")] == ["kmq", 3, 512, "softmax"]
    assert (callback.round_init, callback.epochs_per_round, callback.quality) == ("restart", 3, "score")
    changed = DiversitySelectionCallback.paper_wizardlm(100, k=16, epochs_per_round=1)
    assert (changed.settings["budget"], changed.settings["k"], changed.epochs_per_round) == (100, 16, 1)


def test_a_learning_rate_finder_leaves_no_trace(tmp_path):
    from lightning.pytorch.callbacks import LearningRateFinder

    class Found(Asks):
        lr = 0.1

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr)

    finder = LearningRateFinder(num_training_steps=3, early_stop_threshold=None)  # ends inside an epoch
    module = fit(tmp_path, [selection(rounds=3), finder], Found(), max_epochs=3)
    module.seen = module.seen[3:]
    assert [sorted(rows) for rows in seen_by_epoch(module).values()] == [state.rows.tolist() for state in by_hand()]


def test_a_batch_size_finder_leaves_no_trace(tmp_path):
    class Grows(RowData):
        batch_size = 2

        def train_dataloader(self):
            return row_loader(batch_size=self.batch_size)

        def val_dataloader(self):
            return row_loader(batch_size=self.batch_size, shuffle=False, n=8)

    finder = BatchSizeFinder(max_trials=2, steps_per_trial=1)
    runner, module = trainer(tmp_path, [selection(rounds=3, lr_horizon="ignore"), finder], max_epochs=3), Asks()
    runner.fit(module, datamodule=Grows())
    assert module.batches[-3:] == [2, 4, 6]
    assert module.planned == [24], "of the batch size before, which is Lightning's own limit"
    seen = [row for _, rows in module.seen[-12:] for row in rows]
    assert [sorted(seen[:8]), sorted(seen[8:24]), sorted(seen[24:])] == [state.rows.tolist() for state in by_hand()]


def test_old_workers_are_gone_when_a_round_brings_new_ones(tmp_path):
    class Counts(Asks):
        def on_train_batch_start(self, batch, batch_idx):
            self.workers = [*getattr(self, "workers", []), len(multiprocessing.active_children())]

    module = fit(tmp_path, [selection(rounds=3)], Counts(), row_loader(2), max_epochs=3)
    assert set(module.workers) == {2}


def test_figures_are_logged_at_the_end(tmp_path):
    fit(tmp_path, [selection(rounds=2, log_figure=True)], max_epochs=2)
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["divconq-map-step9.png", "divconq-weights-step9.png"]


def test_validation_test_and_prediction_are_left_alone(tmp_path):
    callback, module = selection(rounds=2), Asks()
    runner = trainer(tmp_path, [callback])
    loader = row_loader(shuffle=False)
    runner.validate(module, loader, verbose=False)
    assert len(runner.predict(module, loader)) == N // 4
    assert callback.selection is None
