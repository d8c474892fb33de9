# ruff: noqa: E501 - one case per line
"""Rounds guided by losses, without a Trainer: what counts when, and how they go on after a stop."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch

from lightning_adapt import RS2Callback, RS2DataModule, RS2Sampler, rs2_loader
from lightning_adapt._shared.row_sampler import RowSampler
from lightning_adapt._shared.state import check_plain
from lightning_adapt.rs2.functional import loss_weights, most_owed
from lightning_adapt.rs2.guide import LossGuide
from tests.rs2.parts import flat, row_loader

N, RATIO, WARM = 50, 0.3, 4  # 15 rows a round: rounds 3, 6, 9 cross the end of a pass


def sampler_of(source=N, ratio=RATIO, **options):
    return RS2Sampler(source, ratio, **{"mode": "loss", "warm_rounds": WARM, "seed": 3, **options})


def loss_of(rows, number=0):
    """A loss that depends on the row and the round alone."""
    return ((rows * 37 + number * 11) % 29).float() / 10


def train(sampler, rounds, first=0):
    """Draw rounds and record the losses of what was drawn."""
    drawn = []
    for number in range(first, rounds):
        rows = sampler.epoch_rows(number)
        sampler.record(rows, loss_of(rows, number))
        drawn.append(rows.tolist())
    return drawn


def through_a_file(state):
    check_plain(state)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same_state(one, two):
    return one.keys() == two.keys() and all(
        torch.equal(torch.nan_to_num(value, -1), torch.nan_to_num(two[key], -1))
        if torch.is_tensor(value)
        else value == two[key]
        for key, value in one.items()
    )


# -- what counts when ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"round_to": 4}, {"targets": [0, 1] * 25}, {"permutation": "feistel"}])
def test_warm_rounds_are_those_of_mode_without(options):
    plain = sampler_of(mode="without", **{**options, "warm_rounds": 0.25})
    expected = [plain.epoch_rows(number).tolist() for number in range(7)]
    guided = train(sampler_of(**options), 7)
    assert guided[:WARM] == expected[:WARM]
    assert all(guided[number] != expected[number] for number in range(WARM, 7))


def test_losses_of_a_round_count_from_the_next_one_on():
    one, two = sampler_of(), sampler_of()
    for number in range(8):
        before = one.epoch_rows(number)
        one.record(before, loss_of(before, number))
        two.record(two.epoch_rows(number), loss_of(before, number) if number != 5 else loss_of(before, 9))
        assert torch.equal(one.epoch_rows(number), before)  # recorded, and drawn again
        if number <= 5:
            assert torch.equal(two.epoch_rows(number), before)
        else:
            assert not torch.equal(two.epoch_rows(number), before)


def test_rounds_follow_from_the_losses_as_the_functions_say():
    sampler = sampler_of(power=2.0, loss_cap=0.9, uniform_mix=0.1)
    drawn = train(sampler, WARM)
    visits = torch.bincount(torch.tensor(flat(drawn)), minlength=N)
    losses, owed = torch.full((N,), math.nan), WARM * 15 / N - visits.double()
    for number, rows in enumerate(drawn):
        losses[rows] = loss_of(torch.tensor(rows), number)
    for number in range(WARM, 9):
        weights = loss_weights(losses, power=2.0, loss_cap=0.9, uniform_mix=0.1)
        rows, owed = most_owed(owed.float(), weights, 15, sampler._key, number)
        assert sampler.epoch_rows(number).tolist() == rows.tolist()
        losses[rows] = loss_of(rows, number)
        sampler.record(rows, loss_of(rows, number))


def test_of_two_losses_in_a_round_the_later_counts():
    sampler = sampler_of(warm_rounds=1)
    sampler.epoch_rows(0)
    guide = sampler.guide
    rows, losses = torch.arange(40).repeat(3), torch.arange(120.0)
    guide.record(rows, losses)
    guide.record(torch.tensor([0]), torch.tensor([7.0]))
    expected = [7.0, *range(81, 120)]
    assert guide.latest()[:40].tolist() == expected
    again = sampler_of(warm_rounds=1)
    again.load_state_dict(through_a_file(sampler.state_dict()))
    sampler.epoch_rows(1)
    again.epoch_rows(1)
    assert guide.losses[:40].tolist() == again.guide.losses[:40].tolist() == expected
    assert bool(guide.losses[40:].isnan().all())


def test_losses_that_are_not_finite_are_left_out():
    sampler = sampler_of()
    rows = sampler.epoch_rows(0)
    losses = loss_of(rows)
    losses[2], losses[5] = math.nan, math.inf
    sampler.record(rows, losses)
    assert sampler.coverage(1) == (15 - 2) / N
    sampler.epoch_rows(1)
    assert bool(sampler.guide.losses[rows[[2, 5]]].isnan().all())
    sampler.record(rows[[2]], torch.tensor([1.5]))
    sampler.record(rows[[2]], torch.tensor([math.nan]))  # the last one that was finite stays
    assert float(sampler.guide.latest()[rows[2]]) == 1.5


def test_coverage_counts_the_rows_with_a_loss():
    sampler = sampler_of()
    assert sampler.coverage(0) == 0
    seen = set()
    for number in range(6):
        rows = sampler.epoch_rows(number)
        seen |= set(rows.tolist())
        sampler.record(rows, loss_of(rows, number).half())
        assert sampler.coverage(number + 1) == len(seen) / N
    assert sampler.coverage(99) == len(seen) / N


@pytest.mark.parametrize(
    ("warm_rounds", "total", "expected"),
    [(0.25, 20, 5), (0.25, 1, 1), (0.01, 20, 1), (0.5, 5, 2), (3, None, 3), (3, 2, 3), (3.0, None, 3), (1.0, 9, 1)],
)
def test_the_number_of_warm_rounds(warm_rounds, total, expected):
    assert LossGuide(warm_rounds=warm_rounds, total_rounds=total).warm == expected
    assert LossGuide(warm_rounds=np.int64(3)).warm == 3
    assert sampler_of(warm_rounds=warm_rounds, total_rounds=total).guide.warm == expected


def test_rows_with_high_losses_come_more_often():
    sampler, visits = sampler_of(400, 0.1, warm_rounds=10), torch.zeros(400)
    for number in range(110):
        rows = sampler.epoch_rows(number)
        sampler.record(rows, torch.where(rows < 120, 2.0, 0.5))
        visits += torch.bincount(rows, minlength=400) * (number >= 10)
    high, low = visits[:120].mean(), visits[120:].mean()
    assert float(high / low) == pytest.approx(4, rel=0.05)
    assert float(visits[:120].std()) < 1  # even inside a group


# -- populations -----------------------------------------------------------------------------------------------------
def test_rounds_over_a_subset_record_by_row_of_the_data_set():
    rows = torch.arange(100, 150).flip(0)
    over, plain = sampler_of(RowSampler(rows)), sampler_of(mode="without", source=RowSampler(rows), warm_rounds=0.25)
    drawn = train(over, 9)
    assert drawn[:WARM] == [plain.epoch_rows(number).tolist() for number in range(WARM)]
    assert all(100 <= row < 150 for row in flat(drawn))
    assert len(over.guide.losses) == 150
    assert bool(over.guide.losses[:100].isnan().all())
    assert over.coverage(9) <= 1
    for row, loss in enumerate(over.guide.latest()[100:].tolist(), 100):
        last = max((number for number, inside in enumerate(drawn) if row in inside), default=None)
        if last is not None:
            assert loss == float(loss_of(torch.tensor(row), last))


def test_rounds_of_a_subset_depend_on_its_own_losses_alone():
    """High losses at the head of a subset, wherever in the data set it lies, bring back its head."""
    first, second = RowSampler(range(50)), RowSampler(range(1000, 1050))
    ours, theirs = (sampler_of(rows, warm_rounds=1, loss_cap=1.0) for rows in (first, second))
    for sampler, start in ((ours, 0), (theirs, 1000)):
        sampler.epoch_rows(0)
        every = torch.arange(start, start + 50)
        sampler.record(every, torch.where(every < start + 10, 5.0, 0.0))
        high = {}
        for number in (1, 2, 3):
            drawn = sampler.epoch_rows(number) - start
            sampler.record(drawn + start, torch.where(drawn < 10, 5.0, 0.0))
            assert int((drawn < 10).sum()) >= 6  # of 15; 3 by chance
            high[number] = int((drawn < 10).sum())
        assert high[3] >= 9


def test_a_subset_that_changes_keeps_what_is_known():
    inner = RowSampler(range(30))
    sampler = sampler_of(inner, 0.5, warm_rounds=2)
    train(sampler, 4)
    known = sampler.guide.latest()
    inner.set_rows(range(20, 80))
    later = train(sampler, 8, first=4)
    assert all(20 <= row < 80 for row in flat(later))
    assert all(len(set(rows)) == 30 for rows in later)
    assert len(sampler.guide.losses) == 80
    assert torch.equal(sampler.guide.latest()[:20], known[:20])
    assert bool(sampler.guide.latest()[20:].isfinite().all())


def test_a_subset_that_changes_inside_a_round_is_planned_anew():
    inner = RowSampler(range(30))
    sampler = sampler_of(inner, 0.5, warm_rounds=1)
    train(sampler, 3)
    sampler.epoch_rows(3)
    inner.set_rows(range(10, 40))
    assert all(10 <= row < 40 for row in sampler.epoch_rows(3).tolist())
    inner.set_rows(range(30))
    assert all(row < 30 for row in sampler.epoch_rows(3).tolist())


@pytest.mark.parametrize("permutation", ["randperm", "feistel"])
def test_classes_keep_their_shares(permutation):
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    sampler = sampler_of(100, 0.2, targets=targets, permutation=permutation)
    visits = torch.zeros(3)
    for number in range(24):
        rows = sampler.epoch_rows(number)
        sampler.record(rows, targets[rows] * 3.0 + rows % 5)  # class 2 has by far the highest losses
        visits += torch.bincount(targets[rows], minlength=3) * (number >= WARM)
    assert (visits / 400).tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    unbalanced = sampler_of(100, 0.2)
    visits = torch.zeros(3)
    for number in range(24):
        rows = unbalanced.epoch_rows(number)
        unbalanced.record(rows, targets[rows] * 3.0 + rows % 5)
        visits += torch.bincount(targets[rows], minlength=3) * (number >= WARM)
    assert float(visits[2] / 400) > 0.15


# -- resume ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("stop", [0, 2, 3, 4, 6])
@pytest.mark.parametrize("options", [{}, {"targets": [0, 1] * 25, "uniform_mix": 0.2}, {"source": "subset"}])
def test_a_resumed_sampler_goes_on_bit_equal(stop, batches, options):
    """At the end of a round (0 batches into the next) and inside one; before and after the warm rounds."""

    def fresh():
        source = RowSampler(range(5, 55)) if "source" in options else N
        return sampler_of(source, **{key: value for key, value in options.items() if key != "source"})

    def run(sampler, rounds, first, start=0, until=3):
        seen = []
        for number in range(first, rounds):
            sampler.set_epoch(number)
            for batch in range(start if number == first else 0, 3 if number < rounds - 1 else until):
                rows = sampler.rank_rows(batch * 5 + torch.arange(5))
                sampler.record(rows, loss_of(rows, number))
                seen.append(rows.tolist())
        return seen

    whole = fresh()
    expected = run(whole, 9, 0)
    stopped = fresh()
    run(stopped, stop + 1, 0, until=batches)
    state = through_a_file(stopped.state_dict())
    resumed = fresh()
    resumed.load_state_dict(state)
    assert run(resumed, 9, stop, start=batches) == expected[3 * stop + batches :]
    assert same_state(resumed.guide.state_dict(), whole.guide.state_dict())


def test_a_saved_state_stays_what_it_is():
    sampler = sampler_of()
    train(sampler, 6)
    state = sampler.guide.state_dict()
    copy = through_a_file(state)
    train(sampler, 9, first=6)
    assert same_state(state, copy)
    other = sampler_of()
    other.guide.load_state_dict(state)
    train(other, 9, first=6)
    assert same_state(state, copy)


def test_a_resumed_run_keeps_its_warm_rounds_when_it_is_made_longer():
    short, longer = (sampler_of(warm_rounds=0.5, total_rounds=total) for total in (4, 40))
    assert (short.guide.warm, longer.guide.warm) == (2, 20)
    train(short, 3)
    longer.load_state_dict(through_a_file(short.state_dict()))
    assert longer.guide.warm == 2
    assert train(longer, 8, first=3) == train(short, 8, first=3)


@pytest.mark.parametrize("change", [{"power": 2.0}, {"loss_cap": 0.5}, {"uniform_mix": 0.1}, {"seed": 4}])
def test_another_guide_refuses_the_state(change):
    name = next(iter(change)).replace("_", " ")
    state = sampler_of().state_dict()
    with pytest.raises(ValueError, match=f"belongs to another sample order.*{name}: saved"):
        sampler_of(**change).load_state_dict(state)
    with pytest.raises(ValueError, match="mode: saved 'loss', here 'without'"):
        RS2Sampler(N, RATIO, seed=3).load_state_dict(state)
    with pytest.raises(ValueError, match="mode: saved 'without', here 'loss'"):
        sampler_of().load_state_dict(RS2Sampler(N, RATIO, seed=3).state_dict())


def test_versions_of_the_state():
    state = sampler_of().guide.state_dict()
    assert state["version"] == 1
    with pytest.raises(ValueError, match="LossGuide has version 2, but this release reads up to 1"):
        LossGuide(warm_rounds=1).load_state_dict({**state, "version": 2})
    with pytest.raises(ValueError, match="no valid `version`"):
        LossGuide(warm_rounds=1).load_state_dict({})


def test_the_state_costs_eight_bytes_a_row_between_rounds():
    sampler = sampler_of()
    train(sampler, 6)
    sampler.epoch_rows(6)
    sizes = [
        value.numel() * value.element_size() for value in sampler.guide.state_dict().values() if torch.is_tensor(value)
    ]
    assert sum(sizes) == 8 * N


def test_a_guided_round_that_is_over_cannot_be_drawn_again():
    sampler = sampler_of()
    drawn = train(sampler, 7)
    assert sampler.epoch_rows(1).tolist() == drawn[1]  # plain rounds can
    assert sampler.epoch_rows(6).tolist() == drawn[6]
    with pytest.raises(ValueError, match=r"`epoch` must be .*losses are still known, but got 5.*round 6 is running\."):
        sampler.epoch_rows(5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [(1, 2), (5, 1), (5, 3)])
def test_a_plain_loop_and_its_resume(stop, workers):
    def loop(loader, rounds, first=0, until=None):
        seen = []
        for number in range(first, rounds):
            loader.sampler.set_epoch(number)
            for batch, values in enumerate(loader):
                rows = values.reshape(-1).long()
                loader.sampler.record(rows, loss_of(rows, number))
                seen.append(rows.tolist())
                if (number, len(loader)) == (rounds - 1, 3) and until is not None and batch + 1 == until:
                    return seen
        return seen

    def fresh():
        options = {"total_rounds": 8, "power": 2.0, "loss_cap": 1.0, "uniform_mix": 0.1}
        return rs2_loader(row_loader(50, num_workers=workers), 0.25, mode="loss", warm_rounds=0.5, **options)

    whole = fresh()
    assert whole.sampler.guide.warm == 4
    expected = loop(whole, 8)
    assert len({tuple(sorted(rows)) for rows in expected}) == 24
    number, until = stop
    stopped = fresh()
    done = loop(stopped, number + 1, until=until)
    assert done == expected[: 3 * number + until]
    resumed = fresh()
    resumed.load_state_dict(through_a_file(stopped.state_dict()))
    rest = loop(resumed, 8, first=resumed.sampler.epoch)
    assert rest == expected[3 * number + until :]
    assert torch.equal(resumed.sampler.guide.latest(), whole.sampler.guide.latest())


# -- wrong use -------------------------------------------------------------------------------------------------------
def drawn_once(**options):
    sampler = sampler_of(**options)
    sampler.epoch_rows(0)
    return sampler


R = torch.tensor([1, 2])
T, V = TypeError, ValueError
CASES = {
    "negative loss": (lambda: drawn_once().record(R, torch.tensor([1.0, -0.5])), V, "`losses`", ">= 0", "-0.5", "Record a loss"),
    "a mean": (lambda: drawn_once().record(R, torch.tensor(1.0)), V, "`losses`", "one number per row", "() for rows of shape (2,)", "reduction='none'"),
    "a matrix": (lambda: drawn_once().record(R[None], torch.ones(1, 2)), V, "`losses`", "one number per row", "(1, 2)", "reduction='none'"),
    "another length": (lambda: drawn_once().record(R, torch.ones(3)), V, "`losses`", "one number per row", "(3,)", "reduction='none'"),
    "a row too far": (lambda: drawn_once().record(torch.tensor([1, N]), torch.ones(2)), V, "`rows`", "from 0 to 49", "50", "that the round hands out"),
    "a row below": (lambda: drawn_once().record(torch.tensor([-1, 1]), torch.ones(2)), V, "`rows`", "from 0 to 49", "-1", "that the round hands out"),
    "nothing drawn": (lambda: sampler_of().record(R, torch.ones(2)), V, "`rows`", "drawn before", "got 1", "that the round hands out"),
    "another mode": (lambda: RS2Sampler(N).record(R, torch.ones(2)), V, "`mode`", "'loss' for record()", "'without'", "RS2Sampler(mode='loss')"),
    "no total": (lambda: RS2Sampler(N, mode="loss"), V, "`total_rounds`", "warm_rounds=0.25 is a share", "None", "whole number of rounds"),
    "no total in a loader": (lambda: rs2_loader(row_loader(), 0.5, mode="loss"), V, "`total_rounds`", "is a share", "None", "whole number of rounds"),
    "warm zero": (lambda: sampler_of(warm_rounds=0), V, "`warm_rounds`", ">= 1", "got 0", "whole number of rounds"),
    "warm above one": (lambda: sampler_of(warm_rounds=1.5), V, "`warm_rounds`", "(0, 1]", "1.5", "whole number of rounds"),
    "warm a flag": (lambda: sampler_of(warm_rounds=True), T, "`warm_rounds`", "a number", "True", "whole number of rounds"),
    "warm nan": (lambda: RS2Callback(mode="loss", warm_rounds=math.nan), V, "`warm_rounds`", "(0, 1]", "nan", "whole number of rounds"),
    "total zero": (lambda: sampler_of(total_rounds=0), V, "`total_rounds`", ">= 1", "got 0", "rounds of the run"),
    "power zero": (lambda: sampler_of(power=0), V, "`power`", "> 0", "got 0", "Pass 1"),
    "power infinite": (lambda: sampler_of(power=math.inf), V, "`power`", "> 0", "inf", "Pass 1"),
    "power a word": (lambda: sampler_of(power="1"), T, "`power`", "a number > 0", "'1'", "Pass 1"),
    "cap zero": (lambda: sampler_of(loss_cap=0.0), V, "`loss_cap`", "(0, 1]", "0.0", "Pass 0.75"),
    "mix above one": (lambda: sampler_of(uniform_mix=1.1), V, "`uniform_mix`", "[0, 1]", "1.1", "Pass 0"),
    "mix nan": (lambda: sampler_of(uniform_mix=math.nan), V, "`uniform_mix`", "[0, 1]", "nan", "Pass 0"),
    "mix a flag": (lambda: sampler_of(uniform_mix=False), T, "`uniform_mix`", "[0, 1]", "False", "Pass 0"),
    "partition": (lambda: sampler_of(ratio=0.5, boundary="partition"), V, "`boundary`", "unless mode='without'", "'partition'", "Use mode='without'"),
    "weights": (lambda: sampler_of(weights=[1.0] * N), V, "`weights`", "unless mode='independent'", "'loss'", "mode='independent'"),
    "a guide in another mode": (lambda: RS2Sampler(N, power=2.0), V, "`power`", "left out unless mode='loss'", "2.0", "Pass mode='loss'"),
    "a length in another mode": (lambda: RS2Sampler(N, total_rounds=5), V, "`total_rounds`", "unless mode='loss'", "5", "Pass mode='loss'"),
    "a guide in the callback": (lambda: RS2Callback(warm_rounds=3), V, "`warm_rounds`", "unless mode='loss'", "3", "Pass mode='loss'"),
    "a key in the callback": (lambda: RS2Callback(loss_key="each"), V, "`loss_key`", "unless mode='loss'", "'each'", "Pass mode='loss'"),
    "an index in the callback": (lambda: RS2Callback(index_key="row"), V, "`index_key`", "unless mode='loss'", "'row'", "Pass mode='loss'"),
    "a key that is none": (lambda: RS2Callback(mode="loss", loss_key=None), T, "`loss_key`", "a string", "None", "'sample_loss'"),
    "an index that is none": (lambda: RS2Callback(mode="loss", index_key=3), T, "`index_key`", "a string", "3", "that training_step uses"),
    "the mix of the callback": (lambda: RS2Callback(mode="loss", uniform_mix=-1), V, "`uniform_mix`", "[0, 1]", "-1", "Pass 0"),
    "the DataModule": (lambda: RS2DataModule(row_loader(), mode="loss"), T, "`inner`", "LightningDataModule", "DataLoader", "rs2_loader"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_wrong_use_is_explained(case):
    wrong, error, *words = CASES[case]
    with pytest.raises(error) as caught:
        wrong()
    text = str(caught.value)
    assert [word for word in words if word not in text] == []
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize(("share", "allowed"), [(0, True), (1, True), (np.float32(0.5), True), (-0.1, False)])
def test_shares_include_their_ends(share, allowed):
    if allowed:
        assert sampler_of(uniform_mix=share).guide.uniform_mix == float(share)
    else:
        with pytest.raises(ValueError, match="`uniform_mix`"):
            sampler_of(uniform_mix=share)
