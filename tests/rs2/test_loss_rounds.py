# ruff: noqa: E501 - one case per line
"""Loss-guided rounds in fits: whose loss is noted, how runs go on, and that the losses act."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import pytorch_lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from lightning_adapt import RS2Callback, RS2Sampler
from tests.foreign import N_ROWS, ForeignModule, loader, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning"),
]

BATCHES = 4  # of a round: 0.3 * 107 = 32 rows in batches of 8 (2 ranks: of 4); round 3 crosses the end of a pass


class LossModule(ForeignModule):
    """Returns the loss of each sample, and notes for each row the last one, by hand."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.noted: dict[int, float] = {}

    def training_step(self, batch, batch_idx):
        features, rows, label = batch
        self.seen.append((self.trainer.current_epoch, rows.tolist()))
        losses = nn.functional.cross_entropy(self.net(features), label, reduction="none")
        self.noted.update(zip(rows.tolist(), losses.tolist(), strict=True))
        return {"loss": losses.mean(), "sample_loss": losses.detach(), "rows": rows}


class Note(Callback):
    """What guides the rounds in the end, of each rank; in DDP the processes write it down."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.losses, self.owed = path, None, None

    def on_train_end(self, trainer, pl_module) -> None:
        rs2 = next(callback for callback in trainer.callbacks if isinstance(callback, RS2Callback))
        self.losses, self.owed = rs2.sampler.guide.latest(), rs2.sampler.guide.owed
        for mine in (torch.nan_to_num(self.losses, -1), rs2.sampler.guide.owed):
            theirs = trainer.strategy.broadcast(mine, src=0)
            assert mine is theirs is None or torch.equal(theirs, mine)  # a failure on rank 1 fails the test
        if self.path is not None and trainer.is_global_zero:
            torch.save([self.losses, self.owed], self.path)


def guided(**options):
    return RS2Callback(0.3, **{"mode": "loss", "warm_rounds": 2, "seed": 5, "validate": "round", **options})


def fit(folder, *callbacks, module=None, data=None, ckpt=None, trainer_class=Trainer, callback=None, **options):
    rs2, note = callback or guided(), Note()
    module = module or LossModule()
    runner = trainer(folder, [rs2, *callbacks, note], trainer_class, **{"max_epochs": 6, **options})
    runner.fit(module, loader() if data is None else data, ckpt_path=ckpt, weights_only=None if ckpt is None else True)
    return module, note, rs2, runner


def rounds_of(module):
    return [
        [row for number, rows in module.seen if number == epoch for row in rows]
        for epoch in range(module.seen[-1][0] + 1)
    ]


def as_noted(module):
    return [module.noted.get(row, -1) for row in range(N_ROWS)]


def known(note):
    return torch.nan_to_num(note.losses, -1).tolist()


# -- whose loss is noted ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("index_key", [None, "rows"])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"reload_dataloaders_every_n_epochs": 1}])
def test_the_loss_of_each_row_is_noted(options, index_key, tmp_path):
    module, note, _, _ = fit(tmp_path, callback=guided(index_key=index_key), **options)
    assert known(note) == pytest.approx(as_noted(module), abs=1e-6)
    plain = RS2Sampler(N_ROWS, 0.3, round_to=8, seed=5)
    rounds = rounds_of(module)
    assert rounds[:2] == [plain.epoch_rows(number).tolist() for number in range(2)]
    assert len({tuple(sorted(drawn)) for drawn in rounds}) == 6


def test_rounds_are_those_of_a_sampler_that_gets_the_same_losses(tmp_path):
    class Steps(LossModule):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            steps.append((batch[1], outputs["sample_loss"]))
            return outputs

    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    module, _, _, _ = fit(tmp_path, module=Steps())
    sampler = RS2Sampler(N_ROWS, 0.3, mode="loss", warm_rounds=2, round_to=8, seed=5)
    for number, drawn in enumerate(rounds_of(module)):
        assert sampler.epoch_rows(number).tolist() == drawn
        for rows, losses in steps[BATCHES * number : BATCHES * (number + 1)]:
            sampler.record(rows, losses)


def test_low_precision(tmp_path):
    module, note, _, _ = fit(tmp_path, precision="bf16-mixed")
    assert known(note) == pytest.approx(as_noted(module), abs=1e-6)

    class Half(LossModule):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            return {**outputs, "sample_loss": outputs["sample_loss"].bfloat16()}

    module, note, _, _ = fit(tmp_path, module=Half())
    assert known(note) == pytest.approx(as_noted(module), rel=0.01)


def test_outputs_whose_memory_is_used_again(tmp_path):
    class Reuses(LossModule):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            self.buffer = getattr(self, "buffer", torch.empty(8))
            self.rows = getattr(self, "rows", torch.empty(8, dtype=torch.int64))
            return {
                **outputs,
                "sample_loss": self.buffer.copy_(outputs["sample_loss"]),
                "rows": self.rows.copy_(batch[1]),
            }

    for index_key in (None, "rows"):
        module, note, _, _ = fit(tmp_path, module=Reuses(), callback=guided(index_key=index_key))
        assert known(note) == pytest.approx(as_noted(module), abs=1e-6)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")  # Lightning says it once a process
def test_skipped_steps_note_nothing(tmp_path):
    class Skips(LossModule):
        def training_step(self, batch, batch_idx):
            return None if batch_idx % 2 else super().training_step(batch, batch_idx)

    module, note, _, _ = fit(tmp_path, module=Skips())
    assert known(note) == pytest.approx(as_noted(module), abs=1e-6)
    assert len(module.seen) == 6 * BATCHES // 2


def test_manual_optimisation(tmp_path):
    class Manual(LossModule):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            self.optimizers().zero_grad()
            self.manual_backward(outputs["loss"])
            self.optimizers().step()
            return outputs

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module, note, _, _ = fit(tmp_path, module=Manual())
    assert known(note) == pytest.approx(as_noted(module), abs=1e-6)


def test_under_the_trainer_of_pytorch_lightning(tmp_path):
    class Theirs(pytorch_lightning.LightningModule):
        training_step = LossModule.training_step

        def __init__(self):
            super().__init__()
            inner = LossModule()
            self.net, self.seen, self.noted = inner.net, [], {}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    theirs, note, _, _ = fit(tmp_path, module=Theirs(), trainer_class=pytorch_lightning.Trainer)
    assert known(note) == pytest.approx(as_noted(theirs), abs=1e-6)
    assert len(rounds_of(theirs)) == 6


def drops_a_few(samples):
    kept = [sample for sample in samples if int(sample[1]) % 5]
    return torch.utils.data.default_collate(kept)


def test_a_collate_fn_that_drops_samples(tmp_path):
    def data():
        return DataLoader(loader().dataset, 8, shuffle=True, collate_fn=drops_a_few)

    module, note, _, _ = fit(tmp_path, data=data(), callback=guided(index_key="rows"))
    assert known(note) == pytest.approx(as_noted(module), abs=1e-6)
    assert known(note)[::5] == [-1] * 22
    with pytest.raises(MisconfigurationException, match=r"`outputs.'sample_loss'.` must be .*shape .8,.*`index_key`"):
        fit(tmp_path, data=data())


def test_coverage_is_logged(tmp_path):
    module, _, _, runner = fit(tmp_path)
    seen = len({row for _, rows in module.seen for row in rows}) / N_ROWS
    assert float(runner.callback_metrics["rs2/coverage"]) == pytest.approx(seen)


def test_sanity_checks_and_validation_note_nothing(tmp_path):
    module, note, _, _ = fit(tmp_path, num_sanity_val_steps=2, data=loader())
    runner = trainer(tmp_path, [guided(), with_val := Note()], max_epochs=6, num_sanity_val_steps=2)
    other = LossModule()
    runner.fit(other, loader(), DataLoader(loader(n=16).dataset, 8))
    assert other.seen == module.seen
    assert known(with_val) == known(note)


# -- several loaders -------------------------------------------------------------------------------------------------
class Pairs(LossModule):
    """Trains on loader "a" of two; a batch of "b" alone has no losses to give."""

    def training_step(self, batch, batch_idx):
        batch = batch["a"] if isinstance(batch, dict) else batch
        if batch is None:
            return {"loss": sum(p.sum() for p in self.parameters()) * 0}
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("mode", ["min_size", "max_size"])
def test_one_of_several_loaders(mode, tmp_path):
    data = CombinedLoader({"b": loader(n=48), "a": loader()}, mode)
    module, note, _, _ = fit(tmp_path, module=Pairs(), data=data, callback=guided(loader="a"))
    assert known(note) == pytest.approx(as_noted(module), abs=1e-6)
    assert [len(drawn) for drawn in rounds_of(module)] == [32] * 6


def test_lightning_still_refuses_train_loaders_one_after_the_other(tmp_path):
    """There, batches are counted over all loaders. When this fails, LossFeed must ask for index_key in that mode."""
    data = CombinedLoader({"b": loader(n=48), "a": loader()}, "sequential")
    with pytest.raises(ValueError, match=r"does not support the `CombinedLoader.mode=.sequential..` mode"):
        fit(tmp_path, module=Pairs(), data=data, callback=guided(loader="a"))


# -- what is missing -------------------------------------------------------------------------------------------------
def returns(make):
    class Returns(LossModule):
        def training_step(self, batch, batch_idx):
            return make(super().training_step(batch, batch_idx))

    return Returns()


CASES = {
    "no key": (lambda o: {"loss": o["loss"]}, {}, "`loss_key`", "a key of what training_step returns (here ['loss'])", "but got 'sample_loss'"),
    "a loss alone": (lambda o: o["loss"], {}, "`loss_key`", "a key of what training_step returns (here ['loss'])", "return {'loss': losses.mean(), 'sample_loss'"),
    "another key": (lambda o: o, {"loss_key": "each"}, "`loss_key`", "but got 'each'", "return {'loss': losses.mean(), 'each'"),
    "no rows": (lambda o: o, {"index_key": "index"}, "`index_key`", "but got 'index'", "leave index_key out"),
    "a mean": (lambda o: {**o, "sample_loss": o["loss"].detach()}, {}, "`outputs['sample_loss']`", "of shape (8,)", "reduction='none'"),
    "a matrix": (lambda o: {**o, "sample_loss": torch.ones(8, 2)}, {}, "`outputs['sample_loss']`", "but got (8, 2)", "averaged over everything but the batch"),
    "too few": (lambda o: {**o, "sample_loss": torch.ones(7)}, {}, "`outputs['sample_loss']`", "but got (7,)", "name them in `index_key`"),
    "a negative loss": (lambda o: {**o, "sample_loss": o["sample_loss"] - 5}, {}, "`losses`", ">= 0", "add a constant"),
    "never a loss": (lambda o: {**o, "sample_loss": o["sample_loss"] * float("nan")}, {}, "`loss_key`", "some step of a round returns finite losses", "return {'loss': losses.mean(), 'sample_loss'"),
    "rows of elsewhere": (lambda o: {**o, "rows": o["rows"] + 1000}, {"index_key": "rows"}, "`rows`", "from 0 to 106", "that the round hands out"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_explained(case, tmp_path):
    make, options, *words = CASES[case]
    with pytest.raises(MisconfigurationException) as caught:
        fit(tmp_path, module=returns(make), callback=guided(**options))
    text = str(caught.value)
    assert [word for word in words if word not in text] == []
    assert text.endswith(".")
    assert "\n" not in text


# -- how long the run is ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "warm"),
    [
        ({"max_epochs": 8}, 4),
        ({"max_epochs": -1, "max_steps": 24}, 3),
        ({"max_epochs": 4, "max_steps": 400}, 2),
        ({"max_epochs": 100, "max_steps": 16, "accumulate_grad_batches": 2}, 4),
        ({"fast_dev_run": 2}, 1),
    ],
)
def test_warm_rounds_are_a_share_of_the_run(options, warm, tmp_path):
    _, _, rs2, _ = fit(tmp_path, callback=guided(warm_rounds=0.5), **options)
    assert rs2.sampler.guide.warm == warm


@pytest.mark.parametrize(("epochs", "passes"), [(2, "0.6"), (6, None), (20, "6.0")])
def test_a_run_much_shorter_or_longer_than_what_was_measured_is_told_so(epochs, passes, tmp_path):
    if passes is None:
        fit(tmp_path, max_epochs=epochs)
        return
    with pytest.warns(UserWarning, match=f"losses guide a run of {passes} passes over the data"):
        fit(tmp_path, max_epochs=epochs)


def test_a_run_of_unknown_length_needs_a_whole_number(tmp_path):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    message = (
        r"`warm_rounds` must be a whole number of rounds where neither .*, but got 0.25\. Pass warm_rounds=5, say\."
    )
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Stop(), callback=guided(warm_rounds=0.25), max_epochs=-1)
    for whole in (2, 2.0):  # YAML and the command line make the second of the first
        module, _, rs2, _ = fit(tmp_path, Stop(), callback=guided(warm_rounds=whole), max_epochs=-1)
        assert rs2.sampler.guide.warm == 2
        assert len(rounds_of(module)) == 3


# -- resume ----------------------------------------------------------------------------------------------------------
# batches before the stop; rounds 0 to 3 are plain
STOPS = {"end-warm": 4, "middle-warm": 6, "late-warm": 14, "last-warm": 16, "middle": 18, "end": 20, "late": 27}


class Saves(Callback):
    """Saves after some batches of the run; where a round ends, at the end of the epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, 0

    def save(self, trainer) -> None:
        for name, batches in STOPS.items():
            if batches == self.done:
                trainer.save_checkpoint(self.folder / f"{name}.ckpt")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.done += 1
        if self.done % BATCHES:
            self.save(trainer)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.save(trainer)


