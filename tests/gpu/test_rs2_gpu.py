"""RS2 on a CUDA device: same sample order as on the CPU, with pinned memory and mixed precision."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_adapt import RS2Callback
from tests.foreign import ForeignModule, numbered_rows, trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_order_on_the_gpu_is_the_order_on_the_cpu(precision, tmp_path):
    seen = []
    for accelerator in ("cpu", "gpu"):
        module = ForeignModule()
        loader = DataLoader(numbered_rows(), 8, shuffle=True, num_workers=2, pin_memory=True)
        trainer(tmp_path, [RS2Callback(0.3)], accelerator=accelerator, precision=precision).fit(module, loader)
        seen.append(module.seen)
        assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
    assert seen[0] == seen[1]
