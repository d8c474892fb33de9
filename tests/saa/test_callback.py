"""SampleAdaptiveAugmentation in a Trainer: what it reads, when it selects, who gets the flags, what comes back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader, TensorDataset

from lightning_adapt import FixMatchModule, SampleAdaptiveAugmentation
from lightning_adapt.saa.history import LossHistory
from lightning_adapt.saa.selection import Selection
from tests.foreign import trainer
from tests.foreign_images import ForeignFixMatch, images
from tests.reference import saa as reference
from tests.saa.entries import data, selection
from tests.saa.test_datamodule import own_transforms


class Losses(ForeignFixMatch):
    """Writes down its losses, the whole curve."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.curve: list[float] = []

    def training_step(self, batch, batch_idx):
        outputs = super().training_step(batch, batch_idx)
        self.curve.append(outputs["loss"].item())
        return outputs


class Scripted(ForeignFixMatch):
    """Returns losses that depend on the sample and the step alone, whatever the weights are."""

    def training_step(self, batch, batch_idx):
        outputs = super().training_step(batch, batch_idx)
        outputs["sample_loss"] = scripted_losses(outputs["index"], self.trainer.current_epoch * 4 + batch_idx)
        return outputs

    def on_train_end(self) -> None:
        super().on_train_end()
        (callback,) = [one for one in self.trainer.callbacks if isinstance(one, SampleAdaptiveAugmentation)]
        if self.record:
            state = callback.state_dict()["history"]
            plain = {
                name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in state.items()
            }
            Path(f"{self.record}-saa-rank{self.global_rank}.json").write_text(json.dumps(plain))


def scripted_losses(index: torch.Tensor, step: int) -> torch.Tensor:
    return (index % 7).float() * 0.4 + 0.01 * ((index * 31 + step * 17) % 13)


def fit(callback, folder, module=None, made=None, **options):
    module = module or ForeignFixMatch()
    trainer(folder, [callback], **options).fit(module, datamodule=made or data())
    return module


# -- when it selects, and by what --------------------------------------------------------------------------------------
def test_flags_are_those_of_a_loop_over_samples(tmp_path):
    callback = SampleAdaptiveAugmentation(warmup=0, min_coverage=0.2)
    module = fit(callback, tmp_path, Scripted(), max_epochs=6)
    loop = reference.Selection(107, 0.001)
    for step, (_, rows) in enumerate(module.seen):
        loop.step(rows, scripted_losses(torch.tensor(rows), step).double().tolist())
        if step % 4 == 3:
            loop.select(0.995)
    assert callback.history.flags.tolist() == loop.flags
    recorded = [math.nan if loss is None else loss for loss in loop.losses]
    expected = torch.tensor(recorded, dtype=torch.float64)
    torch.testing.assert_close(callback.history.losses, expected, rtol=0, atol=1e-6, equal_nan=True)
    assert 0 < sum(loop.flags) < 107
    assert [batches for batches, _, _ in callback.curve] == [4, 8, 12, 16, 20, 24]


@pytest.mark.parametrize(
    ("options", "run", "selected"),
    [
        ({"warmup": 0}, {}, [4, 8, 12, 16]),
        ({"warmup": 0.5}, {}, [8, 12, 16]),
        ({"warmup": 9}, {}, [12, 16]),
        ({"warmup": 0.5, "update_every": 3}, {}, [9, 12, 15]),
        ({"warmup": 0.5}, {"max_epochs": -1, "max_steps": 12}, [8, 12]),
        ({"warmup": 0.5}, {"accumulate_grad_batches": 2}, [8, 12, 16]),
        ({"warmup": 0.5}, {"accumulate_grad_batches": 2, "max_epochs": -1, "max_steps": 8}, [8, 12, 16]),
        ({"warmup": 0, "min_coverage": 0.8}, {}, [12, 16]),
        ({"warmup": 1.0}, {}, []),
        ({"warmup": 16 + 1}, {}, []),
    ],
)
def test_it_selects_after_warm_up_and_coverage(options, run, selected, tmp_path):
    callback = SampleAdaptiveAugmentation(**{"min_coverage": 0.0, "threshold": "quantile:0.5", **options})
    fit(callback, tmp_path, **run)
    assert [int(batches) for batches, _, _ in callback.curve] == selected


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": 16}, {"enabled": False}])
def test_without_a_selection_the_loss_curve_is_that_of_the_baseline(options, tmp_path):
    baseline = Losses()
    trainer(tmp_path).fit(baseline, datamodule=data())
    callback = SampleAdaptiveAugmentation(threshold="quantile:0.5", min_coverage=0.0, **options)
    assert fit(callback, tmp_path, Losses()).curve == baseline.curve
    assert fit(selection(), tmp_path, Losses()).curve != baseline.curve


