"""The pure functions of ReLoop2 against NumPy loops in float64, and against what the equations demand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_adapt.reloop2.functional import (
    base_prediction,
    compensate,
    error_estimate,
    simhash_codes,
    simhash_projections,
    sketch_read,
    sketch_write,
    softmax_readout,
)
from tests.reference import reloop2 as reference


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# -- hash -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dim", "n_tables", "n_bits"), [(1, 1, 1), (3, 2, 5), (64, 7, 12), (17, 3, 16), (5, 2, 24)])
def test_codes_equal_the_reference(dim, n_tables, n_bits):
    keys, projections = drawn(40, dim), simhash_projections(dim, n_tables, n_bits, seed=3)
    codes = simhash_codes(keys, projections, n_tables)
    assert codes.shape == (40, n_tables)
    assert codes.dtype == torch.int64
    assert codes.tolist() == [reference.simhash(key, projections.numpy(), n_tables) for key in keys.numpy()]


def test_projections_depend_on_their_arguments_alone():
    first = simhash_projections(8, 4, 6, seed=1)
    torch.randn(3)
    assert torch.equal(first, simhash_projections(8, 4, 6, seed=1))
    assert not torch.equal(first, simhash_projections(8, 4, 6, seed=2))
    assert simhash_projections(8, 6, 4, seed=1)[0, 0] != first[0, 0]


def test_only_the_direction_of_a_key_counts():
    keys, projections = drawn(50, 16), simhash_projections(16, 8, 10, seed=0)
    codes = simhash_codes(keys, projections, 8)
    assert torch.equal(codes, simhash_codes(keys * 1000, projections, 8))
    assert torch.equal(2**10 - 1 - codes, simhash_codes(-keys, projections, 8))
    assert not torch.equal(codes, simhash_codes(keys.roll(1, 1), projections, 8))


@pytest.mark.parametrize("angle", [0.1, 0.5, 1.2])
def test_keys_collide_as_often_as_their_angle_says(angle):
    n_tables, n_bits = 4000, 4
    keys = torch.tensor([[1.0, 0, 0], [math.cos(angle), math.sin(angle), 0]])
    codes = simhash_codes(keys, simhash_projections(3, n_tables, n_bits, seed=5), n_tables)
    expected = (1 - angle / math.pi) ** n_bits
    share = (codes[0] == codes[1]).double().mean().item()
    assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / n_tables))


def test_autocast_changes_no_code():
    keys, projections = drawn(200, 32), simhash_projections(32, 16, 12, seed=0)
    codes = simhash_codes(keys, projections, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (keys @ projections).dtype == torch.bfloat16
        assert torch.equal(simhash_codes(keys, projections, 16), codes)


# -- sketch -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n_tables", "n_bits"), [(1, 1), (4, 3), (9, 8)])
def test_sketch_equals_going_through_all_samples(n_tables, n_bits):
    projections = simhash_projections(6, n_tables, n_bits, seed=0)
    keys, labels, base = drawn(150, 6), shares(150).round(), shares(150, seed=1)
    codes = simhash_codes(keys, projections, n_tables)
    cells = torch.zeros(n_tables, 2**n_bits, 3)
    sketch_write(cells, codes, labels, base)
    samples = list(zip(codes.tolist(), labels.tolist(), base.tolist(), strict=True))
    asked = simhash_codes(drawn(60, 6, seed=9), projections, n_tables)
    expected = [reference.sketch_read(samples, buckets, None) for buckets in asked.tolist()]
    np.testing.assert_allclose(torch.stack(sketch_read(cells, asked), 1).numpy(), expected, atol=1e-5)
    assert cells[..., 0].sum(1).tolist() == [150] * n_tables


def test_a_weight_counts_as_so_many_samples():
    codes = torch.tensor([[0, 1], [0, 0], [1, 1]])
    labels, base = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.5, 0.25, 0.75])
    weighted, repeated = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    sketch_write(weighted, codes, labels, base, torch.tensor([1.0, 2.0, 3.0]))
    for times, row in enumerate((0, 1, 2), start=1):
        for _ in range(times):
            sketch_write(repeated, codes[row : row + 1], labels[row : row + 1], base[row : row + 1])
    assert torch.equal(weighted, repeated)
    sketch_write(weighted, codes, labels, base, 2.0)
    assert float(weighted[0, :, 0].sum()) == 6 + 2 * 3


def test_empty_and_faded_buckets_have_no_say():
    cells = torch.zeros(2, 2, 3)
    cells[0, 0] = torch.tensor([4.0, 1.0, 2.0])
    cells[1, 0] = torch.tensor([2.0**-11, 2.0**-11, 0.0])  # less than 2^-10 of a fresh sample
    label, base, support = sketch_read(cells, torch.tensor([[0, 0], [1, 0], [1, 1]]))
    assert label.tolist() == [0.25, 0, 0]
    assert base.tolist() == [0.5, 0, 0]
    assert support.tolist() == [2, 0, 0]
    label, _, support = sketch_read(cells / 2**-3, torch.tensor([[0, 0], [1, 0]]), weight=2.0**-4)
    assert label.tolist() == [0.625, 1]  # at a smaller weight it has not faded yet
    assert torch.isfinite(support).all()


# -- neighbours -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tau", [0.01, 0.1, 10.0])
def test_readout_equals_the_reference(tau):
    similarity, labels, base = drawn(30, 8).tanh(), shares(30, 8).round(), shares(30, 8, seed=1)
    valid = shares(30, 8, seed=2) < 0.6
    valid[0], valid[1] = False, True
    found = torch.stack(softmax_readout(similarity, labels, base, tau, valid), 1)
    for row in range(30):
        kept = [part[row][valid[row]].tolist() for part in (similarity, labels, base)]
        np.testing.assert_allclose(found[row].numpy(), reference.softmax_readout(*kept, tau), atol=1e-5)
    assert found[0].tolist() == [0, 0]


def test_what_the_padding_holds_is_ignored():
    similarity = torch.tensor([[0.5, math.nan], [math.inf, math.nan]])
    values = torch.tensor([[1.0, math.nan], [math.nan, math.inf]])
    label, base = softmax_readout(similarity, values, values, 0.1, torch.tensor([[True, False], [False, False]]))
    assert label.tolist() == base.tolist() == [1, 0]


def test_a_small_temperature_does_not_overflow():
    similarity = torch.tensor([[1.0, 0.999]])
    label, _ = softmax_readout(similarity, torch.tensor([[1.0, 0.0]]), similarity, 1e-6, torch.ones(1, 2).bool())
    assert label.item() == 1


# -- error and compensation -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_error_equals_the_reference(gamma):
    parts = shares(20), shares(20, seed=1), shares(20, seed=2)
    expected = [
        reference.error_estimate(*values, gamma) for values in zip(*(part.tolist() for part in parts), strict=True)
    ]
    np.testing.assert_allclose(error_estimate(*parts, gamma).numpy(), expected, atol=1e-6)


OUTPUTS = {
    "probability": lambda: torch.cat((shares(60), torch.tensor([0.0, 1.0, 1e-9, 0.5]))),
    "logit": lambda: torch.cat((4 * drawn(60), torch.tensor([-30.0, 20.0, 12.0, 0.0]))),
    "regression": lambda: 100 * drawn(64),
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 0.01, torch.float16: 0.002}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_compensation_equals_the_reference(kind, dtype, lam):
    output, error = OUTPUTS[kind]().to(dtype), (2 * shares(64, seed=3) - 1) * (shares(64, seed=4) < 0.7)
    result = compensate(output, error, lam, kind)
    assert result.dtype == dtype
    unchanged = lam * error == 0
    assert torch.equal(result[unchanged], output[unchanged])
    expected = [
        reference.compensate(value, wrong, lam, kind, 1e-6)
        for value, wrong in zip(output.double().tolist(), error.double().tolist(), strict=True)
    ]
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert torch.isfinite(result).all()


def test_gamma_one_is_an_ensemble_with_the_neighbours_label():
    p, ybar, pbar = shares(500).double(), shares(500, seed=1).double(), shares(500, seed=2).double()
    for lam in (0.1, 0.4, 0.9):
        result = compensate(p, error_estimate(ybar, pbar, p, 1.0), lam, "probability")  # Eq. 14
        assert (result - ((1 - lam) * p + lam * ybar)).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_probability_never_becomes_zero_or_one(dtype):
    output = torch.tensor([0.99, 0.5, 0.001, 0.5]).to(dtype)
    result = compensate(output, torch.tensor([1.0, 1.0, -1.0, -1.0]), 1.0, "probability")
    assert ((result > 0) & (result < 1)).all()
    assert (result[:2].double() > 0.995).all()
    assert (result[2:] < 2e-6).all()


def test_a_confident_logit_keeps_its_precision_and_is_not_cut():
    output = torch.tensor([18.0, 18.0, -18.0, 40.0, 40.0, -200.0, -200.0])
    error = torch.tensor([1e-4, -1e-12, 1e-12, 0.5, -0.5, -0.1, 0.1])
    result = compensate(output, error, 1.0, "logit")
    assert torch.equal(result[[0, 3, 5]], output[[0, 3, 5]])  # further out than eps: it may only come back
    assert result[1].item() == pytest.approx(18, abs=1e-3)
    assert result[2].item() == pytest.approx(-18, abs=1e-3)
    assert result[4].item() == pytest.approx(0, abs=1e-6)
    assert result[6].item() == pytest.approx(math.log(0.1 / 0.9), abs=1e-5)


def test_a_logit_and_its_probability_are_compensated_alike():
    logits, error = 3 * drawn(200).double(), 2 * shares(200, seed=1).double() - 1
    as_logit = compensate(logits, error, 0.4, "logit").sigmoid()
    as_probability = compensate(logits.sigmoid(), error, 0.4, "probability")
    torch.testing.assert_close(as_logit, as_probability)


@settings(max_examples=200, deadline=None)
@given(
    output=st.floats(-50, 50),
    error=st.floats(-1, 1),
    lam=st.floats(0, 1),
    eps=st.floats(1e-9, 0.4),
    kind=st.sampled_from(["probability", "logit"]),
)
def test_a_compensation_goes_the_right_way_and_not_too_far(output, error, lam, eps, kind):
    given_output = torch.tensor([output], dtype=torch.float64)
    given_output = given_output if kind == "logit" else given_output.sigmoid()
    result = compensate(given_output, torch.tensor([error]), lam, kind, eps)
    before, after = (value.item() for value in (given_output, result))
    shift = lam * torch.tensor(error).item()
    assert math.isfinite(after)
    assert (after - before) * shift >= 0
    if kind == "probability":
        assert abs(after - before) <= abs(shift) + 1e-12
        assert min(before, eps) <= after <= max(before, 1 - eps)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (2, 3), (1, 6, 1)])
def test_the_shape_of_the_output_is_kept(shape):
    output, error = shares(6), 2 * shares(6, seed=1) - 1
    result = compensate(output.reshape(shape), error, 0.5, "probability")
    assert result.shape == shape
    assert torch.equal(result.reshape(-1), compensate(output, error, 0.5, "probability"))


def test_another_number_of_errors_is_refused():
    with pytest.raises(ValueError, match=r"`output` must be 3 predictions, one per error, but got \(2, 2\).*same rows"):
        compensate(torch.zeros(2, 2), torch.zeros(3), 0.5, "probability")


def test_the_base_prediction_of_an_output():
    assert base_prediction(torch.tensor([[0.0], [100.0]]), "logit").tolist() == [0.5, 1]
    assert base_prediction(torch.tensor([0.25], dtype=torch.bfloat16), "probability").tolist() == [0.25]
    values = base_prediction(torch.tensor([-3.0], requires_grad=True), "regression")
    assert values.tolist() == [-3]
    assert not values.requires_grad
