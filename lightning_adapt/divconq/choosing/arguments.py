"""The words that a selection understands, and the checks of its arguments."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_adapt._shared.checks import check_choice, check_integer, problem
from lightning_adapt._shared.kmeans import ENGINES
from lightning_adapt.divconq.choosing.budgets import check_budget, round_sizes
from lightning_adapt.divconq.choosing.weights import LARGEST_SCORE, UPDATES, check_drop_below, check_shrink, check_tau

__all__ = ["Dedup", "Method", "Quota"]

Method = Literal["random", "km_random", "km_closest", "k_center", "kmq"]
Quota = Literal["proportional", "equal"]
Dedup = Literal["none", "exact", "near"]

METHODS = ("random", "km_random", "km_closest", "k_center", "kmq")
DRAWN_METHODS = ("km_random", "kmq")  # they draw from k clusters by quota: what rounds can reweight


def check_selection_arguments(
    method: str, k: int | str, quota: str, tau: float, dedup: str, engine: str, seed: int
) -> None:
    """Raise TypeError or ValueError unless the arguments of a selection are of the right kind."""
    check_choice("method", method, METHODS, "See `select_rows` for what they do.")
    if k != "auto":
        check_integer("k", k, "Pass a number of clusters, or 'auto'.", minimum=1)
    check_choice("quota", quota, ("proportional", "equal"), "Leave it at 'proportional'.")
    check_tau(tau)
    check_choice("dedup", dedup, ("none", "exact", "near"), "Leave it at 'exact'.")
    check_choice("engine", engine, ENGINES, "Leave it at 'auto'.")
    check_integer("seed", seed, "Pass any whole number >= 0.")


def check_round_arguments(
    budget: int | float | str,
    method: str,
    rounds: int,
    initial_weights: str,
    update: str,
    shrink: float,
    drop_below: float,
    train_on: str,
) -> None:
    """Raise TypeError or ValueError unless the arguments of an iterative selection are of the right kind."""
    number = check_budget(budget)
    check_integer("rounds", rounds, "Pass 1 for a single selection.", minimum=1)
    if rounds > 1 and method not in DRAWN_METHODS:
        allowed = "'kmq' or 'km_random' for several rounds, which reweight clusters"
        raise ValueError(problem("method", allowed, method, "Use one of them, or rounds=1."))
    if isinstance(number, int):
        round_sizes(number, rounds)
    check_choice("initial_weights", initial_weights, ("uniform", "proportional"), "Leave it at 'uniform'.")
    check_choice("update", update, UPDATES, "Leave it at 'exp'.")
    check_shrink(shrink)
    check_drop_below(drop_below)
    check_choice("train_on", train_on, ("union", "new"), "Leave it at 'union'.")


def check_scores(rows: Tensor, scores: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows as int64 and their scores as float64 on the CPU.

    Args:
        rows: Rows that were scored. Shape (M,), integers.
        scores: Their scores, at most 1e100 in size, NaN for none. Shape (M,).
        drawn: Rows that may be scored. dtype int64.

    Returns:
        Rows and scores.

    Raises:
        ValueError: If a row was not drawn or comes twice, a score is too large, or the shapes do not fit.
    """
    rows = torch.as_tensor(rows).detach().long().cpu()
    scores = torch.as_tensor(scores).detach().double().cpu()
    if rows.ndim != 1 or rows.shape != scores.shape:
        received = f"shapes {tuple(rows.shape)} and {tuple(scores.shape)}"
        raise ValueError(problem("scores", "one number per row", received, "Pass rows and scores of equal length."))
    large = (scores.abs() > LARGEST_SCORE).nonzero().squeeze(1)
    if len(large):
        received = f"{float(scores[large[0]])} for row {int(rows[large[0]])}"
        allowed = f"NaN or at most {LARGEST_SCORE} in size"
        raise ValueError(problem("scores", allowed, received, "Use NaN where there is no score."))
    foreign = rows[~torch.isin(rows, drawn)]
    ordered = rows.sort().values
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(foreign) or len(twice):
        received = f"row {int(foreign[0])}" if len(foreign) else f"row {int(twice[0])} twice"
        raise ValueError(problem("rows", "rows drawn so far, each once", received, "Score `rows` or `new_rows`."))
    return rows, scores
