"""FlexMatch against a loop that counts everything at every step, in one process and in two; and its saved state."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.tuner import Tuner
from torch import nn

from lightning_adapt.saa.models.class_learning import ClassLearning
from lightning_adapt.saa.models.fixmatch import FixMatchModule
from lightning_adapt.saa.models.flexmatch import FlexMatchModule
from tests.foreign import trainer
from tests.saa.parts_models import N_CLASSES, N_UNLABELED, Batches, StepBatches, fit, small_net, training_batch

TAU = 0.6


class Loop:
    """FlexMatch as its authors count: every row, every step."""

    def __init__(self, rows, classes, warm=True):
        self.selected, self.beta = [-1] * rows, [0.0] * classes
        self.classes, self.warm = classes, warm

    def step(self, index, confidence, label, tau):
        thresholds = [tau * (self.beta[q] / (2 - self.beta[q])) for q in label]
        mask = [c >= t for c, t in zip(confidence, thresholds, strict=True)]
        for i, c, q in zip(index, confidence, label, strict=True):
            if c >= tau:
                self.selected[i] = q
        counter = Counter(self.selected)
        if counter[-1] < len(self.selected):
            sigma = [counter[k] for k in range(self.classes)]
            most = max([*sigma, counter[-1]]) if self.warm else max(sigma)
            self.beta = [value / most for value in sigma]
        return thresholds, mask


def draws(step, rows, classes, batch):
    random = torch.Generator().manual_seed(step)
    index = torch.randint(rows, (batch,), generator=random)
    confidence = torch.rand(batch, generator=random)
    label = torch.randint(classes, (batch,), generator=random) * torch.randint(2, (batch,), generator=random)
    return index, confidence, label


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(("rows", "classes", "batch"), [(1, 2, 3), (20, 3, 15), (300, 10, 32)])
def test_state_is_that_of_the_loop(rows, classes, batch, warm):
    state, loop = ClassLearning(rows, n_classes=classes, warm=warm), Loop(rows, classes, warm)
    assert not state.thresholds(torch.arange(classes), TAU).any()
    repeated = 0
    for step in range(40):
        index, confidence, label = draws(step, rows, classes, batch)
        repeated += batch - len(index.unique())
        thresholds, mask = loop.step(index.tolist(), confidence.tolist(), label.tolist(), TAU)
        ours = state.thresholds(label, TAU)
        torch.testing.assert_close(ours, torch.tensor(thresholds), rtol=1e-6, atol=1e-7)
        assert (confidence >= ours).tolist() == mask
        state.write(index, torch.where(confidence >= TAU, label, -1))
        assert state.labels.tolist() == loop.selected
        counter = Counter(loop.selected)
        assert state.counts.tolist() == [counter[k] for k in range(-1, classes)]
        torch.testing.assert_close(state.effect, torch.tensor(loop.beta), rtol=1e-6, atol=0)
    assert repeated > 30


def test_the_last_confident_label_of_a_row_counts():
    state = ClassLearning(4, n_classes=3)
    state.write(torch.tensor([2, 2, 2, 0]), torch.tensor([0, 1, -1, 2]))
    assert state.labels.tolist() == [2, -1, 1, -1]
    assert state.counts.tolist() == [2, 0, 1, 1]
    state.write(torch.tensor([0, 0]), torch.tensor([-1, -1]))  # what is not confident leaves the label
    assert state.labels.tolist() == [2, -1, 1, -1]


def test_a_step_costs_no_more_with_more_rows():
    """What grows with N would read all rows: only (B,) and (C,) tensors are made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            assert function.name() not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::bincount")
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and "_." not in function.name() and not function.name().endswith("_"):
                self.largest = max(self.largest, out.numel())
            return out

    state, sizes = ClassLearning(10_000, n_classes=5), Sizes()
    with sizes:
        for step in range(3):
            index, confidence, label = draws(step, 10_000, 5, 64)
            state.thresholds(label, TAU)
            state.write(index, torch.where(confidence >= TAU, label, -1))
    assert sizes.largest == 64


