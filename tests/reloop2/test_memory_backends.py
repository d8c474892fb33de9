"""Every backend against going through all samples in float64: eviction, ties, decay, few or many samples at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_adapt.reloop2.stores import ann, ring
from lightning_adapt.reloop2.stores import whitening as whitening_module
from lightning_adapt.reloop2.stores.ann import AnnStore
from lightning_adapt.reloop2.stores.ring import RingStore
from lightning_adapt.reloop2.stores.sketch import SketchStore
from lightning_adapt.reloop2.stores.whitening import Whitening
from tests.reference import reloop2 as reference
from tests.reloop2.memory_parts import rows


def unit_rows(n: int, dim: int = 8, seed: int = 0):
    keys, labels, base = rows(n, dim, seed)
    return torch.nn.functional.normalize(keys), labels, base


def write_in_parts(store, data, size: int) -> None:
    for part in zip(*(torch.split(values, size) for values in data), strict=True):
        store.write(*part)


def listed(data, newest: int | None = None) -> list:
    samples = list(zip(data[0].double().numpy(), data[1].tolist(), data[2].tolist(), strict=True))
    return samples if newest is None else samples[-newest:]


def assert_equal(reading, expected) -> None:
    np.testing.assert_allclose(torch.stack(reading, 1).numpy(), np.array(expected), atol=1e-5)


# -- the ring ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 3, 5, 49, 50, 51, 50 + 37, 175])
@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_ring_equals_going_through_the_newest_samples(n, size):
    store, data, queries = RingStore(50, 5, 0.1), unit_rows(n), unit_rows(20, seed=1)[0]
    write_in_parts(store, data, size)
    expected = [reference.neighbours_read(listed(data, 50), query, 5, 0.1) for query in queries.double().numpy()]
    assert_equal(store.read(queries), expected)
    assert store.n_written == n
    assert store.n_stored == min(n, 50)


@pytest.mark.parametrize("n", [400, 1003, 1500])
def test_many_samples_are_searched_in_groups_and_in_parts(monkeypatch, n):
    monkeypatch.setattr(ring, "_SCORES", 7 * n)  # seven queries at once
    monkeypatch.setattr(ring, "_ROWS", 1)
    store, data, queries = RingStore(1300, 5, 0.1), unit_rows(n), unit_rows(20, seed=1)[0]
    write_in_parts(store, data, 333)
    expected = [reference.neighbours_read(listed(data, 1300), query, 5, 0.1) for query in queries.double().numpy()]
    assert_equal(store.read(queries), expected)


@pytest.mark.parametrize(("columns", "k"), [(1, 1), (31, 4), (256, 8), (257, 8), (263, 8), (1000, 1), (4096, 100)])
def test_the_largest_are_found_exactly(columns, k):
    scores = torch.randn(9, columns, generator=torch.Generator().manual_seed(0))
    values, places = ring._largest(scores, k)
    assert torch.equal(values, scores.topk(k).values)
    assert torch.equal(scores.gather(1, places), values)


def test_the_largest_are_found_in_the_columns_that_fill_no_group():
    scores = torch.zeros(2, 263)
    scores[:, 260], scores[:, 3] = 2.0, 1.0  # 32 groups of 8, and 7 columns
    assert ring._largest(scores, 2)[1].tolist() == [[260, 3]] * 2


@pytest.mark.parametrize("kind", [RingStore, AnnStore])
def test_of_samples_with_one_key_the_newest_are_neighbours(monkeypatch, kind):
    monkeypatch.setattr(ann, "FIRST_BUILD", 32)
    store, key = kind(200, 4, 0.1), torch.nn.functional.normalize(torch.ones(1, 6))
    labels = torch.arange(350.0)  # so that the mean tells which ones were found
    write_in_parts(store, (key.expand(350, 6), labels, labels / 2), 70)
    label, base, support = store.read(key)
    assert label.item() == pytest.approx(np.mean([346, 347, 348, 349]), abs=1e-3)
    assert base.item() == pytest.approx(label.item() / 2, abs=1e-3)
    assert support.item() == 4
    np.testing.assert_allclose(store.search(key)[0].numpy(), 1, atol=1e-6)


def test_ties_equal_the_reference():
    directions = unit_rows(6)[0]
    _, labels, base = unit_rows(120)
    data = directions[torch.arange(120) % 6], labels, base
    store = RingStore(70, 5, 0.1)
    write_in_parts(store, data, 11)
    expected = [reference.neighbours_read(listed(data, 70), query, 5, 0.1) for query in directions.double().numpy()]
    assert_equal(store.read(directions), expected)


def test_the_ring_takes_little_more_than_it_holds():
    store, d = RingStore(5000, 5, 0.1), 64
    assert store.nbytes == 0
    for n in range(1250, 7000, 250):
        store.write(*unit_rows(250, d))
        held = min(5000, n - 1000)
        assert store.n_stored == held
        assert store.nbytes <= max(held, ring._FIRST_ROWS) * (4 * d + 32)
    assert store.nbytes == 5000 * (4 * d + 8)


# -- the sketch -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("half_life", [None, 1.5, 10.0, 300.0])
@pytest.mark.parametrize("size", [1, 64, 1000])
def test_sketch_equals_going_through_all_samples(half_life, size):
    store, data, queries = SketchStore(4, 6, half_life, seed=0), unit_rows(400), unit_rows(30, seed=1)[0]
    write_in_parts(store, data, size)
    projections = store.projections.numpy()
    samples = [(reference.simhash(key, projections, 6), label, base) for key, label, base in listed(data)]
    expected = [
        reference.sketch_read(samples, reference.simhash(query, projections, 6), half_life)
        for query in queries.double().numpy()
    ]
    reading = store.read(queries)
    np.testing.assert_allclose(reading.support.numpy(), [row[2] for row in expected], rtol=1e-5, atol=1e-6)
    assert_equal(reading[:2], [row[:2] for row in expected])
    assert (store.age < len(data[0])) == (half_life is None or half_life < 300 / 16)  # it was scaled back in between


def test_a_sample_counts_half_after_a_half_life():
    store, (keys, labels, base) = SketchStore(1, 1, 100.0, seed=0), unit_rows(101)
    store.write(keys[:1], labels[:1], base[:1])
    assert store.read(keys[:1]).support.item() == 1
    far = -keys[:1].expand(100, -1)  # the other bucket of the only array
    store.write(far, labels[1:], base[1:])
    assert store.read(keys[:1]).support.item() == pytest.approx(0.5, abs=1e-6)


def test_what_was_not_seen_for_long_is_forgotten():
    store, (keys, labels, base) = SketchStore(1, 1, 10.0, seed=0), unit_rows(200)
    store.write(keys[:1], labels[:1], base[:1])
    store.write(-keys[:1].expand(95, -1), labels[:95], base[:95])
    assert store.read(keys[:1]).support.item() > 0
    store.write(-keys[:1].expand(10, -1), labels[:10], base[:10])
    assert [part.item() for part in store.read(keys[:1])] == [0, 0, 0]


def test_the_sketch_stays_precise_over_many_half_lives():
    """The bucket mean of a constant is the constant, however often the cells are scaled back."""
    store, key = SketchStore(3, 4, 500.0, seed=0), torch.nn.functional.normalize(torch.ones(1, 5))
    for _ in range(40):
        store.write(key.expand(2000, 5), torch.full((2000,), 0.25), torch.full((2000,), 0.125))
    label, base, support = store.read(key)
    assert label.item() == pytest.approx(0.25, abs=1e-6)
    assert base.item() == pytest.approx(0.125, abs=1e-6)
    assert support.item() == pytest.approx(1 / (1 - 2 ** (-1 / 500)), rel=1e-4)


def test_the_sketch_takes_its_cells_and_no_more():
    store = SketchStore(12, 64, 50_000, seed=0)
    assert store.nbytes == 2**12 * 64 * 12
    write_in_parts(store, unit_rows(20_000, 64), 5000)
    assert store.nbytes == 2**12 * 64 * 12
    assert store.fixed_nbytes == 64 * 64 * 12 * 4


# -- faiss ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def early(monkeypatch):
    """Lists are learnt from 32 rows on."""
    monkeypatch.setattr(ann, "FIRST_BUILD", 32)


@pytest.mark.parametrize("n", [20, 60, 100, 101, 260])
@pytest.mark.parametrize("size", [1, 23, 1000])
def test_faiss_that_looks_everywhere_equals_going_through_the_newest_samples(early, monkeypatch, n, size):
    monkeypatch.setattr(ann, "PROBED", 1.0)
    store, data, queries = AnnStore(100, 5, 0.1), unit_rows(n), unit_rows(20, seed=1)[0]
    write_in_parts(store, data, size)
    assert bool(store.built_rows) == (n >= 32)
    expected = [reference.neighbours_read(listed(data, 100), query, 5, 0.1) for query in queries.double().numpy()]
    assert_equal(store.read(queries), expected)


@pytest.mark.parametrize(("n", "k"), [(150, 5), (333, 5), (333, 60)])
def test_faiss_equals_an_inverted_file_over_the_newest_samples(early, n, k):
    store, data, queries = AnnStore(200, k, 0.1), unit_rows(n), unit_rows(40, seed=1)[0]
    write_in_parts(store, data, 17)
    given = listed(data, 200), store.centroids.numpy(), store.probes
    expected = [reference.inverted_file_read(*given, query, k, 0.1) for query in queries.double().numpy()]
    assert_equal(store.read(queries), expected)
    supports = {row[2] for row in expected}
    assert len(supports) > 1 or k == 5, "with k = 60 the lists must run short at times"


def test_evicted_samples_stay_in_the_index_but_are_never_found(early, monkeypatch):
    monkeypatch.setattr(ann, "PROBED", 1.0)
    store, (keys, labels, base) = AnnStore(64, 3, 0.1), unit_rows(120)
    write_in_parts(store, (keys, labels, base), 10)
    assert store.index.ntotal > 64
    _, places, valid = store.search(keys)
    assert valid.all()
    newest = (store.keys[places[:, 0]] * keys).sum(1) > 1 - 1e-6
    assert newest.tolist() == [False] * 56 + [True] * 64


def test_lists_are_learnt_anew_as_the_ring_fills_and_turns_over(early):
    store, data = AnnStore(400, 3, 0.1), unit_rows(2000)
    learnt = []
    for part in zip(*(torch.split(values, 10) for values in data), strict=True):
        store.write(*part)
        if store.built_at not in learnt:
            learnt.append(store.built_at)
        assert not store.built_rows or store.index.ntotal <= 2 * 400
    assert learnt == [0, 40, 160, 560, 960, 1360, 1760]


def test_faiss_finds_nearly_all_neighbours_where_keys_cluster():
    draws = torch.Generator().manual_seed(0)
    centres = torch.randn(200, 16, generator=draws)
    keys = centres[torch.randint(200, (12_000,), generator=draws)] + 0.3 * torch.randn(12_000, 16, generator=draws)
    keys = torch.nn.functional.normalize(keys)
    exact, near = RingStore(10_000, 20, 0.1), AnnStore(10_000, 20, 0.1)
    for store in (exact, near):
        write_in_parts(store, (keys, keys[:, 0], keys[:, 1]), 3000)
    found = [set(row) for row in near.search(keys[:200])[1].tolist()]
    right = [set(row) for row in exact.search(keys[:200])[1].tolist()]
    recall = np.mean([len(mine & its) / 20 for mine, its in zip(found, right, strict=True)])
    assert recall > 0.95
    assert near.probes <= len(near.centroids) / 10


# -- merging ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("build", [lambda: RingStore(60, 5, 0.1), lambda: AnnStore(60, 5, 0.1)], ids=["ring", "faiss"])
@pytest.mark.parametrize("second", [0, 20, 90])
def test_merged_rings_hold_the_second_after_the_first(early, monkeypatch, build, second):
    monkeypatch.setattr(ann, "PROBED", 1.0)
    whole, first, other = build(), build(), build()
    data, queries = unit_rows(50 + second), unit_rows(10, seed=1)[0]
    whole.write(*data)
    first.write(*(values[:50] for values in data))
    if second:
        other.write(*(values[50:] for values in data))
    first.merge_(other)
    assert first.n_stored == min(60, 50 + second)
    np.testing.assert_allclose(torch.stack(first.read(queries)), torch.stack(whole.read(queries)), atol=1e-5)


def test_a_ring_that_has_wrapped_around_is_merged_in_the_order_of_writing():
    data, queries = unit_rows(125), unit_rows(10, seed=1)[0]
    first, other = RingStore(60, 5, 0.1), RingStore(60, 5, 0.1)
    other.write(*(values[:85] for values in data))
    first.merge_(other)
    first.write(*(values[85:] for values in data))  # evicts the oldest that came with the other
    expected = [reference.neighbours_read(listed(data, 60), query, 5, 0.1) for query in queries.double().numpy()]
    assert_equal(first.read(queries), expected)


@pytest.mark.parametrize("half_life", [None, 50.0, 5.0])
def test_merged_sketches_are_the_sum_of_what_each_knows_now(half_life):
    first, other = (SketchStore(4, 6, half_life, seed=0) for _ in range(2))
    mine, theirs, queries = unit_rows(130), unit_rows(70, seed=2), unit_rows(30, seed=1)[0]
    write_in_parts(first, mine, 13)
    write_in_parts(other, theirs, 9)
    before = other.cells.clone()
    counts = first.cells / first.newest_weight + other.cells / other.newest_weight
    first.merge_(other)
    torch.testing.assert_close(first.cells / first.newest_weight, counts)
    assert torch.equal(other.cells, before)
    assert first.n_written == 200
    if half_life is None:
        both = SketchStore(4, 6, None, seed=0)
        both.write(*(torch.cat(parts) for parts in zip(mine, theirs, strict=True)))
        assert_equal(first.read(queries), torch.stack(both.read(queries), 1).tolist())


# -- whitening --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "dim", "max_dim"), [(500, 6, 64), (500, 12, 5), (10, 12, 64), (2, 3, 64)])
@pytest.mark.parametrize("parts", [1, 3])
def test_whitened_keys_equal_the_reference_up_to_a_rotation(n, dim, max_dim, parts):
    training, queries = rows(n, dim)[0] * torch.logspace(0, -1, dim), rows(20, dim, seed=1)[0]
    whitening = Whitening(max_dim)
    for part in training.tensor_split(parts):
        whitening.update(part)
    assert whitening.n_rows == n
    expected = reference.whiten(training.numpy(), queries.numpy(), max_dim)
    found = whitening(queries).double().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-4)


def test_wide_keys_are_whitened_alike(monkeypatch):
    """Beyond some width sums are made in float32; a large mean must not hurt."""
    keys, exact, fast = rows(3000, 20)[0] + 30, Whitening(), Whitening()
    exact.update(keys)
    monkeypatch.setattr(whitening_module, "_WIDE", 10)
    for part in keys.split(500):
        fast.update(part)
    queries = rows(50, 20, seed=1)[0] + 30
    first, second = exact(queries), fast(queries)
    torch.testing.assert_close(first @ first.T, second @ second.T, atol=1e-3, rtol=0)


def test_whitened_components_are_uncorrelated_and_of_equal_variance():
    keys = rows(5000, 10)[0] + 100
    whitening = Whitening()
    whitening.update(keys)
    whitening.prepare()
    components = (keys - whitening.mean) @ whitening.projection
    covariance = components.T @ components / 5000
    torch.testing.assert_close(covariance, torch.diag(covariance.diag()), atol=1e-3, rtol=0)
    assert covariance.diag().max() <= 1
    assert covariance.diag().min() > 0.85  # the ridge takes a little of the flattest direction


def test_flat_directions_are_dropped():
    keys, _, _ = rows(1000, 5)
    whitening = Whitening()
    whitening.update(torch.cat((keys, keys[:, :2], torch.ones(1000, 1)), 1))
    assert whitening(torch.randn(3, 8)).shape == (3, 5)


def test_keys_that_are_all_alike_are_left_as_they_are():
    whitening = Whitening()
    whitening.update(torch.full((9, 3), 2.0))
    keys = torch.eye(3)
    assert torch.equal(whitening(keys), keys)


def test_sealed_statistics_take_no_room_for_updates_and_new_ones_begin_anew():
    first, second = rows(300, 6)[0], rows(300, 6, seed=1)[0] * 3
    whitening, fresh = Whitening(), Whitening()
    whitening.update(first)
    whitening.prepare()
    before = whitening.nbytes
    whitening.seal()
    assert whitening.nbytes == (6 + 6 * 6) * 4 < before
    whitening.update(second)
    fresh.update(second)
    assert whitening.same_as(fresh)
    assert whitening.n_rows == 300
