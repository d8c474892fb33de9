"""Which schedules fit a run, and what compressing one makes of it; PyTorch's own stepping is the reference."""

from __future__ import annotations

import copy
import functools
import io
import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.optim import lr_scheduler as s

from lightning_adapt._shared import schedule_kinds as kinds
from lightning_adapt._shared.schedule_lambdas import End, find_ends
from lightning_adapt._shared.schedules import RunLength, check_horizons, tolerance
from tests._shared.schedule_parts import BASE, ENDLESS, HUB, LAMBDAS, SCHEDULES, Custom, new_optimizer, stepped

NOW, WITHOUT = 240, 2400  # 12 epochs of 20 or 200 batches


def run_of(*schedulers: Any, interval: str = "step", frequency: int = 1, **changes: Any) -> Any:
    """What the guard looks at in a Trainer: 12 epochs of 20 batches."""
    configs = [
        SimpleNamespace(scheduler=scheduler, interval=interval, frequency=frequency, reduce_on_plateau=False)
        for scheduler in schedulers
    ]
    settings = {
        "num_training_batches": 20,
        "accumulate_grad_batches": 1,
        "max_epochs": 12,
        "max_steps": -1,
        "limit_train_batches": 1.0,
        "strategy": SimpleNamespace(handles_gradient_accumulation=False),
        "lightning_module": SimpleNamespace(automatic_optimization=True),
        "callbacks": [],
        "lr_scheduler_configs": configs,
        **changes,
    }
    return SimpleNamespace(**settings)


def build(name: str, steps: int) -> Any:
    return {**SCHEDULES, **ENDLESS}[name](new_optimizer(), steps)


@functools.cache
def stock_rates(name: str, steps: int) -> tuple[float, ...]:
    """A schedule stepped to its end as it was built: the reference of many cases, so formed once."""
    return tuple(stepped(build(name, steps), steps))


# -- length of a run ----------------------------------------------------------------------------------------------
def counted(batches: int, accumulate: int, frequency: int, max_epochs: int, max_steps: float, interval: str) -> int:
    """Scheduler steps by playing the Trainer's loop."""
    steps = calls = 0
    for epoch in range(max_epochs):
        for batch in range(1, batches + 1):
            if batch % accumulate and batch != batches:
                continue
            steps += 1
            calls += interval == "step" and batch % frequency == 0
            if steps >= max_steps and batch < batches:
                return calls
        calls += interval == "epoch" and (epoch + 1) % frequency == 0
        if steps >= max_steps:
            return calls
    return calls


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("max_steps", [None, 7, 12, 1000])
@pytest.mark.parametrize(
    ("batches", "accumulate", "frequency"), [(10, 1, 1), (10, 4, 1), (10, 4, 2), (9, 2, 3), (3, 5, 1)]
)
def test_scheduler_steps_are_those_of_the_loop(batches, accumulate, frequency, max_steps, interval):
    length = RunLength(batches, accumulate, max_epochs=5, max_steps=max_steps)
    expected = counted(batches, accumulate, frequency, 5, max_steps or math.inf, interval)
    assert length.scheduler_steps(interval, frequency) == expected


def test_what_is_not_known():
    assert RunLength(10).optimizer_steps is None
    assert RunLength(None, max_epochs=3).scheduler_steps("step") is None
    assert RunLength(None, max_epochs=3, max_steps=8).optimizer_steps is None
    assert RunLength(None, max_steps=8).scheduler_steps("step") == 8
    assert RunLength(None, max_steps=8).scheduler_steps("epoch") is None
    assert RunLength(10, 4, max_epochs=3, drops_rest=True).optimizer_steps == 6


def test_tolerance_is_a_hundredth_or_a_step_per_epoch():
    assert tolerance(50, "epoch", 50) == 1
    assert tolerance(10_000, "step", 20) == 100
    assert tolerance(8_000, "step", 200) == 200
    assert tolerance(600, "step", 200) == 30  # at most 5 %
    assert tolerance(400, "epoch", 400) == 4


