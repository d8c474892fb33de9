"""k-means where it is hard: copies, empty clusters, vectors far from the origin, foreign settings of torch."""

from __future__ import annotations

import pytest
import torch

from lightning_adapt._shared import kmeans_init, kmeans_rows
from lightning_adapt._shared.kmeans import kmeans, nearest_centers
from lightning_adapt._shared.kmeans_rows import Rows, exact_float32
from lightning_adapt._shared.kmeans_torch import lloyd, sums_of

ENGINES = ("torch", "faiss", "sklearn")


def numbers(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def check_whole(found, vectors, k):
    """Contiguous labels of the nearest centers, and the inertia that belongs to them."""
    assert found.labels.unique().tolist() == list(range(len(found.centers)))
    assert len(found.centers) <= k
    labels, distances = nearest_centers(vectors, found.centers)
    assert torch.equal(labels, found.labels)
    assert found.inertia == pytest.approx(float(distances.double().sum()), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_cluster_is_the_mean(engine):
    vectors = numbers(300, 6)
    found = kmeans(vectors, 1, engine=engine, iterations=100)
    check_whole(found, vectors, 1)
    torch.testing.assert_close(found.centers[0], vectors.mean(0), rtol=0, atol=0.05 if engine == "sklearn" else 1e-5)


@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_as_many_clusters_as_rows_leave_nothing(engine):
    vectors = numbers(40, 8)
    found = kmeans(vectors, 40, engine=engine)
    assert found.inertia == 0
    assert sorted(found.labels.tolist()) == list(range(40))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1])
