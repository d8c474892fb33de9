"""LossHistory: what is recorded, what is cut where, what is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt._shared.state import check_plain
from lightning_adapt.saa.history import CLIP_QUANTILE, LossHistory, check_threshold
from tests.reference import saa as reference


def filled(n: int = 100, **options) -> LossHistory:
    history = LossHistory(n, **options)
    losses = torch.cat([torch.linspace(0.001, 0.02, n // 2), torch.linspace(2, 3, n - n // 2)])
    history.record(torch.arange(n), losses)
    return history


def test_recorded_sequences_give_the_flags_of_a_loop_over_samples():
    random = np.random.default_rng(0)
    history, loop = LossHistory(60, decay=0.001, min_coverage=0.9), reference.Selection(60, 0.001)
    easy = random.random(60) < 0.6
    changed = 0
    for _ in range(12):
        for _ in range(8):
            index = random.integers(0, 60, 20)
            losses = np.where(easy[index], random.gamma(1, 0.05, 20), random.gamma(3, 1, 20)).astype(np.float32)
            history.record(torch.from_numpy(index), torch.from_numpy(losses))
            loop.step(index.tolist(), losses.tolist())
        before = history.flags.tolist()
        if sum(loss is not None for loss in loop.losses) >= 0.9 * 60:
            assert history.select()
            assert history.threshold == pytest.approx(loop.select(CLIP_QUANTILE), abs=1e-6)
        assert history.flags.tolist() == loop.flags
        changed += history.flags.tolist() != before
    assert changed >= 3, "flags that never move would show nothing"


def test_what_was_not_visited_is_neither_counted_nor_flagged():
    history = LossHistory(10, min_coverage=0.5)
    history.record(torch.tensor([0, 1, 2, 3, 3]), torch.tensor([0.1, 0.1, 5.0, math.nan, math.inf]))
    assert history.visits.tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert history.coverage == pytest.approx(0.3)
    assert not history.select(), "too few have a loss"
    history.record(torch.tensor([4, 5]), torch.tensor([4.0, 6.0]))
    assert history.select()
    assert history.flags.nonzero().flatten().tolist() == [0, 1]


def test_equal_losses_change_nothing():
    history = LossHistory(5)
    history.record(torch.arange(5), torch.full((5,), 0.7))
    assert not history.select()
    assert not history.flags.any()
    assert math.isnan(history.threshold)
    assert not LossHistory(5, min_coverage=0.0).select(), "nothing recorded at all"


def test_a_flagged_sample_whose_loss_rises_is_flagged_no_more():
    history = filled()
    history.select()
    assert history.flags[0]
    history.record(torch.tensor([0]), torch.tensor([4.0]))
    history.select()
    assert not history.flags[0]


@pytest.mark.parametrize(
    ("threshold", "share"),
    [("otsu", 0.5), ("otsu-log", 0.5), ("quantile:0.25", 0.25), (2.5, 0.75), ("2.5", 0.75), (torch.median, 0.49)],
)
def test_every_rule_cuts_where_it_says(threshold, share):
    history = filled(threshold=threshold)
    assert history.select()
    assert history.naive_share == pytest.approx(share, abs=0.05)


def test_rules_that_mean_nothing_are_refused():
    for rule in ("otsu2", "quantile:1.5", "quantile:", "quantile:x", 0.0, -1, math.nan, math.inf, True, None, []):
        with pytest.raises(ValueError, match="`threshold` must be 'otsu', 'otsu-log', 'quantile:q'"):
            check_threshold(rule)
    with pytest.raises(ValueError, match="a function that returns a finite number, but got nan"):
        filled(threshold=lambda losses: math.nan * len(losses)).select()


def test_only_the_confident_are_flagged_on_request():
    history = LossHistory(4)
    history.record(torch.arange(4), torch.tensor([0.1, 0.1, 3.0, 3.0]), torch.tensor([True, False, True, False]))
    history.select(require_confident=True)
    assert history.flags.tolist() == [True, False, False, False]
    history.record(torch.tensor([0, 1, 1]), torch.full((3,), 0.1), torch.tensor([False, True, False]))
    history.select(require_confident=True)
    assert history.flags.tolist() == [False, True, False, False]


def test_flags_are_one_shared_tensor_for_life():
    history = filled()
    flags = history.flags
    assert flags.is_shared()
    history.select()
    assert flags.any()
    again = LossHistory(100)
    held = again.flags
    again.load_state_dict(history.state_dict())
    assert held is again.flags
    assert torch.equal(held, flags)


def test_state_comes_back_and_another_size_is_refused():
    history = filled()
    history.select()
    state = history.state_dict()
    check_plain(state)
    again = LossHistory(100)
    again.load_state_dict(state)
    for name in ("losses", "visits", "confident", "flags"):
        assert torch.equal(getattr(again, name), getattr(history, name))
    assert again.threshold == history.threshold
    with pytest.raises(ValueError, match="`n_unlabeled` must be 100, as in the saved run, but got 7"):
        LossHistory(7).load_state_dict(state)
    with pytest.raises(ValueError, match="version"):
        again.load_state_dict({**state, "version": 2})


def test_bad_input_is_named():
    history = LossHistory(5)
    for index in (-1, 5):
        with pytest.raises(ValueError, match="`index` must be from 0 to 4"):
            history.record(torch.tensor([0, index]), torch.ones(2))
    with pytest.raises(ValueError, match="`n`"):
        LossHistory(0)
    with pytest.raises(ValueError, match=r"`history_decay` must be a number in \[0, 1\)"):
        LossHistory(5, decay=1.0)
    with pytest.raises(ValueError, match="`min_coverage`"):
        LossHistory(5, min_coverage=2.0)
