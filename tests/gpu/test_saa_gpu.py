"""SAA on a CUDA device: views, flags and thresholds of the CPU, and nothing in a step that waits for the device."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_adapt.saa.augment.operations import ALLOWED, OPS, RANGES
from lightning_adapt.saa.augment.rand_augment import BatchRandAugment
from lightning_adapt.saa.augment.views import Views
from lightning_adapt.saa.callback import SampleAdaptiveAugmentation
from lightning_adapt.saa.data.datamodule import SAADataModule
from lightning_adapt.saa.history import LossHistory
from lightning_adapt.saa.models.class_learning import ClassLearning
from lightning_adapt.saa.models.flexmatch import FlexMatchModule
from lightning_adapt.saa.reports import StepReports
from lightning_adapt.saa.selection import Selection
from tests.saa.parts_augment import pictures

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

SOME = ["rgb 32", "rgb odd", "gray 28", "gray odd", "rgb tiny"]


@contextmanager
def nothing_waits():
    """Whatever synchronises with the device raises."""
    torch.zeros(1, device="cuda")  # starting CUDA does synchronise
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.fixture
def no_waiting():
    with nothing_waits():
        yield


def on_gpu(images):
    return images.to("cuda", non_blocking=True)


@pytest.mark.parametrize("size", SOME)
@pytest.mark.parametrize("name", OPS)
def test_an_operation_gives_the_bytes_of_the_cpu(name, size, no_waiting):
    images, (low, high) = pictures(size), RANGES[name]
    values = torch.linspace(low, high, len(images), dtype=torch.float64)
    magnitude = (values.floor() if name == "Posterize" else values) if name in ALLOWED else None
    augment = BatchRandAugment()
    there = augment.apply_op(on_gpu(images), name, magnitude)
    torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(there.cpu(), augment.apply_op(images, name, magnitude))


@pytest.mark.parametrize("size", SOME)
def test_a_batch_gives_the_bytes_of_the_cpu_without_waiting(size, no_waiting):
    images, draws = pictures(size).repeat(8, 1, 1, 1), torch.arange(192)
    augment = BatchRandAugment(6)
    here, moved = augment(images, draws), BatchRandAugment(6).to("cuda", non_blocking=True)
    there = moved(on_gpu(images), draws)
    counted = moved(on_gpu(images))
    torch.cuda.set_sync_debug_mode("default")
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), here)
    assert torch.equal(counted.cpu(), here)


@pytest.mark.parametrize("pieces", [2, 4])
@pytest.mark.parametrize("preset", ["saa", "usb"])
@pytest.mark.parametrize("size", SOME)
def test_views_are_those_of_the_cpu_without_waiting(size, preset, pieces, no_waiting):
    images, draws = pictures(size).repeat(8, 1, 1, 1), torch.arange(192)
    channels, flagged = images.shape[1], torch.arange(192) % 3 == 0
    views = Views(preset, mean=[0.49, 0.48, 0.45][:channels], std=[0.25, 0.24, 0.26][:channels], pieces=pieces)
    here = views.plain(images), views.weak(images, draws, 1), views.strong(images, draws, flagged)
    views, raw = views.to("cuda", non_blocking=True), on_gpu(images)
    there = views.plain(raw), views.weak(raw, draws, 1), views.strong(raw, draws, flagged)
    torch.cuda.set_sync_debug_mode("default")
    for ours, expected in zip(there, here, strict=True):
        assert torch.equal(ours.cpu(), expected)


def test_it_runs_where_only_deterministic_operations_may():
    images, draws = pictures("rgb 32"), torch.arange(24)
    augment = BatchRandAugment(6)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        there = augment(on_gpu(images), draws)
    finally:
        torch.use_deterministic_algorithms(before)
    assert torch.equal(there.cpu(), augment(images, draws))


# -- what a training step does beside the views ------------------------------------------------------------------------
class OneProcess:
    """As much of a Trainer as fetching reports needs."""

    world_size = 1


@pytest.mark.parametrize("loss_type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("index_type", [torch.int64, torch.int32])
def test_noting_a_step_does_not_wait(index_type, loss_type):
    reports = StepReports("sample_loss", "index", "confidence")
    index = torch.randint(50, (16,), dtype=index_type)
    losses, confidence = torch.rand(16).to(loss_type), torch.rand(16).to(loss_type)
    outputs = {"sample_loss": losses.cuda(), "index": index.cuda(), "confidence": confidence.cuda()}
    with nothing_waits():
        reports.add(3, outputs["index"], outputs["sample_loss"], outputs["confidence"])
        reports.read(4, outputs)
    taken = list(reports.take(OneProcess()))
    assert len(taken) == 2
    for rows, values, sure in taken:
        assert rows.tolist() == index.tolist()
        assert torch.equal(values, losses.float())
        assert torch.equal(sure, confidence.float())


@pytest.mark.parametrize("pieces", [2, 4])
def test_flags_and_regrouping_do_not_wait_after_the_first_step_of_a_selection(pieces):
    def fresh():
        saa = SampleAdaptiveAugmentation(pieces=pieces)
        saa.selection = Selection(LossHistory(50, threshold="quantile:0.5", min_coverage=0.0))
        saa.history.record(torch.arange(50), torch.linspace(0, 1, 50))
        assert saa.selection.select(require_confident=False)
        return saa

    index, first = torch.randint(50, (32,)), torch.rand(32, 3, 9, 8)
    second, here, there = first + 1, fresh(), fresh()
    moved = {"first": first.cuda(), "second": second.cuda(), "index": index.cuda()}
    for _ in range(2):
        expected = here.flagged(index), here.regroup(first, second, index)
        ours = there.flagged(moved["index"]), there.regroup(**moved)  # the first time, the flags travel
        for value, other in zip(ours, expected, strict=True):
            assert value.device.type == "cuda"
            assert torch.equal(value.cpu(), other)
    with nothing_waits():
        flags, views = there.flagged(moved["index"]), there.regroup(**moved)
    assert torch.equal(flags.cpu(), here.flagged(index))
    assert torch.equal(views.cpu(), here.regroup(first, second, index))
    assert 0 < int(flags.sum()) < 32


@pytest.mark.parametrize("warm", [True, False])
def test_class_learning_does_not_wait(warm):
    here, there = (ClassLearning(50, n_classes=4, warm=warm, device=device) for device in ("cpu", "cuda"))
    random = torch.Generator().manual_seed(0)
    for _ in range(6):
        index = torch.randint(50, (32,), generator=random)  # some rows come twice
        label = torch.randint(-1, 4, (32,), generator=random)
        asked = label.clamp(min=0)
        moved = [value.cuda() for value in (index, label, asked)]
        with nothing_waits():
            thresholds = there.thresholds(moved[2], 0.95)
            there.write(*moved[:2])
        torch.testing.assert_close(thresholds.cpu(), here.thresholds(asked, 0.95), rtol=1e-6, atol=0)
        here.write(index, label)
        assert torch.equal(there.labels.cpu(), here.labels)
        assert torch.equal(there.counts.cpu(), here.counts)


class TwoProcesses:
    """As much of a Trainer as FlexMatch's mask needs; the other process has what this one has."""

    world_size = 2

    class strategy:
        @staticmethod
        def all_gather(values):
            return torch.stack([values, values])