# -- learning rates and compression -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_learning_rate_at_a_step_is_the_one_that_pytorch_reaches(name):
    real = stock_rates(name, 90)
    fresh = build(name, 90)
    for step in (0, 1, 9, 10, 30, 45, 60, 89):
        assert kinds.learning_rate(fresh, step) == pytest.approx(real[step], rel=1e-6, abs=1e-9)
    assert kinds.steps_done(fresh) == 0  # looking changes nothing


@pytest.mark.parametrize("name", [*SCHEDULES, "exponential", "cyclic", "restarts"])
def test_a_compressed_schedule_has_the_shape_of_the_old_one(name):
    scheduler = build(name, WITHOUT)
    kinds.compress(scheduler, WITHOUT, NOW)
    long, short = stock_rates(name, WITHOUT), stepped(scheduler, NOW)
    assert short[-1] == pytest.approx(long[-1], abs=0.01 * max(long))
    assert max(short) == pytest.approx(max(long), rel=0.05)
    # everywhere between what the long one has just before and after, so jumps may lie a step apart
    for step, rate in enumerate(short):
        near = long[max(0, 10 * step - 20) : 10 * step + 21]
        assert min(near) - 0.03 * BASE <= rate <= max(near) + 0.03 * BASE


@pytest.mark.parametrize("name", ["cosine", "one cycle", "sequence", "linear to zero", "lambda, cosine", "product"])
def test_a_schedule_can_be_stretched_too(name):
    scheduler = build(name, 100)
    kinds.compress(scheduler, 100, NOW)
    assert stepped(scheduler, NOW)[-1] == pytest.approx(stepped(build(name, 100), 100)[-1], abs=0.01 * BASE)


def test_momentum_cycles_with_the_learning_rate():
    scheduler = build("one cycle", WITHOUT)
    kinds.compress(scheduler, WITHOUT, NOW)
    twin = build("one cycle", NOW)
    for _ in range(NOW):
        for each in (scheduler, twin):
            each.optimizer.step()
            each.step()
        ours, theirs = scheduler.optimizer.param_groups[0], twin.optimizer.param_groups[0]
        assert (ours["lr"], ours["momentum"]) == pytest.approx((theirs["lr"], theirs["momentum"]), rel=1e-9)


def test_few_steps_keep_the_last_learning_rate_of_a_step_schedule():
    scheduler = s.StepLR(new_optimizer(), 24)
    kinds.compress(scheduler, 100, 10)
    assert stepped(scheduler, 10)[-1] == pytest.approx(BASE * 0.1**4)


def test_milestones_beyond_the_end_stay_there_and_those_that_meet_add_up():
    scheduler = s.MultiStepLR(new_optimizer(), [300, 302, 1000])
    kinds.compress(scheduler, 900, 90)
    assert scheduler.milestones == {30: 2, 100: 1}
    scheduler = s.MultiStepLR(new_optimizer(), [899, 901])
    kinds.compress(scheduler, 900, 90)
    assert scheduler.milestones == {90: 1, 91: 1}


def test_a_sequence_keeps_a_warm_up_of_at_least_one_step():
    optimizer = new_optimizer()
    parts = [s.LinearLR(optimizer, 0.5, total_iters=2), s.CosineAnnealingLR(optimizer, 998)]
    scheduler = s.SequentialLR(optimizer, parts, [2])
    kinds.compress(scheduler, 1000, 10)
    rates = stepped(scheduler, 10)
    assert rates[:2] == [BASE / 2, BASE]
    assert rates[-1] == pytest.approx(0, abs=1e-9)


# -- what fits and what does not ----------------------------------------------------------------------------------
def caught(trainer: Any, scale: float = 0.1, action: str = "warn") -> str:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_horizons(trainer, action, "Owner", scale)
    assert len(seen) <= 1
    return str(seen[0].message) if seen else ""


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_for_the_longer_run_is_caught_and_one_for_this_run_is_not(name):
    assert "does not fit" in caught(run_of(build(name, WITHOUT)))
    check_horizons(run_of(build(name, NOW)), "error", "Owner", 0.1)
    in_epochs = run_of(build(name, 60), interval="epoch", max_epochs=60)
    check_horizons(in_epochs, "error", "Owner", 0.1)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("ratio", [0.2, 0.05])
