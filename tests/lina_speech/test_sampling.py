"""Sampling: temperature, top-k and top-p against NumPy, ties, limits, and numbers that belong to one stream."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt.lina_speech.inference.sampling import (
    SamplingOptions,
    draw,
    kept_probabilities,
    stream_key,
    stream_uniforms,
)


def by_loop(logits, temperature, top_k, top_p):
    """The kept probabilities of one row: sort, cut, cut again; ties at a border stay."""
    scores = [value / temperature for value in logits]
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    if top_k is not None and top_k < len(order):
        order = [place for place in order if scores[place] >= scores[order[top_k - 1]]]
    weights = {place: math.exp(scores[place] - max(scores)) for place in order}
    total = sum(weights.values())
    weights = {place: weight / total for place, weight in weights.items()}
    if top_p < 1:
        summed, kept = 0.0, []
        for place in order:
            if summed >= top_p:
                break
            kept.append(place)
            summed += weights[place]
        border = weights[kept[-1]]
        weights = {place: weight for place, weight in weights.items() if weight >= border}
        total = sum(weights.values())
    else:
        total = 1.0
    found = np.zeros(len(logits))
    for place, weight in weights.items():
        found[place] = weight / total
    return found


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 1e-9])
@pytest.mark.parametrize("top_k", [None, 1, 3, 20, 21])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
def test_kept_probabilities_are_those_of_a_loop(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(size=(8, 20)) * 3
    logits[3, 4] = -np.inf  # what must not be drawn
    ours = kept_probabilities(torch.from_numpy(logits), SamplingOptions(temperature, top_k, top_p)).numpy()
    for row, line in zip(ours, logits, strict=True):
        np.testing.assert_allclose(row, by_loop(line.tolist(), temperature, top_k, top_p), atol=1e-12)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-12)
    assert ours[3, 4] == 0


def test_ties_at_a_border_are_all_kept():
    tied = torch.tensor([1.0, 0.0, 1.0, 1.0, -5.0])
    kept = kept_probabilities(tied, SamplingOptions(top_k=2)) > 0
    assert kept.tolist() == [True, False, True, True, False]
    kept = kept_probabilities(tied, SamplingOptions(top_p=0.3)) > 0
    assert kept.tolist() == [True, False, True, True, False]
    assert torch.equal(kept_probabilities(torch.zeros(4), SamplingOptions(top_k=1)), torch.full((4,), 0.25).double())


def test_a_top_p_that_the_first_codes_reach_exactly_takes_no_more():
    logits = torch.tensor([0.5, 0.25, 0.25]).double().log()
    assert (kept_probabilities(logits, SamplingOptions(top_p=0.5)) > 0).tolist() == [True, False, False]


def test_the_smallest_temperature_is_greedy_and_no_nan():
    logits = torch.tensor([[1.0, 3.0, 2.0, -math.inf]])
    made = kept_probabilities(logits, SamplingOptions(1e-300, None))
    assert made.tolist() == [[0.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("options", [SamplingOptions(0.7, None), SamplingOptions(1.0, 4), SamplingOptions(1.0, 9, 0.8)])
def test_draws_follow_the_probabilities(options):
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(3)) * 2
    n = 20_000
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # every quantile once: no chance in this test
    drawn = draw(logits.expand(n, -1), uniforms, options)
    shares = torch.bincount(drawn, minlength=12) / n
    torch.testing.assert_close(shares.double(), kept_probabilities(logits, options)[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("number", [0.0, 1.0 - 2.0**-53])
def test_no_number_draws_what_is_left_out(number):
    logits = torch.tensor([[-math.inf, 0.0, 5.0, -math.inf]]).expand(3, -1)
    drawn = draw(logits, torch.full((3,), number, dtype=torch.float64), SamplingOptions())
    assert drawn.tolist() == [1 if number == 0 else 2] * 3


def test_numbers_of_a_stream_depend_on_key_step_and_codebook_alone():
    keys = [stream_key(7), stream_key(8), stream_key(7, 1)]
    many = stream_uniforms(keys, 50, 2)
    assert many.shape == (3, 50, 2)
    for row, key in enumerate(keys):
        assert torch.equal(stream_uniforms([key], 10, 2)[0], many[row, :10])
    assert len(many.unique()) == many.numel()
    assert many.min() >= 0
    assert many.max() < 1
    assert stream_uniforms([], 3, 1).shape == (0, 3, 1)


@pytest.mark.parametrize(("options", "drawn"), [({}, 1), ({"first_greedy_codebook": None}, 4), ({"temperature": 0}, 0)])
def test_which_codebooks_are_drawn(options, drawn):
    assert SamplingOptions(**options).drawn_codebooks(4) == drawn


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temperature": -1}, ValueError),
        ({"temperature": math.nan}, ValueError),
        ({"temperature": "1"}, TypeError),
        ({"top_k": 0}, ValueError),
        ({"top_k": 1.5}, TypeError),
        ({"top_p": 0.0}, ValueError),
        ({"top_p": 1.1}, ValueError),
        ({"top_p": True}, TypeError),
        ({"first_greedy_codebook": -1}, ValueError),
    ],
)
def test_bad_options_are_named(options, error):
    with pytest.raises(error, match=f"`{next(iter(options))}` must be"):
        SamplingOptions(**options)
