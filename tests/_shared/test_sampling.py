"""EpochSampler and RowSampler on their own."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from lightning_adapt import RS2Sampler
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt._shared.sampling import EpochSampler, check_fingerprint


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


def test_all_of_them_are_distributed_samplers_which_lightning_leaves_alone():
    for sampler in (RowSampler([1]), RS2Sampler(3, 1.0)):
        assert isinstance(sampler, DistributedSampler)


def test_ranks_are_one_and_zero_without_a_process_group():
    sampler = RowSampler(range(5))
    assert (sampler.num_replicas, sampler.rank) == (1, 0)


def test_ranks_follow_a_process_group_that_starts_later(monkeypatch):
    sampler = RowSampler(range(6))
    assert len(sampler) == 6
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    assert (sampler.num_replicas, sampler.rank, len(sampler)) == (3, 2, 2)
    assert list(sampler) == sampler.epoch_rows(0).tolist()[2::3]


def test_the_base_class_asks_for_its_two_methods():
    with pytest.raises(NotImplementedError, match="EpochSampler must implement epoch_size"):
        len(EpochSampler(4))
    with pytest.raises(NotImplementedError, match="EpochSampler must implement draw"):
        EpochSampler(4).draw(0, torch.arange(1))
    assert EpochSampler(4).fingerprint() == {"n": 4, "seed": 0}


@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_rows_are_shuffled_and_sharded_without_repeats(replicas):
    rows = list(range(100, 123))
    shards = [RowSampler(rows, num_replicas=replicas, rank=rank, seed=1) for rank in range(replicas)]
    for number in range(3):
        drawn = [epoch(shard, number) for shard in shards]
        assert {len(part) for part in drawn} == {23 // replicas}
        together = [row for step in zip(*drawn, strict=True) for row in step]
        assert together == shards[0].epoch_rows(number).tolist()
        assert len(set(together)) == len(together) == 23 // replicas * replicas
        assert set(together) <= set(rows)


def test_epochs_and_seeds_give_orders_of_their_own():
    orders = {tuple(epoch(RowSampler(range(30), seed=seed), number)) for seed in range(5) for number in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("start", [0, 1, 7, 10])
def test_start_at_skips_once(start):
    sampler = RowSampler(range(10))
    whole = epoch(sampler, 2)
    sampler.start_at(start)
    assert list(sampler) == whole[start:]
    assert list(sampler) == whole


def test_set_rows_replaces_the_rows_and_counts():
    given = torch.tensor([4, 5, 6])
    sampler = RowSampler(given)
    given[0] = 99  # the sampler has a copy
    assert sorted(sampler) == [4, 5, 6]
    sampler.set_rows([7, 8])
    assert sorted(sampler) == [7, 8]
    assert (sampler.version, sampler.n_rows, len(sampler)) == (1, 2, 2)
    stacked = RS2Sampler(sampler, 0.5)
    assert (stacked.version, stacked.n_rows) == (1, 2)


@pytest.mark.parametrize("rows", [[], [-1, 2], [3, 3]])
def test_rows_are_checked(rows):
    for use in (RowSampler, RowSampler([1]).set_rows):
        with pytest.raises(ValueError, match=r"`rows` must be .*Pass each row of the data set at most once"):
            use(rows)


def test_samplers_stack():
    inner = RowSampler(range(50, 90))
    outer = RS2Sampler(inner, 0.25)
    assert outer.n_rows == 40  # it samples the rows that the other chooses from
    assert sorted(row for number in range(4) for row in epoch(outer, number)) == list(range(50, 90))


def test_fingerprints():
    check_fingerprint("X", saved={"a": 1, "b": None}, here={"b": None, "a": 1})
    with pytest.raises(ValueError, match=r"state of X .* \(a: saved 1, here 2, c: saved None, here 3\)"):
        check_fingerprint("X", saved={"a": 1, "b": 0}, here={"a": 2, "b": 0, "c": 3})
