"""SAA's augmentation on a CUDA device: the views of the CPU, and nothing that waits for the device."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.saa.augment.operations import ALLOWED, OPS, RANGES
from lightning_adapt.saa.augment.rand_augment import BatchRandAugment
from lightning_adapt.saa.augment.views import Views
from tests.saa.parts_augment import pictures

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

SOME = ["rgb 32", "rgb odd", "gray 28", "gray odd", "rgb tiny"]


@pytest.fixture
def no_waiting():
    """Whatever synchronises with the device raises."""
    torch.zeros(1, device="cuda")  # starting CUDA does synchronise
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


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
