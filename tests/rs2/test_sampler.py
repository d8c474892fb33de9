"""RS2Sampler: every row is visited evenly, whatever the ranks; plain PyTorch use and resume."""

from __future__ import annotations

import io
from itertools import product

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_adapt import RS2Sampler
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt._shared.sampling import StateMismatchError
from lightning_adapt._shared.state import check_plain
from tests.reference import rs2 as reference
from tests.rs2.parts import Rows, flat, rows_of

RATIOS = [0.01, 0.07, 0.1, 0.3, 0.9]


def draw_round(sampler, round_index):
    sampler.set_epoch(round_index)
    return list(sampler)


def count_visits(samplers, rounds, n):
    """Visits of each row, from what `__iter__` turns to indices, without the Python list."""
    counts = torch.zeros(n, dtype=torch.int64)
    for t in range(rounds):
        for sampler in samplers:
            positions = torch.arange(sampler.rank, sampler.epoch_size(t), sampler.num_replicas)
            counts += torch.bincount(sampler.draw(t, positions), minlength=n)
    return counts


def assert_even(counts, rounds, k):
    low, rest = divmod(rounds * k, len(counts))
    assert int(counts.sum()) == rounds * k
    assert int(counts.min()) == low
    assert int(counts.max()) == low + (rest > 0)


@pytest.mark.parametrize(("n", "ratio"), [*product([1000, 60_000], RATIOS), (1_281_167, 0.1), (1_281_167, 0.3)])
def test_every_row_is_visited_evenly_over_200_rounds(n, ratio):
    sampler = RS2Sampler(n, ratio, seed=3)
    assert sampler.epoch_size(0) == round(ratio * n)
    assert_even(count_visits([sampler], 200, n), 200, round(ratio * n))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("n", [1000, 60_000])
def test_every_row_is_visited_evenly_with_classes_in_proportion(n, ratio):
    targets = (torch.arange(n) % 100 == 0).long() + (torch.arange(n) % 3)
    sampler = RS2Sampler(n, ratio, targets=targets)
    assert_even(count_visits([sampler], 200, n), 200, round(ratio * n))


