"""The simple schedules of PyTorch: where each ends, its learning rate at a step, and how to compress it.

Everything is read from attributes that the constructors set.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import lr_scheduler as torch_schedules

from lightning_adapt._shared.schedule_lambdas import CompressedLambda, End, find_ends, keyword_end

__all__ = ["SIMPLE", "Kind"]

# OneCycleLR keeps its shape under these names only
_PHASES = "_schedule_phases"
_ANNEAL = "_anneal_func"


@dataclass(frozen=True)
class Kind:
    """What is known of a class of schedules.

    Attributes:
        ends: (scheduler, steps of the run, steps without the change) -> its ends.
        rate: (scheduler, step) -> learning rate of the first parameter group; None when not known.
        compress: (scheduler, old, new): change it in place; None when there is nothing to change.
    """

    ends: Callable[[Any, int, int], list[End]]
    rate: Callable[[Any, int], Any] | None
    compress: Callable[[Any, int, int], None] | None


# -- ends ---------------------------------------------------------------------------------------------------------
def _no_ends(scheduler: Any, now: int, without: int) -> list[End]:  # noqa: ARG001
    return []


def _cosine_ends(scheduler: Any, now: int, without: int) -> list[End]:  # noqa: ARG001
    return [End(scheduler.T_max, "exact", every=2 * scheduler.T_max)]  # at its lowest


def _linear_ends(scheduler: Any, now: int, without: int) -> list[End]:  # noqa: ARG001
    if scheduler.end_factor >= scheduler.start_factor:  # a warm-up
        return [End(scheduler.total_iters, "settle")]
    return [End(scheduler.total_iters, "reach" if scheduler.end_factor > 0 else "exact")]


def _lambda_ends(product: bool) -> Callable[[Any, int, int], list[End]]:
    def ends(scheduler: Any, now: int, without: int) -> list[End]:
        found: list[End] = []
        for function in {id(function): function for function in scheduler.lr_lambdas}.values():
            length = keyword_end(function)
            if length is None:
                found += find_ends(function, now, without, product=product)
            else:
                found.append(End(length, "exact"))
        return found

    return ends


# -- learning rates -----------------------------------------------------------------------------------------------
def _closed_form(factor: Callable[[Any, int], float]) -> Callable[[Any, int], float]:
    return lambda scheduler, step: scheduler.base_lrs[0] * factor(scheduler, step)


def _linear_factor(scheduler: Any, step: int) -> float:
    share = min(step, scheduler.total_iters) / scheduler.total_iters
    return float(scheduler.start_factor + (scheduler.end_factor - scheduler.start_factor) * share)


def _cosine_rate(scheduler: Any, step: int) -> float:
    height = (1 + math.cos(math.pi * step / scheduler.T_max)) / 2
    return float(scheduler.eta_min + (scheduler.base_lrs[0] - scheduler.eta_min) * height)


def _one_cycle_rate(scheduler: Any, step: int) -> float:
    group, start = scheduler.optimizer.param_groups[0], 0.0
    phases = getattr(scheduler, _PHASES)
    for phase in phases:
        if step <= phase["end_step"] or phase is phases[-1]:
            share = min((step - start) / (phase["end_step"] - start), 1.0)
            return float(getattr(scheduler, _ANNEAL)(group[phase["start_lr"]], group[phase["end_lr"]], share))
        start = phase["end_step"]
    return float("nan")


def _product_factor(scheduler: Any, step: int) -> float:
    return math.prod(float(scheduler.lr_lambdas[0](done)) for done in range(1, step + 1))


# -- compression --------------------------------------------------------------------------------------------------
def _shorter(steps: float, old: int, new: int) -> int:
    return max(1, round(steps * new / old))


def _numbers(*names: str) -> Callable[[Any, int, int], None]:
    """Return a compression that scales attributes."""

    def scale(scheduler: Any, old: int, new: int) -> None:
        for name in names:
            setattr(scheduler, name, _shorter(getattr(scheduler, name), old, new))

    return scale


def _compress_step(scheduler: Any, old: int, new: int) -> None:
    drops = old // scheduler.step_size
    scheduler.step_size = _shorter(scheduler.step_size, old, new)
    drops_now = new // scheduler.step_size
    if drops and drops_now and drops != drops_now:  # few steps: the rounded size gives other drops to the same end
        scheduler.gamma = scheduler.gamma ** (drops / drops_now)


def _compress_multi_step(scheduler: Any, old: int, new: int) -> None:
    milestones: Counter[int] = Counter()
    for milestone, count in scheduler.milestones.items():
        place = _shorter(milestone, old, new)
        milestones[min(place, new) if milestone <= old else max(place, new + 1)] += count
    scheduler.milestones = milestones


def _compress_exponential(scheduler: Any, old: int, new: int) -> None:
    scheduler.gamma = scheduler.gamma ** (old / new)


def _compress_cycle(scheduler: Any, old: int, new: int) -> None:
    scheduler.total_size = scheduler.total_size * new / old


def _compress_one_cycle(scheduler: Any, old: int, new: int) -> None:
    total, phases = scheduler.total_steps, getattr(scheduler, _PHASES)
    scheduler.total_steps = _shorter(total, old, new)
    for place, phase in enumerate(phases):
        if phase is phases[-1]:
            phase["end_step"] = scheduler.total_steps - 1
        else:  # the constructor takes one step off for each phase
            phase["end_step"] = (phase["end_step"] + place + 1) / total * scheduler.total_steps - place - 1


def _wrap(product: bool) -> Callable[[Any, int, int], None]:
    def wrap(scheduler: Any, old: int, new: int) -> None:
        scheduler.lr_lambdas = [
            function if isinstance(function, CompressedLambda) else CompressedLambda(function, old, new, product)
            for function in scheduler.lr_lambdas
        ]

    return wrap


# -- the table ----------------------------------------------------------------------------------------------------
SIMPLE: dict[Any, Kind] = {
    torch_schedules.CosineAnnealingLR: Kind(_cosine_ends, _cosine_rate, _numbers("T_max")),
    torch_schedules.OneCycleLR: Kind(
        lambda scheduler, now, without: [End(scheduler.total_steps, "exact", raises=True)],  # noqa: ARG005
        _one_cycle_rate,
        _compress_one_cycle,
    ),
    torch_schedules.MultiStepLR: Kind(
        lambda scheduler, now, without: [End(milestone, "change") for milestone in sorted(scheduler.milestones)],  # noqa: ARG005
        _closed_form(lambda s, step: s.gamma ** bisect_right(sorted(s.milestones.elements()), step)),
        _compress_multi_step,
    ),
    torch_schedules.StepLR: Kind(
        lambda scheduler, now, without: [End(scheduler.step_size, "change")],  # noqa: ARG005
        _closed_form(lambda s, step: s.gamma ** (step // s.step_size)),
        _compress_step,
    ),
    torch_schedules.LinearLR: Kind(_linear_ends, _closed_form(_linear_factor), _numbers("total_iters")),
    torch_schedules.PolynomialLR: Kind(
        lambda scheduler, now, without: [End(scheduler.total_iters, "exact")],  # noqa: ARG005
        _closed_form(lambda s, step: (1 - min(step, s.total_iters) / s.total_iters) ** s.power),
        _numbers("total_iters"),
    ),
    torch_schedules.ConstantLR: Kind(
        lambda scheduler, now, without: [] if scheduler.factor == 1 else [End(scheduler.total_iters, "change")],  # noqa: ARG005
        _closed_form(lambda s, step: 1.0 if step >= s.total_iters else s.factor),
        _numbers("total_iters"),
    ),
    torch_schedules.ExponentialLR: Kind(_no_ends, _closed_form(lambda s, step: s.gamma**step), _compress_exponential),
    torch_schedules.LambdaLR: Kind(
        _lambda_ends(False), _closed_form(lambda s, step: s.lr_lambdas[0](step)), _wrap(False)
    ),
    torch_schedules.MultiplicativeLR: Kind(_lambda_ends(True), _closed_form(_product_factor), _wrap(True)),
    torch_schedules.CosineAnnealingWarmRestarts: Kind(_no_ends, None, _numbers("T_0", "T_i")),
    torch_schedules.CyclicLR: Kind(_no_ends, None, _compress_cycle),
    torch_schedules.ReduceLROnPlateau: Kind(_no_ends, None, None),
}