def test_equal_vectors_are_one_cluster(engine, value):
    vectors = torch.full((5000, 8), value)
    found = kmeans(vectors, 3, engine=engine)
    check_whole(found, vectors, 3)
    assert len(found.centers) == 1
    torch.testing.assert_close(found.centers[0], vectors[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_copies_cannot_fill_more_clusters_than_they_are_different(engine):
    vectors = numbers(5, 8).repeat(200, 1)
    found = kmeans(vectors, 10, engine=engine)
    assert found.inertia < 1e-6
    if engine == "sklearn":  # its centers may lie next to each other, a rounding apart
        assert 5 <= len(found.centers) <= 10
        return
    check_whole(found, vectors, 10)
    assert len(found.centers) == 5


@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_rows_among_many_copies_get_their_clusters(engine):
    vectors = torch.cat([torch.zeros(900, 8), numbers(20, 8)])
    found = kmeans(vectors, 21, engine=engine)
    check_whole(found, vectors, 21)
    assert len(found.centers) == 21
    assert found.inertia == pytest.approx(0, abs=1e-8)


def test_an_empty_cluster_goes_to_the_row_that_lies_farthest():
    vectors = torch.tensor([[0.0], [1.0], [2.0], [50.0], [53.0]])
    start = torch.tensor([[1.0], [1e4], [52.0]])  # nothing is near the second
    centers, _ = lloyd(Rows(vectors), start, 1)
    assert centers.tolist() == [[1.0], [50.0], [51.5]]  # rows 3 and 4 lie equally far: the first of them
    found = kmeans(vectors, 3, engine="torch", init=start)
    assert found.labels.tolist() == [0, 0, 0, 1, 2]
    assert kmeans(vectors, 3, engine="torch", init=start, iterations=1).labels.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_distance_from_the_origin_does_not_blur_labels(engine):
    own = torch.arange(600) % 6
    vectors = 1000 + numbers(6, 16)[own] + 0.01 * numbers(600, 16, seed=1)
    found = kmeans(vectors, 6, engine="torch", init=vectors[:6])
    assert found.labels.tolist() == own.tolist()
    labels, _ = nearest_centers(vectors, found.centers)
    wide = (vectors[:, None].double() - found.centers[None].double()).square().sum(-1)
    assert torch.equal(labels, wide.argmin(1))


def test_sums_do_not_drift():
    """One by one in float32, these 100,000 copies sum to 9998.56, not 10,000."""
    block = torch.full((100_000, 3), 0.1)
    sums, counts = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    for labels in (torch.full((100_000,), 2), torch.arange(100_000) % 2):
        more, rows_of_each = sums_of(block, labels, 4)
        sums, counts = sums + more, counts + rows_of_each
    assert counts.tolist() == [50_000, 50_000, 100_000, 0]
    expected = torch.tensor([[5_000.0], [5_000.0], [10_000.0], [0.0]], dtype=torch.float64).expand(4, 3)
    torch.testing.assert_close(sums, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("k", [1, 5, 90, 300])
@pytest.mark.parametrize("n", [300, 4500])
def test_starts_are_distinct_rows_that_depend_on_the_seed(n, k, monkeypatch):
    monkeypatch.setattr(kmeans_init, "LARGEST_SPREAD_K", 200)
    rows = Rows(numbers(n, 4))
    first, again, other, repeat = (
        kmeans_init.start_rows(rows, k, seed, attempt) for seed, attempt in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert len(first) == k == len(set(first.tolist()))
    assert 0 <= int(first.min()) <= int(first.max()) < n
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, repeat)


@pytest.mark.parametrize("largest", [4096, 1])
def test_starts_pass_over_copies_as_far_as_there_are_others(largest, monkeypatch):
    monkeypatch.setattr(kmeans_init, "LARGEST_SPREAD_K", largest)
    vectors = torch.cat([torch.zeros(60, 4), numbers(40, 4)])
    rows = kmeans_init.start_rows(Rows(vectors), 30, 0, 0)
    assert len(torch.unique(vectors[rows], dim=0)) == 30
    rows = kmeans_init.start_rows(Rows(torch.ones(100, 4)), 30, 0, 0)
    assert len(set(rows.tolist())) == 30


def precisions():
    backends = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    try:
        common = torch.get_float32_matmul_precision()
    except RuntimeError:
        common = "mixed"
    return common, *(getattr(backend, "fp32_precision", None) for backend in backends)


@pytest.fixture
def precision():
    """Put the process-wide precision back, whatever a test does."""
    backends = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    saved = [(backend, backend.fp32_precision) for backend in backends if hasattr(backend, "fp32_precision")]
    yield
    torch.set_float32_matmul_precision("highest")
    for backend, value in saved:
        backend.fp32_precision = value


@pytest.mark.parametrize("setting", ["highest", "high", "medium", "newer"])
@pytest.mark.usefixtures("precision")
def test_float32_is_float32_inside_and_as_the_user_set_it_outside(setting):
    if setting != "newer":
        torch.set_float32_matmul_precision(setting)
    elif hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    before = precisions()
    with exact_float32(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"
        assert set(precisions()[1:]) <= {"ieee", "none", None}
        assert not torch.backends.cuda.matmul.allow_tf32
    assert precisions() == before


def test_autocast_and_gradients_change_nothing():
    vectors = numbers(500, 16)
    plain = kmeans(vectors, 5, engine="torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = kmeans(vectors.clone().requires_grad_(), 5, engine="torch")
    assert torch.equal(plain.centers, inside.centers)
    assert inside.centers.dtype == torch.float32


def test_vectors_are_read_in_blocks_that_are_views_where_they_can_be(monkeypatch):
    monkeypatch.setattr(kmeans_rows, "_BLOCK_NUMBERS", {"cpu": 16})
    vectors = numbers(2500, 4)
    for given, shared in ((vectors, True), (vectors.numpy(), True), (vectors.double(), False)):
        blocks = list(Rows(given).blocks())
        assert [start for start, _ in blocks] == [0, 1024, 2048]
        assert torch.equal(torch.cat([block for _, block in blocks]), vectors)
        assert (blocks[1][1].data_ptr() == vectors[1024:].data_ptr()) == shared
    taken = Rows(vectors).take(torch.tensor([5, 1]))
    assert torch.equal(taken, vectors[[5, 1]])
