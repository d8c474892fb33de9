"""rs2_loader: the user's loader with rounds in place of epochs, resumable inside a round."""

from __future__ import annotations

import copy
import io
import itertools

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler
from torch.utils.data.distributed import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from lightning_adapt import RS2Sampler, rs2_loader
from lightning_adapt._shared.loaders import LoaderConflictError
from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt._shared.state import check_plain
from tests.rs2.parts import Rows, flat, pair_loader, row_loader, rows_of


def double(samples):
    return torch.stack(samples) * 2


def note_worker(worker):
    torch.manual_seed(worker)


def one_round(loader, number):
    loader.sampler.set_epoch(number)
    return rows_of(loader)


def test_every_other_setting_of_the_loader_is_kept():
    own = torch.Generator()
    options = {
        "num_workers": 2,
        "collate_fn": double,
        "generator": own,
        "worker_init_fn": note_worker,
        "prefetch_factor": 5,
        "timeout": 7,
        "drop_last": True,
        "multiprocessing_context": "fork",
        "in_order": False,
    }
    loader = row_loader(**options)
    before = dict(vars(loader))
    rounds = rs2_loader(loader, 0.5)
    for name in ("num_workers", "collate_fn", "generator", "worker_init_fn", "prefetch_factor", "timeout", "drop_last"):
        assert getattr(rounds, name) == getattr(loader, name) == options[name]
    assert rounds.multiprocessing_context.get_start_method() == "fork"
    assert rounds.in_order is False
    assert rounds.dataset is loader.dataset
    assert rounds.batch_size == 4
    assert rounds.persistent_workers
    assert not loader.persistent_workers
    assert vars(loader) == before  # the user's loader is as it was
    assert isinstance(loader.sampler, RandomSampler)
    assert len(loader) == 20


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize("pin_memory", [True, False])
def test_pinning_is_kept_and_no_workers_stay_no_workers(pin_memory):
    rounds = rs2_loader(row_loader(pin_memory=pin_memory), 0.5)
    assert rounds.pin_memory is pin_memory
    assert rounds.num_workers == 0
    assert not rounds.persistent_workers


