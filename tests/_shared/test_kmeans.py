"""k-means: equal to a NumPy loop from the same start, whatever engine, dtype and place of the vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from lightning_adapt._shared import kmeans as module
from lightning_adapt._shared import kmeans_rows
from lightning_adapt._shared.hashing import generator
from lightning_adapt._shared.kmeans import kmeans, nearest_centers

REAL = ("torch", "faiss", "sklearn")


def numbers(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def topics(n=1200, d=32, k=20, spread=0.4, seed=0):
    """Unit vectors around k far directions, and the direction of each."""
    own = torch.arange(n) % k
    vectors = numbers(k, d, seed)[own] + spread * numbers(n, d, seed + 1)
    return vectors / vectors.norm(dim=1, keepdim=True), own


def lloyd_in_numpy(vectors, centers, iterations):
    vectors, centers = vectors.double().numpy(), centers.double().numpy().copy()
    for _ in range(iterations + 1):
        apart = ((vectors[:, None, :] - centers[None]) ** 2).sum(-1)
        labels = apart.argmin(1)
        final, inertia = centers.copy(), apart.min(1).sum()
        for cluster in set(labels.tolist()):
            centers[cluster] = vectors[labels == cluster].mean(0)
    return final, labels, inertia


@pytest.mark.parametrize("engine", ["torch", "faiss"])
@pytest.mark.parametrize("iterations", [1, 7])
def test_it_is_the_loop_that_anyone_would_write(engine, iterations):
    vectors = numbers(700, 9)
    centers, labels, inertia = lloyd_in_numpy(vectors, vectors[:12], iterations)
    found = kmeans(vectors, 12, engine=engine, iterations=iterations, init=vectors[:12])
    assert found.labels.tolist() == labels.tolist()
    torch.testing.assert_close(found.centers.double(), torch.from_numpy(centers), rtol=1e-4, atol=1e-5)
    assert found.inertia == pytest.approx(inertia, rel=1e-6)
    assert found.iterations == iterations
    assert found.labels.dtype == torch.int64
    assert found.centers.dtype == torch.float32


@pytest.mark.parametrize("k", [4, 16, 64])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_inertia_is_that_of_scikit_learn_from_the_same_start(k, spread):
    vectors, _ = topics(spread=spread)
    start = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(k))[:k]]
    theirs = KMeans(k, init=start.numpy(), n_init=1).fit(vectors.numpy()).inertia_
    assert kmeans(vectors, k, engine="torch", init=start).inertia <= 1.02 * theirs


@pytest.mark.parametrize("engine", REAL)
def test_far_topics_are_found_whole(engine):
    vectors, own = topics(spread=0.05)
    found = kmeans(vectors, 20, engine=engine, seed=3)
    assert len(found.centers) == 20
    assert len(set(zip(found.labels.tolist(), own.tolist(), strict=True))) == 20


def test_spread_starts_beat_uniform_ones_and_repeats_help():
    vectors, _ = topics(spread=0.1)
    uniform = [vectors[torch.randperm(1200, generator=torch.Generator().manual_seed(i))[:20]] for i in range(5)]
    plain = min(kmeans(vectors, 20, engine="torch", init=start).inertia for start in uniform)
    drawn = [kmeans(vectors, 20, engine="torch", seed=seed).inertia for seed in range(5)]
    assert max(drawn) < 0.5 * plain
    alone, best = (kmeans(vectors, 20, engine="torch", seed=4, repeats=repeats).inertia for repeats in (1, 5))
    assert best < 0.5 * alone  # that start is unlucky


@pytest.mark.parametrize("engine", REAL)
def test_runs_repeat_and_seeds_matter(engine):
    vectors = numbers(900, 8)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002 - shown to be untouched
    first, again, other = (kmeans(vectors, 10, engine=engine, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.centers, again.centers)
    assert not torch.equal(first.labels, other.labels)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_the_number_of_threads_changes_nothing():
    vectors = torch.randn(5000, 1024, generator=generator(3))  # three blocks
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)  # put back after every test
        found.append(kmeans(vectors, 20, engine="torch", iterations=3))
        assert torch.get_num_threads() == threads
    assert torch.equal(found[0].labels, found[1].labels)
    assert torch.equal(found[0].centers, found[1].centers)


def given_as(kind, vectors, folder):
    if kind == "memmap":
        np.save(folder / "vectors.npy", vectors.numpy())
        return np.load(folder / "vectors.npy", mmap_mode="r")
    return {
        "array": lambda: vectors.numpy(),
        "read only": lambda: np.frombuffer(vectors.numpy().tobytes(), np.float32).reshape(vectors.shape),
        "float64": lambda: vectors.double(),
        "float64 array": lambda: vectors.double().numpy(),
        "float16": lambda: vectors.half(),
        "bfloat16": lambda: vectors.bfloat16(),
        "big endian": lambda: vectors.numpy().astype(">f4"),
        "every second": lambda: vectors.repeat_interleave(2, 0)[::2],
        "transposed": lambda: vectors.t().contiguous().t(),
        "backwards": lambda: vectors.flip(0).numpy()[::-1],
        "with gradient": lambda: vectors.clone().requires_grad_(),
    }[kind]()


KINDS = ("array", "read only", "memmap", "float64", "float64 array", "float16", "bfloat16", "big endian")


@pytest.mark.parametrize("engine", REAL)
@pytest.mark.parametrize("kind", [*KINDS, "every second", "transposed", "backwards", "with gradient"])
def test_every_kind_of_vectors_gives_the_same_and_stays_as_it_was(engine, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(kmeans_rows, "_BLOCK_NUMBERS", {"cpu": 16})  # several blocks, of 1024 rows
    vectors = topics(2500)[0].bfloat16().float()  # so that every dtype holds them
    given = given_as(kind, vectors, tmp_path)
    before = given.clone() if isinstance(given, torch.Tensor) else given.copy()
    plain, found = (kmeans(form, 7, engine=engine, iterations=3) for form in (vectors, given))
    assert torch.equal(plain.labels, found.labels)
    assert torch.equal(plain.centers, found.centers)
    assert not found.centers.requires_grad
    assert bool((before == given).all())
    labels, distances = nearest_centers(given, found.centers)
    assert torch.equal(labels, found.labels)
    assert float(distances.double().sum()) == pytest.approx(found.inertia, rel=1e-6)


@pytest.mark.parametrize("engine", REAL)
@pytest.mark.parametrize("kind", ["array", "memmap", "float64", "every second"])
def test_a_part_of_rows_is_clustered_like_a_copy_of_it(engine, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(kmeans_rows, "_BLOCK_NUMBERS", {"cpu": 16})
    vectors = topics(3000)[0]
    index = torch.arange(0, 3000, 2)[5:]
    rows = kmeans_rows.Rows(given_as(kind, vectors, tmp_path))
    found = kmeans(rows.part(index), 7, engine=engine, iterations=3)
    copied = kmeans(vectors[index], 7, engine=engine, iterations=3)
    assert torch.equal(found.labels, copied.labels)
    assert torch.equal(found.centers, copied.centers)
    assert torch.equal(rows.part(index).part(torch.tensor([4, 1])).take(torch.tensor([1])), vectors[index[[1]]])


def test_rows_are_checked_once_and_parts_of_them_not_again(monkeypatch):
    rows = kmeans_rows.Rows(numbers(50, 3))
    rows.check_finite()
    monkeypatch.setattr(kmeans_rows, "_harmless", None)
    for known in (rows, rows.part(torch.arange(9)), kmeans_rows.Rows(rows, "cpu")):
        known.check_finite()


def test_nothing_is_left_out_and_nothing_is_said(capfd):
    """By itself, faiss clusters a sample of 256 rows per center, and warns below 39 rows."""
    vectors = torch.cat([numbers(3000, 2), 40 + numbers(3, 2)])
    found = kmeans(vectors, 2, engine="faiss")
    assert found.labels.bincount().sort().values.tolist() == [3, 3000]
    kmeans(vectors[:50], 10, engine="faiss")
    assert capfd.readouterr() == ("", "")


def test_auto_is_faiss_where_it_is_installed(monkeypatch):
    vectors = numbers(50, 3)
    assert kmeans(vectors, 4).engine.startswith("faiss 1.")
    monkeypatch.setitem(module.EXTRAS["llm"], "faiss-cpu", False)
    assert kmeans(vectors, 4).engine == f"torch {torch.__version__.split('+')[0]} cpu"
    assert "MiniBatchKMeans" in kmeans(vectors, 4, engine="sklearn").engine


def test_a_missing_engine_is_named(monkeypatch):
    class Missing:
        requirement = "faiss-cpu>=1.9"

        def __bool__(self):
            return False

    monkeypatch.setitem(module.EXTRAS["llm"], "faiss-cpu", Missing())
    with pytest.raises(ModuleNotFoundError, match=r"faiss-cpu>=1.9.*lightning-adapt\[llm\]"):
        kmeans(numbers(50, 3), 4, engine="faiss")


@pytest.mark.parametrize(
    ("vectors", "changed", "error", "text"),
    [
        (numbers(5, 3), {"k": 6}, ValueError, "`k` must be a whole number from 1 to 5"),
        (numbers(5, 3), {"k": 0}, ValueError, "`k`"),
        (numbers(5, 3), {"iterations": 0}, ValueError, "`iterations`"),
        (numbers(5, 3), {"repeats": 0}, ValueError, "`repeats`"),
        (numbers(5, 3), {"engine": "cuml"}, ValueError, "`engine` must be one of 'auto'"),
        (numbers(5, 3), {"engine": "faiss", "device": "meta"}, ValueError, "works on the CPU only"),
        (numbers(5, 3), {"init": numbers(3, 3)}, ValueError, r"`init` must be of shape \(2, 3\), but got \(3, 3\)"),
        (numbers(5, 3), {"init": torch.full((2, 3), torch.nan)}, ValueError, "`init` must be finite.* 2 of 2 rows"),
        (numbers(5, 3)[0], {}, ValueError, "`vectors` must be two-dimensional"),
        (numbers(0, 3), {}, ValueError, "not empty"),
        (torch.ones(5, 3, dtype=torch.int64), {}, TypeError, "a tensor or array of floats, but got torch.int64"),
        ([[1.0]], {}, TypeError, "`vectors`.*list"),
        (1e30 * numbers(5, 3), {"engine": "torch"}, ValueError, "short enough"),
        (1e30 * numbers(5, 3), {"engine": "faiss"}, ValueError, "short enough"),
        (np.full((5, 3), 1e300), {}, ValueError, "5 of 5 rows with NaN or inf, the first is row 0"),
    ],
)
def test_bad_arguments_are_named(vectors, changed, error, text):
    with pytest.raises(error, match=text):
        kmeans(vectors, **{"k": 2, **changed})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("engine", REAL)
def test_bad_rows_are_counted_and_the_first_is_named(bad, engine, monkeypatch):
    monkeypatch.setattr(kmeans_rows, "_BLOCK_NUMBERS", {"cpu": 16})
    vectors = numbers(2500, 4)
    vectors[[1700, 2400], [0, 3]] = bad
    for call in (lambda: kmeans(vectors, 3, engine=engine), lambda: nearest_centers(vectors, vectors[:2])):
        with pytest.raises(ValueError, match="2 of 2500 rows with NaN or inf, the first is row 1700"):
            call()


def test_a_sum_of_squares_that_overflows_is_no_bad_row():
    kmeans_rows.Rows(torch.full((1000, 3), 1e18)).check_finite()


def test_nearest_centers_are_those_of_numpy_and_ties_go_to_the_first():
    vectors, centers = numbers(3000, 5), numbers(40, 5, seed=9)
    labels, distances = nearest_centers(vectors, centers.double())
    apart = ((vectors[:, None].double() - centers[None].double()) ** 2).sum(-1)
    assert torch.equal(labels, apart.argmin(1))
    torch.testing.assert_close(distances.double(), apart.amin(1), rtol=1e-5, atol=1e-6)
    assert nearest_centers(vectors, centers[[3, 3, 3]])[0].unique().tolist() == [0]
    with pytest.raises(ValueError, match="`centers` must be of shape"):
        nearest_centers(vectors, centers[:, :4])
