"""Initial-state tuning on a CUDA device: the voices of the CPU, evaluated there, and tuned again."""

from __future__ import annotations

import pytest
import torch

from tests.foreign import trainer
from tests.foreign_gla import ChainData
from tests.lina_speech.tuning_parts import base, loss_of, tuning, weights_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def tuned_on(accelerator, folder, **options):
    callback, module = tuning(rank=2), base()
    runner = trainer(folder, [callback], accelerator=accelerator, max_epochs=2, **options)
    runner.fit(module, ChainData(n=32))
    return callback, module, runner


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_voices_are_those_of_the_cpu(precision, tmp_path):
    callback, module, runner = tuned_on("gpu", tmp_path, precision=precision)
    expected, *_ = tuned_on("cpu", tmp_path)
    close = 1e-3 if precision == "32-true" else 3e-2
    for name, matrix in callback.tuned.matrices().items():
        assert not matrix.is_cuda
        if precision == "32-true":
            torch.testing.assert_close(matrix, expected.tuned.matrices()[name], atol=close, rtol=close)
    assert callback.tuned.held_out["tuned"] == pytest.approx(expected.tuned.held_out["tuned"], rel=close)
    assert callback.tuned.held_out["tuned"] < callback.tuned.held_out["untuned"]
    (found,) = runner.validate(module, ChainData(n=32), verbose=False)
    assert found["val_loss"] > 0
    runner.fit_loop.max_epochs = 3
    runner.fit(module, ChainData(n=32))  # states that were evaluated can be tuned on
    assert callback.tuned.held_out["tuned"] < callback.tuned.held_out["untuned"]


def test_the_base_comes_back_untouched(tmp_path):
    before = weights_of(base())
    _, module, _ = tuned_on("gpu", tmp_path)
    after = weights_of(module.cpu())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert loss_of(module, 0) == loss_of(base(), 0)
