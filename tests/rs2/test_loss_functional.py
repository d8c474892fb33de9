"""What losses make of the weights of the rows, and weights of the rounds: against loops, and over many rounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_adapt.rs2.functional import loss_weights, most_owed
from tests.reference import rs2 as reference

NAN = math.nan


def example(n=23, unknown=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    losses = torch.rand(n, generator=random).pow(3) * 5
    losses[torch.randperm(n, generator=random)[:unknown]] = NAN
    return losses


def rounds_of(weights, k, rounds, owed=None, seed=5):
    """Rounds drawn one after the other with the same weights, and the debts after the last."""
    owed = torch.zeros(len(weights)) if owed is None else owed
    drawn = []
    for number in range(rounds):
        rows, owed = most_owed(owed, weights, k, seed, number)
        drawn.append(rows.tolist())
    return drawn, owed


# -- loss_weights --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    ("power", "loss_cap", "uniform_mix"),
    [(1.0, 0.75, 0.0), (2.0, 1.0, 0.0), (0.5, 0.4, 0.3), (1.0, 0.01, 0.0), (3.0, 0.9, 1.0)],
)
@pytest.mark.parametrize("unknown", [0, 1, 22])
def test_weights_are_those_of_the_loop(unknown, power, loss_cap, uniform_mix, labelled, dtype):
    losses = example(unknown=unknown).to(dtype)
    labels = [row % 3 if row % 5 else 4 for row in range(23)] if labelled else None  # class 3 has no rows
    expected = reference.loss_weights(losses.double().tolist(), power, loss_cap, uniform_mix, labels)
    ours = loss_weights(
        losses,
        power=power,
        loss_cap=loss_cap,
        uniform_mix=uniform_mix,
        targets=None if labels is None else torch.tensor(labels),
    )
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)
    assert float(ours.sum()) == pytest.approx(1, abs=1e-12)


def test_defaults_are_the_losses_cut_at_their_upper_quartile():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0])
    assert loss_weights(losses).tolist() == pytest.approx([1 / 14, 2 / 14, 3 / 14, 4 / 14, 4 / 14])


def test_rows_without_a_loss_get_the_mean_weight_of_the_others():
    weights = loss_weights(torch.tensor([NAN, 1.0, 3.0, NAN]), loss_cap=1.0)
    assert weights.tolist() == pytest.approx([0.25, 0.125, 0.375, 0.25])


@pytest.mark.parametrize("losses", [[0.0] * 4, [NAN] * 4, [NAN, 0.0, 0.0, NAN]])
@pytest.mark.parametrize("targets", [None, torch.tensor([0, 0, 0, 2])])
def test_without_a_difference_all_rows_are_alike(losses, targets):
    assert loss_weights(torch.tensor(losses), targets=targets).tolist() == pytest.approx([0.25] * 4)


def test_a_class_that_is_learnt_keeps_its_share():
    losses, targets = torch.tensor([0.0, 0.0, 0.0, 1.0, 3.0]), torch.tensor([0, 0, 0, 1, 1])
    weights = loss_weights(losses, loss_cap=1.0, targets=targets)
    assert weights.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.3])
    assert loss_weights(losses, loss_cap=1.0).tolist() == pytest.approx([0, 0, 0, 0.25, 0.75])


def test_mixing_in_even_visits_is_linear():
    losses = example()
    guided = loss_weights(losses)
    for share in (0.2, 1.0):
        mixed = loss_weights(losses, uniform_mix=share)
        assert torch.allclose(mixed, (1 - share) * guided + share / len(losses))


# -- most_owed -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [1, 6, 22, 23])
@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_rounds_and_debts_are_those_of_the_loop(k, seed):
    random = torch.Generator().manual_seed(k)
    owed = (torch.rand(23, generator=random) * 2 - 1).double()
    for number in range(4):
        weights = loss_weights(example(seed=number))
        rows, after = most_owed(owed, weights, k, seed, number)
        expected_rows, expected_after = reference.most_owed(owed.tolist(), weights.tolist(), k, seed, number)
        assert rows.tolist() == expected_rows
        assert rows.dtype == torch.int64
        assert len(set(rows.tolist())) == k
        assert after.dtype == torch.float32
        np.testing.assert_allclose(after.numpy(), expected_after, atol=1e-6)
        owed = after.double()


@pytest.mark.parametrize("k", [5, 7, 20, 37])
def test_equal_weights_give_passes_without_replacement(k):
    drawn, owed = rounds_of(torch.full((37,), 1 / 37), k, 60)
    for done in range(1, 61):
        visits = reference.visits(drawn[:done], 37)
        assert set(visits) <= {done * k // 37, -(-done * k // 37)}
    assert float(owed.abs().max()) <= 1


@pytest.mark.parametrize(("n", "k", "cap"), [(60, 6, 0.75), (60, 30, 0.75), (60, 12, 1.0)])
def test_unequal_weights_give_each_row_its_share_to_within_about_one(n, k, cap):
    rounds, weights = 200, loss_weights(example(n, unknown=0), loss_cap=cap)
    drawn, owed = rounds_of(weights, k, rounds)
    visits, share = np.array(reference.visits(drawn, n)), rounds * np.array(reference.shared_out(weights.tolist(), k))
    error = visits - share
    assert np.abs(error).max() < 1.5
    np.testing.assert_allclose(owed.numpy(), -error, atol=1e-3)  # a debt is the share less the visits
    independent = np.sqrt((share * (1 - share / rounds)).mean())  # of as many draws that know nothing of each other
    assert np.sqrt((error**2).mean()) < 0.25 * independent


def test_what_a_row_cannot_use_goes_to_the_others_in_proportion():
    weights = torch.tensor([0.9] + [0.1 / 11] * 7 + [0.2 / 11] * 2)
    drawn, owed = rounds_of(weights, 5, 110)  # row 0 would have 4.5 visits a round
    assert all(len(set(rows)) == 5 for rows in drawn)
    visits = reference.visits(drawn, 10)
    assert visits[0] >= 109
    assert visits[1:] == pytest.approx([40] * 7 + [80] * 2, abs=1.5)
    assert float(owed.abs().max()) < 1.5


@pytest.mark.parametrize("weights", [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
def test_rows_without_weight_fill_a_round_evenly(weights):
    drawn, _ = rounds_of(torch.tensor(weights), 3, 40)
    visits, heavy = reference.visits(drawn, 4), sum(weight > 0 for weight in weights)
    assert visits[:heavy] == pytest.approx([40] * heavy, abs=1)
    assert visits[heavy:] == pytest.approx([40 * (3 - heavy) / (4 - heavy)] * (4 - heavy), abs=1.5)


def test_rounds_follow_weights_that_change():
    """Debts of many rounds with other weights must not decide what comes later."""
    hot, later = torch.full((40,), 0.1 / 30), torch.full((40,), 0.1 / 30)
    hot[:10], later[10:20] = 0.09, 0.09
    _, owed = rounds_of(hot, 20, 200)
    drawn = []
    for number in range(200, 205):
        rows, owed = most_owed(owed, later, 20, 5, number)
        drawn.append(sum(10 <= row < 20 for row in rows.tolist()))
    assert min(drawn[2:]) >= 9  # of 10


def test_a_debt_comes_before_a_weight():
    rows, after = most_owed(torch.tensor([0.0, -2.0, 1.0, -2.0]), torch.tensor([0.1, 0.4, 0.1, 0.4]), 2, 0, 0)
    assert sorted(rows.tolist()) == [0, 2]
    assert after.tolist() == pytest.approx([-0.8, -1.2, 0.2, -1.2])


def test_a_round_depends_on_seed_and_number_alone_and_leaves_the_debts_given_as_they_are():
    weights, owed = torch.full((50,), 0.02), torch.zeros(50)
    state = torch.get_rng_state()
    first = most_owed(owed, weights, 10, 3, 7)
    torch.rand(5)
    again = most_owed(owed, weights, 10, 3, 7)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not owed.any()
    torch.set_rng_state(state)
    others = [most_owed(owed, weights, 10, seed, number)[0] for seed, number in [(3, 8), (4, 7), (7, 3)]]
    for other in others:
        assert len(set(other.tolist()) & set(first[0].tolist())) < 8


def test_the_order_inside_a_round_is_random():
    weights = torch.tensor([3.0] * 10 + [1.0] * 30) / 60
    drawn, _ = rounds_of(weights, 20, 100)
    places = [rows.index(row) for rows in drawn for row in range(10) if row in rows]
    assert np.mean(places) == pytest.approx(9.5, abs=1)  # heavy rows do not come first
    assert len({tuple(rows) for rows in drawn}) == 100
    in_order = sum(rows == sorted(rows) for rows in drawn)
    assert in_order == 0