class Recorded(FlexMatchModule):
    """Notes what it decides in each step."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps = []

    def pass_mask(self, confidence, label, index):
        mask = super().pass_mask(confidence, label, index)
        threshold = self.trainer.callback_metrics["train_threshold"].item()
        self.steps.append((index.tolist(), confidence.tolist(), label.tolist(), mask.tolist(), threshold))
        return mask


@pytest.mark.parametrize("warm", [True, False])
def test_module_decides_as_the_loop(warm, tmp_path):
    torch.manual_seed(0)
    module = Recorded(small_net(), n_classes=N_CLASSES, threshold=0.8, learning_rate=0.1, warm=warm)
    fit(tmp_path, module, StepBatches(), max_epochs=6)
    loop, masks = Loop(N_UNLABELED, N_CLASSES, warm), []
    assert len(module.steps) == 24
    for index, confidence, label, mask, threshold in module.steps:
        thresholds, expected = loop.step(index, confidence, label, 0.8)
        assert mask == expected
        assert threshold == pytest.approx(sum(thresholds) / len(thresholds), rel=1e-5, abs=1e-7)
        masks.append(all(mask))
    assert module.learning.labels.tolist() == loop.selected
    assert masks[0]  # at the start everything is used
    assert not all(masks)
    assert set(loop.selected) >= set(range(N_CLASSES))


def test_state_is_no_part_of_the_weights(tmp_path):
    module = FlexMatchModule(small_net(), n_classes=N_CLASSES)
    fit(tmp_path, module)
    assert set(module.state_dict()) == set(FixMatchModule(small_net(), n_classes=N_CLASSES).state_dict())
    assert max(value.numel() for value in (*module.parameters(), *module.buffers())) > N_UNLABELED  # so it would show
    assert not any(value.shape[:1] in ((N_UNLABELED,), (N_UNLABELED + 1,)) for value in module.buffers())


# -- saved state --------------------------------------------------------------------------------------------------
def saved(folder, **options):
    module = FlexMatchModule(small_net(), n_classes=N_CLASSES, threshold=TAU, **options)
    training = fit(folder, module, max_epochs=3)
    training.save_checkpoint(folder / "end.ckpt")
    return module, folder / "end.ckpt"


def test_saved_state_is_small_and_comes_back(tmp_path):
    module, path = saved(tmp_path)
    state = torch.load(path, weights_only=True)["lightning_adapt_class_learning"]
    assert state["version"] == 1
    assert state["labels"].shape == (N_UNLABELED,)
    other = ClassLearning(N_UNLABELED, n_classes=N_CLASSES)
    other.write(torch.arange(5), torch.zeros(5, dtype=torch.int64))
    other.load_state_dict(state)
    assert torch.equal(other.labels, module.learning.labels)
    assert torch.equal(other.counts, module.learning.counts)
    assert (other.labels >= 0).any()
    for each in (other, module.learning):  # both go on alike, with rows that come twice
        each.write(torch.tensor([3, 3, 1]), torch.tensor([1, 2, -1]))
    assert torch.equal(other.labels, module.learning.labels)
    assert other.labels[3] == 2


def test_a_new_fit_without_checkpoint_starts_anew(tmp_path):
    _, path = saved(tmp_path)
    module = FlexMatchModule.load_from_checkpoint(path, backbone=small_net(), weights_only=True)
    fit(tmp_path, module, max_steps=0, num_sanity_val_steps=0)
    assert module.learning is None or (module.learning.labels == -1).all()
    data = Batches()
    data.n_unlabeled = N_UNLABELED + 5
    fit(tmp_path, module, data, max_epochs=1)  # other data is no mistake here
    assert module.learning.n_rows == N_UNLABELED + 5


class Asleep(FlexMatchModule):
    """Learns nothing, and its averages are off: what it knows can only have come from before."""

    def training_step(self, batch, batch_idx):
        return None


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_a_further_fit_of_the_same_trainer_goes_on(tmp_path):
    training = fit(tmp_path, module := FlexMatchModule(small_net(), n_classes=N_CLASSES, threshold=0.4, ema_decay=None))
    labels, counts = module.learning.labels.clone(), module.learning.counts.clone()
    assert (labels >= 0).any()
    module.__class__ = Asleep
    training.fit_loop.max_epochs = 3
    training.fit(module, datamodule=Batches())
    assert training.current_epoch == 3
    assert torch.equal(module.learning.labels, labels)
    assert torch.equal(module.learning.counts, counts)
    data = Batches()
    data.n_unlabeled = N_UNLABELED + 5
    training.fit_loop.max_epochs = 4
    with pytest.raises(ValueError, match=f"`n_unlabeled` must be {N_UNLABELED}, as in the run so far"):
        training.fit(module, datamodule=data)
    fit(tmp_path, module, Batches(), max_epochs=1)  # a new Trainer begins anew
    assert (module.learning.labels == -1).all()


def test_a_checkpoint_of_other_rows_is_refused(tmp_path):
    _, path = saved(tmp_path)
    module = FlexMatchModule(small_net(), n_classes=N_CLASSES, n_unlabeled=N_UNLABELED + 1)
    with pytest.raises(ValueError, match=f"`n_unlabeled` must be {N_UNLABELED}, as .*, but got {N_UNLABELED + 1}"):
        fit(tmp_path, module, max_epochs=4, ckpt_path=path)
    state = torch.load(path, weights_only=True)["lightning_adapt_class_learning"]
    with pytest.raises(ValueError, match="`n_classes` must be 3, as in the run so far, but got 4"):
        ClassLearning(N_UNLABELED, n_classes=4).load_state_dict(state)
    with pytest.raises(ValueError, match="version 2"):
        ClassLearning(N_UNLABELED, n_classes=3).load_state_dict({**state, "version": 2})


def test_a_checkpoint_of_fixmatch_warns(tmp_path):
    fit(tmp_path, FixMatchModule(small_net(), n_classes=N_CLASSES), max_epochs=1).save_checkpoint(tmp_path / "fix.ckpt")
    module = FlexMatchModule(small_net(), n_classes=N_CLASSES)
    with pytest.warns(UserWarning, match="was not written by FlexMatchModule"):
        fit(tmp_path, module, ckpt_path=tmp_path / "fix.ckpt")


# -- Lightning's finders --------------------------------------------------------------------------------------------
class Tuned(FlexMatchModule):
    """Notes what it knows when training starts, and in the end."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(small_net(), n_classes=N_CLASSES, threshold=0.4, ema_decay=None, learning_rate=0.05)
        self.seen = []

    def on_train_start(self):
        super().on_train_start()
        self.seen.append(self.learning.labels.tolist())

    def on_train_end(self):
        self.seen.append(self.learning.labels.tolist())


