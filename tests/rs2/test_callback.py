"""RS2Callback in small fits: what it trains on, when it validates, what it leaves behind."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset

from lightning_adapt import RS2Callback, RS2Sampler
from tests.rs2.parts import Module, Rows, TrainOnly, flat, row_loader, small_trainer


class Data(LightningDataModule):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def train_dataloader(self):
        return row_loader(**self.options)

    def val_dataloader(self):
        return row_loader(8, shuffle=False)


class WithLoaders(Module):
    def train_dataloader(self):
        return row_loader()


class Notes(Callback):
    """Notes learning rates and logged metrics at the end of each round."""

    def __init__(self):
        self.rates, self.coverage = [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_end(self, trainer, pl_module):
        self.coverage.append(trainer.callback_metrics.get("rs2/coverage"))


def planned(ratio, rounds, n=80, batch_size=4, **options):
    sampler = RS2Sampler(n, ratio, round_to=batch_size, **options)
    return [sampler.epoch_rows(t).reshape(-1, batch_size).tolist() for t in range(rounds)]


def fit(*callbacks, module=None, train=None, val=None, **options):
    trainer = small_trainer(*callbacks, **{"max_epochs": 4, **options})
    module = module or Module()
    trainer.fit(module, row_loader() if train is None else train, row_loader(8, shuffle=False) if val is None else val)
    return trainer, module


# -- what it trains on -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["loader", "datamodule", "module"])
def test_each_epoch_is_a_round_wherever_the_loader_comes_from(where):
    module = {"module": WithLoaders}.get(where, Module)()
    trainer = small_trainer(RS2Callback(0.25, seed=3), max_epochs=5)
    if where == "module":
        trainer.fit(module)
    else:
        trainer.fit(module, row_loader() if where == "loader" else Data())
    assert module.rounds == planned(0.25, 5, seed=3)
    assert trainer.global_step == 25


@pytest.mark.parametrize("options", [{"mode": "independent"}, {"mode": "bootstrap"}, {"stratify": True}])
def test_arguments_reach_the_sampler(options):
    _, module = fit(RS2Callback(0.25, **options))
    expected = {"targets": Rows(80).targets} if "stratify" in options else options
    assert module.rounds == planned(0.25, 4, **expected)


@pytest.mark.parametrize("options", [{"enabled": False}, {"ratio": 1}])
def test_a_neutral_setting_changes_nothing(options):
    def run(*callbacks):
        torch.manual_seed(1)
        _trainer, module = fit(*callbacks, max_epochs=3)
        return module.rounds, module.net.weight.detach(), module.validated_after

    rounds, weight, validated = run(RS2Callback(**{"ratio": 0.1, **options}))
    plain_rounds, plain_weight, plain_validated = run()
    assert rounds == plain_rounds
    assert torch.equal(weight, plain_weight)
    assert validated == plain_validated == [0, 1, 2]


def test_workers_and_reloading_every_epoch_do_not_change_the_order():
    _, module = fit(RS2Callback(0.25), train=row_loader(num_workers=2))
    assert module.rounds == planned(0.25, 4)
    _, module = fit(RS2Callback(0.25), reload_dataloaders_every_n_epochs=1)
    assert module.rounds == planned(0.25, 4)


def test_the_loader_of_the_user_is_not_touched():
    loader = row_loader()
    before = dict(vars(loader))
    trainer, _ = fit(RS2Callback(0.25), train=loader)
    assert vars(loader) == before
    assert "dataloader" not in vars(trainer.fit_loop._data_source)


def test_a_second_fit_of_the_same_trainer_goes_on_with_the_next_rounds():
    trainer, module = fit(RS2Callback(0.25), max_epochs=2)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, row_loader(), row_loader(8, shuffle=False))
    assert module.rounds == planned(0.25, 4)


def test_estimated_stepping_batches_counts_rounds():
    class Asks(Module):
        def configure_optimizers(self):
            self.estimated = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    trainer, module = fit(RS2Callback(0.25), module=Asks(), max_epochs=6, accumulate_grad_batches=2)
    assert module.estimated == trainer.global_step == 6 * 3
    assert module.rounds == planned(0.25, 6)


def test_a_batch_size_finder_leaves_no_trace():
    class Asks(Module):  # so that there is a sampler before the finder saves the run
        def configure_optimizers(self):
            self.estimated = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    class Sized(Data):
        batch_size = 8

        def train_dataloader(self):
            return row_loader(batch_size=self.batch_size)

    finder, module, data = BatchSizeFinder(max_trials=2, steps_per_trial=1), Asks(), Sized()
    small_trainer(RS2Callback(0.25), finder, max_epochs=3).fit(module, datamodule=data)
    assert (data.batch_size, module.estimated) == (4, 3 * 2)
    assert module.rounds[-3:] == planned(0.25, 3)


@pytest.mark.parametrize(
    "wrap", [dict, lambda loaders: list(loaders.values()), lambda pair: CombinedLoader(pair, "min_size")]
)
def test_one_of_several_loaders(wrap):
    class Several(Module):
        def training_step(self, batch, batch_idx):
            chosen, other = batch.values() if isinstance(batch, dict) else batch
            self.others[-1].append(other.reshape(-1).long().tolist())
            return super().training_step(chosen, batch_idx)

        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            self.others = [*getattr(self, "others", []), []]

    loaders = wrap({"a": row_loader(), "b": row_loader(20, shuffle=False)})
    key = "0" if isinstance(loaders, list) else "a"
    _, module = fit(RS2Callback(0.25, loader=key), module=Several(), train=loaders)
    assert module.rounds == planned(0.25, 4)
    assert all(flat(rows) == list(range(20)) for rows in module.others)


def test_two_callbacks_for_two_loaders():
    class Both(Module):
        def training_step(self, batch, batch_idx):
            self.second = [*getattr(self, "second", []), batch["b"].reshape(-1).long().tolist()]
            return super().training_step(batch["a"], batch_idx)

    first, second = RS2Callback(0.25, loader="a"), RS2Callback(0.5, loader="b", seed=1)
    assert first.state_key != second.state_key
    loaders = {"a": row_loader(), "b": row_loader(40)}
    trainer, module = fit(first, second, module=Both(), train=loaders)
    assert module.rounds == planned(0.25, 4)
    assert module.second == flat(planned(0.5, 4, n=40, seed=1))
    assert module.validated_after == [3]  # once per pass of the slower one
    assert trainer.check_val_every_n_epoch == 1


def beside_a_stream(n, mode):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from torch.zeros(n, 1)

    return CombinedLoader({"a": row_loader(), "b": DataLoader(Stream(), batch_size=4)}, mode)


def test_a_stream_beside_the_sampled_loader():
    class First(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    _, module = fit(RS2Callback(0.25, loader="a"), module=First(), train=beside_a_stream(100, "min_size"))
    assert module.rounds == planned(0.25, 4)


def test_a_stream_that_decides_about_the_length_of_an_epoch():
    class Both(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx) if batch["a"] is not None else None

    _, module = fit(RS2Callback(0.25, loader="a"), module=Both(), train=beside_a_stream(20, "max_size"))
    assert module.rounds == planned(0.25, 4)
    assert module.validated_after == [3]


def test_the_coverages_of_two_loaders_are_told_apart():
    class Logged(Notes):
        def on_train_end(self, trainer, pl_module):
            self.found = {name: float(value) for name, value in trainer.callback_metrics.items()}

    class Both(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    notes = Logged()
    both = [RS2Callback(0.25, loader="a"), RS2Callback(0.5, loader="b")]
    fit(*both, notes, module=Both(), train={"a": row_loader(), "b": row_loader(40)}, max_epochs=1)
    assert {name: value for name, value in notes.found.items() if "coverage" in name} == {
        "rs2/coverage/a": 0.25,
        "rs2/coverage/b": 0.5,
    }


def test_log_of_the_coverage():
    notes = Notes()
    fit(RS2Callback(0.25), notes, max_epochs=3)
    assert notes.coverage == [pytest.approx(0.75)]
    fit(RS2Callback(0.25, mode="independent"), notes, max_epochs=3)
    assert notes.coverage[1] == pytest.approx(1 - 0.75**3)


def test_log_of_the_figure(tmp_path):
    fit(RS2Callback(0.25, log_figure=True), default_root_dir=tmp_path)
    assert [file.name for file in (tmp_path / "figures").iterdir()] == ["rs2-coverage-step20.png"]
    fit(RS2Callback(0.25), default_root_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()


# -- conflicts ---------------------------------------------------------------------------------------------------
def test_on_conflict_warn_trains_on_the_loader_as_it_is():
    class Odd(DataLoader):
        def __iter__(self):
            return super().__iter__()

    callback = RS2Callback(0.25, on_conflict="warn")
    with pytest.warns(UserWarning, match="RS2Callback does nothing in this run.*Odd"):
        trainer, module = fit(callback, train=Odd(Rows(80), batch_size=4), max_epochs=2)
    assert [flat(rows) for rows in module.rounds] == [list(range(80))] * 2
    assert module.validated_after == [0, 1]
    assert "rs2/coverage" not in trainer.callback_metrics


def test_a_conflict_in_a_later_run_leaves_nothing_of_the_earlier_one():
    callback = RS2Callback(0.25, on_conflict="warn")
    fit(callback)
    with pytest.warns(UserWarning, match="overfit_batches"):
        trainer, _ = fit(callback, train=row_loader(shuffle=False), overfit_batches=2, max_epochs=1)
    assert "rs2/coverage" not in trainer.callback_metrics
    assert callback.sampler is None


def test_limit_train_batches_is_warned_of():
    with pytest.warns(UserWarning, match="cut from 5 to 2 batches, by limit_train_batches"):
        _, module = fit(RS2Callback(0.25), limit_train_batches=2)
    assert module.rounds == [rows[:2] for rows in planned(0.25, 4)]


@pytest.mark.parametrize(
    "options", [{"fast_dev_run": 2}, {"limit_train_batches": 1.0}, {"max_steps": 7, "max_epochs": -1}]
)
def test_other_ways_to_run_need_no_warning(options):
    _, module = fit(RS2Callback(0.25), **options)
    assert module.rounds[0][:2] == planned(0.25, 1)[0][:2]


def test_a_failed_fit_can_be_repeated():
    class Fails(Module):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("stop here")

    trainer = small_trainer(RS2Callback(0.25), max_epochs=3, check_val_every_n_epoch=2)
    with pytest.raises(RuntimeError, match="stop here"):
        trainer.fit(Fails(), row_loader())
    assert trainer.check_val_every_n_epoch == 2
    assert "dataloader" not in vars(trainer.fit_loop._data_source)
    with pytest.raises(MisconfigurationException, match="loader"):
        trainer.fit(Module(), {"a": row_loader(), "b": row_loader()})
    assert trainer.check_val_every_n_epoch == 2


@pytest.mark.parametrize("saves", [True, False])
def test_checkpoints_are_written_without_validation_too(tmp_path, saves):
    checkpoint = ModelCheckpoint(tmp_path, save_top_k=-1)
    trainer = small_trainer(checkpoint, *[RS2Callback(0.25)][: int(saves)], max_epochs=3, enable_checkpointing=True)
    trainer.fit(TrainOnly(), row_loader())
    assert len(list(tmp_path.iterdir())) == 3
