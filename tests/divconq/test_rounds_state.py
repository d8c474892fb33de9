"""The state of an iterative selection: it goes on without vectors, is a copy, and fits its own arguments only."""

from __future__ import annotations

import io
import math
from copy import deepcopy

import pytest
import torch

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.rounds import SelectionRounds
from tests.divconq.clustered_parts import begun, scores_of


@pytest.mark.parametrize("stop", [0, 1, 2])
@pytest.mark.parametrize("train_on", ["union", "new"])
def test_a_resumed_selection_goes_on_without_vectors(stop, train_on):
    settings_ = {"rounds": 3, "k": 7, "train_on": train_on, "drop_below": 0.01, "seed": 5}
    vectors = torch.cat([torch.randn(300, 4, generator=generator(3)), torch.ones(5, 4)])
    quality = torch.randn(305, generator=generator(4))

    def step(selection):
        scores = scores_of(selection.new_rows, selection)
        scores[::4] = math.nan
        selection.advance(selection.new_rows, scores)

    whole = SelectionRounds("20%", **settings_)
    whole.begin(vectors, quality=quality)
    file = io.BytesIO()
    for number in range(3):
        if number == stop:
            torch.save(whole.state_dict(), file)
        if not whole.done:
            step(whole)
    file.seek(0)
    resumed = SelectionRounds(61, **settings_)  # the same budget, written otherwise
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert (resumed.round, resumed.sizes) == (stop, whole.sizes)
    while not resumed.done:
        step(resumed)
    assert torch.equal(resumed.rows, whole.rows)
    assert torch.equal(resumed.log_weights, whole.log_weights)
    assert torch.equal(resumed.labels, whole.labels)
    assert torch.equal(resumed.quality, whole.quality)
    assert torch.equal(resumed.duplicates, whole.duplicates)
    torch.testing.assert_close(resumed.scores, whole.scores, equal_nan=True, rtol=0, atol=0)
    assert resumed.history == whole.history
    assert resumed.engine == whole.engine


@pytest.mark.parametrize("way", ["given", "taken"])
def test_a_state_is_a_copy(way):
    selection = begun(torch.arange(40) % 4, 4, 10, rounds=2, quality=torch.arange(40.0))
    state = selection.state_dict()
    before = deepcopy(state)
    if way == "taken":
        selection.load_state_dict(state)
    part = state["selection"]
    for name in ("labels", "quality", "log_weights"):
        part[name] += 1
    part["drawn"][0] += 1
    part["history"][0]["weights"][0] = 7.0
    part["silhouettes"][3] = 1.0
    _check_equal(selection.state_dict(), before)


def _check_equal(one, other) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        for mine, theirs in zip(one, other, strict=True):
            _check_equal(mine, theirs)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_a_state_of_other_arguments_is_refused_by_name():
    state = begun(torch.arange(40) % 4, 4, 10, rounds=2).state_dict()
    with pytest.raises(ValueError, match=r"tau: saved 1.0, here 2.0"):
        SelectionRounds(10, rounds=2, k=4, tau=2.0).load_state_dict(state)
    with pytest.raises(ValueError, match=r"budget: saved 10, here 12"):
        SelectionRounds(12, rounds=2, k=4).load_state_dict(state)
    with pytest.raises(ValueError, match="version 99"):
        SelectionRounds(10, rounds=2, k=4).load_state_dict({**state, "version": 99})
