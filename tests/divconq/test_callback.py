"""DiversitySelectionCallback with one selection: what it trains on, what follows, what it leaves behind."""

from __future__ import annotations

import pytest
import pytorch_lightning
import torch
from torch.utils.data import Subset, SubsetRandomSampler

from lightning_adapt import RS2Callback
from lightning_adapt.divconq.callback import DiversitySelectionCallback
from lightning_adapt.divconq.selection import select_rows
from tests.divconq.rounds_parts import (
    Asks,
    N,
    RowData,
    Texts,
    WithLoader,
    fit,
    row_loader,
    seen_by_epoch,
    selection,
    vectors,
)
from tests.foreign import ForeignModule, numbered_rows, trainer


@pytest.mark.parametrize(
    ("method", "options"),
    [("km_random", {}), ("km_closest", {}), ("k_center", {}), ("random", {}), ("kmq", {"quality": torch.arange(60.0)})],
)
def test_each_epoch_trains_on_the_rows_that_the_pure_function_selects(method, options, tmp_path):
    callback = selection(12, method, seed=3, **options)
    module = fit(tmp_path, [callback], max_epochs=2)
    given = {"k": 4, "engine": "torch", "seed": 3} | options
    expected = select_rows(vectors(), 12, method, **given).rows.tolist()
    epochs = seen_by_epoch(module)
    assert [sorted(rows) for rows in epochs.values()] == [expected] * 2
    assert epochs[0] != epochs[1], "each epoch has an order of its own"
    assert module.batches == [3, 3]
    assert module.planned == [6] == [module.trainer.global_step]
    assert callback.selection.rows.tolist() == expected


def test_random_needs_neither_texts_nor_vectors(tmp_path):
    callback = DiversitySelectionCallback("20%", "random", seed=1)
    module = fit(tmp_path, [callback], max_epochs=1)
    assert sorted(seen_by_epoch(module)[0]) == select_rows(None, "20%", "random", n=N, seed=1).rows.tolist()
    assert "divconq/weight_entropy" not in module.trainer.callback_metrics
    assert float(module.trainer.callback_metrics["divconq/selected"]) == 12


def test_texts_are_found_embedded_and_reported(tmp_path, caplog):
    from torch.utils.data import DataLoader

    callback = DiversitySelectionCallback(8, "km_random", k=2, quota="equal", engine="torch")
    fit(tmp_path, [callback], data=DataLoader(Texts(), 4), max_epochs=1)
    topics = (callback.selection.rows % 2).tolist()
    assert sorted(topics) == [0] * 4 + [1] * 4
    labels = callback.selection.labels
    assert len(set(labels[::2].tolist())) == len(set(labels[1::2].tolist())) == 1


def test_copies_of_texts_are_left_out(tmp_path):
    class Copies(Texts):
        def conversation(self, row):
            return super().conversation(row % 20)

    from torch.utils.data import DataLoader

    callback = DiversitySelectionCallback(20, "random")
    fit(tmp_path, [callback], data=DataLoader(Copies(), 4), max_epochs=1)
    assert callback.selection.rows.tolist() == list(range(20))


def test_switched_off_it_changes_nothing(tmp_path):
    def weights(*callbacks):
        torch.manual_seed(0)
        module = fit(tmp_path, list(callbacks), Asks(), max_epochs=2)
        return module.seen, [value.clone() for value in module.state_dict().values()]

    seen, values = weights(selection(12, enabled=False))
    plain_seen, plain = weights()
    assert seen == plain_seen
    assert all(torch.equal(one, two) for one, two in zip(values, plain, strict=True))


def test_the_trainer_and_the_users_loader_are_left_as_they_were(tmp_path):
    loader = row_loader()
    before, runner = dict(vars(loader)), trainer(tmp_path, [selection(24, rounds=3)])
    kind, source = type(runner), set(vars(runner.fit_loop._data_source))
    runner.fit(Asks(), loader)
    assert vars(loader) == before
    assert type(runner) is kind
    assert set(vars(runner.fit_loop._data_source)) == source
    assert runner.reload_dataloaders_every_n_epochs == 0
    assert not [name for name in [*vars(runner), *vars(runner.fit_loop)] if "lightning_adapt" in name]


def test_after_an_error_too(tmp_path):
    class Fails(Asks):
        def training_step(self, batch, batch_idx):
            if self.current_epoch == 1:
                raise RuntimeError("in the second epoch")
            return super().training_step(batch, batch_idx)

    runner = trainer(tmp_path, [selection(24, rounds=3)])
    kind = type(runner)
    with pytest.raises(RuntimeError, match="in the second epoch"):
        runner.fit(Fails(), row_loader())
    assert type(runner) is kind
    assert runner.reload_dataloaders_every_n_epochs == 0


