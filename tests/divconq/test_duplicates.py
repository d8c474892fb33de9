"""Copies against a loop over pairs of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.choosing import duplicates
from lightning_adapt.divconq.choosing.duplicates import exact_duplicates, near_duplicates
from tests.reference import divconq as reference


def test_the_first_of_equal_keys_stays():
    keys = [b"a", b"b", b"a", b"a", b"c", b"b"]
    assert exact_duplicates(keys).tolist() == [False, False, True, True, False, True]


def test_equal_vectors_are_copies_but_zeros_are_not():
    rows = torch.tensor([[1.0, 0.0], [1.0, -0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1e-7]])
    assert exact_duplicates(rows).tolist() == [False, True, False, False, False]


def pool(n: int, seed: int) -> np.ndarray:
    """Rows around a few directions, with lengths that must not matter and rows of zeros."""
    own = generator(seed)
    centers = torch.randn(max(n // 4, 1), 5, generator=own)
    rows = centers[torch.randint(0, len(centers), (n,), generator=own)] + 0.3 * torch.randn(n, 5, generator=own)
    rows *= torch.rand(n, 1, generator=own) + 0.1
    rows[torch.rand(n, generator=own) < 0.05] = 0
    return rows.numpy()


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 1000), threshold=st.sampled_from([0.8, 0.95, 0.99]))
def test_near_copies_equal_the_loop_in_blocks_of_any_size(n, seed, threshold):
    rows = pool(n, seed)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1.0)
    assume(np.abs(unit @ unit.T - threshold).min() > 2e-6)  # nearer, rounding in float32 decides
    expected = reference.near_copies(rows, threshold)
    before = duplicates._BLOCK
    try:
        for size in (7, 4096):
            duplicates._BLOCK = size
            assert near_duplicates(rows, threshold).tolist() == expected
    finally:
        duplicates._BLOCK = before


def test_near_copies_inside_cells_equal_the_loop_inside_each():
    rows = pool(80, 1)
    cells = torch.randint(0, 5, (80,), generator=generator(2))
    found = near_duplicates(rows, 0.9, labels=cells)
    for cell in range(5):
        assert found[cells == cell].tolist() == reference.near_copies(rows[(cells == cell).numpy()], 0.9)
    with pytest.raises(ValueError, match=r"`labels` must be of shape \(80,\)"):
        near_duplicates(rows, labels=cells[:3])


def test_a_chain_keeps_both_ends():
    angles = torch.tensor([0.0, 0.3, 0.6])
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    assert near_duplicates(rows, 0.95).tolist() == [False, True, False]


def test_large_pools_are_compared_inside_k_means_cells(monkeypatch):
    monkeypatch.setattr(duplicates, "_ALL_PAIRS", 10)
    monkeypatch.setattr(duplicates, "_CELL", 25)
    own = torch.randn(50, 8, generator=generator(1))
    rows = torch.cat([own, own + 1e-4])
    found = duplicates.near_duplicates_of_pool(rows, engine="torch")
    assert found.tolist() == [False] * 50 + [True] * 50


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_the_threshold_is_a_cosine(threshold):
    with pytest.raises(ValueError, match="`threshold` must be a number in"):
        near_duplicates(torch.ones(2, 2), threshold)


@pytest.mark.parametrize("dimensions", [5, 384, 4096])
def test_copies_of_any_length_reach_a_threshold_of_one(dimensions):
    own = torch.randn(200, dimensions, generator=generator(0))
    rows = torch.cat([own, own * torch.linspace(0.1, 9, 200)[:, None]])
    assert near_duplicates(rows, 1.0).tolist() == [False] * 200 + [True] * 200
