"""Greedy k-center in passes against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.choosing import k_center
from lightning_adapt.divconq.choosing.k_center import farthest_rows
from tests.reference import divconq as reference


@pytest.mark.parametrize("candidates", [1, 2, 8, 1024])
@pytest.mark.parametrize(("n", "dimensions"), [(1, 3), (40, 2), (60, 30)])
def test_the_rows_of_the_plain_loop_come_in_its_order(n, dimensions, candidates, monkeypatch):
    monkeypatch.setattr(k_center, "_CANDIDATES", candidates)
    monkeypatch.setattr(k_center, "_BLOCK", 16)
    rows = torch.randn(n, dimensions, generator=generator(n, dimensions)).numpy()
    for first in (0, n - 1):
        assert farthest_rows(rows, n, first=first).tolist() == reference.farthest(rows.astype(np.float64), n, first)


def test_vectors_far_from_the_origin_are_as_good():
    rows = (torch.randn(80, 8, generator=generator(1)) + 1000).numpy()
    assert farthest_rows(rows, 30).tolist() == reference.farthest(rows.astype(np.float64), 30, 0)


def test_ties_go_to_the_first_row_and_copies_come_last(monkeypatch):
    square = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [0, 0], [1, 1]])
    for candidates in (2, 3, 1024):
        monkeypatch.setattr(k_center, "_CANDIDATES", candidates)
        assert farthest_rows(square, 6).tolist() == [0, 3, 1, 2, 4, 5]


def test_passes_over_all_rows_are_far_fewer_than_choices(monkeypatch):
    passes = []
    measure = k_center._measure
    monkeypatch.setattr(k_center, "_measure", lambda *arguments: passes.append(1) or measure(*arguments))
    rows = torch.nn.functional.normalize(torch.randn(3000, 32, generator=generator(0)), dim=1)
    assert len(farthest_rows(rows, 600).unique()) == 600
    assert len(passes) < 30


@pytest.mark.parametrize(("count", "first"), [(0, 0), (4, 0), (1, 3), (1, -1)])
def test_counts_and_rows_out_of_range(count, first):
    with pytest.raises(ValueError, match=r"`(count|first)` must be a whole number"):
        farthest_rows(torch.ones(3, 2), count, first=first)