def test_only_confident_samples_on_request(tmp_path):
    class Confident(Scripted):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            return {**outputs, "confidence": (outputs["index"] % 2).float()}

    callback = SampleAdaptiveAugmentation(warmup=0, min_coverage=0.2, require_confident=True)
    fit(callback, tmp_path, Confident(), max_epochs=6)
    assert callback.history.flags.any()
    assert not callback.history.flags[0::2].any()


def test_an_unbounded_run_needs_a_number_of_batches(tmp_path):
    with pytest.raises(MisconfigurationException, match="`warmup` must be a number of batches where neither"):
        fit(selection_with_share(), tmp_path, max_epochs=-1, max_time={"seconds": 1})
    fit(selection(), tmp_path, max_epochs=-1, max_time={"seconds": 1})


def selection_with_share() -> SampleAdaptiveAugmentation:
    return SampleAdaptiveAugmentation(warmup=0.1)


# -- how a module gives its losses -------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["sample_loss", "index", "confidence"])
def test_a_missing_key_is_named_at_the_first_step(key, tmp_path):
    class Without(ForeignFixMatch):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            del outputs[key]
            return outputs

    module = Without()
    with pytest.raises(MisconfigurationException, match=f"what `training_step` returns \\('{key}'\\), but got"):
        fit(SampleAdaptiveAugmentation(require_confident=True), tmp_path, module)
    assert len(module.seen) == 1


def test_a_plain_loss_is_named_at_the_first_step(tmp_path):
    class Plain(ForeignFixMatch):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    with pytest.raises(MisconfigurationException, match="or call `report` on the callback in every step"):
        fit(SampleAdaptiveAugmentation(), tmp_path, Plain())


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        (lambda each: each.mean(), "must be one number per unlabelled sample"),
        (lambda each: each[:3], "must be one number per unlabelled sample"),
        (lambda each: each[:, None], "must be one number per unlabelled sample"),
    ],
)
def test_losses_of_another_shape_are_refused(losses, text, tmp_path):
    class Misshapen(ForeignFixMatch):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            return {**outputs, "sample_loss": losses(outputs["sample_loss"])}

    with pytest.raises(MisconfigurationException, match=text):
        fit(SampleAdaptiveAugmentation(), tmp_path, Misshapen())


def test_rows_outside_the_data_are_refused(tmp_path):
    class Far(ForeignFixMatch):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            return {**outputs, "index": outputs["index"] + 107}

    with pytest.raises(MisconfigurationException, match="`index` must be from 0 to 106"):
        fit(SampleAdaptiveAugmentation(), tmp_path, Far())


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_other_keys_and_skipped_steps(tmp_path):
    class Renamed(ForeignFixMatch):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1:
                return None
            outputs = super().training_step(batch, batch_idx)
            return {"loss": outputs["loss"], "u_loss": outputs["sample_loss"], "rows": outputs["index"]}

    callback = selection(loss_key="u_loss", index_key="rows")
    fit(callback, tmp_path, Renamed())
    assert int(callback.history.visits.sum()) == 12 * 8
    assert callback.selection.batches == 16


class ByHand(LightningModule):
    """Manual optimisation, two optimizers, own data, own augmentation; asks the callback for everything."""

    def __init__(self, saa) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.saa = torch.nn.Linear(64, 2), saa
        self.regrouped = 0

    def training_step(self, batch, batch_idx):
        image, index = batch
        image = image.float() / 255
        first, second = image + 0.1, image - 0.1
        strong = self.saa.regroup(first, second, index)
        naive = self.saa.flagged(index)
        assert torch.equal(strong[~naive], first[~naive])
        assert not (strong[naive] == first[naive]).flatten(1).all(1).any()
        self.regrouped += int(naive.sum())
        each = torch.nn.functional.cross_entropy(self.net(strong.flatten(1)), index % 2, reduction="none")
        self.saa.report(index, each)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(each.mean())
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD([value], 0.1) for value in self.net.parameters()]


def own_loader(n: int = 40, batch_size: int = 8) -> DataLoader:
    pixels = images(n).tensors[0]
    return DataLoader(TensorDataset(pixels, torch.arange(n)), batch_size, shuffle=True)


@pytest.mark.parametrize("pieces", [2, 4])
def test_by_hand_under_manual_optimisation_with_data_of_ones_own(pieces, tmp_path):
    saa = selection(pieces=pieces)
    module = ByHand(saa)
    trainer(tmp_path, [saa]).fit(module, own_loader())
    assert saa.history.n == 40, "from the loader's data set"
    assert saa.history.visits.tolist() == [4] * 40
    assert module.regrouped > 20


