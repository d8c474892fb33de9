"""EndlessSampler: epochs of a fixed length, passes in full, the same places for every number of ranks."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_adapt import RS2Sampler
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt.saa.data.sampler import DrawnRow, EndlessSampler


def epochs(sampler: EndlessSampler, n: int) -> list[list[int]]:
    drawn = []
    for number in range(n):
        sampler.set_epoch(number)
        drawn.append(list(sampler))
    return drawn


@pytest.mark.parametrize(("rows", "per_epoch"), [(40, 64 * 3), (100, 30), (7, 7), (1, 5)])
def test_passes_follow_each_other_in_full(rows, per_epoch):
    drawn = [row for epoch in epochs(EndlessSampler(rows, per_epoch), 8) for row in epoch]
    assert len(drawn) == 8 * per_epoch
    passes = [drawn[first : first + rows] for first in range(0, len(drawn) - rows + 1, rows)]
    assert all(sorted(one) == list(range(rows)) for one in passes)
    assert rows < 7 or len({tuple(one) for one in passes}) == len(passes), "each pass has an order of its own"


def test_forty_labels_give_batches_of_64_on_two_ranks():
    shards = [EndlessSampler(40, 4 * 64, num_replicas=2, rank=rank) for rank in range(2)]
    for shard in shards:
        assert [len(batch) for batch in DataLoader(torch.arange(40), 64, sampler=shard)] == [64] * 4
    both = [row for pair in zip(*map(list, shards), strict=True) for row in pair]
    assert both == epochs(EndlessSampler(40, 2 * 4 * 64), 1)[0]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_rows_and_places_do_not_depend_on_the_number_of_ranks(ranks, replacement):
    alone = EndlessSampler(50, 24, replacement=replacement, seed=3)
    shards = [
        EndlessSampler(50, 24 // ranks, replacement=replacement, num_replicas=ranks, rank=rank, seed=3)
        for rank in range(ranks)
    ]
    for number in range(4):
        whole = [(row, row.draw) for row in epochs_at(alone, number)]
        parts = [[(row, row.draw) for row in epochs_at(shard, number)] for shard in shards]
        assert [pair for row in zip(*parts, strict=True) for pair in row] == whole
        assert [draw for _, draw in whole] == list(range(24 * number, 24 * (number + 1)))


def epochs_at(sampler: EndlessSampler, number: int) -> list[DrawnRow]:
    sampler.set_epoch(number)
    return list(sampler)


def test_with_replacement_draws_are_uniform_and_independent():
    sampler = EndlessSampler(20, 20_000, replacement=True)
    counts = torch.bincount(torch.tensor(list(sampler)), minlength=20)
    chi_square = ((counts - 1_000.0).square() / 1_000).sum()
    assert chi_square < 36.2, "19 degrees of freedom, p = 0.01"
    assert len(set(list(sampler)[:20])) < 20


def test_it_starts_anywhere_in_an_epoch():
    sampler = EndlessSampler(30, 20, seed=1)
    sampler.set_epoch(2)
    whole = [(row, row.draw) for row in sampler]
    sampler.start_at(13)
    assert [(row, row.draw) for row in sampler] == whole[13:]
    again = EndlessSampler(30, 20, seed=1)
    iterator = iter(sampler)
    for _ in range(6):
        next(iterator)
    again.load_state_dict(sampler.state_dict())
    assert [(row, row.draw) for row in again] == whole[6:]
    with pytest.raises(ValueError, match="samples per epoch: saved 20, here 10"):
        EndlessSampler(30, 10, seed=1).load_state_dict(sampler.state_dict())


def test_a_drawn_row_is_an_int_that_survives_workers_and_copies():
    row = DrawnRow(5, 2**40)
    for copied in (row, copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert (copied, copied.draw, [10, 11, 12, 13, 14, 15][copied]) == (5, 2**40, 15)


def test_seeds_give_different_orders_and_it_stacks_with_our_other_samplers():
    assert epochs(EndlessSampler(30, 30), 1) != epochs(EndlessSampler(30, 30, seed=1), 1)
    inner = RowSampler([2, 3, 5, 7, 11])
    assert set(EndlessSampler(inner, 10)) == {2, 3, 5, 7, 11}
    assert set(RS2Sampler(EndlessSampler(20, 100), 0.5)) <= set(range(20))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`samples_per_rank` must be a whole number >= 1"):
        EndlessSampler(4, 0)
    with pytest.raises(TypeError, match="`replacement` must be True or False"):
        EndlessSampler(4, 4, replacement=1)
    with pytest.raises(ValueError, match="`data_source`"):
        EndlessSampler([], 4)