class FindsInside(LearningRateFinder):
    """Searches at the beginning of the second epoch."""

    def on_fit_start(self, trainer, pl_module):
        pass

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.lr_find(trainer, pl_module)


def finds(kind=LearningRateFinder):
    return kind(num_training_steps=3, early_stop_threshold=None, update_attr=False)


def known(module):
    return module.learning.labels.tolist(), module.learning.counts.tolist(), module.backbone[0].weight.tolist()


FINDERS = pytest.mark.filterwarnings("ignore:The `lr_find` call is expected:UserWarning")


@FINDERS
@pytest.mark.parametrize("kind", [LearningRateFinder, FindsInside, BatchSizeFinder])
def test_a_finder_leaves_no_trace(kind, tmp_path):
    fit(tmp_path, whole := Tuned())
    assert max(whole.seen[-1]) > min(whole.seen[0]) == -1
    finder = BatchSizeFinder(max_trials=2, steps_per_trial=2) if kind is BatchSizeFinder else finds(kind)
    data = Batches()
    data.batch_size = 8
    fit(tmp_path, module := Tuned(), data, [finder])
    assert known(module) == known(whole)
    assert module.seen[-1] == whole.seen[-1]


@FINDERS
@pytest.mark.parametrize("before", [False, True], ids=["first run", "after another"])
def test_a_tuner_leaves_no_trace(before, tmp_path):
    module = Tuned()
    if before:
        fit(tmp_path, module, max_epochs=1)
        module.load_state_dict(Tuned().state_dict())
    running = trainer(tmp_path, max_epochs=2)
    Tuner(running).lr_find(module, datamodule=Batches(), num_training=3, early_stop_threshold=None, update_attr=False)
    running.fit(module, datamodule=Batches())
    fit(tmp_path, whole := Tuned())
    assert module.seen[-2] == [-1] * N_UNLABELED
    assert known(module) == known(whole)


@FINDERS
def test_a_finder_in_a_run_that_goes_on_leaves_what_is_known(tmp_path):
    training = fit(tmp_path, module := Tuned())
    labels = module.learning.labels.tolist()
    training.save_checkpoint(tmp_path / "end.ckpt")
    training.fit_loop.max_epochs = 3
    training.callbacks.append(finds())
    training.fit(module, datamodule=Batches())
    assert module.seen[-2] == labels
    resumed = Tuned()
    fit(tmp_path, resumed, callbacks=[finds()], max_epochs=3, ckpt_path=tmp_path / "end.ckpt")
    assert resumed.seen[-2] == labels


# -- refusals -----------------------------------------------------------------------------------------------------
def test_the_number_of_rows_must_be_known(tmp_path):
    module, data = FlexMatchModule(small_net(), n_classes=N_CLASSES), Batches()
    del data.n_unlabeled
    with pytest.raises(MisconfigurationException, match=r"`n_unlabeled` must be given .*SAADataModule"):
        fit(tmp_path, module, data)
    with pytest.raises(RuntimeError, match="Trainer"):
        module.training_step(training_batch(), 0)


