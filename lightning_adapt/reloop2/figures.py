"""The picture of a drifting stream: AUC and logloss over its slots, of everything compared (extra `figures`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.imports import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["slots_figure"]

_PANELS = {"auc": "AUC (higher is better)", "logloss": "logloss (lower is better)"}
_Series = Mapping[str, Tensor | Sequence[float]]  # metric -> one number per slot
# markers and dashes, so that no line rests on its colour alone; colours come from the settings in force
_OURS: dict[str, Any] = {"color": "C0", "marker": "o", "linestyle": "-", "linewidth": 2.5, "zorder": 3}
_BASE: dict[str, Any] = {"color": "C4", "marker": "s", "linestyle": "--", "linewidth": 1.5}
_OTHERS: list[dict[str, Any]] = [
    {"color": color, "marker": marker, "linestyle": style, "linewidth": 1.5}
    for style in ("-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    for color, marker in (("C1", "^"), ("C2", "D"), ("C3", "v"))
]


def slots_figure(
    per_slot: _Series,
    *,
    name: str = "compensated",
    base_name: str = "base",
    others: Mapping[str, _Series] | None = None,
) -> Figure:
    """Draw AUC and logloss over the slots of a stream, one line for each thing compared; NaN leaves a gap.

    Args:
        per_slot: What `PrequentialMetrics.per_slot()` returns: "auc" and "logloss", and "base_auc" and "base_logloss"
            where there is a base model to draw. Shape (S,) each.
        name: Legend of the first.
        base_name: Legend of the base model.
        others: Further lines, legend -> "auc" and "logloss" of shape (S,), such as those of a model that is trained on.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
        ValueError: If there is no slot, a line lacks a metric, or lines differ in length or share a legend.
    """
    require("figures", "slots_figure", "matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = _lines(per_slot, name, base_name, others or {})
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, (metric, label) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
        for legend, (values, style) in lines.items():
            axes.plot(range(len(values[metric])), values[metric], label=legend, markersize=5, **style)
        axes.set(xlabel="slot", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    handles, legends = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, legends, loc="outside lower center", ncols=min(len(legends), 4), frameon=False)
    return figure


def _lines(
    per_slot: _Series, name: str, base_name: str, others: Mapping[str, _Series]
) -> dict[str, tuple[dict[str, list[float]], dict[str, Any]]]:
    """Legend -> values per metric, and style."""
    drawn: list[tuple[str, _Series, dict[str, Any]]] = [(name, per_slot, _OURS)]
    if "base_auc" in per_slot:
        base = {metric: per_slot[f"base_{metric}"] for metric in _PANELS if f"base_{metric}" in per_slot}
        drawn.append((base_name, base, _BASE))
    drawn += [(legend, other, _OTHERS[i % len(_OTHERS)]) for i, (legend, other) in enumerate(others.items())]
    lines = {legend: (_values(legend, series), style) for legend, series, style in drawn}
    if len(lines) < len(drawn):
        legends = [legend for legend, _, _ in drawn]
        raise ValueError(problem("others", "of legends that differ from all others", legends, "Rename one."))
    lengths = {legend: len(values[metric]) for legend, (values, _) in lines.items() for metric in _PANELS}
    if len(set(lengths.values())) > 1:
        raise ValueError(problem("others", "of as many slots each", lengths, "Use the same slots for all of them."))
    return lines


def _values(legend: str, series: _Series) -> dict[str, list[float]]:
    argument = f"per_slot of {legend!r}"
    missing = [metric for metric in _PANELS if metric not in series]
    if missing:
        raise ValueError(problem(argument, f"a mapping with {list(_PANELS)}", list(series), f"Add {missing}."))
    values = {metric: torch.as_tensor(series[metric]).detach().double().cpu() for metric in _PANELS}
    for metric, numbers in values.items():
        if numbers.ndim != 1 or not len(numbers):
            remedy = "Draw it once there is a slot."
            raise ValueError(problem(argument, "one number per slot", f"{metric} {tuple(numbers.shape)}", remedy))
    if len(values["auc"]) != len(values["logloss"]):
        shapes = {metric: len(numbers) for metric, numbers in values.items()}
        raise ValueError(problem(argument, "of as many slots in each metric", shapes, "Use the same slots for both."))
    return {metric: numbers.tolist() for metric, numbers in values.items()}
