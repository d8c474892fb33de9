"""The blend against a NumPy loop; the mixture's regret never above its certificate, whatever an opponent does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt.reloop2.experts.blend import SPARSITY, ExpertMixture, OnlineBlend
from tests.reference import reloop2_adaptive as reference

BOUNDS = (torch.tensor([-5.0, 0.0, 0.0]), torch.tensor([5.0, 2.0, 0.5]), torch.zeros(3, dtype=torch.bool))
SPARSE = (*BOUNDS[:2], torch.tensor([False, False, True]))


@pytest.mark.parametrize("bounds", [BOUNDS, SPARSE], ids=["dense", "sparse"])
def test_blend_equals_the_reference_projection_included(bounds):
    draws = torch.Generator().manual_seed(0)
    initial = torch.tensor([0.0, 1.0, 0.1])
    blend = OnlineBlend(initial, *bounds, learning_rate=0.2)
    batches = []
    for _ in range(30):
        signals = torch.randn(20, 3, generator=draws)
        residuals = signals[:, 2] + 0.1 * torch.randn(20, generator=draws)  # pushes the last weight to its bound
        batches.append((signals.tolist(), residuals.tolist()))
        blend.learn(signals, residuals)
    pull = [SPARSITY * float(sparse) for sparse in bounds[2]]
    expected = reference.adagrad(batches, initial.tolist(), *(bound.tolist() for bound in bounds[:2]), pull, 0.2)
    assert np.allclose(blend.weights, expected, atol=1e-9)
    assert float(blend.weights[2]) == 0.5


def test_blend_leaves_weights_alone_that_never_had_a_gradient():
    blend = OnlineBlend(torch.tensor([0.0, 1.0, 0.1]), *BOUNDS)
    blend.learn(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.5]))
    blend.learn(torch.zeros(0, 3), torch.zeros(0))
    assert blend.weights.tolist() == pytest.approx([0.05, 1.0, 0.1])


def test_a_sparse_weight_without_use_goes_to_zero_and_a_useful_one_stays():
    draws = torch.Generator().manual_seed(0)
    last = {}
    for useful in (True, False):
        blend = OnlineBlend(torch.tensor([0.0, 1.0, 0.1]), *SPARSE)
        for _ in range(400):
            signals = torch.randn(20, 3, generator=draws)
            residuals = torch.randn(20, generator=draws) + (0.3 - blend.weights[2]) * signals[:, 2] * useful
            blend.learn(signals, residuals.float())
        last[useful] = float(blend.weights[2])
    assert last[True] > 0.2
    assert last[False] < 0.02


def test_blend_restarts_and_resets():
    blend = OnlineBlend(torch.tensor([0.0, 1.0, 0.1]), *BOUNDS)
    blend.learn(torch.ones(1, 3), torch.tensor([-0.5]))
    moved = blend.weights.clone()
    blend.restart(torch.tensor([False, False, True]))
    assert blend.weights.tolist() == pytest.approx([*moved[:2].tolist(), 0.1])
    blend.reset()
    assert blend.weights.tolist() == pytest.approx([0.0, 1.0, 0.1])
    assert (blend.squares == 0).all()


def test_blends_merge_by_evidence():
    one, two, idle = (OnlineBlend(torch.tensor([0.0, 1.0, 0.1]), *BOUNDS) for _ in range(3))
    one.learn(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.5]))
    two.learn(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([0.5]))
    one.merge_(idle)
    assert one.weights.tolist() == pytest.approx([0.05, 1.0, 0.1])
    one.merge_(two)
    assert one.weights.tolist() == pytest.approx([0.05, 1.05, 0.1])


# -- the mixture ------------------------------------------------------------------------------------------------------
def play(rounds, delay, size, seed, n_experts=4):
    """Serve batches of log-loss predictions with labels that arrive `delay` batches later; return the mixture."""
    mixture = ExpertMixture(torch.full((n_experts,), 1 / n_experts))
    served, waiting = 0.0, []
    losses = torch.zeros(n_experts, dtype=torch.float64)
    for turn in range(rounds):
        chances, labels = opponent(seed, turn, size, n_experts)
        given = chances @ mixture.weights
        waiting.append((chances, labels, given))
        if len(waiting) > delay:
            chances, labels, given = waiting.pop(0)
            mixed = chances @ mixture.weights
            each, now, then = (log_loss(part, labels) for part in (chances, mixed, given))
            mixture.learn(each, now, then)
            served += float(then)
            losses += each
    return mixture, served, losses


def opponent(seed, turn, size, n_experts):
    draws = torch.Generator().manual_seed(1000 * seed + turn)
    chances = torch.rand(size, n_experts, generator=draws, dtype=torch.float64) * 0.98 + 0.01
    best = (turn // 7 + seed) % n_experts if seed % 3 else 0  # the expert that is right changes, or never does
    labels = (torch.rand(size, generator=draws) < chances[:, best]).double()
    return chances, labels


def log_loss(chances, labels):
    labels = labels[:, None] if chances.ndim == 2 else labels
    return -(labels * chances.log() + (1 - labels) * (1 - chances).log()).sum(0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1, 30])
@pytest.mark.parametrize("delay", [0, 1, 5])
def test_regret_never_exceeds_its_certificate(delay, size, seed):
    mixture, served, losses = play(60, delay, size, seed)
    assert mixture.regret() == pytest.approx(served - float(losses.min()))
    assert mixture.regret() <= mixture.regret_bound() + 1e-9


def test_row_by_row_without_delay_it_is_the_bayesian_mixture_with_its_bound_of_log_n():
    for seed in range(6):
        mixture, served, losses = play(200, 0, 1, seed)
        assert mixture.rate == 1
        assert served - float(losses.min()) <= math.log(4) + 1e-9
        # Bayes' rule in one line: the loss of the mixture is that of the average likelihood
        assert served == pytest.approx(-float(torch.logsumexp(-losses - math.log(4), 0)), abs=1e-9)


def test_the_certificate_is_no_triviality():
    mixture, served, _ = play(300, 0, 30, seed=3)
    assert mixture.regret_bound() < 0.05 * served


def test_in_the_worst_case_for_batches_the_rate_comes_down():
    """Two experts that are right in turn, in batches that are all one way: rate 1 would always trust the wrong one."""
    mixture = ExpertMixture(torch.tensor([0.5, 0.5]))
    for turn in range(400):
        chances = torch.tensor([[0.9, 0.1]] * 50, dtype=torch.float64)
        labels = torch.full((50,), float(turn % 2), dtype=torch.float64)
        mixed = log_loss(chances @ mixture.weights, labels)
        mixture.learn(log_loss(chances, labels), mixed, mixed)
    assert mixture.rate < 0.1
    assert mixture.regret() <= mixture.regret_bound() + 1e-9
    assert mixture.regret() < 0.02 * float(mixture.served)


def test_merged_shards_keep_a_valid_certificate():
    one, served, losses = play(40, 1, 20, seed=1)
    two, more, others = play(40, 1, 20, seed=2)
    one.merge_(two)
    assert one.regret() == pytest.approx(served + more - float((losses + others).min()))
    assert one.regret() <= one.regret_bound() + 1e-9


def test_reset_begins_anew():
    mixture, *_ = play(20, 0, 10, seed=0)
    mixture.reset()
    assert mixture.weights.tolist() == pytest.approx([0.25] * 4)
    assert mixture.regret() == 0