@pytest.mark.parametrize("targets", [None, torch.arange(1003) % 5])
@pytest.mark.parametrize("permutation", ["randperm", "feistel"])
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_every_row_is_visited_evenly_over_all_ranks(replicas, permutation, targets):
    shards = [
        RS2Sampler(1003, 0.07, num_replicas=replicas, rank=rank, round_to=4, permutation=permutation, targets=targets)
        for rank in range(replicas)
    ]
    k = 70 // (4 * replicas) * 4 * replicas
    assert [len(shard) for shard in shards] == [k // replicas] * replicas
    assert_even(count_visits(shards, 200, 1003), 200, k)
    for t in (0, 14, 15):  # round 14 crosses the end of the first pass
        drawn = [draw_round(shard, t) for shard in shards]
        assert len(set().union(*drawn)) >= k - 1 - (t == 14) * k
        assert {len(part) for part in drawn} == {k // replicas}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"permutation": "feistel"},
        {"mode": "independent"},
        {"mode": "bootstrap"},
        {"targets": [row % 3 for row in range(500)]},
        {"mode": "bootstrap", "targets": [row % 3 for row in range(500)]},
        {"mode": "independent", "weights": [1.0 + row for row in range(500)]},
        {"ratio": 0.25, "boundary": "partition"},
    ],
)
def test_the_number_of_ranks_does_not_change_the_global_batches(options):
    def global_batches(replicas):
        shards = [
            RS2Sampler(500, **{"ratio": 0.3, **options}, num_replicas=replicas, rank=rank, round_to=8 // replicas)
            for rank in range(replicas)
        ]
        per_rank = 8 // replicas
        rounds = []
        for t in range(7):
            drawn = [draw_round(shard, t) for shard in shards]
            steps = range(0, len(drawn[0]), per_rank)
            rounds.append([sorted(row for part in drawn for row in part[s : s + per_rank]) for s in steps])
        return rounds

    one = global_batches(1)
    assert {len(batch) for batches in one for batch in batches} == {8}
    assert global_batches(2) == one
    assert global_batches(4) == one


@pytest.mark.parametrize("replicas", [1, 3])
def test_rounds_equal_the_stream_written_out(replicas):
    n, ratio = 50, 0.3
    whole = RS2Sampler(n, ratio, round_to=1, num_replicas=replicas, rank=0)
    passes = [_pass(whole, cycle) for cycle in range(7)]
    k = 15 // replicas * replicas
    for t in range(20):
        expected = reference.stream_round(passes, t, k)
        assert whole.epoch_rows(t).tolist() == expected
        for rank in range(replicas):
            shard = RS2Sampler(n, ratio, num_replicas=replicas, rank=rank)
            assert draw_round(shard, t) == reference.shard(expected, rank, replicas)


def _pass(sampler, cycle):
    """Pass `cycle` of the key that the sampler documents: (seed, mode, version of the population)."""
    return reference.randperm(sampler.n_rows, reference.key_of(sampler.seed, 0, 0), cycle)


def test_a_round_that_crosses_a_pass_is_drawn_in_chunks_as_a_whole(monkeypatch):
    whole = [draw_round(RS2Sampler(1000, 0.3), t) for t in range(8)]
    monkeypatch.setattr("lightning_adapt._shared.sampling._CHUNK", 7)
    assert [draw_round(RS2Sampler(1000, 0.3), t) for t in range(8)] == whole


def test_rounds_may_be_asked_for_in_any_order_and_again():
    sampler, other = RS2Sampler(300, 0.1, seed=5), RS2Sampler(300, 0.1, seed=5)
    forward = [draw_round(sampler, t) for t in range(40)]
    assert [draw_round(other, t) for t in reversed(range(40))] == forward[::-1]
    assert draw_round(sampler, 17) == draw_round(sampler, 17) == forward[17]


def test_drawing_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw_round(RS2Sampler(100, 0.5, targets=[0] * 100), 1)
    draw_round(RS2Sampler(100, 0.5, mode="independent", weights=[1.0] * 100), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_neighbouring_seeds_and_modes_are_unrelated():
    orders = [
        tuple(draw_round(RS2Sampler(200, 0.5, seed=seed, mode=mode), t))
        for seed in range(4)
        for mode in ("without", "independent")
        for t in range(2)
    ]
    assert len(set(orders)) == 16


# -- plain PyTorch -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_plain_dataloader_ten_rounds_see_every_row_once(workers):
    sampler = RS2Sampler(Rows(200), 0.1, round_to=5)
    loader = DataLoader(Rows(200), batch_size=5, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
    seen = []
    for t in range(10):
        sampler.set_epoch(t)
        batches = rows_of(loader)
        assert [len(batch) for batch in batches] == [5] * len(loader) == [5] * 4
        seen += [row for batch in batches for row in batch]
    assert sorted(seen) == list(range(200))


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_state_resumes_in_the_middle_of_a_round_also_with_other_ranks(replicas):
    saved = RS2Sampler(600, 0.2, num_replicas=2, rank=1, round_to=6)
    saved.set_epoch(7)
    running = iter(saved)
    for _ in range(30):
        next(running)
    state = saved.state_dict()
    check_plain(state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    expected = saved.epoch_rows(7).tolist()[60:]

    rest = []
    for rank in range(replicas):
        resumed = RS2Sampler(600, 0.2, num_replicas=replicas, rank=rank, round_to=12 // replicas)
        resumed.load_state_dict(state)
        assert resumed.epoch == 7
        assert len(resumed) == 120 // replicas  # the length stays that of the whole round
        rest.append(list(resumed))
        assert len(list(resumed)) == len(resumed)  # the skip is for one iteration only
    assert [row for step in zip(*rest, strict=True) for row in step] == expected


def test_state_survives_saving_again_before_the_first_draw():
    saved = RS2Sampler(100, 0.5)
    running = iter(saved)
    expected = [next(running) for _ in range(50)][20:]
    running = iter(saved)
    for _ in range(20):
        next(running)
    between = RS2Sampler(100, 0.5)
    between.load_state_dict(saved.state_dict())
    last = RS2Sampler(100, 0.5)
    last.load_state_dict(between.state_dict())
    assert list(last) == expected


def test_state_after_leaving_a_round_early_starts_the_next_one_at_its_head():
    sampler = RS2Sampler(100, 0.5)
    running = iter(sampler)
    for _ in range(20):
        next(running)
    sampler.set_epoch(1)
    resumed = RS2Sampler(100, 0.5)
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.epoch == 1
    assert list(resumed) == draw_round(RS2Sampler(100, 0.5), 1)


def test_state_after_a_whole_round_continues_with_the_next():
    sampler = RS2Sampler(100, 0.5)
    draw_round(sampler, 3)
    resumed = RS2Sampler(100, 0.5)
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.epoch == 4
    assert list(resumed) == draw_round(RS2Sampler(100, 0.5), 4)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"data_source": 101}, ["n: saved 100, here 101"]),
        ({"ratio": 0.4}, ["k: saved 50, here 40"]),
        ({"seed": 1}, ["seed: saved 0, here 1"]),
        ({"mode": "independent"}, ["mode: saved 'without', here 'independent'"]),
        ({"boundary": "partition"}, ["boundary: saved 'stream', here 'partition'"]),
        ({"permutation": "feistel"}, ["permutation: saved 'randperm', here 'feistel'"]),
        ({"targets": [0] * 100}, ["targets: saved None"]),
        ({"mode": "independent", "weights": [1.0] * 100}, ["weights: saved None", "mode: saved 'without'"]),
    ],
)
def test_state_of_another_order_is_refused_with_each_difference_named(other, words):
    state = RS2Sampler(100, 0.5).state_dict()
    with pytest.raises(ValueError, match="RS2Sampler belongs to another sample order") as caught:
        RS2Sampler(**{"data_source": 100, "ratio": 0.5, **other}).load_state_dict(state)
    for part in [*words, "Resume with the same data set"]:
        assert part in str(caught.value)


def test_state_with_ranks_that_do_not_divide_the_samples_used_is_refused():
    saved = RS2Sampler(600, 0.1)
    running = iter(saved)
    for _ in range(7):
        next(running)
    with pytest.raises(ValueError, match="`num_replicas` must be a divisor of the 7 samples"):
        RS2Sampler(600, 0.1, num_replicas=2, rank=0).load_state_dict(saved.state_dict())


def test_over_a_row_sampler_it_draws_its_rows_and_plans_anew_when_they_change():
    inner = RowSampler(range(100, 150))
    sampler = RS2Sampler(inner, 0.2)
    first = [draw_round(sampler, t) for t in range(5)]
    assert sorted(flat(first)) == list(range(100, 150))
    inner.set_rows(range(40))
    assert len(sampler) == 8
    assert sampler.version == 1
    second = [draw_round(sampler, t) for t in range(5)]
    assert sorted(flat(second)) == list(range(40))


def test_other_rows_are_another_stream_and_another_fingerprint_the_same_rows_are_not():
    inner = RowSampler(range(50))
    sampler = RS2Sampler(inner, 0.5)
    before, state = sampler.draw(0, torch.arange(25)).tolist(), sampler.state_dict()
    inner.set_rows(range(50))
    assert sampler.draw(0, torch.arange(25)).tolist() == before
    sampler.load_state_dict(state)
    inner.set_rows(range(50, 100))
    assert sampler.draw(0, torch.arange(25)).tolist() != before
    with pytest.raises(StateMismatchError, match="rows: saved"):
        sampler.load_state_dict(state)
