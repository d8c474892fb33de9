"""RS2 and a selection over a sampler that plans whole batches: which batches, on how many ranks, and resume."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_adapt import rs2_loader
from lightning_adapt._shared.batch_planner import BatchPlanner
from lightning_adapt.lina_speech.data.length_sampler import LengthBatchSampler
from lightning_adapt.rs2.batch_rounds import BatchRounds
from lightning_adapt.rs2.figures import coverage_figure


class Frames(torch.utils.data.Dataset):
    def __getitem__(self, rows):
        return rows

    def __len__(self):
        return 60


def planner(**options) -> LengthBatchSampler:
    frames = 20 + torch.arange(60) * 7 % 50
    return LengthBatchSampler(frames, torch.arange(60) % 3, tokens_per_batch=300, seed=4, **options)


def plans(count, made=None) -> list:
    """The batches of the first plans, one after the other."""
    found = []
    for epoch in range(count):
        made = made or planner()
        made.set_epoch(epoch)
        found += list(made)
    return found


def rounds(sampler, count) -> list:
    found = []
    for number in range(count):
        sampler.set_epoch(number)
        found.append(list(sampler))
    return found


@pytest.mark.parametrize("ratio", [0.5, 0.3, 1.0])
def test_rounds_one_after_the_other_are_ordinary_training(ratio):
    sampler = BatchRounds(planner(), ratio)
    k = round(ratio * len(planner()))
    found = rounds(sampler, 7)
    assert {len(part) for part in found} == {len(sampler)} == {k}
    assert list(chain(*found)) == plans(7)[: 7 * k]
    assert sampler.coverage(2) == pytest.approx(min(1.0, 2 * k / len(planner())))


def test_independent_rounds_are_the_heads_of_their_plans():
    sampler, whole = BatchRounds(planner(), 0.5, mode="independent"), len(planner())
    assert rounds(sampler, 3) == [plans(3)[whole * number :][: whole // 2] for number in range(3)]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_batches_of_a_round(ranks):
    parts = []
    for rank in range(ranks):
        of_rank = {"num_replicas": ranks, "rank": rank}
        parts.append(rounds(BatchRounds(planner(**of_rank), 0.5, **of_rank), 4))
    assert len({len(part) for rank in parts for part in rank}) == 1
    of_all = BatchRounds(planner(num_replicas=ranks, rank=0), 0.5, num_replicas=ranks, rank=0)
    for number in range(4):
        rows = [row for rank in parts for batch in rank[number] for item in batch for row in item]
        assert sorted(rows) == sorted(of_all.epoch_rows(number).tolist())


def test_a_loader_goes_on_inside_a_round():
    def loader():
        return rs2_loader(DataLoader(Frames(), sampler=planner(), batch_size=None, collate_fn=list), 0.5)

    whole, stopped, resumed = loader(), loader(), loader()
    whole.sampler.set_epoch(1)
    expected = list(whole)
    stopped.sampler.set_epoch(1)
    batches = iter(stopped)
    first = [next(batches), next(batches)]
    resumed.load_state_dict(stopped.state_dict())
    assert first + list(resumed) == expected
    other = rs2_loader(DataLoader(Frames(), sampler=planner(max_joined=2), batch_size=None, collate_fn=list), 0.5)
    with pytest.raises(ValueError, match="plan: saved"):
        other.load_state_dict(stopped.state_dict())


def test_batches_of_some_rows_have_these_rows_and_no_others():
    rows, made = torch.arange(5, 45), planner()
    some = made.restricted(rows)
    assert sorted(some.epoch_rows(0).tolist()) == rows.tolist()
    assert (made.chosen_rows(), some.chosen_rows().tolist()) == (None, rows.tolist())
    assert sorted(made.epoch_rows(0).tolist()) == list(range(60)), "the other one stays as it is"
    limits = [sum(made.frames[row] for row in item) for batch in some for item in batch]
    assert max(limits) <= 300
    again = made.restricted(rows)
    assert [list(again), again.fingerprint()] == [list(made.restricted(rows)), some.fingerprint()]
    assert some.fingerprint() != made.fingerprint()


def test_rounds_follow_when_the_rows_change():
    made = planner().restricted(torch.arange(40))
    sampler = BatchRounds(made, 0.5)
    before = len(sampler), sampler.version
    assert max(sampler.epoch_rows(0).tolist()) < 40
    made.set_rows(torch.arange(40, 60))
    assert min(sampler.epoch_rows(0).tolist()) >= 40
    assert (len(sampler), sampler.version) != before
    assert sampler.version == before[1] + 1


@pytest.mark.parametrize("rows", [[], [3, 3], [-1, 2], [60]])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(ValueError, match="`rows` must be distinct numbers of the 60 rows, at least one"):
        planner().set_rows(torch.tensor(rows, dtype=torch.int64))


def test_what_a_round_cannot_be_is_said():
    with pytest.raises(ValueError, match=r"`mode` must be one of .* plans whole batches, but got 'bootstrap'"):
        BatchRounds(planner(), 0.5, mode="bootstrap")
    with pytest.raises(ValueError, match=r"one for each of 1 ranks, but got 0.01. Use ratio >= 0\.\d+"):
        len(BatchRounds(planner(), 0.01))
    for argument, error in (({"power": 2.0}, ValueError), ({"sead": 3}, TypeError)):
        with pytest.raises(error, match=next(iter(argument))):
            rs2_loader(DataLoader(Frames(), sampler=planner(), batch_size=None, collate_fn=list), 0.5, **argument)
    with pytest.raises(TypeError, match="several rows"):
        BatchRounds(planner(), 0.5).rank_rows(torch.arange(2))


def test_a_planner_must_be_written():
    base = BatchPlanner(3)
    for name, arguments in {"batch": (0, 0), "chosen_rows": (), "set_rows": (torch.arange(2),), "copy": ()}.items():
        with pytest.raises(NotImplementedError, match=f"BatchPlanner must implement {name}"):
            getattr(base, name)(*arguments)


@pytest.mark.parametrize("mode", ["without", "independent"])
@pytest.mark.parametrize("rows", [None, torch.arange(5, 45)], ids=["all rows", "some"])
def test_the_figure_counts_the_rows_of_the_batches(rows, mode):
    made = planner() if rows is None else planner().restricted(rows)
    sampler = BatchRounds(made, 0.5, mode=mode)
    left, right = coverage_figure(sampler, 5).axes
    visits = Counter(row for number in range(5) for row in sampler.epoch_rows(number).tolist())
    times = [visits[row] for row in (range(60) if rows is None else rows.tolist())]
    expected = [times.count(number) / len(times) for number in range(max(times) + 1)]
    assert [bar.get_height() for bar in right.patches] == pytest.approx(expected)
    assert f"{len(sampler)} of {len(made)} batches" in left.get_title()


def test_another_number_of_ranks_is_refused_with_advice_that_helps():
    def rounds_on(ranks, tokens):
        options = {"num_replicas": ranks, "rank": 0}
        frames = 20 + torch.arange(60) * 7 % 50
        return BatchRounds(LengthBatchSampler(frames, tokens_per_batch=tokens, seed=4, **options), 0.5, **options)

    def of_all_ranks(sampler):
        whole, ranks = sampler.planner, sampler.num_replicas
        batches = [whole.batch(0, number) for number in range(whole.epoch_size(0))]
        return [set(chain(*chain(*batches[first : first + ranks]))) for first in range(0, len(batches), ranks)]

    two, one = rounds_on(2, 300), rounds_on(1, 600)
    assert of_all_ranks(two) != of_all_ranks(one), "so a place in one is no place in the other"
    with pytest.raises(ValueError, match="Resume with the same data set, arguments and number of ranks, or start"):
        one.load_state_dict(two.state_dict())
    rounds_on(2, 300).load_state_dict(two.state_dict())
