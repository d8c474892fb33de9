"""The Triton kernels and the chunks on a CUDA device against the float64 loop; skipped without one."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.lina_speech.gla.backend import gla
from lightning_adapt.lina_speech.gla.fla import why_not_fla
from tests.lina_speech.gla_parts import errors, everything, inputs, loop

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

BOUNDS = {torch.bfloat16: 2e-2, torch.float32: 1e-3}
DECAYS = {"normaliser 16": {}, "normaliser 1": {"normaliser": 1.0}, "resets": {"resets": float("-inf")}}


def agreed(parts, dtype, backend, **options):
    parts = [part.to(dtype).double() if n in (0, 1, 2, 5) else part.float().double() for n, part in enumerate(parts)]
    found = everything(
        gla, parts, dtype, "cuda", state_dtype=torch.float32, backend=backend, output_final_state=True, **options
    )
    wanted = everything(
        loop, parts, **{name: value.cpu() if torch.is_tensor(value) else value for name, value in options.items()}
    )
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found)
    off = errors(found, wanted)
    assert max(off.values()) <= BOUNDS[dtype], off


@pytest.fixture
def exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("decays", DECAYS)
@pytest.mark.parametrize("T", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("backend", ["fla", "chunked"])
def test_values_states_and_gradients(backend, dtype, T, decays):
    agreed(inputs(T, K=32, V=64, **DECAYS[decays]), dtype, backend)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("T", [40, 200])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("backend", ["fla", "chunked"])
def test_pads_leave_the_state(backend, dtype, T):
    mask = (torch.arange(T)[None] < torch.tensor([[T], [T // 3]])).cuda()
    agreed(inputs(T, K=32, V=64), dtype, backend, mask=mask)


def test_auto_takes_the_kernels_and_double_the_chunks():
    parts = [part.cuda() for part in inputs(70, K=32, V=64)[:5]]
    assert why_not_fla(parts[0].float(), parts[2].float()) is None
    single = [part.float() for part in parts]
    assert torch.equal(gla(*single)[0], gla(*single, backend="fla")[0])
    assert torch.equal(gla(*parts)[0], gla(*parts, backend="chunked")[0])
