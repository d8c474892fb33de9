"""The picture of a run's time: the metric over the seconds, and what the seconds went into (extra `figures`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require
from lightning_adapt.rs2.reached import Mode, Point, Reached, at_point, first_reached
from lightning_adapt.rs2.stopwatch import PHASES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["time_figure"]


def time_figure(curve: Sequence[Point], targets: Sequence[float], monitor: str, mode: Mode = "max") -> Figure:
    """Draw a metric against the seconds spent, with the targets, and the split of the seconds until each target.

    Args:
        curve: The readings, as in `TimeToAccuracy.curve`; at least one.
        targets: The targets.
        monitor: Name of the metric.
        mode: "max": larger is better; "min": smaller is better.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
        ValueError: If the curve is empty.
    """
    require("figures", "time_figure", "matplotlib")
    from matplotlib.figure import Figure

    if not curve:
        raise ValueError(problem("curve", "at least one reading", curve, "Draw it after the first validation."))
    reached = first_reached(curve, targets, mode)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.plot([point.total for point in curve], [point.value for point in curve], color="0.25", marker=".")
    for number, (target, cost) in enumerate(reached.items()):
        color = f"C{number % 10}"
        took = "never" if cost is None else f"{cost['total']:.4g} s"
        left.axhline(target, color=color, linestyle="--", linewidth=1.2, label=f"{target:.15g}: {took}")
        if cost is not None:
            left.plot([cost["total"]], [target], color=color, marker="o", linestyle="")
    left.set(xlabel="seconds", ylabel=monitor, title=f"{monitor} over time")
    left.set_xlim(left=0)
    left.legend(frameon=False, title="target")

    bars: dict[str, Reached | None] = {f"{target:.15g}": cost for target, cost in reached.items()}
    bars["whole run"] = at_point(curve[-1])
    start = [0.0] * len(bars)
    for number, phase in enumerate(PHASES):
        widths = [0.0 if cost is None else cost[phase] for cost in bars.values()]
        right.barh(list(bars), widths, left=start, label=phase, color=("0.35", "0.65", "0.85")[number])
        start = [begin + width for begin, width in zip(start, widths, strict=True)]
    for row, cost in enumerate(bars.values()):
        if cost is None:
            right.text(0, row, " never", va="center")
    right.set(xlabel="seconds", title="what they went into")
    right.legend(frameon=False, ncols=3, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
