"""The pictures of RS2: how much of the data was seen and how evenly, and what losses guide (extra `figures`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_integer, problem
from lightning_adapt._shared.imports import require
from lightning_adapt.rs2.batch_rounds import BatchRounds
from lightning_adapt.rs2.functional import expected_coverage
from lightning_adapt.rs2.sampler import PLAIN_MODES, RS2Sampler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["coverage_figure", "loss_figure"]

# beyond it the visits of the first rounds are counted; a figure must not take minutes
_COUNTED_SAMPLES = 10**8
_COUNTED_BATCHES = 10**4  # planned ones are read row by row


def coverage_figure(sampler: RS2Sampler, rounds: int) -> Figure:
    """Draw the share of the data seen over the rounds for each mode, and how often each row was visited.

    Args:
        sampler: The sampler; its own mode is drawn in full strength.
        rounds: Rounds to show, >= 1.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
        ValueError: If `rounds` is smaller than 1, or losses guided the rounds: they cannot be drawn again.
    """
    require("figures", "coverage_figure", "matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    check_integer("rounds", rounds, "Pass the number of rounds to show.", minimum=1)
    if sampler.guide is not None:
        raise ValueError(problem("sampler", "of a mode whose rounds can be drawn again", "loss", "Use loss_figure."))
    n, k = sampler.n_rows, sampler.epoch_size(0)
    if isinstance(sampler, BatchRounds):
        counted, drawn = max(1, min(rounds, _COUNTED_BATCHES // k)), f"{k} of {n} batches"
        visits = _visits_to_planned(sampler, counted)
    else:
        counted, drawn = max(1, min(rounds, _COUNTED_SAMPLES // k)), f"{k} of {n}"
        visits = _visits(sampler, counted)

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for mode, style in zip(PLAIN_MODES, ("-", "--", ":"), strict=True):
        share = [expected_coverage(done, n, k, mode) for done in range(rounds + 1)]
        left.plot(share, style, label=mode, linewidth=2.5 if mode == sampler.mode else 1.5)
    left.set(xlabel="rounds", ylabel="share of the data seen", ylim=(0, 1.02), title=f"coverage, {drawn} a round")
    left.legend(frameon=False)
    how_often = torch.bincount(visits)
    right.bar(range(len(how_often)), (how_often / len(visits)).tolist())
    right.set(xlabel=f"visits after {counted} rounds", ylabel="share of the rows", title=f"mode {sampler.mode!r}")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _visits(sampler: RS2Sampler, rounds: int) -> Tensor:
    """Return how often each of the rows was drawn in the first rounds."""
    visits = torch.zeros(sampler.n_rows, dtype=torch.int64)
    for number in range(rounds):
        drawn = sampler.draw(number, torch.arange(sampler.epoch_size(number)))
        visits += torch.bincount(drawn, minlength=len(visits))
    return visits


def _visits_to_planned(sampler: BatchRounds, rounds: int) -> Tensor:
    """Return how often each of the rows that batches are planned of came in the first rounds."""
    chosen = sampler.planner.chosen_rows()
    rows = torch.arange(sampler.planner.n_rows) if chosen is None else chosen
    visits = torch.zeros(int(rows.max()) + 1, dtype=torch.int64)
    for number in range(rounds):
        visits += torch.bincount(sampler.epoch_rows(number), minlength=len(visits))
    return visits[rows]


def loss_figure(sampler: RS2Sampler) -> Figure:
    """Draw the last loss of each row, where it is cut, and how often rows of each loss come.

    Args:
        sampler: A sampler of mode "loss" that has recorded losses.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        ModuleNotFoundError: If matplotlib is missing; names the extra.
        ValueError: If the mode is another, or no loss was recorded.
    """
    require("figures", "loss_figure", "matplotlib")
    from matplotlib.figure import Figure

    if sampler.guide is None or not sampler.guide.seen():
        raise ValueError(problem("sampler", "of mode 'loss' with losses", sampler.mode, "Train a round first."))
    losses = sampler.guide.latest()
    known, guide = torch.isfinite(losses), sampler.guide
    targets = None if sampler.targets is None else sampler.targets[: len(losses)][known]
    losses = losses[known]
    visits = guide.weights(losses, targets) * len(losses)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(losses.numpy(), bins=60)
    left.axvline(float(np.quantile(losses.numpy(), guide.loss_cap)), color="black", linestyle="--")
    left.set(xlabel="last training loss (dashed: cut here)", ylabel="rows", yscale="log")
    order = losses.argsort()
    right.plot(np.linspace(0, 1, len(order)), visits[order].numpy())
    right.axhline(1, color="gray", linewidth=1)
    right.set(xlabel="rows by loss, share", ylabel="visits against even ones", title="the next round")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
