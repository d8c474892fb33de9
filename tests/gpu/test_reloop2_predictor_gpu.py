"""A model on a GPU is served as on the CPU, and comes back from its file and its journal."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor
from tests.reloop2.predictor_parts import MEMORIES, Clicks, calls, do, predictor, rows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def on_gpu(memory: str, **options):
    return ErrorMemoryPredictor(Clicks().cuda(), MEMORIES[memory](), calibration=[rows(64, seed=99)], **options)


@pytest.mark.parametrize("memory", MEMORIES)
def test_it_serves_as_on_the_cpu(memory, tmp_path):
    for package in ("safetensors", *["faiss"] * (memory == "faiss")):
        pytest.importorskip(package)
    plain, one = predictor(memory), on_gpu(memory, journal=tmp_path / "journal")
    for call in calls(12):
        expected, said = do(plain, call), do(one, call)
        if call[0] == "feedback":
            assert said == expected
        else:
            close = (torch.tensor(said) - torch.tensor(expected)).abs() < 1e-3
            assert close.float().mean() > 0.8  # a bit of a hash may fall the other way
    batch = rows(40, seed=5)
    answer = one.predict(batch, range(40))
    assert answer.device.type == "cpu"
    one.save(tmp_path / "state.safetensors")
    one.close()
    saved = ErrorMemoryPredictor.load(tmp_path / "state.safetensors", Clicks().cuda())
    assert torch.equal(saved.predict(batch, range(40)), answer)
    with on_gpu(memory, journal=tmp_path / "journal") as again:
        assert again.n_pending == saved.n_pending
        torch.testing.assert_close(again.predict(batch, range(40)), answer, atol=1e-4, rtol=0)
