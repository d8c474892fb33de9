"""Weights of rows and clusters against loops and against plain float64 probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.functional import (
    drop_light_clusters,
    quality_log_weights,
    reweight_clusters,
    shrunk_cluster_scores,
    weight_entropy,
)
from tests.reference import divconq as reference


def numbers(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(n, generator=generator(seed), dtype=torch.float64)


# -- rows --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_quality_is_standardised_inside_each_cluster(scale, tau):
    labels = torch.randint(0, 6, (60,), generator=generator(1))
    labels[labels == 2] = 1  # an empty cluster
    labels[0] = 7  # a cluster of one row
    quality = numbers(60, 2, scale) + labels
    expected = reference.row_weights(quality.tolist(), labels.tolist(), tau)
    np.testing.assert_allclose(quality_log_weights(quality, labels, tau=tau).numpy(), expected, rtol=1e-6, atol=1e-9)


def test_equal_qualities_weigh_the_same_however_they_are_rounded():
    quality = torch.full((10,), 0.1 + 0.2, dtype=torch.float64)
    assert quality_log_weights(quality, torch.zeros(10, dtype=torch.int64)).tolist() == [0.0] * 10


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_no_quality_is_too_large_or_too_small(scale):
    weights = quality_log_weights(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) * scale, torch.zeros(3).long())
    np.testing.assert_allclose(weights.numpy(), reference.standardised([1, 2, 3]), rtol=1e-9)


def test_a_huge_quality_flattens_no_other_cluster():
    labels = torch.tensor([0, 0, 0, 1, 1])
    weights = quality_log_weights(torch.tensor([1.0, 2.0, 3.0, 1e200, 0.0], dtype=torch.float64), labels)
    np.testing.assert_allclose(weights.numpy(), [*reference.standardised([1, 2, 3]), 1, -1], rtol=1e-9)


def test_power_mode_draws_in_proportion_to_quality_and_zeros_last():
    weights = quality_log_weights(torch.tensor([1.0, 4.0, 0.0]), torch.zeros(3).long(), tau=2.0, mode="power")
    np.testing.assert_allclose(weights[:2].exp().numpy(), [1.0, 2.0])
    assert bool(torch.isfinite(weights).all())
    assert weights[2] < -300
    with pytest.raises(ValueError, match=">= 0 in 'power' mode, but got -1"):
        quality_log_weights(torch.tensor([-1.0]), torch.zeros(1).long(), mode="power")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"quality": torch.tensor([math.nan])}, "`quality` must be finite"),
        ({"tau": 0.0}, "`tau`"),
        ({"tau": 1e-310}, "`tau` must be a number >= 1e-06, but got 1e-310"),
        ({"mode": "x"}, "mode"),
    ],
)
def test_quality_refuses(changed, words):
    arguments = {"quality": torch.ones(1), "labels": torch.zeros(1).long(), **changed}
    with pytest.raises(ValueError, match=words):
        quality_log_weights(**arguments)


# -- clusters ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shrink", [0.0, 4.0, 100.0])
@pytest.mark.parametrize("scored", [0, 1, 30])
def test_scores_are_shrunk_to_the_mean_of_what_was_scored(shrink, scored):
    clusters = torch.randint(0, 8, (40,), generator=generator(3))
    clusters[clusters == 5] = 4  # never scored
    scores = numbers(40, 4, 10.0)
    scores[scored:] = math.nan
    expected = reference.cluster_scores(clusters.tolist(), scores.tolist(), 9, shrink)
    np.testing.assert_allclose(shrunk_cluster_scores(clusters, scores, 9, shrink=shrink).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1e100, 1e308, math.inf])
@pytest.mark.parametrize("update", ["exp", "ratio", "softmax"])
def test_huge_scores_are_refused_or_give_weights(size, update):
    scores = torch.tensor([size, size, -size, 1.0], dtype=torch.float64)
    if size > 1e100:
        with pytest.raises(ValueError, match=r"`scores` must be at most 1e\+100 in size"):
            shrunk_cluster_scores(torch.tensor([0, 0, 1, 2]), scores, 3)
        with pytest.raises(ValueError, match=r"`scores` must be at most 1e\+100 in size"):
            reweight_clusters(torch.zeros(4), scores, update=update)
        return
    of_cluster = shrunk_cluster_scores(torch.tensor([0, 0, 1, 2]), scores, 3)
    weights = reweight_clusters(torch.zeros(3), of_cluster, update=update, tau=1e-6)
    assert weights.argmax() == 0
    assert float(weights.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_shrink_is_a_number(bad):
    with pytest.raises(ValueError, match="`shrink` must be a number >= 0"):
        shrunk_cluster_scores(torch.tensor([0]), torch.tensor([1.0]), 1, shrink=bad)


@pytest.mark.parametrize("update", ["exp", "ratio", "softmax"])
@pytest.mark.parametrize("shift", [0.0, -100.0, 100.0])
@pytest.mark.parametrize("k", [1, 2, 50])
def test_weights_equal_plain_float64_probabilities(update, shift, k):
    before = numbers(k, 5).exp()
    if k > 2:
        before[3] = 0  # dropped
    before /= before.sum()
    scores = numbers(k, 6) + shift
    for tau in (0.7, 2.0):
        after = reweight_clusters(before.log(), scores, update=update, tau=tau).exp()
        expected = reference.reweighted(before.tolist(), scores.tolist(), update, tau)
        np.testing.assert_allclose(after.numpy(), expected, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=25),
    update=st.sampled_from(["exp", "ratio", "softmax"]),
    drop=st.sampled_from([0.0, 0.1, 0.5, 1 - 2**-53]),
    tau=st.sampled_from([1e-6, 0.01, 1.0]),
)
def test_weights_stay_weights_whatever_the_scores(scores, update, drop, tau):
    weights = torch.full((len(scores),), -math.log(len(scores)), dtype=torch.float64)
    for _ in range(3):
        weights = reweight_clusters(weights, torch.tensor(scores), update=update, tau=tau)
        alive = weights > -math.inf
        assert float(weights.exp().sum()) == pytest.approx(1)
        assert float(weights[alive].min()) >= math.log(1e-12) - 1e-6
        weights = drop_light_clusters(weights, drop)
        assert float(weights.exp().sum()) == pytest.approx(1)
        assert not bool(torch.isnan(weights).any())
        assert 0 <= weight_entropy(weights) <= math.log(len(scores)) + 1e-9


def test_a_good_cluster_gains_and_a_dropped_one_never_returns():
    even = torch.full((4,), 0.25, dtype=torch.float64).log()
    scores = torch.tensor([1.0, 0.0, 0.0, -1.0])
    for update in ("exp", "ratio", "softmax"):
        after = reweight_clusters(even, scores, update=update).exp()
        assert after[0] == after.max()
        assert after[0] > 0.25 > after[3]
    dropped = drop_light_clusters(reweight_clusters(even, scores), 0.4)
    assert (dropped == -math.inf).tolist() == [False, False, False, True]
    back = reweight_clusters(dropped, torch.tensor([-5.0, 0.0, 0.0, 1e4]))
    assert back[3] == -math.inf


def test_the_ratio_without_a_positive_score_keeps_the_order_and_does_not_divide_by_nothing():
    even = torch.zeros(3)
    after = reweight_clusters(even, torch.tensor([-3.0, -2.0, -1.0]), update="ratio").exp()
    assert after[0] < after[1] < after[2]
    np.testing.assert_allclose(reweight_clusters(even, torch.zeros(3), update="ratio").exp().numpy(), 1 / 3)
    cancel = reweight_clusters(even, torch.tensor([1e4, -1e4, 1e-9]), update="ratio").exp()  # their sum is near 0
    assert cancel.argmax() == 0
    assert bool(torch.isfinite(cancel.log()).all())


def test_exp_does_not_depend_on_the_scale_of_the_scores():
    even, scores = torch.zeros(9), numbers(9, 8)
    same = reweight_clusters(even, scores * 1e-3 + 77)
    torch.testing.assert_close(reweight_clusters(even, scores), same, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"scores": torch.tensor([math.nan, 0.0])}, "`scores` must be finite"),
        ({"update": "linear"}, "`update` must be one of"),
        ({"tau": -1.0}, "`tau`"),
        ({"tau": 1e-7}, "`tau` must be a number >= 1e-06"),
    ],
)
def test_reweighting_refuses(changed, words):
    arguments = {"scores": torch.zeros(2), "update": "exp", "tau": 1.0, **changed}
    with pytest.raises(ValueError, match=words):
        reweight_clusters(torch.zeros(2), **arguments)


def test_entropy_of_even_and_single_weights():
    assert weight_entropy(torch.full((8,), 1 / 8).log()) == pytest.approx(math.log(8))
    assert weight_entropy(torch.tensor([0.0, -math.inf])) == 0.0


def test_clusters_are_dropped_below_a_share_of_an_even_weight():
    weights = torch.tensor([0.9, 0.05, 0.03, 0.02], dtype=torch.float64)  # an even one is 0.25
    for share, kept in ((0.0, 4), (0.079, 4), (0.1, 3), (0.121, 2), (0.21, 1), (0.99, 1)):
        left = drop_light_clusters(weights.log(), share).exp()
        np.testing.assert_allclose(left.numpy(), [*(weights[:kept] / weights[:kept].sum()), *[0] * (4 - kept)])
    assert drop_light_clusters(torch.zeros(1), 0.99).tolist() == [0.0]
    for bad in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"`drop_below` must be a number in \[0, 1\)"):
            drop_light_clusters(torch.zeros(1), bad)