def test_rows_beyond_the_data_set_are_named(tmp_path):
    module = FlexMatchModule(small_net(), n_classes=N_CLASSES, n_unlabeled=N_UNLABELED - 1)
    with pytest.raises(MisconfigurationException, match="set, 0 to 46, but got '36 to 47'"):
        fit(tmp_path, module)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"warm": 1}, TypeError), ({"n_unlabeled": 0}, ValueError), ({"n_unlabeled": 2.5}, TypeError)],
)
def test_arguments_are_checked(options, error):
    with pytest.raises(error, match=f"`{next(iter(options))}`"):
        FlexMatchModule("cnn", **options)


# -- two processes ------------------------------------------------------------------------------------------------
class ShardedBatches(StepBatches):
    """Each rank takes its part of the batch of the step; parts of all ranks together are that batch, in order."""

    def __init__(self, ends):
        super().__init__()
        self.ends = ends

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if not self.trainer.training:
            return batch
        rank, whole = self.trainer.global_rank, training_batch(self.trainer.global_step)
        ends = self.ends if self.trainer.global_step % 2 == 0 else [0, self.ends[2] // 2, self.ends[2]]
        mine = {"labeled": slice(2 * rank, 2 * rank + 2), "unlabeled": slice(ends[rank], ends[rank + 1])}
        return {part: {key: value[mine[part]] for key, value in whole[part].items()} for part in whole}


class Written(FlexMatchModule):
    """Writes down what a rank knows, and its averaged weights."""

    def on_train_end(self):
        known = {"labels": self.learning.labels.tolist(), "counts": self.learning.counts.tolist()}
        known["weights"] = torch.cat([value.flatten() for value in self.backbone.parameters()]).tolist()
        with open(f"rank{self.global_rank}-of-{self.trainer.world_size}.json", "w") as file:  # noqa: PTH123
            json.dump(known, file)


def ranks(data, world, learning_rate, folder):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, N_CLASSES))  # without BatchNorm, whose batches differ
    with torch.no_grad():
        net[1].weight *= 10
    module = Written(net, n_classes=N_CLASSES, threshold=0.8, learning_rate=learning_rate)
    options = {"strategy": "ddp_fork", "devices": world, "plugins": [LightningEnvironment()]} if world > 1 else {}
    fit(folder, module, data, max_epochs=2, use_distributed_sampler=False, limit_val_batches=0, **options)
    return [json.loads((folder / f"rank{rank}-of-{world}.json").read_text()) for rank in range(world)]


@pytest.mark.parametrize(("ends", "learning_rate"), [([0, 5, 10], 0.05), ([0, 5, 8], 1e-12)], ids=["equal", "uneven"])
def test_two_processes_know_what_one_knows(ends, learning_rate, tmp_path):
    class Whole(StepBatches):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            whole = super().on_after_batch_transfer(batch, dataloader_idx)
            rows = ends[2]
            return {**whole, "unlabeled": {key: value[:rows] for key, value in whole["unlabeled"].items()}}

    (one,) = ranks(Whole(), 1, learning_rate, tmp_path)
    first, second = ranks(ShardedBatches(ends), 2, learning_rate, tmp_path)
    assert first == second
    assert first.pop("weights") == pytest.approx(one.pop("weights"), rel=1e-4, abs=1e-5)
    assert first == one
    assert len(set(one["labels"])) == N_CLASSES + 1


def test_a_larger_batch_than_the_first_is_refused_in_processes(tmp_path):
    module = FlexMatchModule(small_net(), n_classes=N_CLASSES, n_unlabeled=9)

    class Two:
        world_size = 2
        strategy = type("Strategy", (), {"all_gather": staticmethod(lambda value: torch.stack([value, value]))})

    gathered = FlexMatchModule._of_all_ranks
    module._trainer = Two()
    index, label = torch.arange(3), torch.tensor([0, -1, 2])
    for part in (slice(0, 3), slice(0, 2)):  # the second batch is filled up with rows that change nothing
        rows, labels = gathered(module, index[part], label[part])
        assert rows.shape == labels.shape == (6,)
    assert labels.tolist() == [0, -1, -1] * 2
    assert rows.tolist() == [0, 1, 0] * 2
    with pytest.raises(MisconfigurationException, match="at most 3 rows, the most of the first step, but got '4 rows'"):
        gathered(module, torch.arange(4), torch.zeros(4, dtype=torch.int64))
