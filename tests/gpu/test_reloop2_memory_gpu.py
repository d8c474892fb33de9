"""Memories on a GPU, or behind a model on one, read what they read on the CPU."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from lightning_adapt.reloop2.memory import ErrorMemory
from tests.reloop2.memory_parts import rows, small

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
DEVICE = "cuda"
BACKENDS = ["knn", "sketch"] + ["faiss"] * (importlib.util.find_spec("faiss") is not None)


def on_device(data):
    return tuple(values.to(DEVICE) for values in data)


def assert_alike(memory: ErrorMemory, other: ErrorMemory) -> None:
    keys, _, base = rows(200, seed=2)
    served = memory.compensate(base.to(DEVICE), keys.to(DEVICE))
    assert served.device.type == torch.device(DEVICE).type
    close = (served.cpu() - other.compensate(base, keys)).abs() < 1e-4
    assert close.float().mean() > 0.99  # a bit of a hash, or a neighbour, may fall the other way


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", [DEVICE, "cpu"], ids=["memory on the GPU", "memory on the CPU"])
def test_equals_the_cpu(backend, place):
    memory, plain = small(backend).to(place), small(backend)
    memory.calibrate(rows(200, seed=5)[0].to(DEVICE))
    plain.calibrate(rows(200, seed=5)[0])
    for seed in range(4):
        data = on_device(rows(60, seed=seed))
        with torch.inference_mode(), torch.autocast(DEVICE, dtype=torch.bfloat16):
            memory.write(*data)
        plain.write(*rows(60, seed=seed))
    assert memory.device.type == torch.device(place).type
    assert_alike(memory, plain)
    assert_alike(memory.empty_copy().merge_(memory), plain)


@pytest.mark.parametrize("backend", BACKENDS)
def test_moves_and_is_saved(backend, tmp_path):
    memory, plain = small(backend), small(backend)
    for part in (memory, plain):
        part.write(*rows(120))
    memory.to(DEVICE)
    memory.write(*rows(40, seed=1))
    plain.write(*rows(40, seed=1))
    assert_alike(memory, plain)
    memory.save(tmp_path / "memory.safetensors")
    assert_alike(ErrorMemory.load(tmp_path / "memory.safetensors"), plain)
    moved = small(backend).to(DEVICE)
    moved.load_state_dict(plain.state_dict())
    moved.reset()
    moved.write(*rows(120))
    assert moved.device.type == torch.device(DEVICE).type