@pytest.mark.parametrize("rows", [16, 11])
def test_gathering_pseudo_labels_does_not_wait_after_the_first_step(rows):
    module, training = FlexMatchModule("cnn", n_classes=4), TwoProcesses()
    module.trainer, module.log = training, lambda *_, **__: None
    module.learning = ClassLearning(50, n_classes=4, device="cuda")
    index, label, sure = torch.arange(20, 36).cuda(), (torch.arange(16) % 4).cuda(), torch.ones(16, device="cuda")
    module.pass_mask(sure, label, index)  # agrees on the size of a batch
    with nothing_waits():
        module.pass_mask(sure[:rows], label[:rows].flip(0), index[:rows])
    expected = torch.arange(16) % 4
    expected[:rows] = expected[:rows].flip(0)
    assert module.learning.labels[20:36].tolist() == expected.tolist()
    assert int(module.learning.counts[0]) == 50 - 16


@pytest.mark.parametrize("pin_memory", [False, True])
def test_moving_a_batch_and_making_its_views_does_not_wait(pin_memory):
    def batches():
        rows = TensorDataset(pictures("rgb 32"), torch.arange(24) % 2)
        made = SAADataModule(rows, n_labels=4, batch_size=4, mu=3, steps_per_epoch=3, pin_memory=pin_memory)
        made.setup()
        made.use_flags(torch.arange(made.n_unlabeled) % 2 == 0)
        return made, [batch for batch, *_ in made.train_dataloader()]

    (data, here), (other, there) = batches(), batches()
    device = torch.device("cuda")
    expected = [data.transfer_batch_to_device(batch, torch.device("cpu"), 0) for batch in here]
    moved = [other.transfer_batch_to_device(there[0], device, 0)]  # what makes the views travels once
    with nothing_waits():
        moved += [other.transfer_batch_to_device(batch, device, 0) for batch in there[1:]]
    for ours, theirs in zip(moved, expected, strict=True):
        for part in ("labeled", "unlabeled"):
            assert ours[part].keys() == theirs[part].keys()
            for name, value in theirs[part].items():
                assert ours[part][name].device.type == "cuda"
                assert torch.equal(ours[part][name].cpu(), value), name
    assert all(0 < int(batch["unlabeled"]["regrouped"].sum()) < 12 for batch in expected)
