"""evaluating(): eval mode, no gradients, the Trainer's precision, and no trace afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_adapt._shared.forward import evaluating
from tests.rs2.parts import small_trainer


def network():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    model.train()
    model[2][0].eval()  # frozen by the user
    return model


def flags(model):
    return [part.training for part in model.modules()]


def test_every_flag_is_given_back():
    model = network()
    before = flags(model)
    assert True in before
    assert False in before
    with evaluating(model):
        assert not any(flags(model))
    assert flags(model) == before


def test_every_flag_is_given_back_after_an_exception():
    model = network()
    before = flags(model)
    with pytest.raises(RuntimeError, match="inside"), evaluating(model):
        raise RuntimeError("inside")
    assert flags(model) == before
    assert torch.is_grad_enabled()


def test_no_gradients_and_no_statistics():
    model = network()
    model[2][0].train()
    mean = model[2][0].running_mean.clone()
    with evaluating(model):
        assert not model(torch.randn(4, 2)).requires_grad
    assert torch.equal(model[2][0].running_mean, mean)
    assert model(torch.randn(4, 2)).requires_grad


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_the_precision_is_the_trainers(precision, dtype):
    model, trainer = nn.Linear(2, 2), small_trainer(precision=precision)
    with evaluating(model, trainer):
        assert model(torch.ones(1, 2)).dtype == dtype
    assert model(torch.ones(1, 2)).dtype == torch.float32
