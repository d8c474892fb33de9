"""What a metric's readings over time say: which targets were reached, and what that took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt.rs2.stopwatch import PHASES

__all__ = [
    "Mode",
    "Point",
    "Reached",
    "at_point",
    "check_name",
    "check_targets",
    "first_reached",
    "plain_number",
    "reached_table",
    "reaches",
]

Mode = Literal["max", "min"]


class Point(NamedTuple):
    """One reading of the metric: the seconds spent until then, and its value."""

    step: int
    train: float
    evaluation: float
    selection: float
    value: float
    epoch: int

    @property
    def total(self) -> float:
        """Seconds of all three kinds together."""
        return self.train + self.evaluation + self.selection


class Reached(TypedDict):
    """What it took to reach a target; plain, for JSON."""

    train: float
    evaluation: float
    selection: float
    total: float
    step: int
    epoch: int


def plain_number(value: Tensor) -> float:
    """Return a metric's value as people read it: a float32 that prints as 0.9 is 0.9, not 0.8999999761581421.

    Without it a target of 0.9 would not be reached by nine of ten right answers.

    Args:
        value: A tensor of one element.

    Returns:
        The shortest decimal number that rounds to the value.
    """
    if value.dtype == torch.float32:
        return float(np.format_float_scientific(np.float32(value.item())))
    return float(value)


def reaches(value: float, target: float, mode: Mode) -> bool:
    """Say whether a value is at least as good as a target.

    Args:
        value: The metric; NaN reaches nothing.
        target: The target.
        mode: "max": larger is better; "min": smaller is better.

    Returns:
        True if it is.
    """
    return value >= target if mode == "max" else value <= target


def first_reached(curve: Sequence[Point], targets: Sequence[float], mode: Mode) -> dict[float, Reached | None]:
    """Return what it took to reach each target for the first time.

    Args:
        curve: The readings in the order of time.
        targets: The targets.
        mode: "max": larger is better; "min": smaller is better.

    Returns:
        Per target the first reading that reaches it, without interpolation; None: never.
    """
    found: dict[float, Reached | None] = {}
    for target in targets:
        point = next((point for point in curve if reaches(point.value, target, mode)), None)
        found[target] = None if point is None else at_point(point)
    return found


def at_point(point: Point) -> Reached:
    """Return the cost of a reading as a plain dict.

    Args:
        point: The reading.

    Returns:
        Seconds, step and epoch.
    """
    return {
        "train": point.train,
        "evaluation": point.evaluation,
        "selection": point.selection,
        "total": point.total,
        "step": point.step,
        "epoch": point.epoch,
    }


def reached_table(reached: Mapping[float, Reached | None], monitor: str, mode: Mode) -> Table:
    """Lay out what each target took.

    Args:
        reached: What `first_reached` returns.
        monitor: Name of the metric.
        mode: "max" or "min".

    Returns:
        A rich table, "never" for a target that was not reached.
    """
    table = Table(title=f"seconds until {monitor} {'>=' if mode == 'max' else '<='} target")
    for heading in ("target", "total", *PHASES, "step", "epoch"):
        table.add_column(heading, justify="right")
    for target, cost in reached.items():
        if cost is None:
            table.add_row(f"{target:.15g}", "never")
            continue
        seconds = (cost["total"], cost["train"], cost["evaluation"], cost["selection"])
        table.add_row(f"{target:.15g}", *(f"{part:.2f}" for part in seconds), str(cost["step"]), str(cost["epoch"]))
    return table


def check_targets(targets: Any) -> tuple[float, ...]:
    """Check the targets of a metric.

    Args:
        targets: What the user passed: a number or several.

    Returns:
        The numbers, sorted.

    Raises:
        TypeError: If they are no real numbers.
        ValueError: If there is none, one comes twice, or one is not finite.
    """
    allowed, remedy = "one or several different finite numbers", "Pass e.g. [0.8, 0.9]."
    several = (targets,) if isinstance(targets, Real) else targets
    if isinstance(several, str) or not isinstance(several, Sequence):
        raise TypeError(problem("targets", allowed, targets, remedy))
    if any(isinstance(target, bool) or not isinstance(target, Real) for target in several):
        raise TypeError(problem("targets", allowed, targets, remedy))
    numbers = sorted(map(float, several))
    if not numbers or len(set(numbers)) < len(numbers) or not all(map(math.isfinite, numbers)):
        raise ValueError(problem("targets", allowed, targets, remedy))
    return tuple(numbers)


def check_name(monitor: Any) -> str:
    """Check the name of a metric.

    Args:
        monitor: What the user passed.

    Returns:
        The name.

    Raises:
        TypeError: If it is no text, or an empty one.
    """
    if not isinstance(monitor, str) or not monitor:
        raise TypeError(problem("monitor", "the name of a logged metric", monitor, "Pass e.g. 'val_accuracy'."))
    return monitor
