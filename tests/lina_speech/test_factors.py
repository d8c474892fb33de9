"""Tensors of voices: products of factors against float64, weighted sums against matrices, and what is refused."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt.lina_speech.voices.factors import (
    checked_tensors,
    largest_rank,
    matrices_of,
    mixed_tensors,
    product_of,
)

HEADS, KEYS, VALUES = 2, 24, 40


def factors(rank=2, seed=0, name="gla.0"):
    draw = torch.Generator().manual_seed(seed)
    u, w = torch.randn(rank, HEADS, KEYS, generator=draw), torch.randn(rank, HEADS, VALUES, generator=draw)
    return {f"{name}.u": u, f"{name}.w": w}


def exact(tensors, name="gla.0"):
    """The matrix in float64, by a product of matrices."""
    if name in tensors:
        return tensors[name].double()
    u, w = tensors[f"{name}.u"].double(), tensors[f"{name}.w"].double()
    return u.permute(1, 2, 0) @ w.permute(1, 0, 2)


@pytest.mark.parametrize("rank", [1, 2, 16])
def test_products_are_exact_in_float32_whatever_torch_may_round(rank):
    tensors, before = factors(rank), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            made = matrices_of(tensors)["gla.0"]
    finally:
        torch.set_float32_matmul_precision(before)
    assert made.dtype == torch.float32
    assert made.shape == (HEADS, KEYS, VALUES)
    torch.testing.assert_close(made.double(), exact(tensors), atol=2e-6 * rank, rtol=1e-6)


def test_products_pass_gradients():
    u, w = (tensor.requires_grad_() for tensor in factors(3).values())
    product_of(u, w).sum().backward()
    torch.testing.assert_close(u.grad, w.detach().sum(2, keepdim=True).expand_as(u))


def test_only_recurrences_have_matrices():
    tensors = {**factors(3), "position": torch.ones(1, 2, 3), "conv.0": torch.ones(3, 5)}
    assert list(matrices_of(tensors)) == ["gla.0", "position"]
    assert largest_rank(tensors) is None
    assert largest_rank({**factors(3), **factors(5, name="blocks.1.mixer")}) == 5


def test_factors_are_joined_and_their_product_is_the_sum():
    one, two = factors(2, 0), factors(3, 1)
    mixed = mixed_tensors([(0.3, one), (-1.7, two)])
    assert mixed["gla.0.u"].shape == (5, HEADS, KEYS)
    wanted = 0.3 * exact(one) - 1.7 * exact(two)
    torch.testing.assert_close(matrices_of(mixed)["gla.0"].double(), wanted, atol=1e-5, rtol=1e-5)


def test_joined_factors_that_are_no_smaller_than_the_matrix_become_one():
    parts = [(0.1, factors(3, seed)) for seed in range(5)]
    assert 15 * (KEYS + VALUES) == KEYS * VALUES
    mixed = mixed_tensors(parts)
    assert list(mixed) == ["gla.0"]
    wanted = sum(weight * exact(tensors) for weight, tensors in parts)
    torch.testing.assert_close(mixed["gla.0"].double(), wanted, atol=1e-5, rtol=1e-5)
    assert list(mixed_tensors(parts[:4])) == ["gla.0.u", "gla.0.w"]


def test_factors_and_matrices_and_what_one_lacks_are_mixed():
    full = {"gla.0": exact(factors(9, 4)).float(), "conv.0": torch.full((3, 5), 2.0)}
    low = {**factors(2), **factors(1, 7, name="gla.1")}
    mixed = mixed_tensors([(0.25, low), (0.5, full)])
    assert list(mixed) == ["gla.0", "gla.1.u", "gla.1.w", "conv.0"]
    torch.testing.assert_close(mixed["gla.0"].double(), 0.25 * exact(low) + 0.5 * exact(full), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exact(mixed, "gla.1"), 0.25 * exact(low, "gla.1"), atol=1e-6, rtol=1e-5)
    assert mixed["conv.0"].eq(1.0).all()


def test_shapes_that_differ_are_named():
    with pytest.raises(ValueError, match=r"`voices: gla\.0` must be of one shape.*\(2, 24, 40\), \(2, 24, 8\)"):
        mixed_tensors([(1.0, factors()), (1.0, {"gla.0": torch.ones(2, 24, 8)})])
    with pytest.raises(ValueError, match=r"conv\.0"):
        mixed_tensors([(1.0, {"conv.0": torch.ones(3, 5)}), (1.0, {"conv.0": torch.ones(3, 4)})])


# -- checks ------------------------------------------------------------------------------------------------------------
def test_tensors_are_copied_in_float32_without_history():
    leaf = torch.ones(2, 3, 4, dtype=torch.float64, requires_grad=True)
    given = {"gla.0": (2 * leaf).transpose(1, 2), **factors(name="gla.1")}
    found = checked_tensors(given, convolutions=False)
    assert list(found) == list(given)
    for tensor in found.values():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
    given["gla.1.u"].zero_()
    assert found["gla.1.u"].abs().min() > 0


WRONG = {
    "nothing": ({}, "at least one tensor"),
    "no names": ({1: torch.ones(1, 1, 1)}, "from names to tensors"),
    "a list": ([torch.ones(1, 1, 1)], "from names to tensors"),
    "whole numbers": ({"gla.0": torch.ones(1, 1, 1, dtype=torch.int64)}, "a tensor of floats"),
    "numbers": ({"gla.0": 1.0}, "a tensor of floats"),
    "a row for every stream": ({"gla.0": torch.ones(1, 2, 3, 4)}, "three dimensions"),
    "a vector": ({"gla.0": torch.ones(3)}, "three dimensions"),
    "no heads": ({"gla.0": torch.ones(0, 3, 4)}, "none of them 0"),
    "rank 0": ({"gla.0.u": torch.ones(0, 2, 3), "gla.0.w": torch.ones(0, 2, 4)}, "none of them 0"),
    "one factor": ({"gla.0.u": torch.ones(1, 2, 3)}, "beside its other factor"),
    "other ranks": ({"gla.0.u": torch.ones(1, 2, 3), "gla.0.w": torch.ones(2, 2, 4)}, r"same rank.*\(2, 2, 4\)"),
    "other heads": ({"gla.0.u": torch.ones(1, 2, 3), "gla.0.w": torch.ones(1, 3, 4)}, "same heads"),
    "both": ({**factors(), "gla.0": torch.ones(HEADS, KEYS, VALUES)}, "absent where 'gla.0' is given"),
    "NaN": ({"gla.0": torch.full((1, 1, 1), torch.nan)}, "finite"),
    "infinity": ({"gla.0": torch.full((1, 1, 1), -torch.inf)}, "finite"),
    "beyond float32": ({"gla.0": torch.full((1, 1, 1), 1e300, dtype=torch.float64)}, "finite"),
    "convolution of three dimensions": ({"gla.0": torch.ones(1, 1, 1), "conv.0": torch.ones(1, 3, 5)}, r"\(3, C\)"),
}


@pytest.mark.parametrize(("tensors", "text"), WRONG.values(), ids=WRONG)
def test_what_is_no_voice_is_refused(tensors, text):
    with pytest.raises((TypeError, ValueError), match=text):
        checked_tensors(tensors, convolutions=True)


def test_tuned_voices_have_no_convolutions():
    tensors = {"gla.0": torch.ones(1, 1, 1), "conv.0": torch.ones(3, 5)}
    assert list(checked_tensors(tensors, convolutions=True)) == ["gla.0", "conv.0"]
    with pytest.raises(ValueError, match="absent in a tuned voice"):
        checked_tensors(tensors, convolutions=False)
