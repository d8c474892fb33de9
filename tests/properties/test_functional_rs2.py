"""Properties of the pure functions of RS2 and ReLoop2, over their input spaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lightning_adapt import functional as f
from tests.properties.parts import SEEDS, SMALL, floats, given, vectors
from tests.reference import reloop2 as plain_reloop2
from tests.reference import rs2 as plain


# -- rs2 ---------------------------------------------------------------------------------------------------------------
@given(SMALL, SEEDS, st.integers(0, 9), st.sampled_from(("randperm", "feistel")), st.data())
def test_permute_is_a_permutation_looked_up_anywhere(n, seed, cycle, method, data):
    image = f.permute(torch.arange(n), n, seed, cycle, method=method)
    assert sorted(image.tolist()) == list(range(n))
    some = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), max_size=9)), dtype=torch.int64).reshape(1, -1)
    looked_up = f.permute(some, n, seed, cycle, method=method)
    assert looked_up.shape == some.shape
    assert torch.equal(looked_up, image[some])
    expected = plain.randperm(n, seed, cycle) if method == "randperm" else [plain.feistel(0, n, seed, cycle)]
    assert image[: len(expected)].tolist() == expected


@given(st.integers(1, 10**6), st.floats(1e-6, 1), st.integers(1, 512))
def test_round_size_is_whole_batches_or_the_error_names_a_ratio_that_works(n, ratio, multiple):
    try:
        size = f.round_size(n, ratio, multiple)
    except ValueError as error:
        if multiple <= n:
            smallest = float(str(error).split("ratio >= ")[1].split()[0])
            assert f.round_size(n, smallest, multiple) == multiple
        return
    assert size % multiple == 0
    assert round(ratio * n) - multiple < size <= round(ratio * n)


@given(st.integers(0, 8), SMALL, st.data(), st.sampled_from(("without", "independent", "bootstrap")))
def test_expected_coverage_is_a_share_that_grows_and_equals_the_step_by_step_one(rounds, n, data, mode):
    k = data.draw(st.integers(0, n))
    share = f.expected_coverage(rounds, n, k, mode)
    assert -1e-12 <= share <= 1
    assert share <= f.expected_coverage(rounds + 1, n, k, mode) + 1e-12
    assert share == pytest.approx(plain.coverage(rounds, n, k, mode), abs=1e-9)


@given(st.lists(st.integers(0, 2**50), max_size=20), st.integers(1, 2**53), SEEDS, st.integers(0, 99))
def test_bootstrap_rows_are_rows_that_depend_on_their_position_alone(positions, n, seed, round_index):
    position = torch.tensor(positions, dtype=torch.int64)
    rows = f.bootstrap_rows(position, n, seed, round_index)
    assert rows.dtype == torch.int64
    assert bool(((rows >= 0) & (rows < n)).all())
    assert torch.equal(rows.flip(0), f.bootstrap_rows(position.flip(0), n, seed, round_index))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), SEEDS, st.data())
def test_stratified_order_holds_every_class_in_every_window(targets, seed, data):
    order = f.stratified_order(torch.tensor(targets), seed, 0)
    assert sorted(order.tolist()) == list(range(len(targets)))
    label = data.draw(st.sampled_from(targets))
    k, labels = data.draw(st.integers(1, len(targets))), [targets[row] for row in order]
    bound = 1 + len(set(targets)) * targets.count(label) / len(targets)
    assert plain.largest_window_error(labels, label, k) <= bound + 1e-9


@given(vectors(0, 5), SEEDS, st.data())
def test_weighted_order_draws_distinct_rows_of_positive_weight_and_knows_no_scale(weights, seed, data):
    positive = int((weights > 0).sum())
    k = data.draw(st.integers(0, positive))
    rows = f.weighted_order(weights, k, seed, 3)
    assert len(set(rows.tolist())) == k
    assert bool((weights[rows] > 0).all())
    assert torch.equal(rows, f.weighted_order(weights.double() * 4, k, seed, 3))  # by a power of 2: without rounding
    assert torch.equal(rows, f.weighted_order(weights, positive, seed, 3)[:k])
    with pytest.raises(ValueError, match="`k`"):
        f.weighted_order(weights, positive + 1, seed, 3)


@given(
    st.lists(st.one_of(floats(0, 100), st.just(math.nan)), min_size=1, max_size=30),
    st.floats(0.25, 3),
    st.floats(0.05, 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_loss_weights_are_shares_equal_to_the_plain_ones(losses, power, cap, mix, by_class):
    targets = [place % 3 for place in range(len(losses))] if by_class else None
    options = {"power": power, "loss_cap": cap, "uniform_mix": mix}
    shares = f.loss_weights(torch.tensor(losses), **options, targets=None if targets is None else torch.tensor(targets))
    assert shares.dtype == torch.float64
    assert float(shares.sum()) == pytest.approx(1)
    expected = plain.loss_weights(torch.tensor(losses).double().tolist(), power, cap, mix, targets)
    np.testing.assert_allclose(shares, expected, rtol=1e-6, atol=1e-9)


@given(vectors(0, 5, least=2), SEEDS, st.data())
def test_most_owed_draws_k_rows_and_keeps_what_is_owed_in_all(raw, seed, data):
    weights = (raw.double() + 0.01) / (raw.double() + 0.01).sum()
    k = data.draw(st.integers(0, len(raw)))
    owed = torch.linspace(-0.4, 0.4, len(raw))
    rows, after = f.most_owed(owed, weights, k, seed, 1)
    assert len(set(rows.tolist())) == k
    assert float(after.sum()) == pytest.approx(float(owed.sum()), abs=1e-4)
    expected, debts = plain.most_owed(owed.double().tolist(), weights.tolist(), k, seed, 1)
    assert rows.tolist() == expected
    np.testing.assert_allclose(after, debts, atol=1e-5)


# -- reloop2 -----------------------------------------------------------------------------------------------------------
KEYS = arrays.arrays(np.float32, (6, 4), elements=floats(-5, 5))


@given(KEYS, st.integers(1, 4), st.integers(1, 6), SEEDS, st.sampled_from((0.5, 8.0)))
def test_simhash_knows_directions_only_and_equals_the_plain_one(keys, n_tables, n_bits, seed, scale):
    projections = f.simhash_projections(4, n_tables, n_bits, seed)
    assert projections.shape == (4, n_tables * n_bits)
    assert torch.equal(projections, f.simhash_projections(4, n_tables, n_bits, seed))
    codes = f.simhash_codes(torch.tensor(keys), projections, n_tables)
    assert codes.dtype == torch.int64
    assert bool(((codes >= 0) & (codes < 2**n_bits)).all())
    assert torch.equal(codes, f.simhash_codes(torch.tensor(keys) * scale, projections, n_tables))
    products = torch.tensor(keys).double() @ projections.double()
    if bool((products.abs() > 1e-4).all()):  # nearer to 0, rounding decides
        assert codes.tolist() == [plain_reloop2.simhash(key, projections.numpy(), n_tables) for key in keys]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), floats(0, 1), floats(0, 1)), min_size=1, max_size=12))
def test_a_sketch_holds_sums_that_do_not_depend_on_the_order_and_reads_means(rows):
    codes = torch.tensor([row[:2] for row in rows])
    labels, base = (torch.tensor([row[place] for row in rows]) for place in (2, 3))
    cells, other = torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)
    f.sketch_write(cells, codes, labels, base)
    for row in reversed(range(len(rows))):
        f.sketch_write(other, codes[row : row + 1], labels[row : row + 1], base[row : row + 1])
    torch.testing.assert_close(cells, other)
    found = f.sketch_read(cells, codes)
    samples = [(list(row[:2]), row[2], row[3]) for row in rows]
    expected = [plain_reloop2.sketch_read(samples, list(row[:2]), None) for row in rows]
    np.testing.assert_allclose(torch.stack(list(found)).T, expected, atol=1e-5)


@given(arrays.arrays(np.float32, (3, 5), elements=floats(-1, 1)), st.floats(0.05, 2), st.integers(0, 5))
def test_a_readout_is_a_mean_of_valid_neighbours(similarity, tau, n_valid):
    valid = torch.arange(5).expand(3, 5) < n_valid
    labels = torch.linspace(0, 1, 15).reshape(3, 5)
    label, base = f.softmax_readout(torch.tensor(similarity), labels, labels / 2, tau, valid)
    torch.testing.assert_close(base, label / 2)
    spoilt = labels.masked_fill(~valid, math.nan)  # what is not valid has no part in it
    assert torch.equal(label, f.softmax_readout(torch.tensor(similarity), spoilt, labels, tau, valid)[0])
    for row in range(3):
        near = [list(map(float, part[row][:n_valid])) for part in (similarity, labels, labels / 2)]
        assert float(label[row]) == pytest.approx(plain_reloop2.softmax_readout(*near, tau)[0], abs=1e-5)


@given(floats(0, 1), floats(0, 1), floats(0, 1), st.floats(0, 1))
def test_the_error_is_between_its_two_estimates(ybar, pbar, p_base, gamma):
    error = float(f.error_estimate(*(torch.tensor([one]) for one in (ybar, pbar, p_base)), gamma))
    ends = sorted((ybar - p_base, ybar - pbar))
    assert ends[0] - 1e-6 <= error <= ends[1] + 1e-6
    assert error == pytest.approx(plain_reloop2.error_estimate(ybar, pbar, p_base, gamma), abs=1e-6)


@given(vectors(-9, 9), st.sampled_from((torch.float16, torch.float32, torch.float64)))
def test_base_predictions_are_flat_floats(output, dtype):
    for kind in ("logit", "probability", "regression"):
        found = f.base_prediction(output.to(dtype).reshape(-1, 1), kind)
        assert found.shape == output.shape
        assert found.dtype == torch.float32
    assert bool(((f.base_prediction(output, "logit") >= 0) & (f.base_prediction(output, "logit") <= 1)).all())


@given(
    st.sampled_from(("probability", "logit", "regression")),
    floats(0.03125, 0.96875),
    floats(-1, 1),
    st.floats(0, 1),
    st.sampled_from((torch.float16, torch.float32, torch.float64)),
)
def test_compensation_keeps_dtype_and_bounds_and_leaves_alone_what_has_no_error(kind, value, error, lam, dtype):
    output = torch.tensor([[value], [value]], dtype=dtype)
    moved = f.compensate(output, torch.tensor([error, 0.0]), lam, kind)
    assert moved.dtype == dtype
    assert moved.shape == output.shape
    assert moved[1].equal(output[1])
    if kind == "probability":
        assert bool(((moved > 0) & (moved < 1)).all())
    assert (float(moved[0]) - float(output[0])) * lam * error >= -1e-3  # never the other way
    if dtype == torch.float64:
        expected = plain_reloop2.compensate(value, lam * float(torch.tensor(error)), 1.0, kind, 1e-6)
        assert float(moved[0]) == pytest.approx(expected, rel=1e-5, abs=1e-5)