def run(folder, name, *, workers=0, estimate=False, ranks=1, ckpt=None, saves=False, epochs=7, callback=None):
    """Train, and return what each rank saw and learnt, and what guides the rounds in the end."""
    module = LossModule(estimate_steps=estimate, record=str(folder / name))
    note = Note(folder / f"{name}.pt")
    options = {"strategy": "ddp_fork", "devices": ranks, "plugins": [LightningEnvironment()]} if ranks > 1 else {}
    rs2 = callback or guided(warm_rounds=0.5 if epochs == 7 else 0.9)
    callbacks = [rs2, *([Saves(folder)] if saves else []), note]
    runner = trainer(folder, callbacks, max_epochs=epochs, **options)
    runner.fit(module, loader(workers, 8 // ranks), ckpt_path=ckpt, weights_only=None if ckpt is None else True)
    parts = [json.loads((folder / f"{name}-rank{rank}.json").read_text()) for rank in range(ranks)]
    return parts, torch.load(folder / f"{name}.pt", weights_only=True)


def assert_same_guide(one, two):
    for here, there in zip(one, two, strict=True):
        assert torch.equal(torch.nan_to_num(here, -1), torch.nan_to_num(there, -1))


@pytest.mark.parametrize("estimate", [False, True], ids=["", "estimated_stepping_batches"])
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_exact(workers, estimate, tmp_path):
    options = {"workers": workers, "estimate": estimate}
    (plain,), plain_guide = run(tmp_path, "plain", **options)
    (whole,), guide = run(tmp_path, "whole", saves=True, **options)
    assert whole == plain  # saving changes nothing
    assert_same_guide(guide, plain_guide)
    for stop, batches in STOPS.items():
        (resumed,), again = run(tmp_path, "resumed", ckpt=tmp_path / f"{stop}.ckpt", **options)
        assert resumed["seen"] == whole["seen"][batches:], stop
        assert resumed["weights"] == whole["weights"], stop
        assert_same_guide(again, guide)


def test_resume_on_two_ranks_and_from_two_to_one(tmp_path):
    (alone,), alone_guide = run(tmp_path, "alone")
    whole, guide = run(tmp_path, "whole", ranks=2, saves=True)
    together = [sorted(a + b) for (_, a), (_, b) in zip(whole[0]["seen"], whole[1]["seen"], strict=True)]
    assert together == [sorted(rows) for _, rows in alone["seen"]]
    torch.testing.assert_close(guide, alone_guide, equal_nan=True, atol=1e-5, rtol=1e-5)  # summed in another order
    for stop in ("middle-warm", "middle", "end"):
        resumed, again = run(tmp_path, "resumed", ranks=2, ckpt=tmp_path / f"{stop}.ckpt")
        for here, there in zip(resumed, whole, strict=True):
            assert here["seen"] == there["seen"][STOPS[stop] :]
            assert here["weights"] == there["weights"]
        assert_same_guide(again, guide)
    (fewer,), again = run(tmp_path, "fewer", ckpt=tmp_path / "middle.ckpt")
    assert [sorted(rows) for _, rows in fewer["seen"]] == together[STOPS["middle"] :]
    torch.testing.assert_close(again, guide, equal_nan=True, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*losses guide a run of:UserWarning")
def test_the_later_of_two_losses_counts_on_whichever_rank_it_is(tmp_path):
    """Plain rounds of 0.9 of the data hold many rows twice: in the last pass and in the next one."""

    def wide():
        return RS2Callback(0.9, mode="loss", warm_rounds=3, validate="round")

    (alone,), (losses, _) = run(tmp_path, "alone", callback=wide())
    assert len({row for number, rows in alone["seen"] if number == 1 for row in rows}) < 90  # of 96
    whole, (apart, _) = run(tmp_path, "whole", ranks=2, callback=wide())
    together = [sorted(a + b) for (_, a), (_, b) in zip(whole[0]["seen"], whole[1]["seen"], strict=True)]
    assert together == [sorted(rows) for _, rows in alone["seen"]]
    torch.testing.assert_close(apart, losses, equal_nan=True, atol=1e-5, rtol=1e-5)


def test_a_longer_run_keeps_the_plain_rounds_of_the_saved_one(tmp_path):
    (whole,), _ = run(tmp_path, "whole", saves=True)
    (longer,), _ = run(tmp_path, "longer", ckpt=tmp_path / "middle-warm.ckpt", epochs=9)
    assert longer["seen"][: len(whole["seen"]) - 6] == whole["seen"][6:]
    assert longer["seen"][-1][0] == 8


def test_a_checkpoint_is_plain_and_holds_the_losses_once(tmp_path):
    run(tmp_path, "whole", saves=True)
    for stop in STOPS:
        state = torch.load(tmp_path / f"{stop}.ckpt", weights_only=True)
        places = [path for path, value in leaves(state) if torch.is_tensor(value) and value.shape == (N_ROWS,)]
        assert [path.rsplit(".", 1)[1] for path in places] == (["losses"] if "warm" in stop else ["losses", "owed"])
        assert all("RS2Callback" in path for path in places)


def leaves(value, path=""):
    """All values of a nested state, with where they are."""
    if not isinstance(value, (dict, list, tuple)):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(item, f"{path}.{key}")


def test_checkpoints_after_validation_resume_exactly(tmp_path):
    def run_with_validation(name, ckpt=None):
        save = ModelCheckpoint(tmp_path / name, "{epoch}", save_top_k=-1, save_on_train_epoch_end=False)
        module, note = LossModule(), Note()
        runner = trainer(tmp_path, [guided(), save, note], max_epochs=6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the folder of the other run
            runner.fit(
                module,
                loader(),
                DataLoader(loader(n=16).dataset, 8),
                ckpt_path=ckpt,
                weights_only=None if ckpt is None else True,
            )
        return module, note

    whole, note = run_with_validation("whole")
    resumed, again = run_with_validation("again", tmp_path / "whole" / "epoch=3.ckpt")
    assert resumed.seen == whole.seen[4 * BATCHES :]
    assert known(again) == known(note)


# -- that it acts ----------------------------------------------------------------------------------------------------
class Planted(LightningModule):
    """Every fifth row has a high loss, whatever is learnt."""

    def __init__(self, shuffled: bool = False) -> None:
        super().__init__()
        self.net, self.shuffled, self.visits = nn.Linear(6, 1), shuffled, torch.zeros(N_ROWS)
        self.random = torch.Generator().manual_seed(0)

    def training_step(self, batch, batch_idx):
        rows = batch[1]
        self.visits[rows] += self.current_epoch >= 4
        losses = torch.where(rows % 5 == 0, 4.0, 1.0)
        if self.shuffled:
            losses = losses[torch.randperm(len(losses), generator=self.random)]
        return {"loss": self.net(batch[0]).square().mean(), "sample_loss": losses}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.filterwarnings("ignore:.*losses guide a run of:UserWarning")
def test_rows_with_high_losses_are_visited_more_often_and_shuffled_losses_do_nothing(tmp_path):
    def ratio(module, **options):
        callback = RS2Callback(0.3, **{"validate": "round", **options})
        trainer(tmp_path, [callback], max_epochs=24).fit(module, loader())
        return float(module.visits[::5].mean() / module.visits[torch.arange(N_ROWS) % 5 != 0].mean())

    guide = {"mode": "loss", "warm_rounds": 4, "loss_cap": 1.0}
    assert ratio(Planted(), **guide) > 2.5
    assert 0.85 < ratio(Planted()) < 1.15
    assert 0.75 < ratio(Planted(shuffled=True), **guide) < 1.35