def test_other_ratios(name, ratio):
    assert "does not fit" in caught(run_of(build(name, round(NOW / ratio))), ratio)
    check_horizons(run_of(build(name, NOW)), "error", "Owner", ratio)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("off", [0.992, 1.008])
def test_rounding_is_no_mistake(name, off):
    if name.startswith("one cycle") or name == "lambda object":
        off = max(off, 1)  # these raise when they are stepped beyond their end
    check_horizons(run_of(build(name, round(off * NOW))), "error", "Owner", 0.1)


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("steps", [NOW, WITHOUT, 37])
def test_nothing_is_said_about_schedules_without_an_end(name, steps):
    check_horizons(run_of(build(name, steps)), "error", "Owner", 0.1)


def test_plateau_schedules_pass():
    trainer = run_of(s.ReduceLROnPlateau(new_optimizer()))
    trainer.lr_scheduler_configs[0].reduce_on_plateau = True
    check_horizons(trainer, "error", "Owner", 0.1)


@pytest.mark.parametrize(
    "name",
    [
        "cosine",
        "one cycle",
        "polynomial",
        "linear to zero",
        "sequence",
        "hub linear",
        "hub cosine",
        "lambda, clamped",
        "lambda, cosine",
        "lambda object",
        "chain",
        "product",
    ],
)
def test_a_schedule_that_ends_too_early_is_caught(name):
    steps = NOW // 2  # for three half cosines half the length would be another low
    assert "does not fit" in caught(run_of(build(name, steps)))


