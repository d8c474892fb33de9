"""The pictures of a selection's page beside the map: cluster sizes against choices, lengths before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_adapt._shared.imports import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["lengths_figure", "sizes_figure"]

_BINS = 40


def sizes_figure(sizes: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> Figure:
    """Draw how many rows each cluster has and how many of them were chosen, from the largest to the smallest.

    Args:
        sizes: Rows per cluster, shape (K,).
        chosen: Chosen rows per cluster, shape (K,).

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    figure, axes = _figure("sizes_figure", 7.5, 3.6)
    order = np.argsort(-sizes, kind="stable")
    rank = np.arange(1, len(sizes) + 1)
    axes.step(rank, sizes[order], where="mid", color="C4", label="rows in the cluster")
    axes.plot(rank, chosen[order], color="C1", marker="^", markersize=4, linestyle="none", label="rows chosen")
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="cluster, from the largest to the smallest", ylabel="rows")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
    return figure


def lengths_figure(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> Figure:
    """Draw the lengths of the responses in the pool and in the selection, as shares.

    Args:
        before: Characters of each response of the pool, shape (n,), all > 0.
        after: Those of the selection, shape (b,), all > 0.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
    """
    figure, axes = _figure("lengths_figure", 7.5, 3.6)
    top = float(np.log10(max(before.max(), 10)))
    edges = np.logspace(0, top, _BINS + 1)
    edges[-1] *= 1.0001  # the longest one belongs to the last bar, whatever the power's rounding
    lines = ((before, "C4", "-", "whole pool"), (after, "C1", "--", "chosen"))
    for lengths, colour, style, label in lines:
        shares = np.histogram(lengths, edges)[0] / len(lengths)
        axes.stairs(100 * shares, edges, color=colour, linestyle=style, linewidth=2, label=label)
    axes.set_xscale("log")
    axes.set(xlabel="characters of the response", ylabel="share of rows, %")
    axes.legend(loc="upper right")
    return figure


def _figure(name: str, width: float, height: float) -> tuple[Figure, Any]:
    require("figures", name, "matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
