"""The best states so far, the sums of held-out losses and the seconds heard, all without a Trainer."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lightning_adapt._shared.state import check_plain
from lightning_adapt.lina_speech.tuning.best_states import BestStates, mean_of
from lightning_adapt.lina_speech.tuning.held_out_sums import HeardSeconds, HeldOutSums

NAN = math.nan


def values_of(step):
    return lambda number: {"u": torch.tensor([[10.0 * step + number]])}


def kept(best: BestStates) -> list:
    return [None if values is None else float(values["u"]) for values in best.values]


def test_each_voice_keeps_its_own_best_and_the_base_is_the_first_candidate():
    best = BestStates(2)
    best.begin([2.0, 3.0])
    assert not best.offer(1, [2.0, 3.5], values_of(1)), "as good as the base is not better"
    assert kept(best) == [None, None]
    assert best.offer(2, [1.5, 3.2], values_of(2))
    assert best.offer(3, [1.6, 2.9], values_of(3))
    assert not best.offer(4, [1.5, 2.9], values_of(4)), "nor is as good as the best"
    assert kept(best) == [20.0, 31.0]
    assert best.losses == [1.5, 2.9]
    assert best.untuned == [2.0, 3.0]
    assert best.curve == [[1, 2.0, 3.5], [2, 1.5, 3.2], [3, 1.6, 2.9], [4, 1.5, 2.9]]


def test_the_step_of_the_best_is_known():
    best = BestStates(2)
    best.begin([2.0, 3.0])
    for step, losses in ((10, [2.5, 2.5]), (20, [2.1, 2.0]), (30, [2.2, 2.0])):
        best.offer(step, losses, values_of(step))
    assert (best.best_step(0), best.best_step(1)) == (None, 20)


def test_waiting_is_counted_since_any_voice_got_better():
    best = BestStates(2)
    best.begin([2.0, 2.0])
    waited = []
    for step, losses in enumerate([[1, 3], [3, 1], [2, 2], [NAN, 5], [0.5, 9], [1, 1]]):
        best.offer(step, losses, values_of(step))
        waited.append(best.waited)
    assert waited == [0, 0, 1, 2, 0, 1]


def test_a_voice_without_held_out_data_has_no_best():
    best = BestStates(2)
    assert not best.measured(0)
    best.begin([2.0, NAN])
    best.offer(1, [1.0, NAN], values_of(1))
    assert (best.measured(0), best.measured(1)) == (True, False)
    assert kept(best) == [10.0, None]


def test_nan_is_never_better():
    best = BestStates(1)
    best.begin([2.0])
    best.offer(1, [NAN], values_of(1))
    best.offer(2, [math.inf], values_of(2))
    assert kept(best) == [None]


def test_it_goes_on_from_its_state_also_through_json():
    best = BestStates(2)
    best.begin([2.0, 2.0])
    best.offer(1, [1.0, 2.5], values_of(1))
    best.offer(2, [1.0, 2.5], values_of(2))
    check_plain(best.state_dict())
    text = json.dumps(best.state_dict(), default=lambda value: value.tolist())
    for state in (best.state_dict(), json.loads(text)):
        again = BestStates(2)
        again.load_state_dict(state)
        assert (again.losses, again.untuned, again.waited) == (best.losses, best.untuned, 1)
        assert (again.curve, kept(again)) == (best.curve, kept(best))


def test_mean_of_those_that_are_known():
    assert mean_of([1.0, NAN, 3.0]) == 2.0
    assert math.isnan(mean_of([NAN]))


# -- sums --------------------------------------------------------------------------------------------------------------
def alone(value):
    return value


def test_losses_are_means_over_targets_per_voice():
    sums = HeldOutSums(3)
    sums.add(torch.tensor([0, 2, 0]), (torch.tensor([3.0, 5.0, 1.0]), torch.tensor([2, 5, 2])), untuned=False)
    sums.add(torch.tensor([2]), (torch.tensor([7.0]), torch.tensor([1])), untuned=False)
    sums.add(torch.tensor([0]), (torch.tensor([9.0]), torch.tensor([3])), untuned=True)
    tuned, untuned = sums.means(alone)
    assert tuned[0] == 4 / 4
    assert tuned[2] == 12 / 6
    assert untuned[0] == 3.0
    assert all(math.isnan(value) for value in (tuned[1], untuned[1], untuned[2]))


def test_the_only_voice_needs_no_rows_and_processes_are_summed():
    sums = HeldOutSums(1)
    sums.add(None, (torch.tensor([3.0, 1.0]), torch.tensor([1, 1])), untuned=False)
    assert sums.means(lambda value: value + torch.tensor([[[6.0], [3.0]], [[1.0], [1.0]]]))[0] == [2.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_targets_are_counted_exactly_beside_losses_of_few_digits(dtype):
    sums = HeldOutSums(1)
    sums.add(None, (torch.tensor([1024.0], dtype=dtype), torch.tensor([100_001])), untuned=False)
    assert sums.means(alone)[0] == [1024.0 / 100_001]


@pytest.mark.parametrize(
    "found",
    [3.0, (torch.zeros(2),), (torch.zeros(2), torch.zeros(3)), (torch.zeros(()), torch.zeros(())), torch.zeros(2, 2)],
)
def test_losses_of_the_wrong_form(found):
    with pytest.raises(ValueError, match=r"`sequence_losses` must be two tensors of shape \(B,\)"):
        HeldOutSums(1).add(None, found, untuned=False)


def test_one_loss_for_each_row():
    with pytest.raises(ValueError, match="`sequence_losses` must be of 3 rows, but got 2"):
        HeldOutSums(2).add(torch.tensor([0, 1, 0]), (torch.zeros(2), torch.ones(2)), untuned=False)


# -- seconds -----------------------------------------------------------------------------------------------------------
def test_seconds_are_those_of_the_longest_epoch():
    heard = HeardSeconds(2)
    assert heard.of(0) is None
    heard.add(torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 4.0]))
    heard.collect(alone, end_of_epoch=False)  # a checkpoint
    heard.add(torch.tensor([0]), torch.tensor([0.5]))
    heard.collect(alone, end_of_epoch=True)
    heard.add(torch.tensor([0]), torch.tensor([1.0]))
    state = heard.state_dict()
    heard.collect(alone, end_of_epoch=True)
    assert (heard.of(0), heard.of(1)) == (1.5, 6.0)
    again = HeardSeconds(2)
    again.load_state_dict(json.loads(json.dumps(state)))
    assert (again.of(0), again.of(1)) == (1.5, 6.0)


def test_seconds_may_be_unknown_and_come_from_all_processes():
    heard = HeardSeconds(1)
    heard.add(None, None)
    heard.collect(alone, end_of_epoch=True)
    assert heard.of(0) is None
    heard.add(None, torch.tensor([1.0, 2.0]))
    heard.collect(lambda value: 2 * value, end_of_epoch=True)
    assert heard.of(0) == 6.0