def test_orientations_are_even():
    saa = SampleAdaptiveAugmentation()
    saa.selection = Selection(LossHistory(4000))
    saa.history.flags.fill_(True)
    zeros, ones = torch.zeros(4000, 1, 4, 4), torch.ones(4000, 1, 4, 4)
    left = [saa.regroup(zeros, ones, torch.arange(4000))[:, 0, 3, 0] for _ in range(2)]
    for some in left:
        assert some.mean().item() == pytest.approx(0.5, abs=0.03)
    assert (left[0] == left[1]).float().mean().item() == pytest.approx(0.5, abs=0.03), "another call, other numbers"


def test_under_the_trainer_of_pytorch_lightning(tmp_path):
    class Module(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(64, 2)

        def training_step(self, batch, batch_idx):
            views = saa.regroup(batch[0] / 255, 1 - batch[0] / 255, batch[1])
            each = torch.nn.functional.cross_entropy(self.net(views.flatten(1)), batch[1] % 2, reduction="none")
            return {"loss": each.mean(), "sample_loss": each, "index": batch[1]}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    saa = selection()
    trainer(tmp_path, [saa], pytorch_lightning.Trainer).fit(Module(), own_loader())
    assert saa.history.naive_share == 0.5


def test_it_warns_when_nobody_asks_for_the_flags(tmp_path):
    class Deaf(ByHand):
        def training_step(self, batch, batch_idx):
            self.saa.report(batch[1], self.net(batch[0].flatten(1) / 255)[:, 0].square())

    saa = selection()
    with pytest.warns(UserWarning, match="nothing asks for the flags") as warned:
        trainer(tmp_path, [saa]).fit(Deaf(saa), own_loader())
    assert sum("nothing asks" in str(one.message) for one in warned) == 1


def test_the_number_of_samples_must_be_known(tmp_path):
    saa = selection()
    loaders = {"a": own_loader(), "b": own_loader()}
    with pytest.raises(MisconfigurationException, match="`n_unlabeled` must be given where no train loader"):
        trainer(tmp_path, [saa]).fit(ByHand(saa), loaders)


# -- several processes -------------------------------------------------------------------------------------------------
def test_ranks_hold_the_flags_of_one_process(tmp_path):
    def run(name: str, ranks: int) -> list[dict]:
        options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
        module = Scripted(record=str(tmp_path / name))
        callback = SampleAdaptiveAugmentation(warmup=0, min_coverage=0.2, history_decay=0.3)
        fit(callback, tmp_path, module, data(0, 8 // ranks), max_epochs=5, **options)
        return [json.loads((tmp_path / f"{name}-saa-rank{rank}.json").read_text()) for rank in range(ranks)]

    (alone,), together = run("one", 1), run("two", 2)
    assert any(alone["flags"])
    assert not all(alone["flags"])
    for rank in together:
        assert str(rank) == str(alone)  # NaN is not equal to itself


# -- resume ------------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.parametrize("update_every", ["epoch", 3])
@pytest.mark.parametrize("saved", ["end", "middle", "validation"])
def test_history_and_flags_resume_where_they_were(saved, update_every, tmp_path):
    saves = {
        "end": {"every_n_epochs": 3, "save_on_train_epoch_end": True},
        "middle": {"every_n_train_steps": 14},
        "validation": {"every_n_epochs": 3, "save_on_train_epoch_end": False},
    }[saved]
    checkpoint = ModelCheckpoint(tmp_path, saved, save_top_k=-1, **saves)
    whole = selection(update_every=update_every)
    module = Losses()
    trainer(tmp_path, [whole, checkpoint], max_epochs=6).fit(module, datamodule=data())
    path = sorted(tmp_path.glob(f"{saved}*.ckpt"))[0]
    done = torch.load(path, weights_only=True)["global_step"]
    again = selection(update_every=update_every)
    resumed = Losses()
    trainer(tmp_path, [again], max_epochs=6).fit(resumed, datamodule=data(), ckpt_path=path, weights_only=True)
    assert resumed.curve == module.curve[done:]
    assert str(again.state_dict()) == str(whole.state_dict())
    for name in ("losses", "visits", "confident", "flags"):
        assert torch.equal(getattr(again.history, name).nan_to_num(-1), getattr(whole.history, name).nan_to_num(-1))


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    saa = selection()
    runner = trainer(tmp_path, [saa], max_epochs=1)
    runner.fit(ByHand(saa), own_loader())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    other = selection(n_unlabeled=41)
    with pytest.raises(MisconfigurationException, match="`n_unlabeled` must be 40, as in the saved run, but got 41"):
        trainer(tmp_path, [other]).fit(ByHand(other), own_loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    other = selection()
    with pytest.raises(MisconfigurationException, match="`n_unlabeled` must be 40, as in the saved run, but got 48"):
        trainer(tmp_path, [other]).fit(ByHand(other), own_loader(48), ckpt_path=tmp_path / "a.ckpt", weights_only=True)


# -- what one sees -----------------------------------------------------------------------------------------------------
def test_it_logs_numbers_and_figures(tmp_path):
    callback = selection(log_figure=True)
    logger = CSVLogger(tmp_path)
    fit(callback, tmp_path, logger=logger, log_every_n_steps=1)
    columns = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"saa/naive_share", "saa/threshold", "saa/coverage"} <= set(columns)
    assert {path.name for path in tmp_path.rglob("*.png")} == {"saa-selection-step16.png", "saa-views-step16.png"}


def test_it_works_with_our_module_and_its_average(tmp_path):
    callback = SampleAdaptiveAugmentation(warmup=0, min_coverage=0.2, threshold="otsu-log", require_confident=True)
    module = FixMatchModule("cnn", n_classes=2, channels=1, threshold=0.6, ema_decay=0.9)
    fit(callback, tmp_path, module, max_epochs=6)
    assert len(callback.curve) > 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss_key": ""}, "`loss_key` must be a key"),
        ({"index_key": 3}, "`index_key` must be a key"),
        ({"history_decay": 1.0}, r"`history_decay` must be a number in \[0, 1\)"),
        ({"threshold": "otso"}, "`threshold` must be 'otsu'"),
        ({"update_every": "step"}, "`update_every` must be one of 'epoch'"),
        ({"update_every": 0}, "`update_every` must be a whole number >= 1"),
        ({"warmup": 1.5}, r"`warmup` must be a number in \[0, 1\]"),
        ({"warmup": -1}, "`warmup` must be a whole number >= 0"),
        ({"warmup": "long"}, "`warmup` must be a whole number"),
        ({"min_coverage": 2}, "`min_coverage`"),
        ({"require_confident": 1}, "`require_confident` must be True or False"),
        ({"confident_at": 95}, "`confident_at`"),
        ({"n_unlabeled": 0}, "`n_unlabeled` must be a whole number >= 1"),
        ({"pieces": 3}, "`pieces` must be 2 or 4"),
        ({"enabled": None}, "`enabled`"),
    ],
)
def test_bad_arguments_are_named(options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        SampleAdaptiveAugmentation(**options)


def test_selections_inside_an_epoch_are_refused_where_workers_make_the_views(tmp_path):
    with pytest.raises(MisconfigurationException, match="`update_every` must be 'epoch' where workers make the views"):
        fit(selection(update_every=2), tmp_path, made=own_transforms(0))


# -- one callback, one DataModule, several runs ------------------------------------------------------------------------
def test_a_run_with_another_trainer_begins_anew(tmp_path):
    saa, made = selection(warmup=0.5), data()
    first, second = Losses(), Losses()
    fit(saa, tmp_path, first, made)
    flags = saa.history.flags.clone()
    assert flags.any()
    fit(saa, tmp_path, second, made)
    assert second.curve == first.curve
    assert [batches for batches, _, _ in saa.curve] == [8, 12, 16]
    assert torch.equal(saa.history.flags, flags)


def test_the_same_trainer_goes_on(tmp_path):
    whole, parts = selection(warmup=0), selection(warmup=0)
    module, again = Losses(), Losses()
    fit(whole, tmp_path, module, max_epochs=6)
    runner, made = trainer(tmp_path, [parts], max_epochs=3), data()
    runner.fit(again, datamodule=made)
    runner.fit_loop.max_epochs = 6
    runner.fit(again, datamodule=made)
    assert parts.curve[:3] == whole.curve[:3]
    assert len(parts.curve) == 6
    assert int(parts.history.visits.sum()) == 6 * 32


@pytest.mark.parametrize("options", [{"enabled": False}, None])
def test_nobody_else_inherits_the_flags(options, tmp_path):
    class Shares(ForeignFixMatch):
        def training_step(self, batch, batch_idx):
            shares.append(batch["unlabeled"]["regrouped"].float().mean().item())
            return super().training_step(batch, batch_idx)

    made, shares = data(), []
    fit(selection(), tmp_path, Shares(), made)
    assert sum(shares) > 0
    shares.clear()
    callbacks = [] if options is None else [selection(**options)]
    trainer(tmp_path, callbacks).fit(Shares(), datamodule=made)
    assert sum(shares) == 0


def test_switched_off_after_a_resume_it_regroups_nothing(tmp_path):
    saa = selection()
    runner = trainer(tmp_path, [saa], max_epochs=2)
    runner.fit(ByHand(saa), own_loader())
    runner.save_checkpoint(tmp_path / "a.ckpt")
    off = selection(enabled=False)
    module = ByHand(off)
    trainer(tmp_path, [off]).fit(module, own_loader(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert module.regrouped == 0


def test_reports_of_validation_are_ignored(tmp_path):
    class Shared(ByHand):
        def validation_step(self, batch, batch_idx):
            self.saa.report(batch[1], torch.full((len(batch[1]),), 8.99))

    saa = selection()
    trainer(tmp_path, [saa], num_sanity_val_steps=1).fit(Shared(saa), own_loader(), DataLoader(own_loader().dataset, 8))
    assert saa.history.visits.tolist() == [4] * 40
    assert not (saa.history.losses == 8.99).any()


@pytest.mark.parametrize("every", [2, 256])
def test_ranks_may_have_unequally_many_reports(every, monkeypatch, tmp_path):
    class Skips(ByHand):
        def training_step(self, batch, batch_idx):
            saa, self.saa = self.saa, selection() if self.global_rank == 1 and batch_idx == 1 else self.saa
            super().training_step(batch, batch_idx)
            self.saa = saa

        def on_train_end(self) -> None:
            visits = [self.saa.history.visits.tolist()]
            Path(f"visits-{self.global_rank}.json").write_text(json.dumps(visits))

    monkeypatch.setattr("lightning_adapt.saa.callback._FLUSH_EVERY", every)
    saa = selection()
    options = {"strategy": "ddp_fork", "devices": 2, "plugins": [LightningEnvironment()], "max_epochs": 2}
    trainer(tmp_path, [saa], **options).fit(Skips(saa), own_loader(48, 4))
    visits = [json.loads(Path(f"visits-{rank}.json").read_text()) for rank in range(2)]
    assert visits[0] == visits[1]
    assert sum(visits[0][0]) == 2 * (48 - 4)


@pytest.mark.parametrize("options", [{"min_coverage": 1.0}, {"min_coverage": 0.5, "n_unlabeled": 1000}])
def test_it_says_so_when_nothing_was_selected(options, tmp_path):
    with pytest.warns(UserWarning, match="has selected nothing in this run: .*% of the"):
        fit(SampleAdaptiveAugmentation(warmup=0, **options), tmp_path, made=without_attributes(), max_epochs=2)


def without_attributes():
    """A DataModule that says nothing of its own."""

    class Plain(LightningDataModule):
        def train_dataloader(self):
            return made.train_dataloader()

        def transfer_batch_to_device(self, *arguments):
            return made.transfer_batch_to_device(*arguments)

    made = data()
    made.setup()
    return Plain()


def test_numbers_are_logged_whatever_the_logging_interval(tmp_path):
    logger = CSVLogger(tmp_path)
    with pytest.warns(UserWarning, match="is smaller than the logging interval"):
        fit(selection(update_every=3), tmp_path, logger=logger, log_every_n_steps=50)
    assert "saa/naive_share" in (Path(logger.log_dir) / "metrics.csv").read_text()


def test_no_figure_of_views_where_the_users_transforms_make_them(tmp_path):
    fit(selection(log_figure=True), tmp_path, made=own_transforms(0))
    assert {path.name for path in tmp_path.rglob("*.png")} == {"saa-selection-step16.png"}


def test_no_warm_up_needs_no_length(tmp_path):
    saa = selection()
    saa.warmup = 0.0
    fit(saa, tmp_path, max_epochs=-1, max_time={"seconds": 1})
    assert saa.curve


def test_a_test_of_an_older_checkpoint_leaves_what_training_knows(tmp_path):
    class Tested(ByHand):
        def test_step(self, batch, batch_idx):
            self.log("test_mean", batch[0].float().mean())

    saa = selection()
    saves = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    runner = trainer(tmp_path, [saa, saves], max_epochs=4)
    runner.fit(Tested(saa), own_loader())
    known = str(saa.state_dict())
    rows = DataLoader(own_loader().dataset, 8)
    runner.test(ckpt_path=tmp_path / "epoch=0.ckpt", dataloaders=rows, verbose=False, weights_only=True)
    assert str(saa.state_dict()) == known
