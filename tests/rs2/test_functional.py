"""The pure functions of RS2 against loops over plain numbers, and against what statistics demand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_adapt.rs2 import functional
from lightning_adapt.rs2.functional import (
    PERMUTATION_VERSION,
    RANDPERM_LIMIT,
    bootstrap_rows,
    expected_coverage,
    permute,
    round_size,
    stratified_order,
    weighted_order,
)
from tests.reference import rs2 as reference

METHODS = ["feistel", "randperm"]
SIGNIFICANCE = 1e-6  # a fair test fails by chance once in a million runs; the draws are seeded anyway


def whole(n: int, seed: int, cycle: int, method: str) -> list[int]:
    return permute(torch.arange(n), n, seed, cycle, method=method).tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 17, 64, 257])
@pytest.mark.parametrize(("seed", "cycle"), [(0, 0), (1, 0), (0, 1), (12345, 678), (2**63 - 1, 3)])
def test_permute_equals_the_scalar_reference(n, seed, cycle):
    assert whole(n, seed, cycle, "feistel") == [reference.feistel(p, n, seed, cycle) for p in range(n)]
    assert whole(n, seed, cycle, "randperm") == reference.randperm(n, seed, cycle)


@pytest.mark.parametrize("n", [2**24 + 1, 10**9, 2**40 + 12345])
def test_feistel_of_large_sets_equals_the_reference_without_building_them(n):
    index = torch.tensor([0, 1, 2, n // 3, n - 2, n - 1])
    expected = [reference.feistel(p, n, 5, 2) for p in index.tolist()]
    assert permute(index, n, 5, 2).tolist() == expected
    assert max(expected) < n


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 17, 1000, 2**16 + 1])
def test_permute_is_a_bijection(n, method):
    assert sorted(whole(n, 3, 4, method)) == list(range(n))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3000),
    seed=st.integers(0, 2**63 - 1),
    cycle=st.integers(0, 10**6),
    method=st.sampled_from(METHODS),
    places=st.lists(st.integers(0, 2**40), max_size=5),
)
def test_any_permutation_is_a_bijection_with_random_access(n, seed, cycle, method, places):
    images = whole(n, seed, cycle, method)
    assert sorted(images) == list(range(n))
    asked = [place % n for place in places]
    assert permute(torch.tensor(asked, dtype=torch.int64), n, seed, cycle, method=method).tolist() == [
        images[place] for place in asked
    ]


@pytest.mark.parametrize("method", METHODS)
def test_permute_keeps_the_shape_and_takes_no_index_at_all(method):
    square = torch.arange(100).reshape(10, 10).flip(0)
    images = permute(square, 100, 1, method=method)
    assert images.shape == (10, 10)
    assert images.dtype == torch.int64
    assert images.flip(0).reshape(-1).tolist() == whole(100, 1, 0, method)
    assert permute(torch.empty(0, dtype=torch.int64), 100, 1, method=method).shape == (0,)


def test_auto_reads_randperm_up_to_the_limit_and_walks_above_it(monkeypatch):
    assert RANDPERM_LIMIT == 2**24
    monkeypatch.setattr(functional, "RANDPERM_LIMIT", 100)
    assert whole(100, 7, 1, "auto") == whole(100, 7, 1, "randperm")
    assert whole(101, 7, 1, "auto") == whole(101, 7, 1, "feistel")
    assert whole(100, 7, 1, "feistel") != whole(100, 7, 1, "randperm")


@pytest.mark.parametrize("method", METHODS)
def test_neighbouring_seeds_and_cycles_share_no_order(method):
    orders = {(seed, cycle): tuple(whole(50, seed, cycle, method)) for seed in range(12) for cycle in range(12)}
    assert len(set(orders.values())) == 144
    assert orders[4, 6] != orders[5, 5]  # what seed + epoch would give


# first eight images; a change here breaks every resumed run and needs a new PERMUTATION_VERSION
GOLDEN = {
    (10, 0, 0, "randperm"): [2, 1, 7, 8, 6, 0, 3, 5],
    (10, 0, 0, "feistel"): [3, 2, 5, 4, 0, 8, 9, 7],
    (1000, 7, 3, "randperm"): [274, 962, 319, 707, 69, 662, 865, 268],
    (1000, 7, 3, "feistel"): [770, 240, 762, 780, 80, 203, 510, 40],
    (65537, 4611686018427387904, 1, "randperm"): [58664, 24703, 63264, 15850, 27236, 62478, 24071, 3790],
    (65537, 4611686018427387904, 1, "feistel"): [28246, 39719, 13104, 33772, 45453, 62610, 41545, 18488],
    (1000000000, 42, 5, "feistel"): [
        495077512,
        61037093,
        425924244,
        813641172,
        127226448,
        363203678,
        9282008,
        412142067,
    ],
    (16777217, 0, 0, "auto"): [2112041, 14199891, 13924273, 11750804, 8576374, 6356142, 15532033, 17925],
}


def test_golden_orders_of_permutation_version_1():
    assert PERMUTATION_VERSION == 1
    drawn = {
        (n, seed, cycle, method): permute(torch.arange(8), n, seed, cycle, method=method).tolist()
        for n, seed, cycle, method in GOLDEN
    }
    assert drawn == GOLDEN


def test_golden_orders_of_the_other_draws():
    assert bootstrap_rows(torch.arange(8), 1000, 7, 3).tolist() == [609, 334, 36, 647, 672, 675, 210, 48]
    assert stratified_order(torch.arange(20) % 3, 7, 3)[:8].tolist() == [1, 3, 14, 13, 12, 5, 7, 15]
    assert weighted_order(torch.arange(20).double(), 8, 7, 3).tolist() == [18, 9, 13, 2, 3, 12, 19, 6]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [5, 6, 13])
def test_every_position_is_equally_likely_for_every_row(n, method):
    counts = np.zeros((n, n))
    for seed in range(2000):
        counts[np.arange(n), whole(n, seed, 0, method)] += 1
    # a doubly stochastic table with (n-1)^2 degrees of freedom
    statistic = ((counts - 2000 / n) ** 2 / (2000 / n)).sum()
    assert stats.chi2.sf(statistic, (n - 1) ** 2) > SIGNIFICANCE


@pytest.mark.parametrize("method", METHODS)
def test_all_orders_of_four_rows_are_equally_likely(method):
    counts = Counter(tuple(whole(4, seed, 1, method)) for seed in range(4800))
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > SIGNIFICANCE


def test_successive_cycles_are_uncorrelated():
    first = np.array([whole(500, 1, cycle, "feistel") for cycle in range(20)])
    correlations = np.corrcoef(first)[~np.eye(20, dtype=bool)]
    assert np.abs(correlations).max() < 5 / np.sqrt(500)


@pytest.mark.parametrize(
    ("n", "ratio", "multiple", "expected"),
    [
        (1000, 0.1, 1, 100),
        (1000, 0.07, 1, 70),
        (1281167, 0.01, 1, 12812),
        (60_000, 0.1, 128, 5888),
        (1000, 1.0, 1, 1000),
        (10, 0.25, 1, 2),  # round half to even, as Python and the official code do
        (1000, 0.128, 128, 128),
    ],
)
def test_round_size(n, ratio, multiple, expected):
    assert round_size(n, ratio, multiple) == expected


@pytest.mark.parametrize("n", [97, 1000, 12_345, 1_281_167])
@pytest.mark.parametrize("multiple", [3, 32, 96])
def test_the_smallest_ratio_in_the_message_works_and_is_smallest(n, multiple):
    with pytest.raises(ValueError, match="Use ratio >= ") as caught:
        round_size(n, 1e-7, multiple)
    advised = float(str(caught.value).split("Use ratio >= ")[1].split()[0])
    assert advised == reference.smallest_ratio(n, multiple)
    assert round_size(n, advised, multiple) == multiple
    with pytest.raises(ValueError, match="Use ratio >= "):
        round_size(n, advised - 1e-6 - 0.5 / n, multiple)


@pytest.mark.parametrize("mode", ["without", "independent", "bootstrap"])
@pytest.mark.parametrize(
    ("rounds", "n", "k"), [(0, 10, 3), (1, 10, 3), (3, 10, 3), (4, 10, 3), (7, 100, 20), (2, 5, 5)]
)
def test_expected_coverage_equals_the_product_written_out(mode, rounds, n, k):
    assert expected_coverage(rounds, n, k, mode) == pytest.approx(reference.coverage(rounds, n, k, mode), abs=1e-12)


def test_bootstrap_is_uniform_and_random_access():
    drawn = bootstrap_rows(torch.arange(200_000), 50, 3, 2)
    assert stats.chisquare(torch.bincount(drawn, minlength=50).numpy()).pvalue > SIGNIFICANCE
    assert bootstrap_rows(torch.tensor([199_999, 7]), 50, 3, 2).tolist() == [drawn[-1].item(), drawn[7].item()]
    assert not torch.equal(drawn, bootstrap_rows(torch.arange(200_000), 50, 3, 3))
    assert not torch.equal(drawn, bootstrap_rows(torch.arange(200_000), 50, 4, 2))


@pytest.mark.parametrize("counts", [(5, 5, 5), (90, 9, 1), (200, 50, 3, 2, 1), (1,) * 7, (40,)])
def test_stratified_order_is_a_permutation_with_every_window_in_proportion(counts):
    targets = torch.cat([torch.full((count,), 10 * label) for label, count in enumerate(counts)])
    n, n_classes = len(targets), len(counts)
    for cycle in range(3):
        order = stratified_order(targets, 1, cycle)
        assert sorted(order.tolist()) == list(range(n))
        labels = targets[order].tolist()
        for k in {1, n // 10 or 1, n // 3 or 1, n}:
            for label, count in enumerate(counts):
                assert reference.largest_window_error(labels, 10 * label, k) <= 1 + n_classes * count / n + 1e-9


def test_stratified_order_shuffles_inside_the_classes():
    targets = torch.arange(4) % 2
    seen = Counter(
        (tuple(r for r in order if r % 2 == 0), tuple(r for r in order if r % 2 == 1))
        for order in (stratified_order(targets, 0, cycle).tolist() for cycle in range(800))
    )
    assert len(seen) == 4
    assert stats.chisquare(list(seen.values())).pvalue > SIGNIFICANCE


def test_weighted_order_matches_sequential_sampling():
    weights, rounds = [1.0, 2.0, 3.0, 0.0, 6.0], 4000
    random = np.random.default_rng(0)
    ours = Counter(tuple(weighted_order(torch.tensor(weights), 2, 1, t).tolist()) for t in range(rounds))
    theirs = Counter(tuple(reference.sequential_weighted_sample(weights, 2, random)) for _ in range(rounds))
    assert set(ours) == set(theirs)
    assert not any(3 in pair for pair in ours)
    table = [[ours[pair] for pair in sorted(ours)], [theirs[pair] for pair in sorted(ours)]]
    assert stats.chi2_contingency(table).pvalue > SIGNIFICANCE
