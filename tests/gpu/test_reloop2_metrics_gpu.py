"""PrequentialMetrics on a GPU finds what it finds on the CPU, also where only deterministic operations are allowed."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.reloop2.metrics import PrequentialMetrics

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def test_equals_the_cpu():
    random = torch.Generator().manual_seed(0)
    prediction, base, chance = torch.rand(3, 5000, generator=random).mul(50).round() / 50
    columns = {"prediction": prediction, "target": (chance < prediction).long(), "base": base}
    columns |= {"slot": torch.arange(5000) // 500, "group": torch.arange(5000) % 97}
    on_cpu, moved = PrequentialMetrics(), PrequentialMetrics()
    on_cpu.update(**columns)
    moved.update(**{name: values[:2000] for name, values in columns.items()})
    moved = moved.cuda()
    moved.update(**{name: values[2000:].cuda() for name, values in columns.items()})
    torch.use_deterministic_algorithms(True)
    try:
        found = {**moved.compute(), **{f"slots {name}": values for name, values in moved.per_slot().items()}}
    finally:
        torch.use_deterministic_algorithms(False)
    expected = {**on_cpu.compute(), **{f"slots {name}": values for name, values in on_cpu.per_slot().items()}}
    assert set(found) == set(expected)
    for name, values in found.items():
        assert values.is_cuda
        torch.testing.assert_close(values.cpu(), expected[name])
