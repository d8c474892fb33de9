"""LengthBatchSampler: every row once, limits kept, joins of one speaker, constant length, ranks, resume."""

from __future__ import annotations

import math
import time
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

from lightning_adapt._shared.resumable_loader import ResumableLoader
from lightning_adapt.lina_speech.data.length_sampler import FixedBatches, LengthBatchSampler
from lightning_adapt.rs2.sampler import RS2Sampler


def speech(count, seed=0, speakers=5, longest=400):
    random = np.random.default_rng(seed)
    frames = np.clip(random.lognormal(4.3, 0.7, count), 5, longest).astype(int)
    return frames.tolist(), random.integers(0, speakers, count).tolist()


def sampler(count=300, **options):
    seed = options.pop("data_seed", 0)
    given = {"tokens_per_batch": 1500, "max_batch_size": 12, "max_frames": 500}
    return LengthBatchSampler(*speech(count, seed), **{**given, **options})


def batches(made, epoch=0):
    made.set_epoch(epoch)
    return list(made)


CASES = [
    {},
    {"join_probability": 0.0},
    {"join_probability": 1.0, "max_joined": 5},
    {"max_joined": 1},
    {"tokens_per_batch": 401, "max_frames": None},
    {"max_batch_size": 1},
    {"count": 1},
    {"count": 7, "tokens_per_batch": 10**6},
    {"join_probability": 1.0, "max_joined": 2, "max_frames": 10_000, "tokens_per_batch": 5000, "max_batch_size": 64},
]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("epoch", [0, 5])
def test_the_promises_hold(options, epoch):
    made = sampler(**options)
    frames, speakers = speech(made.n_rows)
    found = batches(made, epoch)
    assert len(found) == len(made) == len(batches(made, 3))
    rows = list(chain(*chain(*found)))
    assert max(Counter(rows).values()) == 1
    assert len(rows) == made.n_rows or made.plan(epoch).dropped_batches
    for batch in found:
        lengths = [sum(frames[row] for row in item) for item in batch]
        assert 1 <= len(batch) <= made.max_batch_size
        assert len(batch) * max(lengths) <= made.tokens_per_batch
        for item, length in zip(batch, lengths, strict=True):
            assert 1 <= len(item) <= made.max_joined
            assert len({speakers[row] for row in item}) == 1
            assert len(item) == 1 or length <= made.max_frames


def test_joins_are_as_many_and_as_large_as_asked_for():
    frames = [10] * 6000
    made = LengthBatchSampler(frames, tokens_per_batch=4000, join_probability=0.3, max_joined=4)
    sizes = Counter(len(item) for batch in batches(made) for item in batch)
    items = sum(sizes.values())
    assert abs(sizes[1] / items - 0.7) < 0.02
    assert all(abs(sizes[size] / items - 0.1) < 0.02 for size in (2, 3, 4))


def test_padding_is_little_and_reported_as_it_is():
    made = sampler(2000, tokens_per_batch=4000, max_batch_size=64)
    frames = made.frames
    used = padded = 0
    for batch in batches(made, 2):
        lengths = [sum(int(frames[row]) for row in item) for item in batch]
        used, padded = used + sum(lengths), padded + max(lengths) * len(lengths)
    assert made.padding_share(2) == pytest.approx(1 - used / padded)
    assert made.padding_share(2) < 0.07
    assert padded / len(made) > 0.8 * 4000  # the batches are well filled


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    state = torch.get_rng_state()
    first, again = sampler(), sampler()
    batches(again, 9)
    assert batches(first, 4) == batches(again, 4)
    assert torch.equal(state, torch.get_rng_state())
    assert batches(first, 4) != batches(first, 5)
    assert batches(sampler(seed=1), 4) != batches(first, 4)
    lengths = [max(len(item) for item in batch) for batch in batches(first)]
    assert lengths != sorted(lengths)


