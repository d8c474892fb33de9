"""The pictures of SAA: the losses and their cut, the share of naive samples, and some views (extra `figures`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_adapt._shared.checks import problem
from lightning_adapt._shared.figures import log_figure
from lightning_adapt._shared.imports import require
from lightning_adapt.saa.history import LossHistory
from lightning_adapt.saa.selection import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HasExampleViews", "log_figures", "selection_figure", "views_figure"]

VIEWS = ("image", "weak", "strong", "regrouped")
_SHOWN_IMAGES = 5
_BINS = 60
_WIDEST = 3.0  # times the 99.5 % quantile of the losses: one huge loss must not squeeze all others into one bar


class HasExampleViews(Protocol):
    """Data that can show its views, such as a `SAADataModule`."""

    def example_views(self, index: Tensor) -> dict[str, Tensor]:
        """Return "image", "weak", "strong" and "regrouped" of some rows: shape (B, C, H, W), float32 in [0, 1]."""
        ...


def log_figures(trainer: Any, selection: Selection) -> None:
    """Log a figure of the losses and selections of a run, and one of views where the DataModule can show them.

    Args:
        trainer: The Trainer; call it on rank 0.
        selection: What was recorded and selected.
    """
    history, step = selection.history, trainer.global_step
    log_figure(trainer, "saa/selection", selection_figure(history, selection.curve), step=step)
    data: Any = getattr(trainer, "datamodule", None)
    if hasattr(data, "example_views") and not getattr(data, "views_in_workers", False):
        log_figure(trainer, "saa/views", views_figure(data, history.flags), step=step)


def selection_figure(history: LossHistory, curve: list[list[float]]) -> Figure:
    """Draw the recorded losses with the cut and the flagged samples, and how both came about.

    Args:
        history: The recorded losses; there may be none.
        curve: Of each selection [training batches, cut in nats, share of naive samples]; may be empty.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    require("figures", "selection_figure", "matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_losses(left, history)
    _draw_selections(right, curve)
    left.spines[["top", "right"]].set_visible(False)
    right.spines[["top"]].set_visible(False)
    return figure


def _draw_losses(axes: Axes, history: LossHistory) -> None:
    recorded = torch.isfinite(history.losses)
    axes.set(xlabel="recorded loss, nats", ylabel="unlabelled samples", title=f"{history.naive_share:.0%} are naive")
    if not bool(recorded.any()):
        _say(axes, "no loss recorded yet")
        return
    losses, naive = history.losses[recorded].numpy(), history.flags[recorded].numpy()
    top = min(float(losses.max()), _WIDEST * float(np.quantile(losses, 0.995))) or 1.0
    if losses.max() > top:
        axes.set_xlabel("recorded loss, nats (last bar: this and above)")
    parts = [losses[naive].clip(max=top), losses[~naive].clip(max=top)]
    labels = [f"naive ({len(parts[0]):,})", f"others ({len(parts[1]):,})"]
    axes.hist(parts, bins=_BINS, range=(0.0, top), stacked=True, label=labels, color=["C0", "lightgray"])
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)  # so that a single sample is seen
    if math.isfinite(history.threshold):
        axes.axvline(history.threshold, color="C1", linestyle="--", label=f"cut at {history.threshold:.3g}")
    axes.legend(frameon=False)


def _draw_selections(axes: Axes, curve: list[list[float]]) -> None:
    axes.set(xlabel="training batches", ylabel="share of naive samples", ylim=(0, 1.02), title="selections")
    if not curve:
        _say(axes, "no selection yet")
        return
    batches, cuts, shares = zip(*curve, strict=True)
    (share,) = axes.plot(batches, shares, "-o", markersize=3, label="naive")
    beside = axes.twinx()
    (cut,) = beside.plot(batches, cuts, ":s", markersize=3, color="C1", label="cut")
    beside.set(ylabel="cut, nats", ylim=(0, None))
    beside.spines[["top"]].set_visible(False)
    axes.legend(handles=[share, cut], frameon=False, loc="lower left")


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="gray")


def views_figure(data: HasExampleViews, flags: Tensor) -> Figure:
    """Draw some unlabelled images, naive ones first, and the views that training sees of them.

    Args:
        data: Makes the views.
        flags: Which unlabelled samples are naive. Shape (N,), dtype bool, N >= 1.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
        ValueError: If there is no sample.
    """
    require("figures", "views_figure", "matplotlib")
    from matplotlib.figure import Figure

    if len(flags) == 0:
        raise ValueError(problem("flags", "of shape (N,) with N >= 1", flags, "Pass one flag per unlabelled sample."))
    index = _shown_rows(flags.cpu())
    views = data.example_views(index)
    figure = Figure(figsize=(1.5 * len(VIEWS), 1.5 * len(index) + 0.4), layout="constrained")
    grid = figure.subplots(len(index), len(VIEWS), squeeze=False)
    for name, column in zip(VIEWS, grid.T, strict=True):
        column[0].set_title(name)
        for axes, picture in zip(column, views[name], strict=True):
            axes.imshow(_pixels(picture), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
    for axes, row in zip(grid[:, 0], index.tolist(), strict=True):
        axes.set_ylabel(f"row {row}, naive" if flags[row] else f"row {row}")
    return figure


def _shown_rows(flags: Tensor) -> Tensor:
    """Return rows evenly spread over the naive samples, filled up with others."""
    naive, others = torch.nonzero(flags).flatten(), torch.nonzero(~flags).flatten()
    chosen = naive[_spread(len(naive), _SHOWN_IMAGES)]
    return torch.cat([chosen, others[_spread(len(others), _SHOWN_IMAGES - len(chosen))]])


def _spread(n: int, count: int) -> Tensor:
    count = min(n, count)
    return torch.arange(count) * n // max(count, 1)


def _pixels(picture: Tensor) -> Any:
    channels_last = picture.detach().float().cpu().clamp(0, 1).permute(1, 2, 0)
    return (channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last).numpy()
