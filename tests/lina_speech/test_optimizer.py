"""What decays, and the learning rate against torch and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_adapt.lina_speech.module import LinaSpeechModule
from lightning_adapt.lina_speech.optimizer import check_betas, decay_groups, rate_factor, warmed_up_cosine
from tests.lina_speech.speech_parts import SMALL, lively


@pytest.mark.parametrize("options", [{}, {"tie_embeddings": True}, {"short_conv": True, "cross_attention": "plain"}])
def test_matrices_alone_decay(options):
    model = lively(2, **options)
    groups = decay_groups(model, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    names = {id(value): name for name, value in model.named_parameters()}
    decayed, others = ([names[id(value)] for value in group["params"]] for group in groups)
    assert sorted(decayed + others) == sorted(names.values())
    for name in others:
        assert "norm" in name or "bias" in name or "embed" in name, name
    for name in decayed:
        assert name.endswith("weight") or name == "head", name
        assert not {"norm", "embed"} & set(name.replace("_", ".").split(".")), name
    assert ("head" in decayed) == (not options.get("tie_embeddings", False))


def test_states_and_frozen_weights():
    class Voice(nn.Module):
        def __init__(self):
            super().__init__()
            self.h0 = nn.Parameter(torch.zeros(2, 3, 4))
            self.initial_state = nn.ParameterList([nn.Parameter(torch.zeros(2, 2))])
            self.map = nn.Linear(3, 3)
            self.map.weight.requires_grad_(False)

    groups = decay_groups(Voice(), 0.1)
    assert [group["weight_decay"] for group in groups] == [0.0]
    assert [tuple(value.shape) for value in groups[0]["params"]] == [(2, 3, 4), (2, 2), (3,)]


def test_the_module_trains_what_a_subclass_adds():
    class Voiced(LinaSpeechModule):
        def __init__(self):
            super().__init__(n_audio_samples=0, overrides=SMALL)
            self.voice = nn.ParameterList([nn.Parameter(torch.zeros(2, 2))])

    groups = Voiced().configure_optimizers()["optimizer"].param_groups
    assert any(value.shape == (2, 2) for group in groups for value in group["params"])


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 10), (5, 10), (500, 2000)])
def test_the_cosine_is_that_of_torch(warmup, total):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - warmup, eta_min=0.1)
    theirs = []
    for _ in range(warmup, total + 1):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    ours = [rate_factor(step, total, warmup_steps=warmup, minimum=0.1) for step in range(warmup, total + 1)]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_the_warm_up_starts_above_zero_and_takes_no_more_than_half():
    assert [rate_factor(step, 100, warmup_steps=3) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    short = [rate_factor(step, 10, warmup_steps=500) for step in range(10)]
    assert short.index(1.0) == 5
    assert short == sorted(short[:6]) + sorted(short[6:], reverse=True)
    assert rate_factor(0, 1, warmup_steps=500) == 1.0


def test_the_end_of_the_run():
    assert rate_factor(10, 10, warmup_steps=2) == 0
    assert rate_factor(10, 10, warmup_steps=2, minimum=0.1) == pytest.approx(0.1)
    assert rate_factor(99, 10, warmup_steps=2, minimum=0.1) == pytest.approx(0.1)
    assert rate_factor(10**9, math.inf, warmup_steps=2) == 1.0


def test_the_length_of_the_run_is_asked_for_once_and_late():
    asked = []

    def total():
        asked.append(1)
        return 10.0

    factor = warmed_up_cosine(total, warmup_steps=2)
    assert factor(0) == pytest.approx(1 / 3)
    assert not asked
    assert [factor(step) for step in (1, 2, 6)] == [rate_factor(step, 10, warmup_steps=2) for step in (1, 2, 6)]
    assert len(asked) == 1
    assert warmed_up_cosine(total, warmup_steps=500)(0) <= rate_factor(1, 10, warmup_steps=500)


@pytest.mark.parametrize(("value", "error"), [(3, TypeError), ((0.9,), TypeError), ((0.9, 1.0), ValueError)])
def test_bad_betas_are_named(value, error):
    with pytest.raises(error, match="`betas` must be"):
        check_betas(value)
    assert check_betas([0, 0.5]) == (0.0, 0.5)
