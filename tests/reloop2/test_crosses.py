"""Which crosses get a table: all when they are few, otherwise those that explain residuals."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from lightning_adapt.reloop2.experts.crosses import CrossSearch, cross_score
from tests.reference import reloop2_adaptive as reference

PAIRS = list(combinations(range(6), 2))


def rows(n, seed=0):
    """Six fields; the residual depends on fields 2 and 4 together, and on neither alone."""
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, (n, 6), generator=draws)
    both = torch.randn(25, generator=torch.Generator().manual_seed(9)) * 0.2
    chance = torch.full((n,), 0.5)
    residual = both[ids[:, 2] * 5 + ids[:, 4]] + (torch.rand(n, generator=draws) - 0.5)
    return ids, residual, chance * (1 - chance)


def test_score_equals_the_reference():
    draws = torch.Generator().manual_seed(0)
    levels = torch.randint(7, (200,), generator=draws)
    residual, curvature = torch.randn(200, generator=draws) / 2, torch.rand(200, generator=draws) / 4
    expected = reference.score(levels.tolist(), residual.tolist(), curvature.tolist(), 0.3)
    assert cross_score(levels, residual, curvature, 0.3) == pytest.approx(expected, rel=1e-6)
    assert cross_score(levels[:0], residual[:0], curvature[:0], 0.3) == 0


def test_score_of_noise_is_zero_on_average():
    scores = []
    for seed in range(200):
        draws = torch.Generator().manual_seed(seed)
        residual = (torch.rand(500, generator=draws) < 0.5).float() - 0.5
        scores.append(cross_score(torch.randint(20, (500,), generator=draws), residual, torch.full((500,), 0.25), 0.1))
    mean, spread = torch.tensor(scores).mean(), torch.tensor(scores).std() / 200**0.5
    assert abs(float(mean)) < 3 * float(spread)


def test_few_candidates_all_have_a_slot_at_once():
    search = CrossSearch(3, [(0, 1), (1, 2)], n_slots=5, prior_variance=0.1)
    assert search.n_slots == 2
    assert search.taken.all()
    assert search.held(["a", "b", "c"]) == ["a*b", "b*c"]
    ids, residual, curvature = rows(10)
    assert not search.observe(ids[:, :3], residual, curvature, torch.ones(2)).any()


def test_with_many_the_search_finds_the_one_that_matters():
    search = CrossSearch(6, PAIRS, n_slots=2, prior_variance=0.1, window=1000)
    assert not search.taken.any()
    ids, residual, curvature = rows(999)
    assert not search.observe(ids, residual, curvature, torch.zeros(2)).any()
    changed = search.observe(*rows(1, seed=1), torch.zeros(2))
    assert bool(changed[0])
    assert search.held("abcdef")[0] == "c*e"


def test_a_cross_at_work_keeps_its_slot_and_an_idle_one_loses_it():
    search = CrossSearch(6, PAIRS, n_slots=2, prior_variance=0.1, window=500)
    search.pairs.copy_(torch.tensor([[0, 1], [3, 5]]))
    changed = search.observe(*rows(500), torch.tensor([0.5, 0.0]))
    assert changed.tolist() == [False, True]
    assert search.held("abcdef") == ["a*b", "c*e"]


def test_one_large_batch_is_as_many_small_ones():
    one, many = (CrossSearch(6, PAIRS, n_slots=2, prior_variance=0.1, window=300) for _ in range(2))
    ids, residual, curvature = rows(1000)
    one.observe(ids, residual, curvature, torch.ones(2))
    for start in range(0, 1000, 90):
        part = slice(start, start + 90)
        many.observe(ids[part], residual[part], curvature[part], torch.ones(2))
    assert torch.equal(one.pairs, many.pairs)
    assert int(one.filled) == int(many.filled) == 100


def test_noise_gets_no_slot_that_signal_could_have():
    search = CrossSearch(6, PAIRS, n_slots=1, prior_variance=0.1, window=2000)
    search.observe(*rows(2000), torch.zeros(1))
    assert search.held("abcdef") == ["c*e"]


def test_reset_forgets_what_was_found():
    search = CrossSearch(6, PAIRS, n_slots=2, prior_variance=0.1, window=200)
    search.observe(*rows(250), torch.zeros(2))
    assert search.taken.any()
    search.reset()
    assert not search.taken.any()
    assert int(search.filled) == 0