@pytest.mark.parametrize(
    "options",
    [
        {"fast_dev_run": 2},
        {"num_sanity_val_steps": 2},
        {"accumulate_grad_batches": 2},
        {"reload_dataloaders_every_n_epochs": 1},
        {"max_epochs": -1, "max_steps": 5},
        {"precision": "bf16-mixed"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_trainer_options(options, tmp_path):
    callback = selection(12, rounds=2, out_dir=tmp_path / "files")
    module = Asks()
    trainer(tmp_path, [callback], **options).fit(module, row_loader(), row_loader(shuffle=False))
    steps = {"fast_dev_run": 2, "max_epochs": 5, "accumulate_grad_batches": 1 + 3 * 2}.get(
        next(iter(options)), 2 + 3 * 3
    )
    assert module.trainer.global_step == steps
    assert module.planned in ([], [steps])
    assert (tmp_path / "files").exists() == ("fast_dev_run" not in options)
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("limit", [2, 0.67])
def test_limited_epochs_are_planned_and_said(limit, tmp_path):
    with pytest.warns(UserWarning, match="limit_train_batches"):
        module = fit(tmp_path, [selection(24, rounds=3)], limit_train_batches=limit, max_epochs=3)
    assert module.batches == ([2, 2, 2] if limit == 2 else [1, 2, 4])
    assert module.planned == [module.trainer.global_step]


@pytest.mark.parametrize("kind", ["subset", "sampler"])
def test_a_loader_over_a_subset_is_chosen_from(kind, tmp_path):
    rows = list(range(10, 50))
    if kind == "subset":
        from torch.utils.data import DataLoader

        loader, given = DataLoader(Subset(numbered_rows(N), rows), 4), vectors()[10:50]
    else:
        loader, given = row_loader(shuffle=None, sampler=SubsetRandomSampler(rows)), vectors()
    module = fit(tmp_path, [selection(12, "km_random", embedder=given)], data=loader, max_epochs=1)
    expected = select_rows(vectors()[10:50], 12, "km_random", k=4, engine="torch").rows + 10
    assert sorted(seen_by_epoch(module)[0]) == expected.tolist()


def test_one_of_several_loaders(tmp_path):
    class Several(Asks):
        def training_step(self, batch, batch_idx):
            self.others.extend(batch["other"][1].tolist())
            return super().training_step(batch["mine"], batch_idx)

    from lightning.pytorch.utilities import CombinedLoader

    module = Several()
    module.others = []
    loaders = CombinedLoader({"mine": row_loader(), "other": row_loader(shuffle=False)}, "min_size")
    fit(tmp_path, [selection(24, rounds=3, loader="mine")], module, loaders, max_epochs=3)
    assert [len(rows) for rows in seen_by_epoch(module).values()] == [8, 16, 24]
    assert module.planned == [12] == [module.trainer.global_step]
    assert len(module.others) == 48


def test_rs2_after_it_trains_inside_the_selection(tmp_path):
    callback = selection(24, rounds=2)
    module = fit(tmp_path, [callback, RS2Callback(0.5, validate="round")], max_epochs=6)
    epochs = seen_by_epoch(module)
    assert module.batches == [1, 3, 3, 3, 3, 3]
    assert module.planned == [16] == [module.trainer.global_step]
    final = set(callback.selection.rows.tolist())
    assert all(set(rows) <= final for rows in epochs.values())
    assert {row for epoch in (2, 3) for row in epochs[epoch]} == final, "two halves in a row are a pass"


def test_a_second_fit_of_the_same_trainer_goes_on(tmp_path):
    callback, module = selection(24, rounds=3), Asks()
    runner = trainer(tmp_path, [callback], max_epochs=3)
    runner.fit(module, row_loader())
    rows = callback.selection.rows.tolist()
    runner.fit_loop.max_epochs = 5
    runner.fit(module, row_loader())
    assert [len(part) for part in seen_by_epoch(module).values()] == [8, 16, 24, 24, 24]
    assert sorted(seen_by_epoch(module)[4]) == rows


def test_under_the_trainer_of_pytorch_lightning(tmp_path):
    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.seen = torch.nn.Linear(6, 2), []

        def training_step(self, batch, batch_idx):
            self.seen.append((self.current_epoch, batch[1].tolist()))
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[2])

        def configure_optimizers(self):
            self.planned = self.trainer.estimated_stepping_batches
            return torch.optim.SGD(self.parameters(), 0.1)

    module, ours = Module(), fit(tmp_path, [selection(24, rounds=3)], max_epochs=4)
    runner = trainer(tmp_path, [selection(24, rounds=3)], pytorch_lightning.Trainer, max_epochs=4)
    runner.fit(module, row_loader())
    assert module.seen == ours.seen
    assert module.planned == runner.global_step == 2 + 4 + 6 + 6
    assert type(runner) is pytorch_lightning.Trainer


def test_a_schedule_made_by_hand_for_the_whole_data_is_named(tmp_path):
    class ByHand(ForeignModule):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * 15)  # 60 rows in batches of 4
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    with pytest.warns(UserWarning, match=r"ends after 60 steps, but the run has 18"):
        fit(tmp_path, [selection(24, rounds=3)], ByHand(), max_epochs=4)


def test_datamodule_and_module_loaders_are_used_too(tmp_path):
    for module, data in ((Asks(), RowData()), (WithLoader(), None)):
        fit(tmp_path, [selection(12)], module, data, max_epochs=1)
        assert len(module.seen) == 3