def test_early_ends_that_do_no_harm_pass():
    for name in ("linear to a floor", "warm-up", "milestones", "lambda, floor", "lambda, drop", "hub constant"):
        check_horizons(run_of(build(name, NOW // 2)), "error", "Owner", 0.1)
    check_horizons(run_of(s.CosineAnnealingLR(new_optimizer(), NOW // 5)), "error", "Owner", 0.1)  # ends at a low


def test_what_the_longer_run_would_not_have_reached_passes():
    for name in ("milestones", "steps", "warm-up", "constant", "lambda, drop", "hub constant"):
        check_horizons(run_of(build(name, 5 * WITHOUT)), "error", "Owner", 0.1)


def test_epochs_against_a_bound_in_steps():
    """The same number of steps is more of the shorter epochs: a schedule in epochs ends too early."""
    trainer = run_of(build("cosine", 12), interval="epoch", max_epochs=-1, max_steps=WITHOUT)
    assert "ends after 12 epochs, but the run has 120" in caught(trainer)
    check_horizons(run_of(build("cosine", WITHOUT), max_epochs=-1, max_steps=WITHOUT), "error", "Owner", 0.1)


def test_the_message_says_by_how_much_and_what_to_do():
    trainer = run_of(s.CosineAnnealingLR(new_optimizer(), WITHOUT, eta_min=1e-4))
    text = caught(trainer)
    reached = stepped(s.CosineAnnealingLR(new_optimizer(), WITHOUT, eta_min=1e-4), NOW)[-1]
    assert "CosineAnnealingLR ends after 2400 steps, but the run has 240: " in text
    assert f"it will end at learning rate {reached:.4g} instead of 0.0001." in text
    assert "`trainer.estimated_stepping_batches`" in text
    assert 'Owner(lr_horizon="rescale")' in text
    assert "MultiStepLR changes the learning rate after 1200 steps" in caught(run_of(build("milestones", WITHOUT)))
    assert "SequentialLR(LinearLR, CosineAnnealingLR) ends" in caught(run_of(build("sequence", WITHOUT)))
    assert "it will raise an error" in caught(run_of(build("one cycle", 100)))
    assert "`trainer.max_epochs`" in caught(run_of(build("cosine", 500), interval="epoch"))


def test_several_schedules_give_one_warning():
    text = caught(run_of(build("cosine", WITHOUT), build("hub linear", NOW), build("polynomial", WITHOUT)))
    assert "CosineAnnealingLR ends" in text
    assert "PolynomialLR ends" in text
    assert "LambdaLR" not in text


def test_each_group_has_its_own_lambda():
    functions = [lambda step: 1.0, lambda step: max(0.0, 1 - step / WITHOUT)]
    scheduler = s.LambdaLR(new_optimizer(2), functions)
    assert "LambdaLR ends after 2400 steps" in caught(run_of(scheduler))
    check_horizons(run_of(scheduler), "rescale", "Owner", 0.1)
    stepped(scheduler, NOW)
    assert [group["lr"] for group in scheduler.optimizer.param_groups] == [BASE, 0.0]


def test_error_and_ignore():
    with pytest.raises(MisconfigurationException, match="ends after 2400 steps"):
        check_horizons(run_of(build("cosine", WITHOUT)), "error", "Owner", 0.1)
    check_horizons(run_of(build("cosine", WITHOUT)), "ignore", "Owner", 0.1)


class Changing:
    """What Lightning's GradientAccumulationScheduler looks like."""

    def get_accumulate_grad_batches(self, epoch: int) -> int:
        return 1 + epoch


@pytest.mark.parametrize(
    "unknown",
    [
        {"max_epochs": -1},
        {"max_epochs": None},
        {"num_training_batches": math.inf},
        {"num_training_batches": 0},
        {"lightning_module": SimpleNamespace(automatic_optimization=False)},
        {"callbacks": [Changing()]},
    ],
)
def test_silent_where_the_number_of_steps_is_not_known(unknown):
    check_horizons(run_of(build("cosine", WITHOUT), **unknown), "error", "Owner", 0.1)


def test_a_bound_on_batches_cuts_both_runs():
    trainer = run_of(build("steps", WITHOUT), limit_train_batches=20)
    check_horizons(trainer, "error", "Owner", 0.1)  # 12 * 20 steps with or without the owner


# -- rescale ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rescaled_schedules_end_as_intended(name, accumulate):
    now, without = NOW // accumulate, WITHOUT // accumulate
    scheduler = build(name, without)
    trainer = run_of(scheduler, accumulate_grad_batches=accumulate)
    check_horizons(trainer, "rescale", "Owner", 0.1)
    intended = stock_rates(name, without)
    assert abs(intended[now] - intended[-1]) > 0.05 * max(intended)  # else this test shows nothing
    assert stepped(scheduler, now)[-1] == pytest.approx(intended[-1], abs=0.01 * max(intended))
    check_horizons(trainer, "error", "Owner", 0.1)  # now it fits


@pytest.mark.parametrize("name", SCHEDULES)
def test_right_schedules_are_not_touched(name):
    scheduler = build(name, NOW)
    check_horizons(run_of(scheduler), "rescale", "Owner", 0.1)
    assert tuple(stepped(scheduler, NOW)) == stock_rates(name, NOW)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stop", [1, 130])
def test_a_resumed_rescaled_schedule_goes_on_bit_for_bit(name, stop):
    whole = build(name, WITHOUT)
    check_horizons(run_of(whole), "rescale", "Owner", 0.1)
    rates = stepped(whole, NOW)

    first = build(name, WITHOUT)
    check_horizons(run_of(first), "rescale", "Owner", 0.1)
    begun = stepped(first, stop)
    file = io.BytesIO()
    torch.save({"scheduler": first.state_dict(), "optimizer": first.optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = build(name, WITHOUT)
    second.optimizer.load_state_dict(saved["optimizer"])
    second.load_state_dict(saved["scheduler"])
    check_horizons(run_of(second), "rescale", "Owner", 0.1)
    assert begun[:-1] + stepped(second, NOW - stop) == rates


@pytest.mark.parametrize("name", ["cosine", "lambda, clamped", "sequence", "chain"])
def test_a_run_under_way_is_not_rescaled(name):
    scheduler = build(name, WITHOUT)
    stepped(scheduler, 5)
    before = copy.deepcopy(
        {key: value for key, value in vars(scheduler).items() if key not in ("optimizer", "lr_lambdas")}
    )
    assert "in the middle of a run" in caught(run_of(scheduler), action="rescale")
    assert kinds.mark(scheduler) is None
    assert str(before.get("T_max")) == str(vars(scheduler).get("T_max"))


def test_a_rescaled_run_made_longer_is_caught():
    scheduler = build("cosine", WITHOUT)
    check_horizons(run_of(scheduler), "rescale", "Owner", 0.1)
    stepped(scheduler, 100)
    assert "ends after 240 steps, but the run has 480" in caught(run_of(scheduler, max_epochs=24), action="rescale")


def test_unknown_schedules_are_named_when_they_should_be_rescaled():
    assert "Custom cannot be rescaled" in caught(run_of(build("custom", WITHOUT)), action="rescale")
    optimizer = new_optimizer()
    mixed = s.SequentialLR(optimizer, [s.ConstantLR(optimizer), Custom(optimizer, 9)], [WITHOUT // 2])
    text = caught(run_of(mixed), action="rescale")
    assert "Custom cannot be rescaled" in text
    assert "after 1200 steps" in text
    assert not caught(run_of(build("custom", 99), interval="epoch"), action="rescale")  # epochs are as many as ever


def test_a_callable_object_keeps_its_state_and_is_not_changed_by_trying_it_out():
    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, step: int) -> float:
            self.calls += 1
            return max(0.0, 1 - step / WITHOUT)

    function = Counting()
    scheduler = s.LambdaLR(new_optimizer(), function)
    check_horizons(run_of(scheduler), "rescale", "Owner", 0.1)
    assert function.calls == 1
    stepped(scheduler, 10)
    fresh = s.LambdaLR(new_optimizer(), Counting())
    fresh.load_state_dict(scheduler.state_dict())
    assert fresh.lr_lambdas[0].calls == 11
    assert copy.deepcopy(scheduler.lr_lambdas[0])(120) == 0.5


def test_a_newer_mark_is_refused():
    scheduler = build("cosine", WITHOUT)
    setattr(scheduler, kinds.MARK, {"version": 2, "new": 3})
    with pytest.raises(ValueError, match="version 2"):
        check_horizons(run_of(scheduler), "warn", "Owner", 0.1)


# -- functions tried out ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [100, 938, 9380, 123_457])
def test_the_end_of_a_function_is_found_to_the_step(length):
    reach = max(length, 2000)
    assert find_ends(lambda step: max(0.0, 1 - step / length), 10, reach) == [End(length, "exact")]
    assert find_ends(lambda step: 0.0 if step >= length else 1.0, 10, reach)[0] == End(length, "change")
    (low,) = find_ends(lambda step: 0.6 + 0.4 * math.cos(math.pi * step / length), 10, reach)
    assert low.step == length
    assert low.rule == "exact"
    table = [1.0] * (length + 1)
    assert find_ends(lambda step: table[step], 10, reach) == [End(length, "exact", raises=True)]


def test_functions_that_tell_nothing():
    assert find_ends(lambda step: 0.0, 10, 100) == []
    assert find_ends(lambda step: math.nan if step == 50 else 1 - step / 60, 10, 100) == []
    assert find_ends(lambda step: None, 10, 100) == []


def test_hub_lengths_are_read_not_guessed():
    for name in set(HUB) - {"hub constant"}:
        (end,) = kinds.ends(build(name, 777), 10, 20)
        assert end == End(777, "exact")


def test_ends_repeat_where_the_shape_does():
    end = End(10, "exact", also=(4,), every=20)
    assert [end.near(steps) for steps in (0, 5, 8, 25, 49)] == [4, 4, 10, 30, 50]


def test_lambdas_are_all_covered():
    assert {type(build(name, 100)) for name in LAMBDAS} == {s.LambdaLR, s.MultiplicativeLR}


class Owner:
    """A module whose method is the schedule; trying it out must not copy the module."""

    def __init__(self):
        self.copies = 0

    def __deepcopy__(self, memo):
        self.copies += 1
        return self

    def factor(self, step, length=50):
        return max(0.0, 1 - step / length)


@pytest.mark.parametrize("bind", [lambda owner: owner.factor, lambda owner: functools.partial(owner.factor, length=50)])
def test_the_object_of_a_bound_method_is_not_copied(bind):
    owner = Owner()
    assert [end.step for end in find_ends(bind(owner), 20, 50)] == [50]
    assert owner.copies == 0
