"""One-shot selection: exactly the budget, by each method, from pools with copies; and LIMA."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_adapt._shared import kmeans_rows
from lightning_adapt._shared.hashing import generator
from lightning_adapt._shared.kmeans_rows import Rows
from lightning_adapt.divconq.choosing.clusters import Clusters, closest_rows
from lightning_adapt.divconq.selection import select_rows

METHODS = ["random", "km_random", "km_closest", "k_center", "kmq"]


def blobs(n: int, groups: int = 6, dimensions: int = 4, seed: int = 0) -> torch.Tensor:
    own = generator(seed)
    centers = 3 * torch.randn(groups, dimensions, generator=own)
    return centers[torch.randint(0, groups, (n,), generator=own)] + 0.2 * torch.randn(n, dimensions, generator=own)


def check(selection, budget: int, n: int) -> None:
    rows = selection.rows.tolist()
    assert len(set(rows)) == len(rows) == budget
    assert rows == sorted(rows)
    assert set(rows) <= set(range(n))
    assert not bool(selection.duplicates[selection.rows].any())
    if selection.labels is not None:
        assert selection.labels.shape == (n,)
        assert torch.equal(torch.bincount(selection.labels[selection.rows], minlength=selection.k), selection.quotas)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    n=st.integers(1, 300),
    copies=st.integers(0, 50),
    seed=st.integers(0, 10_000),
    share=st.floats(0, 1),
    k=st.sampled_from(["auto", 1, 7, 40]),
    quota=st.sampled_from(["proportional", "equal"]),
)
def test_every_method_gives_exactly_the_budget(method, n, copies, seed, share, k, quota):
    own = blobs(n, seed=seed)
    vectors = torch.cat([own, own[torch.randint(0, n, (copies,), generator=generator(seed))]])
    budget = max(1, round(share * n))
    quality = 1e4 * torch.randn(n + copies, generator=generator(seed, 1)) if method == "kmq" else None
    k = k if k == "auto" else min(k, n)
    selection = select_rows(vectors, budget, method, k=k, quality=quality, quota=quota, seed=seed, engine="torch")
    check(selection, budget, n + copies)
    assert selection.duplicates.tolist() == [False] * n + [True] * copies


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method):
    vectors = blobs(200)
    first = select_rows(vectors, "10%", method, seed=3)
    again = select_rows(vectors.numpy(), 0.1, method, seed=3)
    other = select_rows(vectors, 20, method, seed=4)
    assert torch.equal(first.rows, again.rows)
    assert not torch.equal(first.rows, other.rows)
    assert (first.method, first.seed) == (method, 3)
    assert (first.engine == "") == (first.k == 0) == (method in ("random", "k_center"))


def test_random_needs_no_vectors_and_is_uniform():
    counts = torch.zeros(40)
    for seed in range(500):
        counts[select_rows(None, 10, "random", n=40, seed=seed).rows] += 1
    assert abs(counts - 125).max() < 6 * (125 * 0.75) ** 0.5
    assert select_rows(None, 2, "random", keys=[b"a", b"a", b"b"]).rows.tolist() == [0, 2]


@pytest.mark.parametrize(("quota", "expected"), [("proportional", [16, 4]), ("equal", [10, 10])])
def test_quotas_of_two_clusters(quota, expected):
    vectors = torch.cat([torch.zeros(80, 1), torch.full((20, 1), 9.0)]) + torch.arange(100)[:, None] / 1000
    selection = select_rows(vectors, 20, "km_random", k=2, quota=quota)
    by_size = sorted(zip(torch.bincount(selection.labels).tolist(), selection.quotas.tolist(), strict=True))
    assert [taken for _, taken in by_size] == expected[::-1]
    share = [0.5, 0.5] if quota == "equal" else [0.2, 0.8]
    assert sorted(selection.weights.tolist()) == pytest.approx(share)


def test_kmq_prefers_quality_inside_each_cluster_and_tau_softens_it():
    vectors, quality = blobs(600), torch.randn(600, generator=generator(5))

    def mean_quality(tau: float) -> float:
        chosen = [select_rows(vectors, 120, k=6, quality=quality, tau=tau, seed=seed).rows for seed in range(5)]
        return float(quality[torch.cat(chosen)].mean())

    assert mean_quality(0.01) > mean_quality(1.0) > mean_quality(100.0) + 0.3
    hard = select_rows(vectors, 60, k=6, quality=quality, tau=1e-4)
    for cluster in range(6):
        members = (hard.labels == cluster).nonzero().squeeze(1)
        best = members[quality[members].argsort(descending=True)][: int(hard.quotas[cluster])]
        assert set(best.tolist()) == set(hard.rows[hard.labels[hard.rows] == cluster].tolist())


def test_kmq_without_quality_is_km_random():
    vectors = blobs(200)
    assert torch.equal(select_rows(vectors, 30, "kmq", k=5).rows, select_rows(vectors, 30, "km_random", k=5).rows)


def test_km_closest_takes_the_nearest_row_of_each_of_b_clusters():
    vectors = blobs(120, groups=10)
    selection = select_rows(vectors, 10, "km_closest")
    assert (selection.k, selection.quotas.tolist()) == (10, [1] * 10)
    for row in selection.rows.tolist():
        members = vectors[selection.labels == selection.labels[row]]
        gaps = (members - members.mean(0)).square().sum(1)
        own = (vectors[row] - members.mean(0)).square().sum()
        assert float(own) == pytest.approx(float(gaps.min()), rel=1e-4)


def test_missing_clusters_are_made_up_for_by_the_next_nearest_rows():
    clusters = Clusters(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0.3, 0.1, 0.2, 0.9, 0.5]), 2, "", {})
    everything = torch.arange(5)
    taken = [closest_rows(clusters, everything, budget).tolist() for budget in range(1, 6)]
    assert taken == [[1], [1, 4], [1, 2, 4], [1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert closest_rows(clusters, torch.tensor([0, 2, 3]), 2).tolist() == [2, 3]


def test_copies_are_left_out_by_key_by_vector_and_by_cosine():
    vectors = torch.eye(4).repeat(2, 1)
    vectors[5] += 0.01
    assert select_rows(vectors, 1, "random").duplicates.tolist() == [False] * 4 + [True, False, True, True]
    assert int(select_rows(vectors, 1, "random", dedup="near").duplicates.sum()) == 4
    assert int(select_rows(vectors, 1, "random", dedup="none").duplicates.sum()) == 0
    keys = [bytes([row]) for row in (0, 0, 1, 2, 3, 4, 5, 6)]
    assert select_rows(vectors, 1, "random", keys=keys).duplicates.nonzero().tolist() == [[1]]


@pytest.mark.parametrize("method", ["km_random", "km_closest", "k_center"])
def test_vectors_are_read_whole_once_for_their_check_and_never_copied_whole(method, monkeypatch):
    checks, parts = [], []
    harmless, part = kmeans_rows._harmless, Rows._part
    monkeypatch.setattr(kmeans_rows, "_harmless", lambda block: checks.append(len(block)) or harmless(block))
    monkeypatch.setattr(Rows, "_part", lambda rows, index: parts.append(part(rows, index)) or parts[-1])
    vectors = blobs(9000)
    vectors[7] = vectors[3]
    monkeypatch.setattr(kmeans_rows, "_BLOCK_NUMBERS", {"cpu": 1})  # blocks of 1024 rows
    chosen = select_rows(vectors, 40, method, k=12, engine="torch")
    assert chosen.duplicates.nonzero().tolist() == [[7]]
    assert 9000 <= sum(checks) <= 9000 + 40  # and the centres
    assert max(len(block) for block in parts) <= 8192


def test_too_large_a_budget_gives_the_numbers():
    vectors = torch.arange(6.0)[:, None].repeat(2, 1) + 1
    with pytest.raises(ValueError, match="at most the 6 rows left of 12 without 6 copies, but got 7"):
        select_rows(vectors, 7, "km_random")
    assert len(select_rows(vectors, 7, "km_random", k=2, dedup="none").rows) == 7
    with pytest.raises(ValueError, match="`k` must be at most the 6 rows left of 12 without copies, but got 7"):
        select_rows(vectors, 5, "km_random", k=7)
    with pytest.raises(ValueError, match="at most the 12 rows of the pool, but got 13"):
        select_rows(vectors, 13, "random")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method": "best"}, "`method` must be one of"),
        ({"vectors": None, "n": 9}, "`vectors` must be given"),
        ({"vectors": None, "method": "random"}, "`n` must be given"),
        ({"vectors": None, "n": 9, "method": "random", "dedup": "near"}, "`vectors` must be given for dedup='near'"),
        ({"n": 8}, "`vectors` must be one per row, 8 in all, but got 9"),
        ({"keys": [b""]}, "`keys` must be one per row, 9 in all, but got 1"),
        ({"vectors": torch.tensor([[1.0]] * 8 + [[float("nan")]])}, "1 of 9 rows with NaN or inf, the first is row 8"),
        ({"quality": torch.ones(8)}, r"`quality` must be of shape \(9,\)"),
        ({"quality": torch.tensor([1.0] * 7 + [float("nan")] * 2)}, "2 rows that are not, the first is row 7 with nan"),
        ({"quality": torch.ones(9), "method": "km_random"}, "`quality` must be None for method='km_random'"),
        ({"k": 0}, "`k` must be a whole number >= 1"),
        ({"quota": "fair"}, "`quota` must be one of"),
        ({"dedup": "all"}, "`dedup` must be one of"),
        ({"engine": "cuml"}, "`engine` must be one of"),
        ({"tau": 0}, "`tau` must be a number >= 1e-06"),
        ({"tau": 1e-300}, "`tau` must be a number >= 1e-06"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
    ],
)
def test_bad_arguments_are_explained(changed, words):
    arguments = {"vectors": torch.arange(9.0)[:, None], "budget": 3, "k": 2, **changed}
    with pytest.raises(ValueError, match=words):
        select_rows(arguments.pop("vectors"), arguments.pop("budget"), **arguments)


@pytest.fixture(scope="module")
def lima() -> np.ndarray:
    """TF-IDF vectors of LIMA's prompts."""
    root = os.environ.get("LIGHTNING_ADAPT_TEST_DATA")
    if root is None or not (Path(root) / "lima" / "train.jsonl").is_file():
        pytest.skip("LIMA is not there: set LIGHTNING_ADAPT_TEST_DATA to the folder around lima")
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    lines = (Path(root) / "lima" / "train.jsonl").read_text().splitlines()
    prompts = [json.loads(line)["conversations"][0] for line in lines]
    vectors = TruncatedSVD(64, random_state=0).fit_transform(TfidfVectorizer().fit_transform(prompts))
    return vectors.astype(np.float32)


@pytest.mark.parametrize("engine", ["faiss", "torch", "sklearn"])
def test_103_rows_of_lima_from_48_clusters_are_103(engine, lima):
    for method, quota in (("km_random", "proportional"), ("kmq", "equal"), ("km_closest", "equal")):
        selection = select_rows(lima, 103, method, k=48, quota=quota, engine=engine)
        check(selection, 103, 1030)
        assert selection.k == (103 if method == "km_closest" else 48)
        assert engine in selection.engine.lower() or engine == "sklearn"