@pytest.mark.parametrize("count", [5, 28, 300])
def test_hardly_anything_is_left_out(count):
    dropped = 0
    for seed in range(6):
        made = sampler(count, data_seed=seed, seed=seed)
        for epoch in range(10):
            plan = made.plan(epoch)
            dropped += made.n_rows - len(set(made.epoch_rows(epoch).tolist()))
            assert plan.dropped_batches <= 2
    assert dropped <= 0.01 * count * 60


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_the_batches_of_an_epoch(ranks):
    parts = [sampler(num_replicas=ranks, rank=rank) for rank in range(ranks)]
    found = [batches(part, 1) for part in parts]
    assert len({len(part) for part in found}) == 1
    rows = list(chain(*chain(*chain(*found))))
    assert len(set(rows)) == len(rows) == 300 - (300 - len(set(parts[0].epoch_rows(1).tolist())))
    plan = parts[0].plan(1)
    order = [found[number % ranks][number // ranks] for number in range(len(plan.batches))]
    assert order == [plan.batch(number) for number in range(len(plan.batches))]


def test_few_rows_are_divided_among_the_ranks():
    for epoch in range(5):  # all four would be one batch, or even one item
        parts = [
            LengthBatchSampler(
                [9] * 4, tokens_per_batch=100, join_probability=1.0, max_joined=4, num_replicas=3, rank=rank
            )
            for rank in range(3)
        ]
        found = [batches(part, epoch) for part in parts]
        assert [len(part) for part in found] == [1, 1, 1]
        assert sorted(chain(*chain(*chain(*found)))) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="`frames` must be at least one row for each of 2 ranks, but got 1"):
        len(LengthBatchSampler([9], num_replicas=2, rank=0))


def test_a_row_longer_than_a_batch_has_one_of_its_own():
    with pytest.warns(UserWarning, match=r"2 of 5 utterances are longer than tokens_per_batch=50, the longest is 70 "):
        made = LengthBatchSampler([20, 60, 20, 70, 9], tokens_per_batch=50)
    for epoch in range(5):
        found = batches(made, epoch)
        assert [(1,)] in found
        assert [(3,)] in found
        assert all(sum([20, 60, 20, 70, 9][row] for row in item) <= 50 for b in found for item in b if len(item) > 1)


class Echo:
    def __len__(self):
        return 300

    def __getitem__(self, items):
        return items


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("used", [0, 3, "all"])
def test_a_loader_goes_on_where_its_state_was_taken(workers, used):
    def loader():
        options = {"batch_size": None, "collate_fn": list, "num_workers": workers}
        return ResumableLoader(Echo(), sampler=sampler(), **options)

    first = loader()
    first.sampler.set_epoch(1)
    used = len(first) if used == "all" else used
    running = iter(first)
    for _ in range(used):
        next(running)
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    rest = list(second)
    expected = batches(sampler(), 2 if used == len(first) else 1)
    assert rest == (expected if used == len(first) else expected[used:])


@pytest.mark.parametrize("change", [{"tokens_per_batch": 1000}, {"seed": 2}, {"join_probability": 0.1}, {"count": 299}])
def test_a_state_of_other_batches_is_refused(change):
    with pytest.raises(ValueError, match="belongs to another sample order"):
        sampler(**change).load_state_dict(sampler().state_dict())


def test_a_hundred_thousand_utterances_are_planned_within_a_second():
    frames, speakers = speech(100_000, speakers=400)
    made = LengthBatchSampler(frames, speakers)
    len(made)
    began = time.process_time()
    assert len(made.plan(7).rows) == 100_000
    assert time.process_time() - began < 1.0


def test_rows_cannot_be_drawn_from_batches():
    with pytest.raises(TypeError, match="LengthBatchSampler plans whole batches"):
        next(iter(RS2Sampler(sampler(), 0.5)))


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_evaluation_goes_through_the_rows_in_order(ranks):
    frames, _ = speech(20)
    parts = [
        list(FixedBatches(frames, tokens_per_batch=600, max_batch_size=4, num_replicas=ranks, rank=rank))
        for rank in range(ranks)
    ]
    assert len({len(part) for part in parts}) == 1
    order = [parts[number % ranks][number // ranks] for number in range(ranks * len(parts[0]))]
    assert list(chain(*order)) == [(row,) for row in range(20)]
    assert all(len(batch) * max(frames[row] for (row,) in batch) <= 600 or len(batch) == 1 for batch in order)
    assert max(map(len, order)) <= 4
    if ranks == 1:  # nothing is cut that would have fitted
        sizes = [(len(a) + 1) * max(frames[row] for (row,) in [*a, b[0]]) for a, b in pairwise(order)]
        assert all(size > 600 or len(batch) == 4 for size, batch in zip(sizes, order, strict=False))


def test_fewer_rows_than_ranks_are_repeated_in_evaluation():
    parts = [list(FixedBatches([5], tokens_per_batch=9, max_batch_size=4, num_replicas=3, rank=r)) for r in range(3)]
    assert parts == [[[(0,)]]] * 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"frames": []}, "`frames` must be a row of whole numbers >= 1"),
        ({"frames": [0, 1]}, "`frames`"),
        ({"frames": [1.5]}, "`frames`"),
        ({"speakers": [0]}, "`speakers` must be 2 numbers"),
        ({"speakers": [0, -1]}, "`speakers`"),
        ({"tokens_per_batch": 0}, "`tokens_per_batch`"),
        ({"max_batch_size": 0}, "`max_batch_size`"),
        ({"join_probability": math.nan}, "`join_probability`"),
        ({"max_joined": 0}, "`max_joined`"),
        ({"max_frames": 0}, "`max_frames`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_bad_arguments_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        LengthBatchSampler(options.pop("frames", [5, 5]), options.pop("speakers", None), **options)