def test_collate_fn_is_used():
    assert sorted(flat(rows_of(rs2_loader(row_loader(collate_fn=double), 1.0)))) == list(range(0, 160, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_stay_alive_over_rounds_and_do_not_change_the_order(workers):
    rounds = rs2_loader(row_loader(num_workers=workers), 0.25)
    expected = RS2Sampler(80, 0.25, round_to=4)
    first = None
    for number in range(5):
        expected.set_epoch(number)
        assert flat(one_round(rounds, number)) == list(expected)
        if workers:
            pids = [worker.pid for worker in rounds._iterator._workers]
            first = first or pids
            assert pids == first


def test_a_round_is_whole_batches_whatever_drop_last():
    for drop_last in (False, True):
        rounds = rs2_loader(row_loader(n=103, batch_size=8, drop_last=drop_last), 0.3)
        assert len(rounds) == 3
        assert [len(batch) for batch in one_round(rounds, 0)] == [8, 8, 8]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [0, 1, 3, 4])
def test_resume_inside_a_round_is_exact(workers, batches):
    saved = rs2_loader(row_loader(num_workers=workers), 0.25)  # 5 batches
    saved.sampler.set_epoch(6)
    running = iter(saved)
    for _ in range(batches):
        next(running)
    state = saved.state_dict()
    check_plain(state)
    rest = rows_of(running)

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    resumed = rs2_loader(row_loader(num_workers=workers), 0.25)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.sampler.epoch == 6
    assert len(resumed) == 5
    assert resumed.state_dict() == state
    assert rows_of(resumed) == rest
    assert one_round(resumed, 7) == one_round(saved, 7)


def test_state_after_a_whole_round_continues_with_the_next():
    saved = rs2_loader(row_loader(), 0.25)
    one_round(saved, 2)
    resumed = rs2_loader(row_loader(), 0.25)
    resumed.load_state_dict(saved.state_dict())
    assert rows_of(resumed) == one_round(rs2_loader(row_loader(), 0.25), 3)


def test_state_after_leaving_a_round_early_starts_the_next_one_at_its_head():
    saved = rs2_loader(row_loader(), 0.25)
    next(iter(saved))
    saved.sampler.set_epoch(1)
    resumed = rs2_loader(row_loader(), 0.25)
    resumed.load_state_dict(saved.state_dict())
    assert rows_of(resumed) == one_round(rs2_loader(row_loader(), 0.25), 1)


def test_a_restored_position_holds_for_its_own_round_only():
    saved = rs2_loader(row_loader(), 0.25)
    next(iter(saved))
    resumed = rs2_loader(row_loader(), 0.25)
    resumed.load_state_dict(saved.state_dict())
    assert len(one_round(resumed, 1)) == 5


def test_resume_with_other_ranks_keeps_the_global_batches():
    saved = [rs2_loader(row_loader(batch_size=2), 0.25, num_replicas=2, rank=rank) for rank in range(2)]
    running = [iter(loader) for loader in saved]
    for iterator in running:
        next(iterator)
        next(iterator)
    state = saved[1].state_dict()
    rest = [sorted(flat(pair)) for pair in zip(*map(rows_of, running), strict=True)]
    resumed = rs2_loader(row_loader(batch_size=4), 0.25)
    resumed.load_state_dict(state)
    assert [sorted(batch) for batch in rows_of(resumed)] == rest


def test_a_state_without_version_is_refused():
    state = rs2_loader(row_loader(), 0.25).state_dict()
    del state["version"]
    with pytest.raises(ValueError, match="no valid `version`"):
        rs2_loader(row_loader(), 0.25).load_state_dict(state)


def test_a_position_given_from_outside_wins():
    run = {"epoch": 2, "used": 3}
    rounds = rs2_loader(row_loader(), 0.25, position=lambda: (run["epoch"], run["used"]))
    rounds.sampler.set_epoch(7)  # not what the run says
    assert rows_of(rounds) == one_round(rs2_loader(row_loader(), 0.25), 2)[3:]
    run.update(epoch=3)
    assert rows_of(rounds) == one_round(rs2_loader(row_loader(), 0.25), 3), "only the first iterator begins inside"


def test_the_epoch_may_be_set_after_the_iterator_was_made():
    rounds = rs2_loader(row_loader(num_workers=2), 0.25)
    early = iter(rounds)  # what Lightning does
    rounds.sampler.set_epoch(9)
    assert rows_of(early) == one_round(rs2_loader(row_loader(), 0.25), 9)
    assert len(early) == 5


# -- kinds of loaders --------------------------------------------------------------------------------------------
def test_a_loader_without_batches():
    rounds = rs2_loader(DataLoader(Rows(40), batch_size=None, shuffle=True), 0.25)
    assert len(rounds) == 10
    seen = [row for number in range(4) for sample in one_round(rounds, number) for row in sample]
    assert sorted(seen) == list(range(40))
    running = iter(rounds)
    next(running)
    state = rounds.state_dict()
    resumed = rs2_loader(DataLoader(Rows(40), batch_size=None), 0.25)
    resumed.load_state_dict(state)
    assert rows_of(resumed) == rows_of(running)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_torchdata_stateful_loader(shuffle):
    rounds = rs2_loader(StatefulDataLoader(Rows(40), batch_size=4, shuffle=shuffle), 0.5)
    assert isinstance(rounds, ResumableLoader)
    assert sorted(flat(one_round(rounds, 0) + one_round(rounds, 1))) == list(range(40))


@pytest.mark.parametrize("indices", [[5, 9, 11, 60], torch.tensor([5, 9, 11, 60])])
def test_a_subset_random_sampler_keeps_its_rows(indices):
    rounds = rs2_loader(row_loader(batch_size=2, sampler=SubsetRandomSampler(indices)), 0.5)
    assert len(rounds) == 1
    assert sorted(flat(one_round(rounds, 0) + one_round(rounds, 1))) == [5, 9, 11, 60]


def test_rows_that_change_are_planned_anew():
    inner = RowSampler(range(40, 80))
    rounds = rs2_loader(row_loader(sampler=inner), 0.5)
    assert {row for number in range(2) for row in flat(one_round(rounds, number))} == set(range(40, 80))
    inner.set_rows([1, 3, 5, 7, 9, 11, 13, 15])
    assert len(rounds) == 1
    assert {row for number in range(2, 4) for row in flat(one_round(rounds, number))} == {*range(1, 16, 2)}


def test_a_distributed_sampler_is_replaced_by_ours():
    loader = row_loader(sampler=DistributedSampler(Rows(80), num_replicas=2, rank=1))
    parts = [rs2_loader(loader, 0.5, num_replicas=2, rank=rank) for rank in range(2)]
    drawn = [flat(one_round(part, 0)) for part in parts]
    assert [len(rows) for rows in drawn] == [20, 20]
    assert len(set(drawn[0]) | set(drawn[1])) == 40


def test_stratify_reads_the_targets():
    rounds = rs2_loader(row_loader(), 0.1, stratify=True)  # four classes, eight rows a round
    for number in range(10):
        classes = [row % 4 for row in flat(one_round(rounds, number))]
        assert sorted(classes) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert rs2_loader(pair_loader(), 0.1, stratify=True).sampler.targets.tolist() == [row % 3 for row in range(80)]


@pytest.mark.parametrize("mode", ["independent", "bootstrap"])
def test_mode_and_seed_reach_the_sampler(mode):
    sampler = rs2_loader(row_loader(), 0.5, mode=mode, seed=11).sampler
    assert (sampler.mode, sampler.seed, sampler.ratio, sampler.round_to) == (mode, 11, 0.5, 4)


@pytest.mark.parametrize("options", [{"replacement": True}, {"num_samples": 20}])
def test_a_random_sampler_that_means_more_than_shuffling_is_refused(options):
    with pytest.raises(LoaderConflictError, match="train loader"):
        rs2_loader(row_loader(sampler=RandomSampler(Rows(80), **options)), 0.5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [2, None], ids=["partly", "wholly"])
def test_a_second_pass_over_the_loader_leaves_the_first_alone(workers, taken):
    whole = rows_of(rs2_loader(row_loader(), 0.25))
    rounds = rs2_loader(row_loader(num_workers=workers), 0.25)
    outer = iter(rounds)
    seen = [next(outer), next(outer)]
    inner = list(itertools.islice(iter(rounds), taken))
    assert rows_of(inner) == whole[:taken]
    assert rounds.state_dict()["batches"] == 2
    seen += outer
    assert rows_of(seen) == whole


def test_the_restored_position_belongs_to_the_first_iterator():
    rounds = rs2_loader(row_loader(), 0.25)
    running = iter(rounds)
    seen = [next(running), next(running)]
    again = rs2_loader(row_loader(), 0.25)
    again.load_state_dict(rounds.state_dict())
    rest, other = iter(again), iter(again)
    assert rows_of(other) == rows_of(rs2_loader(row_loader(), 0.25))
    assert rows_of([*seen, *rest]) == rows_of(rs2_loader(row_loader(), 0.25))


def test_a_used_loader_with_workers_can_be_copied():
    rounds = rs2_loader(row_loader(num_workers=2), 0.25)
    first = rows_of(rounds)
    assert rows_of(copy.deepcopy(rounds)) == first
