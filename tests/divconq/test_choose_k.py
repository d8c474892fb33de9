"""The silhouette against scikit-learn's, and the choice of k against planted clusters."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt._shared.hashing import generator
from lightning_adapt.divconq.choosing import choose_k as module
from lightning_adapt.divconq.choosing.choose_k import choose_k, silhouette


def blobs(n: int, groups: int, seed: int = 0, spread: float = 0.2) -> torch.Tensor:
    own = generator(seed)
    centers = 3 * torch.randn(groups, 6, generator=own)
    return centers[torch.arange(n) % groups] + spread * torch.randn(n, 6, generator=own)


@pytest.mark.parametrize("block", [64, 1024])
def test_silhouettes_equal_those_of_scikit_learn(block, monkeypatch):
    from sklearn.metrics import silhouette_score

    monkeypatch.setattr(module, "_BLOCK", block)
    rows = blobs(300, 5, spread=2.0) + 40  # far from the origin, where squares lose digits
    labelings = [torch.randint(0, k, (300,), generator=generator(k)) for k in (2, 7, 60)]
    labelings.append(torch.arange(300) % 5)
    labelings[0][0] = 2  # alone in its cluster
    labelings = [torch.unique(labels, return_inverse=True)[1] for labels in labelings]
    expected = [silhouette_score(rows.numpy(), labels.numpy()) for labels in labelings]
    assert silhouette(rows, labelings) == pytest.approx(expected, abs=1e-5)


def test_copies_in_one_cluster_are_perfect_and_not_nan():
    rows = torch.tensor([[0.0], [0.0], [0.0], [5.0], [5.0]])
    assert silhouette(rows, [torch.tensor([0, 0, 0, 1, 1])]) == [1.0]
    assert silhouette(torch.zeros(4, 2), [torch.tensor([0, 0, 1, 1])]) == [0.0]


def test_the_planted_number_of_clusters_is_found():
    rows = blobs(640, 16)
    choice = choose_k(rows, budget=200, seed=1)
    assert choice.k == 16
    assert sorted(choice.scores) == [8, 16, 32, 64]
    assert choice.scores[16] == max(choice.scores.values())
    assert choice == choose_k(rows, budget=200, seed=1)


@pytest.mark.parametrize(
    ("arguments", "grid"),
    [
        ({"budget": 200}, [8, 16, 32, 64]),  # 640 / 8 = 80
        ({"budget": 33}, [8, 16, 32]),
        ({"budget": 200, "sample": 200}, [8, 16]),  # 200 / 8 = 25
    ],
)
def test_bounds_of_the_grid(arguments, grid):
    choice = choose_k(blobs(640, 16), **arguments)
    assert sorted(choice.scores) == grid
    assert choice.k in grid


@pytest.mark.parametrize(
    ("n", "arguments", "k"),
    [
        (640, {"budget": 5}, 5),
        (30, {"budget": 30}, 3),
        (3, {"budget": 3}, 1),
        (1, {"budget": 1}, 1),
    ],
)
def test_where_no_candidate_fits_k_is_the_bound(n, arguments, k):
    choice = choose_k(blobs(n, 2), **arguments)
    assert (choice.k, choice.scores) == (k, {})


def test_equal_rows_are_one_cluster():
    assert choose_k(torch.ones(100, 3), budget=50).k == 1


def test_bad_arguments():
    with pytest.raises(ValueError, match="`sample`"):
        choose_k(blobs(50, 2), budget=10, sample=2)
