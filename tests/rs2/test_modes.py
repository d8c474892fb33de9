"""What a round holds in each mode of RS2Sampler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_adapt import RS2Sampler
from lightning_adapt._shared.row_sampler import RowSampler
from tests.reference import rs2 as reference
from tests.rs2.parts import flat

SIGNIFICANCE = 1e-6


def rounds_of(sampler, rounds):
    drawn = []
    for t in range(rounds):
        sampler.set_epoch(t)
        drawn.append(list(sampler))
    return drawn


@pytest.mark.parametrize("permutation", ["randperm", "feistel"])
def test_independent_rounds_are_uniform_subsets_without_repeats(permutation):
    drawn = rounds_of(RS2Sampler(100, 0.2, mode="independent", permutation=permutation), 500)
    assert all(len(set(rows)) == 20 for rows in drawn)
    # with k of n fixed per round the counts vary less than multinomial ones: scale by (n - 1) / (n - k)
    counts = np.array(reference.visits(drawn, 100))
    statistic = ((counts - 100) ** 2 / 100).sum() * 99 / 80
    assert stats.chi2.sf(statistic, 99) > SIGNIFICANCE
    assert stats.chi2.cdf(statistic, 99) > SIGNIFICANCE
    overlaps = [len(set(one) & set(two)) for one, two in itertools.pairwise(drawn)]
    assert abs(np.mean(overlaps) - 4) < 6 * np.sqrt(4 * 0.8 * 80 / 99 / len(overlaps))


@pytest.mark.parametrize("mode", ["without", "independent", "bootstrap"])
@pytest.mark.parametrize(("ratio", "rounds"), [(0.1, 3), (0.1, 10), (0.3, 5), (0.01, 60)])
def test_coverage_is_what_is_seen(mode, ratio, rounds):
    n, seeds = 2000, 30
    seen = []
    for seed in range(seeds):
        sampler = RS2Sampler(n, ratio, mode=mode, seed=seed)
        seen.append(len({row for t in range(rounds) for row in sampler.epoch_rows(t).tolist()}) / n)
    expected = sampler.coverage(rounds)
    assert expected == pytest.approx(reference.coverage(rounds, n, round(ratio * n), mode))
    if mode == "without":
        assert set(seen) == {expected}
    else:
        deviation = max(np.std(seen, ddof=1), 1e-4)
        assert abs(np.mean(seen) - expected) < 6 * deviation / np.sqrt(seeds)


def test_coverage_of_the_independent_mode_is_the_formula_of_the_paper():
    sampler = RS2Sampler(1000, 0.1, mode="independent")
    assert sampler.coverage(10) == pytest.approx(1 - 0.9**10)


def test_bootstrap_repeats_inside_a_round_and_is_uniform():
    drawn = rounds_of(RS2Sampler(50, 1.0, mode="bootstrap"), 400)
    assert stats.chisquare(reference.visits(drawn, 50)).pvalue > SIGNIFICANCE
    distinct = np.mean([len(set(rows)) / 50 for rows in drawn])
    assert distinct == pytest.approx(1 - (1 - 1 / 50) ** 50, abs=0.02)


def test_weights_give_the_frequencies_of_sequential_sampling():
    weights = [0.0, 1.0, 1.0, 2.0, 4.0, 0.0, 8.0, 3.0]
    rounds = 3000
    drawn = rounds_of(RS2Sampler(8, 0.375, mode="independent", weights=weights), rounds)
    assert all(len(set(rows)) == 3 for rows in drawn)
    ours = np.array(reference.visits(drawn, 8))
    assert ours[0] == ours[5] == 0
    random = np.random.default_rng(1)
    theirs = np.array(
        reference.visits([reference.sequential_weighted_sample(weights, 3, random) for _ in range(rounds)], 8)
    )
    share = (ours + theirs) / (2 * rounds)
    deviation = np.sqrt(2 * rounds * share * (1 - share))
    assert (np.abs(ours - theirs) <= 5 * deviation).all()


def test_weights_of_rows_outside_the_population_do_not_count():
    weights = [0.0] * 10 + [1.0] * 90
    with pytest.raises(ValueError, match="`weights` must be positive for at least 5 rows, but got 0"):
        RS2Sampler(RowSampler(range(10)), 0.5, mode="independent", weights=weights)
    allowed = RS2Sampler(RowSampler(range(5, 15)), 0.5, mode="independent", weights=weights)
    assert sorted(allowed) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("mode", ["without", "independent", "bootstrap"])
def test_classes_keep_their_proportions_in_every_round(mode):
    targets = torch.tensor([0] * 700 + [1] * 250 + [2] * 46 + [3] * 4)[torch.randperm(1000)]
    sampler = RS2Sampler(1000, 0.1, mode=mode, targets=targets)
    for rows in rounds_of(sampler, 40):
        counts = torch.bincount(targets[rows], minlength=4)
        share = torch.bincount(targets) * 0.1
        slack = 1 + 4 * torch.bincount(targets) / 1000
        if mode == "without":  # a round may straddle two passes: one bound for each part
            slack = 2 * slack
        assert bool(((counts - share).abs() <= slack + 1e-9).all())


def test_a_rare_class_is_not_starved():
    # round(r n_c) = round(0.1 * 4) = 0 would never draw class 1
    targets = [1 if row < 4 else 0 for row in range(1000)]
    drawn = rounds_of(RS2Sampler(1000, 0.1, targets=targets), 10)
    assert sorted(row for rows in drawn for row in rows if row < 4) == [0, 1, 2, 3]
    assert max(sum(row < 4 for row in rows) for rows in drawn) == 1


def test_stratified_bootstrap_is_uniform_inside_a_class():
    targets = [row % 2 for row in range(20)]
    drawn = rounds_of(RS2Sampler(20, 0.5, mode="bootstrap", targets=targets), 1000)
    assert {sum(targets[row] for row in rows) for rows in drawn} == {5}
    assert stats.chisquare(reference.visits(drawn, 20)).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(("n", "blocks"), [(1000, 10), (1003, 10), (17, 5), (100, 3), (7, 1)])
def test_partition_cuts_each_pass_into_equal_blocks(n, blocks):
    sampler = RS2Sampler(n, 1 / blocks, boundary="partition")
    for first in range(0, 4 * blocks, blocks):
        drawn = [sampler.epoch_rows(t).tolist() for t in range(first, first + blocks)]
        assert sorted(flat(drawn)) == list(range(n))
        assert {len(rows) for rows in drawn} <= {n // blocks, -(-n // blocks)}


@pytest.mark.parametrize("replicas", [1, 2])
def test_partition_with_batches_rounds_every_block_down(replicas):
    left_out = []
    for t in range(40):
        drawn = []
        for rank in range(replicas):
            sampler = RS2Sampler(1003, 0.25, boundary="partition", round_to=8, num_replicas=replicas, rank=rank)
            sampler.set_epoch(t)
            drawn += list(sampler)
            assert len(sampler) == 250 // (8 * replicas) * 8
        assert len(set(drawn)) == len(drawn) == 250 // (8 * replicas) * 8 * replicas
        left_out.append(drawn)
    passes = [set(flat(left_out[first : first + 4])) for first in range(0, 40, 4)]
    assert {len(rows) for rows in passes} == {4 * len(left_out[0])}
    assert set.union(*passes) == set(range(1003))


def test_partition_without_a_whole_global_batch_is_refused_with_a_ratio_that_works():
    for n, blocks, batch in [(1999, 10, 200), (1000, 10, 128)]:
        with pytest.raises(ValueError, match=r"Use ratio >= |Use ratio=") as caught:
            RS2Sampler(n, 1 / blocks, boundary="partition", round_to=batch, num_replicas=1, rank=0)
        advised = str(caught.value).split("Use ratio")[1].lstrip(" >=").split()[0]
        share = float(advised.split("/")[0]) / float(advised.split("/")[1]) if "/" in advised else float(advised)
        assert len(RS2Sampler(n, share, boundary="partition", round_to=batch, num_replicas=1, rank=0)) >= batch


def test_partition_that_leaves_rows_out_does_not_claim_to_have_seen_them():
    sampler = RS2Sampler(1000, 0.1, boundary="partition", round_to=64)  # 640 of 1000 rows a pass
    seen = {row for t in range(20) for row in sampler.epoch_rows(t).tolist()}
    assert sampler.coverage(10) == pytest.approx(0.64)
    assert sampler.coverage(20) == pytest.approx(len(seen) / 1000, abs=0.05)


@pytest.mark.parametrize("round_to", [None, 1, 7, 32, 100])
def test_round_to_rounds_down_to_whole_batches(round_to):
    sampler = RS2Sampler(1000, 0.1, round_to=round_to)
    assert len(sampler) == 100 // (round_to or 1) * (round_to or 1)
    assert len(list(sampler)) == len(sampler)


def test_ratio_one_is_a_shuffled_epoch():
    drawn = rounds_of(RS2Sampler(100, 1.0), 3)
    assert all(sorted(rows) == list(range(100)) for rows in drawn)
    assert drawn[0] != drawn[1] != drawn[2]


def test_feistel_and_randperm_give_different_orders_of_the_same_rows():
    one, two = (rounds_of(RS2Sampler(100, 0.5, permutation=name), 2) for name in ("feistel", "randperm"))
    assert one != two
    assert sorted(flat(one)) == sorted(flat(two))
    assert rounds_of(RS2Sampler(100, 0.5), 2) == two


def test_the_wrap_around_of_the_official_code_is_absent():
    n, ratio, rounds = 50_000, 0.3, 200
    official = np.bincount(np.concatenate(reference.official_rounds(n, 15_000, rounds, 0)), minlength=n)
    assert official.max() - official.min() > 10  # what the release does: 60 +- 10 visits
    sampler = RS2Sampler(n, ratio)
    ours = torch.bincount(torch.cat([sampler.epoch_rows(t) for t in range(rounds)]), minlength=n)
    assert ours.unique().tolist() == [60]


@pytest.mark.parametrize("tiny", [5e-324, 1e-310])
def test_tiny_weights_still_come_before_weights_of_zero(tiny):
    for seed in range(20):
        sampler = RS2Sampler(10, 0.3, mode="independent", weights=[tiny] * 3 + [0.0] * 7, seed=seed)
        assert sorted(sampler) == [0, 1, 2]


def test_numpy_numbers_are_numbers():
    assert list(RS2Sampler(np.int64(40), np.float32(0.25))) == list(RS2Sampler(40, 0.25))
