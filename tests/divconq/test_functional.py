"""Budgets, quotas, draws and weights against loops over plain numbers, and against what statistics demand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_adapt._shared.hashing import derive_key, generator
from lightning_adapt.divconq.functional import (
    cluster_quotas,
    draw_rows,
    gumbel_top_k,
    resolve_budget,
    round_sizes,
)
from tests.reference import divconq as reference

SIGNIFICANCE = 1e-6  # a fair test fails by chance once in a million runs; the draws are seeded anyway


# -- budgets -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("budget", "rows"),
    [
        (103, 103),
        ("103", 103),
        (np.int64(103), 103),
        (0.1, 103),
        ("0.1", 103),
        ("10%", 103),
        (" 5 % ", 52),
        (1.0, 1030),
        (0.0005, 1),
    ],
)
def test_a_budget_is_rows_a_share_or_a_percentage(budget, rows):
    assert resolve_budget(budget, 1030) == rows


@pytest.mark.parametrize(
    "budget", [0, -1, 0.0, 1.5, 103.0, "0%", "-5%", "120%", "many", "%", "", math.nan, 1e-9, "1_0"]
)
def test_a_budget_of_nothing_or_of_another_form_is_refused(budget):
    with pytest.raises(ValueError, match="`budget` must be"):
        resolve_budget(budget, 1030)


@pytest.mark.parametrize("budget", [None, True, [5]])
def test_a_budget_of_another_type_is_refused(budget):
    with pytest.raises(TypeError, match="`budget` must be"):
        resolve_budget(budget, 1030)


def test_a_budget_above_the_pool_says_both_numbers():
    with pytest.raises(ValueError, match=r"at most the 1030 rows of the pool, but got 1031"):
        resolve_budget(1031, 1030)


@given(budget=st.integers(1, 10_000), rounds=st.integers(1, 50))
def test_round_sizes_differ_by_one_and_the_early_ones_are_larger(budget, rounds):
    if rounds > budget:
        with pytest.raises(ValueError, match=f"at most the budget of {budget} rows, but got {rounds}"):
            round_sizes(budget, rounds)
        return
    sizes = round_sizes(budget, rounds)
    assert (len(sizes), sum(sizes)) == (rounds, budget)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == budget // rounds
    assert sizes[0] - sizes[-1] <= 1


# -- quotas ------------------------------------------------------------------------------------------------------------
@st.composite
def quota_cases(draw):
    k = draw(st.integers(1, 20))
    weight = st.one_of(st.just(0.0), st.sampled_from([1.0, 0.5, 1e-12, 1e-200]), st.floats(1e-6, 1e6))
    weights = draw(st.lists(weight, min_size=k, max_size=k))
    room = draw(st.lists(st.one_of(st.sampled_from([0, 1, 2]), st.integers(0, 400)), min_size=k, max_size=k))
    return draw(st.integers(0, sum(room))), weights, room


@settings(max_examples=100, deadline=None)
@given(case=quota_cases(), key=st.integers(0, 2**64 - 1))
def test_quotas_round_the_exact_shares_by_largest_remainder(case, key):
    budget, weights, room = case
    quotas = cluster_quotas(budget, torch.tensor(weights, dtype=torch.float64), torch.tensor(room), key=key).tolist()
    shares = reference.ideal_shares(budget, weights, room)
    assert sum(shares) == budget == sum(quotas)
    assert all(0 <= quota <= most for quota, most in zip(quotas, room, strict=True))
    assert all(abs(float(share) - quota) < 1 + 1e-6 for share, quota in zip(shares, quotas, strict=True))
    # who was rounded up had no smaller remainder than who was rounded down
    parts = [(quota > share, float(share - math.floor(share))) for share, quota in zip(shares, quotas, strict=True)]
    up = [part for rounded_up, part in parts if rounded_up]
    down = [part for rounded_up, part in parts if not rounded_up]
    assert max(down, default=0) <= min(up, default=1) + 1e-6


def test_the_lost_rows_of_the_authors_rounding_are_there():
    sizes = torch.bincount(torch.arange(1030) % 48)
    assert 48 * (103 // 48) == 96  # what the code of the paper takes
    assert int(cluster_quotas(103, torch.ones(48), sizes).sum()) == 103
    assert cluster_quotas(103, sizes.double(), sizes).max() <= 3


def test_clusters_of_weight_zero_come_last():
    quotas = cluster_quotas(7, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([4, 5, 4]))
    assert quotas.tolist()[1] == 5
    assert int(quotas.sum()) == 7
    assert cluster_quotas(5, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([4, 5, 4])).tolist() == [0, 5, 0]


def test_equal_remainders_take_turns_with_the_key():
    taken = sum(cluster_quotas(5, torch.ones(20), torch.full((20,), 9), key=key) for key in range(40))
    assert int(taken.sum()) == 200
    assert int(taken.min()) > 0  # with a fixed order the last 15 would have none
    again = cluster_quotas(5, torch.ones(20), torch.full((20,), 9), key=3)
    assert torch.equal(again, cluster_quotas(5, torch.ones(20), torch.full((20,), 9), key=3))


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_quotas_refuse_bad_weights_and_too_large_budgets(bad):
    with pytest.raises(ValueError, match="`weights` must be finite and >= 0"):
        cluster_quotas(1, torch.tensor([1.0, bad]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="at most the 2 rows that the clusters still have, but got 3"):
        cluster_quotas(3, torch.ones(2), torch.tensor([1, 1]))


# -- draws -------------------------------------------------------------------------------------------------------------
WEIGHTS = (8.0, 4.0, 2.0, 1.0, 0.5)
GROUPS = 40_000


def chi_square(counts: Counter, expected: dict, total: int) -> float:
    statistic = sum((counts[pair] - total * p) ** 2 / (total * p) for pair, p in expected.items())
    return float(stats.chi2.sf(statistic, len(expected) - 1))


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_a_draw_has_the_probabilities_of_drawing_one_after_another(shift):
    labels = torch.arange(GROUPS).repeat_interleave(len(WEIGHTS))
    log_weights = torch.tensor(WEIGHTS, dtype=torch.float64).log().repeat(GROUPS) + shift  # no scale is too large
    rows = draw_rows(labels, torch.full((GROUPS,), 2), log_weights=log_weights, key=derive_key(7))
    pairs = Counter(map(tuple, (rows.reshape(GROUPS, 2) % len(WEIGHTS)).tolist()))
    expected = reference.pair_probabilities(WEIGHTS)
    assert chi_square(pairs, expected, GROUPS) > SIGNIFICANCE
    wrong = reference.pair_probabilities([1.0] * 5)
    assert chi_square(pairs, wrong, GROUPS) < SIGNIFICANCE


def test_gumbel_top_k_has_the_same_probabilities_with_a_generator():
    own = generator(3)
    weights = torch.tensor(WEIGHTS).log()
    pairs = Counter(tuple(gumbel_top_k(weights, 2, own).sort().values.tolist()) for _ in range(2000))
    assert chi_square(pairs, reference.pair_probabilities(WEIGHTS), 2000) > SIGNIFICANCE


def test_the_first_row_drawn_is_the_one_of_largest_key():
    noise = torch.tensor([0.1, 0.9, 0.5, 0.0], dtype=torch.float64)
    weights = torch.tensor([0.0, 0.0, 3.0, -math.inf])
    # log w - log E with E = -log(1 - u)
    keys = [w - math.log(-math.log1p(-u)) for u, w in zip([0.1, 0.9, 0.5], [0.0, 0.0, 3.0], strict=True)]
    assert gumbel_top_k(weights, 3, noise).tolist() == sorted(range(3), key=lambda row: -keys[row])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gumbel_top_k_refuses_what_it_cannot_draw(bad):
    with pytest.raises(ValueError, match="finite or -inf"):
        gumbel_top_k(torch.tensor([0.0, bad]), 1, generator(0))
    with pytest.raises(ValueError, match="at most the 1 rows of positive weight, but got 2"):
        gumbel_top_k(torch.tensor([0.0, -math.inf]), 2, generator(0))


def test_zero_noise_neither_wins_nor_breaks():
    assert gumbel_top_k(torch.tensor([50.0, 0.0]), 1, torch.tensor([0.5, 0.0])).tolist() == [0]
    assert sorted(gumbel_top_k(torch.zeros(3), 3, torch.zeros(3)).tolist()) == [0, 1, 2]


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 500), k=st.integers(1, 20), seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_a_draw_fills_every_quota_and_depends_on_its_own_cluster_alone(n, k, seed, share):
    own = generator(seed)
    labels = torch.randint(-1, k, (n,), generator=own)
    available = torch.rand(n, generator=own) < 0.7
    log_weights = 1e4 * torch.randn(n, generator=own, dtype=torch.float64)
    counts = torch.bincount(labels[(labels >= 0) & available], minlength=k)
    quotas = (counts * share).long()
    rows = draw_rows(labels, quotas, log_weights=log_weights, available=available, key=seed)
    assert torch.equal(torch.bincount(labels[rows], minlength=k), quotas)
    assert bool(available[rows].all())
    assert rows.tolist() == sorted(set(rows.tolist()))
    first = int(quotas.argmax())
    alone = draw_rows(
        labels, quotas * (torch.arange(k) == first), log_weights=log_weights, available=available, key=seed
    )
    assert torch.equal(alone, rows[labels[rows] == first])


def test_a_quota_that_a_cluster_cannot_fill_names_it():
    labels = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match=r"cluster 1 has 1\), but got 2"):
        draw_rows(labels, torch.tensor([1, 2]), key=0)
    with pytest.raises(ValueError, match=r"cluster 0 has 1\), but got 2"):
        draw_rows(labels, torch.tensor([2, 0]), log_weights=torch.tensor([0.0, -math.inf, 0.0]), key=0)


def test_draws_never_change_by_accident():
    """Rows of one seed, stored: whoever changes them breaks the resuming of old runs."""
    labels = torch.arange(200) % 7
    log_weights = torch.sin(torch.arange(200, dtype=torch.float64))
    quotas = cluster_quotas(25, torch.arange(7, dtype=torch.float64), torch.bincount(labels), key=derive_key(42, 1))
    assert quotas.tolist() == GOLDEN_QUOTAS
    assert draw_rows(labels, quotas, log_weights=log_weights, key=derive_key(42, 1)).tolist() == GOLDEN_ROWS


GOLDEN_QUOTAS = [0, 1, 2, 4, 5, 6, 7]
# fmt: off
GOLDEN_ROWS = [
    6, 8, 20, 27, 32, 33, 39, 59, 61, 66, 76, 96, 97, 102, 103, 121, 139, 151, 152, 153, 164, 166, 178, 179, 184
]
# fmt: on
